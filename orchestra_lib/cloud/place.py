"""Where a plan wants to happen, and what reading something back there is worth."""

from __future__ import annotations

from dataclasses import dataclass

from orchestra_lib.evidence import Source


@dataclass(frozen=True)
class Place:
    """Where a plan wants to happen. ``source`` is what reading it back there is worth as evidence."""

    project: str
    organization: str
    billing_account: str | None
    source: Source
