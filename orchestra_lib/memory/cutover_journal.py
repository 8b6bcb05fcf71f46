"""What a cutover has begun, done and undone: an append-only file, on the disk before each step and after it.

The step that switches is the one that decides. Whoever finds a cutover that nobody ended undoes it when the switch had
not begun, and completes it when it had: until the other side is opened nobody writes anywhere, so both are safe.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from orchestra_lib.append_only import append_line, whole_lines
from orchestra_lib.errors import RecordError
from orchestra_lib.evidence import canonical_json
from orchestra_lib.memory.writers import Grant


class Step(StrEnum):
    """The steps of a cutover, in their order."""

    SHUT_THERE = "shut the writers of the other side out"
    RETURN_SLOT = "make the slot of the way back"
    CLOSE = "shut the writers out"
    DRAIN = "drain the stream"
    COMPARE = "compare what was touched"
    SEQUENCES = "carry the sequences over"
    SWITCH = "switch the endpoint"
    OPEN = "let the writers in on the other side"
    END_STREAM = "end the stream and drop its slot"
    START_BACK = "start the stream back"


class Outcome(StrEnum):
    """How a cutover ended."""

    DONE = "done"
    UNDONE = "undone"


class Purpose(StrEnum):
    """What a cutover is for. A drill's may be taken back by the next run, one for good only by whoever asks for it."""

    DRILL = "drill"
    FOR_GOOD = "for good"


class _Event(StrEnum):
    BEGIN = "cutover begun"
    KEPT = "kept for good"
    STEP_BEGUN = "begun"
    STEP_DONE = "done"
    STEP_UNDONE = "undone"
    END = "cutover ended"


@dataclass
class RecordedStep:
    """A step that was begun, with what undoing or repeating it needs to know."""

    content: Mapping[str, Any]
    done: bool = False


@dataclass
class RecordedCutover:
    """One cutover from the side ``here`` to the side ``there``. ``steps`` are those begun and not undone, in order.

    ``purpose`` is None in a journal that was written before purposes were.
    """

    id: str
    here: str
    there: str
    purpose: Purpose | None = None
    steps: dict[Step, RecordedStep] = field(default_factory=dict)
    outcome: Outcome | None = None

    @property
    def has_switched(self) -> bool:
        """Whether the endpoint names the other side by now, or may."""
        return Step.SWITCH in self.steps


class CutoverJournal:
    """The journal of one store's cutovers. One process writes it at a time: the phase lock sees to that.

    ``purpose`` is noted of each cutover that begins.
    """

    def __init__(self, path: Path, purpose: Purpose = Purpose.FOR_GOOD) -> None:
        self.path, self.purpose = path, purpose
        self._cutovers: dict[str, RecordedCutover] = {}
        self._withheld: dict[str, tuple[Grant, ...]] = {}
        self._entries = 0
        for number, line in enumerate(whole_lines(path), start=1):
            try:
                self._take(json.loads(line))
            except (ValueError, KeyError, TypeError) as error:
                raise RecordError(
                    f"{path}, line {number} cannot be believed: {error}; restore it from a copy"
                ) from error

    @property
    def cutovers(self) -> tuple[RecordedCutover, ...]:
        """Every cutover ever begun, in their order."""
        return tuple(self._cutovers.values())

    def unfinished(self) -> RecordedCutover | None:
        """The cutover of which nobody wrote how it ended."""
        return next((cutover for cutover in self.cutovers if cutover.outcome is None), None)

    def live(self) -> str | None:
        """The side that is written to since the last cutover that was done; None when there was none."""
        last = self.last_done()
        return last.there if last else None

    def last_done(self) -> RecordedCutover | None:
        """The last cutover that was done; None when there was none."""
        return next((cutover for cutover in reversed(self.cutovers) if cutover.outcome is Outcome.DONE), None)

    def withheld(self, side: str) -> tuple[Grant, ...]:
        """The rights that were taken from writers of a side and not given back."""
        return self._withheld.get(side, ())

    def begin(self, here: str, there: str) -> RecordedCutover:
        """Write that a cutover begins. Raises RecordError when another has not ended."""
        open_one = self.unfinished()
        if open_one is not None:
            raise RecordError(
                f"{self.path}: the cutover from {open_one.here} to {open_one.there} has not ended; recover it first"
            )
        cutover = RecordedCutover(uuid.uuid4().hex, here, there)
        self._write(cutover.id, _Event.BEGIN, here=here, there=there, purpose=self.purpose.value)
        return self._cutovers[cutover.id]

    def keep(self, cutover: RecordedCutover) -> None:
        """Write that a cutover that was done stays, whatever it was begun for."""
        self._write(cutover.id, _Event.KEPT)

    def begun(self, cutover: RecordedCutover, step: Step, **content: Any) -> None:
        """Write that a step begins; nothing of it may happen before this returns."""
        self._write(cutover.id, _Event.STEP_BEGUN, step=step.value, content=content)

    def shutting(self, cutover: RecordedCutover, step: Step, side: str, grants: Iterable[Grant]) -> None:
        """Write that a step begins that takes these rights on a side."""
        self.begun(cutover, step, side=side, grants=[asdict(grant) for grant in grants])

    def done(self, cutover: RecordedCutover, step: Step) -> None:
        """Write that a step is done."""
        self._write(cutover.id, _Event.STEP_DONE, step=step.value)

    def undone(self, cutover: RecordedCutover, step: Step) -> None:
        """Write that a step is undone."""
        self._write(cutover.id, _Event.STEP_UNDONE, step=step.value)

    def ended(self, cutover: RecordedCutover, outcome: Outcome) -> None:
        """Write how a cutover ended."""
        self._write(cutover.id, _Event.END, outcome=outcome.value)

    def _write(self, cutover: str, event: _Event, **content: Any) -> None:
        now = datetime.now(UTC).isoformat()
        entry = {"sequence": self._entries, "at": now, "cutover": cutover, "event": event.value, **content}
        append_line(self.path, canonical_json(entry))
        self._take(json.loads(canonical_json(entry)))

    def _take(self, entry: Mapping[str, Any]) -> None:
        if entry["sequence"] != self._entries:
            raise ValueError(f"it has the number {entry['sequence']} where {self._entries} follows")
        self._entries += 1
        event = _Event(entry["event"])
        if event is _Event.BEGIN:
            purpose = Purpose(entry["purpose"]) if "purpose" in entry else None
            self._cutovers[entry["cutover"]] = RecordedCutover(entry["cutover"], entry["here"], entry["there"], purpose)
            return
        cutover = self._cutovers[entry["cutover"]]
        if event is _Event.KEPT:
            cutover.purpose = Purpose.FOR_GOOD
            return
        if event is _Event.END:
            cutover.outcome = Outcome(entry["outcome"])
            return
        step = Step(entry["step"])
        match event:
            case _Event.STEP_BEGUN:
                cutover.steps[step] = RecordedStep(entry["content"])
                self._note_shut(entry["content"])
            case _Event.STEP_DONE:
                cutover.steps[step].done = True
                if step is Step.OPEN:
                    self._withheld.pop(cutover.there, None)
            case _Event.STEP_UNDONE:
                del cutover.steps[step]
                if step is Step.CLOSE:
                    self._withheld.pop(cutover.here, None)

    def _note_shut(self, content: Mapping[str, Any]) -> None:
        """A side that is shut twice without being opened in between has less to lose the second time."""
        if "grants" in content:
            grants = {Grant(**grant) for grant in content["grants"]} | set(self.withheld(content["side"]))
            self._withheld[content["side"]] = tuple(sorted(grants, key=str))
