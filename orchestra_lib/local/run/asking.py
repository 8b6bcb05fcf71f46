"""Asking a running data plane what it serves, for a program that needs nothing else of it."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path
from typing import Any

from orchestra_lib.errors import TargetUnreachable
from orchestra_lib.local.run.presence import DataPlane

_TIMEOUT_SECONDS = 10
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def ask(plane: DataPlane, token_file: Path) -> dict[str, Any]:
    """What a running data plane serves. Raises TargetUnreachable."""
    request = urllib.request.Request(  # noqa: S310 - the URL is the data plane's own, http on loopback
        f"{plane.endpoint}/services", headers={"Authorization": f"Bearer {token_file.read_text().strip()}"}
    )
    try:
        with _OPENER.open(request, timeout=_TIMEOUT_SECONDS) as answer:
            found: dict[str, Any] = json.loads(answer.read())
            return found
    except (OSError, ValueError) as error:
        raise TargetUnreachable(f"the local Cloud Run does not answer at {plane.endpoint}: {error}") from error
