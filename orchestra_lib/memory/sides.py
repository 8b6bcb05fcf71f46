"""The two sides of a cutover, and the direction in which it goes."""

from __future__ import annotations

from dataclasses import dataclass

from orchestra_lib.database import Address
from orchestra_lib.errors import DataError
from orchestra_lib.memory.compare import Store
from orchestra_lib.memory.source import SourceTable
from orchestra_lib.memory.stream import StreamSpec


@dataclass(frozen=True)
class Side:
    """One store. ``role`` names it in messages and in the journal: "source", "target".

    ``writers`` are the roles that the application logs in as; ``endpoint`` is what its secret says while it writes
    here. Used, never shown.
    """

    role: str
    address: Address
    table: SourceTable
    writers: tuple[str, ...]
    endpoint: str

    @property
    def store(self) -> Store:
        """The side as a comparison sees it."""
        return Store(self.role, self.address, self.table)

    def __repr__(self) -> str:
        return f"Side({self.role}, writers {', '.join(self.writers)})"


@dataclass(frozen=True)
class Direction:
    """From the side that is written to, ``here``, to ``there``.

    ``stream`` runs from here to there before the cutover, ``back`` the other way after it; None: there is no way back.
    """

    here: Side
    there: Side
    stream: StreamSpec
    back: StreamSpec | None

    def reversed(self) -> Direction:
        """The other direction. Raises DataError when there is no stream back."""
        if self.back is None:
            raise DataError(f"there is no stream from the {self.there.role} back to the {self.here.role}")
        return Direction(self.there, self.here, self.back, self.stream)
