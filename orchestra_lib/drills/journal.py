"""What a drill has begun and not ended: on the disk before the first call, so that a later run can clear it away."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from orchestra_lib.append_only import append_line, whole_lines
from orchestra_lib.errors import RecordError


class DrillJournal:
    """An append-only file of one environment. One process writes it at a time: the phase lock sees to that.

    A last line that was cut off announces nothing: what it would have announced had not begun, or has not ended.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def begin(self, drill: str, details: Mapping[str, str]) -> None:
        """Note that a drill begins; ``details`` are what clearing it away needs to know."""
        self._write({"drill": drill, "event": "begun", "details": dict(details)})

    def end(self, drill: str) -> None:
        """Note that nothing of the drill is left."""
        self._write({"drill": drill, "event": "ended"})

    def open(self, drill: str) -> Mapping[str, str] | None:
        """The details of a drill of that name that was begun and never ended; None when there is none.

        Raises RecordError for a line that cannot be read: what it announced may be there.
        """
        found: Mapping[str, str] | None = None
        for number, line in enumerate(whole_lines(self._path), start=1):
            try:
                entry = json.loads(line)
                if entry["drill"] == drill:
                    found = entry["details"] if entry["event"] == "begun" else None
            except (ValueError, KeyError, TypeError) as error:
                raise RecordError(
                    f"{self._path}, line {number} cannot be read: {error}; look whether a drill has left a cluster, "
                    "then remove the line"
                ) from error
        return found

    def _write(self, entry: Mapping[str, object]) -> None:
        whole_lines(self._path)  # cuts off what was left of a line
        append_line(self._path, json.dumps(entry))
