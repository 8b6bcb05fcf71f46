"""What a phase has left beside resources of Google Cloud, as its rollback takes it back."""

from __future__ import annotations

from typing import Protocol

from orchestra_lib.evidence import Evidence
from orchestra_lib.plan import Change


class Release(Protocol):
    """Taken back as a whole, before the phase's resources; a second time there is nothing left to take back.

    It is made for a complete rollback too, where nothing of it may ever have been there: it then says so.
    """

    @property
    def journalled(self) -> int:
        """Changes that a journal of its own knows, taken back or not; 0 where it looks for what is there instead."""
        ...

    def check(self) -> Evidence:
        """What has to hold before anything is taken back. Reads only."""
        ...

    def changes(self) -> tuple[Change, ...]:
        """What would be taken back, for the plan. Reads only."""
        ...

    def apply(self) -> int:
        """Take it back; returns how many changes that were. Raises GateFailed when it may not be."""
        ...

    def evidence(self) -> tuple[Evidence, ...]:
        """What is left of it, read back."""
        ...
