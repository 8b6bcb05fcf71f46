"""What a writer achieved, from its ledger: rate, latency and the pauses in which it could not write."""

from __future__ import annotations

import json
from array import array
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from orchestra_lib.rehearsal.ledger import Entry, Event, entries


@dataclass(frozen=True)
class Pause:
    """A time without a write: from the last acknowledged one before to the first acknowledged one after.

    Sessions pause one by one; ``seconds`` is the longest of those that overlap, ``sessions`` how many they are.
    ``started`` is in seconds since 1970, ``before`` and ``after`` are places (None: nothing was written before, or not
    yet again), ``reasons`` counts what the servers answered (SQLSTATE) or that connections were lost.
    """

    started: float
    seconds: float
    sessions: int
    before: str | None
    after: str | None
    reasons: dict[str, int]


@dataclass(frozen=True)
class Report:
    """A writer's report. Latency in milliseconds, from the intended start of a write to its acknowledgement.

    ``seconds`` runs from the first write to the last acknowledgement. ``skipped`` writes were not sent because their
    time had passed long ago; ``wrong`` keys were not as acknowledged when the writer looked.
    """

    seconds: float
    acknowledged: int
    by_verb: dict[str, int]
    refused: int
    lost: int
    in_doubt: int
    skipped: int
    wrong: tuple[str, ...]
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    pauses: tuple[Pause, ...]

    @property
    def per_second(self) -> float:
        """Acknowledged writes a second."""
        return self.acknowledged / self.seconds if self.seconds else 0.0

    def as_json(self) -> str:
        """The report as one JSON object, with ``per_second``."""
        return json.dumps({**asdict(self), "per_second": self.per_second}, ensure_ascii=False)


@dataclass
class _Trouble:
    """A session between its last acknowledgement and the next one, something having gone wrong since."""

    before: Entry
    reasons: Counter[str]


def report(path: Path) -> Report:
    """What the ledger says by now. Raises DataError when the file is no ledger."""
    intents: dict[int, tuple[float, str]] = {}
    counts, verbs = Counter[Event](), Counter[str]()
    latencies, in_doubt = array("d"), set[int]()
    wrong: list[str] = []
    skipped = 0
    first = last = 0.0
    pauses = _Pauses()
    for entry in entries(path):
        counts[entry.event] += 1
        match entry.event:
            case Event.INTENT:
                first = first or entry.monotonic
                intents[entry.key] = entry.detail
                in_doubt.add(entry.key)
            case Event.ACKNOWLEDGED | Event.FOUND:
                in_doubt.discard(entry.key)
                planned, verb = intents[entry.key]
                verbs[verb] += 1
                last = entry.monotonic
                latencies.append((entry.monotonic - planned) * 1_000)
            case Event.REFUSED | Event.MISSING:
                in_doubt.discard(entry.key)
            case Event.WRONG:
                wrong.append(str(entry.detail))
            case Event.SKIPPED:
                skipped += entry.detail
        pauses.take(entry)
    p50, p95, p99 = np.percentile(latencies, [50, 95, 99]).tolist() if latencies else (None, None, None)
    return Report(
        seconds=max(0.0, last - first),
        acknowledged=len(latencies),
        by_verb=dict(verbs),
        refused=counts[Event.REFUSED],
        lost=counts[Event.LOST],
        in_doubt=len(in_doubt),
        skipped=skipped,
        wrong=tuple(wrong),
        p50_ms=p50,
        p95_ms=p95,
        p99_ms=p99,
        pauses=tuple(pauses.merged()),
    )


class _Pauses:
    """Finds the pauses of every session, and merges those that overlap."""

    def __init__(self) -> None:
        self._places: dict[int, str] = {}
        self._last: dict[int, Entry] = {}
        self._troubles: dict[int, _Trouble] = {}
        self._found: list[tuple[float, float, Pause]] = []
        self._newest: Entry | None = None

    def take(self, entry: Entry) -> None:
        """Read one line."""
        self._newest = entry
        match entry.event:
            case Event.PLACE:
                self._places[entry.key] = str(entry.detail)
            case Event.INTENT:
                self._last.setdefault(entry.session, entry)
            case Event.REFUSED | Event.LOST:
                before = self._last.get(entry.session, entry)
                trouble = self._troubles.setdefault(entry.session, _Trouble(before, Counter()))
                trouble.reasons[str(entry.detail)] += 1
            case Event.ACKNOWLEDGED:
                self._last[entry.session] = entry
                if entry.session in self._troubles:
                    trouble = self._troubles.pop(entry.session)
                    self._found.append(_pause(self._places, trouble, entry))

    def merged(self) -> list[Pause]:
        """The pauses in the order of their starts; one that has not ended lasts until the newest line."""
        merged: list[tuple[float, float, Pause]] = []
        still = [_pause(self._places, trouble, self._newest) for trouble in self._troubles.values() if self._newest]
        for start, end, pause in sorted([*self._found, *still], key=lambda found: found[0]):
            if merged and start < merged[-1][1]:
                begun, until, other = merged[-1]
                longer = max(other, pause, key=lambda one: one.seconds)
                reasons = dict(Counter(other.reasons) + Counter(pause.reasons))
                both = Pause(
                    longer.started,
                    longer.seconds,
                    other.sessions + pause.sessions,
                    longer.before,
                    longer.after,
                    reasons,
                )
                merged[-1] = (begun, max(until, end), both)
            else:
                merged.append((start, end, pause))
        return [pause for _, _, pause in merged]


def _pause(places: dict[int, str], trouble: _Trouble, end: Entry) -> tuple[float, float, Pause]:
    """When a session's pause began and ended, and the pause."""
    start = trouble.before
    before, after = (places.get(at.detail) if at.event is Event.ACKNOWLEDGED else None for at in (start, end))
    seconds = end.monotonic - start.monotonic
    return start.monotonic, end.monotonic, Pause(start.wall, seconds, 1, before, after, dict(trouble.reasons))
