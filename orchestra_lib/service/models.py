"""What goes over the wire: bodies and queries as the interface has them, checked at the door."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any

import numpy as np
from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    StringConstraints,
    field_validator,
)
from pydantic import model_validator as checked
from typing_extensions import TypeAliasType

from orchestra_lib.service import cursors
from orchestra_lib.service.problems import Problem
from orchestra_lib.service.store import Embedding, Filters, Hit, Memory, NewMemory

MOST_HITS = 100
MOST_ON_A_PAGE = 100
_LONGEST_NAME = 200
_LONGEST_CONTENT = 100_000
_LARGEST_METADATA_BYTES = 16_384
_DEEPEST_METADATA = 16
_LONGEST_QUERY = 2_000
_LARGEST_VECTOR = 16_000
_NORM_LIMITS = (1e-6, 1e6)
"""pgvector adds squares in 32 bits: far outside of these the distance to a vector is no number any more."""

_NO_NUL = r"^[^\x00]+$"  # PostgreSQL's texts cannot hold it
_NUL_IN_JSON = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")  # behind a backslash that is itself a character it is text
Name = Annotated[str, StringConstraints(min_length=1, max_length=_LONGEST_NAME, pattern=_NO_NUL)]
# An id is the key of an index, whose rows have up to 2,704 bytes; in base64 that is a third more.
Cursor = Annotated[str, StringConstraints(max_length=4_000)]
Content = Annotated[str, StringConstraints(min_length=1, max_length=_LONGEST_CONTENT, pattern=_NO_NUL)]
Text = Annotated[str, StringConstraints(min_length=1, max_length=_LONGEST_QUERY, pattern=_NO_NUL)]
# A name of its own, so that the interface's document can state the dimension in one place.
Numbers = TypeAliasType(
    "Numbers", Annotated[list[Annotated[float, Field(allow_inf_nan=False)]], Field(max_length=_LARGEST_VECTOR)]
)


def _written_as_a_date(value: Any) -> Any:
    """A number would be taken for seconds, or, if it is large, for milliseconds."""
    if not isinstance(value, str) or _NUMBER.fullmatch(value):
        raise ValueError("write it as RFC 3339 has it, such as 2026-11-25T20:00:00Z")
    return value


_NUMBER = re.compile(r"\s*[-+]?[\d_]*\.?[\d_]*\s*")
# Moments that PostgreSQL and every client can hold.
Moment = Annotated[
    AwareDatetime,
    Field(ge=datetime(1970, 1, 1, tzinfo=UTC), lt=datetime(9000, 1, 1, tzinfo=UTC)),
    BeforeValidator(_written_as_a_date),
]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FiltersBody(_Strict):
    """Which of the caller's memories are meant. Moments are of creation, the first included, the last not."""

    agent_id: Name | None = None
    session_id: Name | None = None
    persona: Name | None = None
    item_type: Name | None = None
    created_after: Moment | None = None
    created_before: Moment | None = None

    def filters(self) -> Filters:
        """The same for the store."""
        return Filters(**{name: getattr(self, name) for name in FiltersBody.model_fields})


class StoreBody(_Strict):
    """A memory to store; whose it is, is told by the token."""

    agent_id: Name
    session_id: Name
    persona: Name
    item_type: Name
    content: Content
    embedding: Numbers
    embedding_model: Name
    metadata: dict[str, JsonValue] = Field(default_factory=dict)
    expires_at: Moment | None = None

    @field_validator("metadata")
    @classmethod
    def _small_enough(cls, metadata: dict[str, Any]) -> dict[str, Any]:
        _refuse_deep(metadata)
        text = json.dumps(metadata, allow_nan=False)
        if len(text) > _LARGEST_METADATA_BYTES:
            raise ValueError(f"{len(text):,} bytes: {_LARGEST_METADATA_BYTES:,} are possible")
        if _NUL_IN_JSON.search(text):
            raise ValueError("PostgreSQL's texts cannot hold the character NUL")
        return metadata

    def memory(self, dimension: int) -> NewMemory:
        """The same for the store. Raises Problem for a vector that cannot be one of these."""
        return NewMemory(
            agent_id=self.agent_id,
            session_id=self.session_id,
            persona=self.persona,
            item_type=self.item_type,
            content=self.content,
            embedding=vector(self.embedding, dimension),
            embedding_model=self.embedding_model,
            metadata=self.metadata,
            expires_at=self.expires_at,
        )


class SearchBody(_Strict):
    """What to look for: a vector, a text, or both, whose rankings are then fused."""

    model_config = ConfigDict(json_schema_extra={"anyOf": [{"required": ["embedding"]}, {"required": ["text"]}]})

    embedding: Numbers | None = None
    text: Text | None = None
    k: int = Field(default=10, ge=1, le=MOST_HITS)
    filters: FiltersBody = FiltersBody()

    @checked(mode="after")
    def _looks_for_something(self) -> SearchBody:
        if self.embedding is None and self.text is None:
            raise ValueError("give embedding, text, or both")
        return self


class ListQuery(FiltersBody):
    """One page of a listing: its filters, its length, and where the page before ended."""

    limit: int = Field(default=50, ge=1, le=MOST_ON_A_PAGE)
    cursor: Cursor | None = None


class HistoryQuery(_Strict):
    """One page of a conversation."""

    limit: int = Field(default=20, ge=1, le=MOST_ON_A_PAGE)
    cursor: Cursor | None = None


@dataclass(frozen=True)
class Stored:
    """What storing a memory answers."""

    id: str
    created_at: datetime


@dataclass(frozen=True)
class Listed:
    """A page; ``next_cursor`` asks for the one behind it, null: there is none."""

    memories: Sequence[Memory]
    next_cursor: str | None


@dataclass(frozen=True)
class Found:
    """What a search found, the best first."""

    hits: Sequence[Hit]


def vector(numbers: Sequence[float], dimension: int) -> Embedding:
    """The numbers as the column holds them. Raises Problem for what it does not take, or what has no distance."""
    if len(numbers) != dimension:
        raise _refused(f"{len(numbers)} numbers, the store's vectors have {dimension}")
    with np.errstate(over="ignore"):
        values = np.asarray(numbers, dtype=np.float32)
    norm = float(np.linalg.norm(values.astype(np.float64)))
    lowest, highest = _NORM_LIMITS
    if norm == 0:
        raise _refused("every number is zero: such a vector has no direction, and no distance to it")
    if not lowest <= norm <= highest:
        raise _refused(f"a vector of length {norm:g}: from {lowest:g} to {highest:g} are taken")
    return values


def position(cursor: str | None, filters: dict[str, Any]) -> cursors.Position | None:
    """Where a listing goes on."""
    return cursors.read(cursor, filters) if cursor else None


def _refused(detail: str) -> Problem:
    return Problem("invalid", f"embedding: {detail}", errors=[{"place": "body.embedding", "detail": detail}])


def _refuse_deep(value: Any) -> None:
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > _DEEPEST_METADATA:
            raise ValueError(f"it goes deeper than {_DEEPEST_METADATA} levels")
        inner = [one for one in level if isinstance(one, dict | list)]
        level = [child for one in inner for child in (one.values() if isinstance(one, dict) else one)]
