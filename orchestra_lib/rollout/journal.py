"""What a rollout has begun, shifted and decided: an append-only file, on the disk before each change.

The decision is made once, after the last gate. Who finds a rollout that nobody ended completes it when it was decided
and takes it back when it was not.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from orchestra_lib.append_only import append_line, whole_lines
from orchestra_lib.errors import RecordError


class Outcome(StrEnum):
    """How a rollout ended."""

    DONE = "done"
    UNDONE = "undone"


class _Event(StrEnum):
    BEGUN = "begun"
    SHIFTED = "shifted"
    DECIDED = "decided"
    ENDED = "ended"


@dataclass
class RecordedRollout:
    """One rollout: the revision of before (blue) and the new one (green), and the shares green was given so far.

    ``run_id`` is the run that began it, empty when nobody said.
    """

    id: str
    service: str
    blue: str
    green: str
    run_id: str = ""
    percents: list[int] = field(default_factory=list)
    is_decided: bool = False
    outcome: Outcome | None = None


class RolloutJournal:
    """The journal of an environment's rollouts. One process writes it at a time: the phase lock sees to that."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._rollouts: dict[str, RecordedRollout] = {}
        for number, line in enumerate(whole_lines(path), start=1):
            try:
                self._take(json.loads(line))
            except (ValueError, KeyError, TypeError) as error:
                raise RecordError(
                    f"{path}, line {number} cannot be believed: {error!r}; restore it from a copy"
                ) from error

    @property
    def rollouts(self) -> tuple[RecordedRollout, ...]:
        """Every rollout ever begun, in their order."""
        return tuple(self._rollouts.values())

    def unfinished(self, service: str) -> RecordedRollout | None:
        """The rollout of a service of which nobody wrote how it ended."""
        return next((one for one in self.rollouts if one.service == service and one.outcome is None), None)

    def previous(self, service: str) -> str | None:
        """The revision that served before the last rollout that was done; None when there was none."""
        done = [one.blue for one in self.rollouts if one.service == service and one.outcome is Outcome.DONE]
        return done[-1] if done else None

    def begin(self, service: str, blue: str, green: str, run_id: str = "") -> RecordedRollout:
        """Write that a rollout begins. Raises RecordError when another of the service has not ended."""
        open_one = self.unfinished(service)
        if open_one is not None:
            raise RecordError(f"{self.path}: the rollout of {open_one.green} has not ended; recover it first")
        return self._write(uuid.uuid4().hex, _Event.BEGUN, service=service, blue=blue, green=green, run=run_id)

    def shift(self, rollout: RecordedRollout, percent: int) -> None:
        """Write that green is about to get so much of the traffic."""
        self._write(rollout.id, _Event.SHIFTED, percent=percent)

    def decide(self, rollout: RecordedRollout) -> None:
        """Write that green stays."""
        self._write(rollout.id, _Event.DECIDED)

    def end(self, rollout: RecordedRollout, outcome: Outcome, reason: str = "") -> None:
        """Write how it ended, and why it was undone."""
        self._write(rollout.id, _Event.ENDED, outcome=outcome.value, reason=reason)

    def _write(self, id_: str, event: _Event, **content: Any) -> RecordedRollout:
        entry = {"at": datetime.now(UTC).isoformat(), "rollout": id_, "event": event.value, **content}
        append_line(self.path, json.dumps(entry))
        self._take(entry)
        return self._rollouts[id_]

    def _take(self, entry: Mapping[str, Any]) -> None:
        id_, event = entry["rollout"], _Event(entry["event"])
        if event is _Event.BEGUN:
            names = (entry["service"], entry["blue"], entry["green"], entry.get("run", ""))
            self._rollouts[id_] = RecordedRollout(id_, *names)
            return
        rollout = self._rollouts[id_]
        if event is _Event.SHIFTED:
            rollout.percents.append(int(entry["percent"]))
        elif event is _Event.DECIDED:
            rollout.is_decided = True
        else:
            rollout.outcome = Outcome(entry["outcome"])
