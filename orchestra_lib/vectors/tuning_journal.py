"""What a tuning has learnt so far, kept line by line: the next run of the same question goes on from there.

The question is the content of the table, the goals and the queries; its digest is on every line, and lines of another
question are passed over. Virtual indexes, which are arrays, lie beside the journal in files of their own.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
import zipfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from pydantic import TypeAdapter, ValidationError

from orchestra_lib.append_only import append_line, whole_lines
from orchestra_lib.errors import RecordError
from orchestra_lib.vectors.forms import Storage
from orchestra_lib.vectors.goals import Goals, Queries, Split
from orchestra_lib.vectors.ivf import VirtualIndex
from orchestra_lib.vectors.tuning import Step

Value = TypeVar("Value")

_LAYOUT = 2  # of the lines; a new number makes old ones unused
# What only says how long to look, or what to hold the result against, changes nothing that was measured.
_NOT_PART_OF_THE_QUESTION = ("budget_seconds", "lists")


def question(fingerprint: str, goals: Goals, queries: Queries, parts: Split) -> str:
    """The digest (16 hexadecimal digits) of all that the answers depend on."""
    asked = {name: value for name, value in asdict(goals).items() if name not in _NOT_PART_OF_THE_QUESTION}
    digest = hashlib.sha256(json.dumps([_LAYOUT, fingerprint, asked], sort_keys=True).encode())
    digest.update(np.ascontiguousarray(queries.vectors).tobytes())
    digest.update("\n".join(queries.own_ids or ()).encode())
    digest.update(parts.validate.tobytes())
    return digest.hexdigest()[:16]


class TuningJournal:
    """Remembers the result of each step under its name. ``path`` None: for this run only."""

    def __init__(self, path: Path | None, digest: str) -> None:
        self._path, self._digest = path, digest
        self._known: dict[str, Any] = {}
        self.steps: list[Step] = []
        for line in whole_lines(path) if path else ():
            entry = _read(line, path)
            if entry["question"] == digest:
                self._known[entry["step"]] = entry["value"]

    def knows(self, step: str) -> bool:
        """Whether the step was done, by this run or an earlier one."""
        return step in self._known

    def once(
        self,
        step: str,
        kind: type[Value],
        work: Callable[[], Value],
        stands: Callable[[Value], bool] = lambda _: True,
    ) -> Value:
        """The step's result: what is remembered, else what ``work`` returns, remembered from now on.

        ``kind`` is the type of the result: a plain dataclass or what JSON has. What is remembered and does not
        ``stand`` is found out again. Raises RecordError when what is remembered is no such result.
        """
        adapter = TypeAdapter(kind)
        if step in self._known:
            known = self._remembered(step, adapter)
            if stands(known):
                self.steps.append(Step(step, 0.0, resumed=True))
                return known
        value = self.timed(step, work)
        document = adapter.dump_python(value, mode="json")
        if self._path:
            entry = {
                "question": self._digest,
                "step": step,
                "seconds": round(self.steps[-1].seconds, 3),
                "value": document,
            }
            append_line(self._path, json.dumps(entry))
        self._known[step] = document
        return value

    def _remembered(self, step: str, adapter: TypeAdapter[Value]) -> Value:
        try:
            return adapter.validate_python(self._known[step], strict=False)
        except ValidationError as error:
            raise RecordError(
                f"step {step!r} in {self._path} is not as it was written ({error.error_count()} errors); move the "
                "file away and run again"
            ) from error

    def timed(self, step: str, work: Callable[[], Value]) -> Value:
        """Do a step whose result is not kept here, and note how long it took."""
        started = time.monotonic()
        value = work()
        self.steps.append(Step(step, time.monotonic() - started, resumed=False))
        return value

    def index(self, lists: int, seed: int, compute: Callable[[], VirtualIndex]) -> VirtualIndex:
        """A virtual index: as it was kept, else computed and kept. Raises RecordError for a file that is damaged."""
        step = f"virtual index: {lists} lists, seed {seed}"
        place = self._place(lists, seed)
        if place is not None and place.exists():
            self.steps.append(Step(step, 0.0, resumed=True))
            return _load(place)
        found = self.timed(step, compute)
        if place is not None:
            _save(found, place)
        return found

    def _place(self, lists: int, seed: int) -> Path | None:
        if self._path is None:
            return None
        return self._path.parent / f"{self._path.stem}.{self._digest}" / f"{lists}.{seed}.npz"


def _read(line: bytes, path: Path | None) -> dict[str, Any]:
    try:
        entry: dict[str, Any] = json.loads(line)
        entry["question"], entry["step"], entry["value"]
    except (ValueError, KeyError, TypeError) as error:
        raise RecordError(
            f"a line of {path} is no line of a tuning's journal ({error}); move the file away and run again"
        ) from error
    return entry


def _save(index: VirtualIndex, place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    unfinished = place.with_suffix(f".{os.getpid()}.npz")
    np.savez(
        unfinished,
        ranks=index.ranks,
        list_rows=index.list_rows,
        order=index.order,
        numbers=np.array([index.lists, index.seed, index.dimension]),
        storage=np.array(index.storage.value),
    )
    unfinished.replace(place)


def _load(place: Path) -> VirtualIndex:
    try:
        with np.load(place, allow_pickle=False) as kept:
            lists, seed, dimension = kept["numbers"].tolist()
            return VirtualIndex(
                lists,
                seed,
                kept["ranks"],
                kept["list_rows"],
                kept["order"],
                dimension,
                Storage(str(kept["storage"])),
            )
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise RecordError(f"the kept index in {place} cannot be read ({error}); remove it and run again") from error
