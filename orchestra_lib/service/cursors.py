"""Where a page ended, as a text that the client hands back: the moment and the id of its last row.

A cursor belongs to its filters. It is no secret and carries no right: the rows behind it are the caller's own.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from orchestra_lib.service.problems import Problem

_DIGEST_CHARACTERS = 12


@dataclass(frozen=True)
class Position:
    """The last row of a page."""

    created_at: datetime
    id: str


def write(position: Position, filters: Mapping[str, Any]) -> str:
    """The cursor after a row, for a listing with these filters."""
    parts = [position.created_at.isoformat(), position.id, _digest(filters)]
    return base64.urlsafe_b64encode(json.dumps(parts, ensure_ascii=False).encode()).decode()


def read(cursor: str, filters: Mapping[str, Any]) -> Position:
    """Where the listing goes on. Raises Problem for a text that is no cursor, or is one of other filters."""
    try:
        moment, id_, made_for = json.loads(base64.b64decode(cursor, altchars=b"-_", validate=True))
        position = Position(datetime.fromisoformat(moment), str(id_))
        position.id.encode()  # half a surrogate pair is valid in JSON and in no text of PostgreSQL's
    except (ValueError, TypeError, binascii.Error, RecursionError) as error:
        raise Problem("invalid", "cursor: this is none that the service has given") from error
    if position.created_at.tzinfo is None or "\0" in position.id:
        raise Problem("invalid", "cursor: this is none that the service has given")
    if made_for != _digest(filters):
        raise Problem("invalid", "cursor: it was given for other filters; begin again without it")
    return position


def _digest(filters: Mapping[str, Any]) -> str:
    stated = json.dumps({name: str(value) for name, value in filters.items() if value is not None}, sort_keys=True)
    return hashlib.sha256(stated.encode()).hexdigest()[:_DIGEST_CHARACTERS]
