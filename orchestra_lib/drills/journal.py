"""What a drill has begun and not ended: on the disk before the first call, so that a later run can clear it away."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class DrillJournal:
    """An append-only file of one environment. One process writes it at a time: the phase lock sees to that."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def begin(self, drill: str, details: Mapping[str, str]) -> None:
        """Note that a drill begins; ``details`` are what clearing it away needs to know."""
        self._write({"drill": drill, "event": "begun", "details": dict(details)})

    def end(self, drill: str) -> None:
        """Note that nothing of the drill is left."""
        self._write({"drill": drill, "event": "ended"})

    def open(self, drill: str) -> Mapping[str, str] | None:
        """The details of a drill of that name that was begun and never ended; None when there is none."""
        found: Mapping[str, str] | None = None
        lines = self._path.read_text().splitlines() if self._path.exists() else []
        for line in lines:
            entry = _entry(line)
            if entry.get("drill") == drill:
                found = entry["details"] if entry["event"] == "begun" else None
        return found

    def _write(self, entry: Mapping[str, object]) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a") as file:
            file.write(json.dumps(entry) + "\n")
            file.flush()
            os.fsync(file.fileno())


def _entry(line: str) -> dict[str, Any]:
    try:
        entry: dict[str, Any] = json.loads(line)
    except ValueError:
        return {}  # cut off while it was written: what it would have announced was not begun
    return entry
