"""A plan: what a run would change, in the order it would change it, and the digest that an approval is bound to."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, field
from enum import StrEnum

from orchestra_lib.evidence import canonical_json


class Verb(StrEnum):
    """What happens to a resource."""

    CREATE = "create"
    UPDATE = "update"
    REPLACE = "replace"
    DELETE = "delete"
    KEEP = "keep"


@dataclass(frozen=True)
class Change:
    """One planned change. ``before`` and ``after`` are JSON values; ``detail`` is one line for people."""

    verb: Verb
    kind: str
    name: str
    detail: str = ""
    before: object = None
    after: object = None


@dataclass(frozen=True)
class Plan:
    """The changes of one run and the live state that they were computed from (JSON values only)."""

    changes: tuple[Change, ...]
    live_state: dict[str, object] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """SHA-256 over the changes and the live state, 64 hexadecimal digits: what an approval names."""
        stated = {"changes": [asdict(change) for change in self.changes], "live_state": self.live_state}
        return hashlib.sha256(canonical_json(stated).encode()).hexdigest()

    def as_json(self) -> list[dict[str, str]]:
        """What a record keeps of it: verb, kind, name and detail of each change, in order."""
        return [{"verb": c.verb.value, "kind": c.kind, "name": c.name, "detail": c.detail} for c in self.changes]

    @property
    def is_empty(self) -> bool:
        """Whether nothing would change."""
        return all(change.verb is Verb.KEEP for change in self.changes)
