"""What a tuning has learnt so far, kept line by line: the next run of the same question goes on from there.

The question is the content of the table, the goals and the queries; its digest is on every line, and lines of another
question are passed over. Virtual indexes, which are arrays, lie beside the journal in files of their own.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from orchestra_lib.append_only import append_line, whole_lines
from orchestra_lib.errors import RecordError
from orchestra_lib.vectors.goals import Goals, Queries
from orchestra_lib.vectors.tuning import Step

_LAYOUT = 1  # of the lines; a new number makes old ones unused
# What only says how long to look or what to hold the result against changes nothing that was measured.
_NOT_PART_OF_THE_QUESTION = ("budget_seconds", "p95_ms", "lists")


def question(fingerprint: str, goals: Goals, queries: Queries) -> str:
    """The digest (16 hexadecimal digits) of all that the answers depend on."""
    asked = {name: value for name, value in asdict(goals).items() if name not in _NOT_PART_OF_THE_QUESTION}
    digest = hashlib.sha256(json.dumps([_LAYOUT, fingerprint, asked], sort_keys=True).encode())
    digest.update(queries.vectors.tobytes())
    digest.update("\n".join(queries.own_ids or ()).encode())
    return digest.hexdigest()[:16]


class TuningJournal:
    """Remembers the result of a step, as JSON, under the step's name. ``path`` None: for this run only."""

    def __init__(self, path: Path | None, digest: str) -> None:
        self._path, self._digest = path, digest
        self._known: dict[str, Any] = {}
        self.steps: list[Step] = []
        for line in whole_lines(path) if path else ():
            entry = _read(line, path)
            if entry["question"] == digest:
                self._known[entry["step"]] = entry["value"]

    def folder(self) -> Path | None:
        """Where arrays of this question are kept; None where nothing is."""
        if self._path is None:
            return None
        folder = self._path.parent / f"{self._path.stem}.{self._digest}"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def knows(self, step: str) -> bool:
        """Whether the step was done, by this run or an earlier one."""
        return step in self._known

    def once(self, step: str, work: Callable[[], Any]) -> Any:
        """The step's result: what is remembered, else what ``work`` returns (JSON values), remembered from now on."""
        if step in self._known:
            self.steps.append(Step(step, 0.0, resumed=True))
            return self._known[step]
        started = time.monotonic()
        value = work()
        seconds = time.monotonic() - started
        self.steps.append(Step(step, seconds, resumed=False))
        if self._path:
            entry = {"question": self._digest, "step": step, "seconds": round(seconds, 3), "value": value}
            append_line(self._path, json.dumps(entry))
        self._known[step] = value
        return value


def _read(line: bytes, path: Path | None) -> dict[str, Any]:
    try:
        entry: dict[str, Any] = json.loads(line)
        entry["question"], entry["step"], entry["value"]
    except (ValueError, KeyError, TypeError) as error:
        raise RecordError(
            f"a line of {path} is no line of a tuning's journal ({error}); move the file away and run again"
        ) from error
    return entry
