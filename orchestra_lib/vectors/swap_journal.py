"""What a swap of indexes has begun and done: an append-only file, on the disk before each step and after it.

The certificate decides. Whoever finds a swap that nobody ended undoes it when the new index had not been certified yet,
and completes it when it had: until then the old index serves, afterwards both would.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from orchestra_lib.append_only import append_line, take_entries
from orchestra_lib.errors import RecordError
from orchestra_lib.evidence import canonical_json
from orchestra_lib.vectors.forms import Form
from orchestra_lib.vectors.index import LiveIndex
from orchestra_lib.vectors.session_defaults import Defaults


class Step(StrEnum):
    """The steps of a swap, in their order."""

    GUARD = "persist an effort with which either index finds enough"
    BUILD = "build the new index beside the old one"
    CERTIFY = "certify the new index"
    DROP = "drop the old index"
    PERSIST = "persist the new index's effort"


class Outcome(StrEnum):
    """How a swap ended."""

    DONE = "done"
    UNDONE = "undone"


class _Event(StrEnum):
    BEGIN = "swap begun"
    STEP_BEGUN = "begun"
    STEP_DONE = "done"
    END = "swap ended"


@dataclass(frozen=True)
class Promise:
    """What an index found that goes: enough for ``recall_target``, on queries of this origin.

    ``replay`` is the file of logged queries. Whoever brings the index back has to bring that back as well.
    """

    recall_target: float
    origin: str
    replay: str | None = None


@dataclass(frozen=True)
class Settled:
    """What an index that was built again finds, and the effort that it is given for it.

    ``setting`` and ``value`` are what a new session has from now on; None: as it was. ``enough`` is None where nobody
    could measure it; ``told`` says it in words.
    """

    index: str
    setting: str | None
    value: str | None
    enough: bool | None
    told: str


@dataclass(frozen=True)
class Orders:
    """What a swap does: everything that completing it, undoing it or rolling it back has to know.

    ``making`` and ``dropping`` are indexes with the statements that make them again; ``before``, ``guard`` and
    ``after`` are defaults of the database or, with ``role``, of that role in it. ``rolls_back`` is the id of the swap
    that this one takes back. ``promise`` is what was measured of that which goes; None: it found too little, or nobody
    could tell.
    """

    table: str
    column: str
    making: tuple[LiveIndex, ...]
    dropping: tuple[LiveIndex, ...]
    before: Defaults
    guard: Defaults
    after: Defaults
    role: str | None
    rolls_back: str | None = None
    promise: Promise | None = None

    def as_document(self) -> dict[str, Any]:
        """The orders as a JSON object."""
        return asdict(self)

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Orders:
        """The orders that ``as_document`` made this of."""
        indexes = {name: tuple(_index(index) for index in document[name]) for name in ("making", "dropping")}
        kept = document.get("promise")
        return cls(**{**document, **indexes, "promise": Promise(**kept) if kept else None})


@dataclass
class RecordedSwap:
    """One swap: its orders, the steps that were begun (True when done), how it ended and how things stood then.

    ``settled`` is what the indexes find that were built again.
    """

    id: str
    orders: Orders
    steps: dict[Step, bool] = field(default_factory=dict)
    outcome: Outcome | None = None
    baseline: Mapping[str, Any] | None = None
    settled: tuple[Settled, ...] = ()

    @property
    def is_certified(self) -> bool:
        """Whether the new index has its certificate."""
        return self.steps.get(Step.CERTIFY, False)


class SwapJournal:
    """The journal of one table's swaps. One process writes it at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._swaps: dict[str, RecordedSwap] = {}
        self._entries = 0
        take_entries(path, self._take)

    @property
    def swaps(self) -> tuple[RecordedSwap, ...]:
        """Every swap ever begun, in their order."""
        return tuple(self._swaps.values())

    def unfinished(self) -> RecordedSwap | None:
        """The swap of which nobody wrote how it ended."""
        return next((swap for swap in self.swaps if swap.outcome is None), None)

    def last_done(self) -> RecordedSwap | None:
        """The last swap that was completed and not rolled back since."""
        done = [swap for swap in self.swaps if swap.outcome is Outcome.DONE]
        taken_back = {swap.orders.rolls_back for swap in done}
        standing = [swap for swap in done if swap.orders.rolls_back is None and swap.id not in taken_back]
        return standing[-1] if standing else None

    def begin(self, orders: Orders) -> RecordedSwap:
        """Write that a swap begins. Raises RecordError when another has not ended."""
        open_one = self.unfinished()
        if open_one is not None:
            raise RecordError(f"{self.path}: the swap {open_one.id} has not ended; recover it first")
        swap = RecordedSwap(uuid.uuid4().hex[:12], orders)
        self._write(swap.id, _Event.BEGIN, orders=orders.as_document())
        return self._swaps[swap.id]

    def begun(self, swap: RecordedSwap, step: Step) -> None:
        """Write that a step begins; nothing of it may happen before this returns."""
        self._write(swap.id, _Event.STEP_BEGUN, step=step.value)

    def done(self, swap: RecordedSwap, step: Step, settled: Sequence[Settled] = ()) -> None:
        """Write that a step is done, and what was settled by it."""
        self._write(swap.id, _Event.STEP_DONE, step=step.value, settled=[asdict(one) for one in settled])

    def ended(self, swap: RecordedSwap, outcome: Outcome, baseline: Mapping[str, Any] | None = None) -> None:
        """Write how a swap ended, and how the table and its index stood then."""
        self._write(swap.id, _Event.END, outcome=outcome.value, baseline=baseline)

    def _write(self, swap: str, event: _Event, **content: Any) -> None:
        now = datetime.now(UTC).isoformat()
        entry = canonical_json({"sequence": self._entries, "at": now, "swap": swap, "event": event.value, **content})
        append_line(self.path, entry)
        self._take(json.loads(entry))

    def _take(self, entry: Mapping[str, Any]) -> None:
        if entry["sequence"] != self._entries:
            raise ValueError(f"it has the number {entry['sequence']} where {self._entries} follows")
        self._entries += 1
        match _Event(entry["event"]):
            case _Event.BEGIN:
                self._swaps[entry["swap"]] = RecordedSwap(entry["swap"], Orders.from_document(entry["orders"]))
            case _Event.STEP_BEGUN:
                self._swaps[entry["swap"]].steps[Step(entry["step"])] = False
            case _Event.STEP_DONE:
                swap = self._swaps[entry["swap"]]
                swap.steps[Step(entry["step"])] = True
                swap.settled += tuple(Settled(**one) for one in entry.get("settled", ()))
            case _Event.END:
                self._swaps[entry["swap"]].outcome = Outcome(entry["outcome"])
                self._swaps[entry["swap"]].baseline = entry["baseline"]


def _index(document: Mapping[str, Any]) -> LiveIndex:
    return LiveIndex(**{**document, "form": Form.from_document(document["form"])})
