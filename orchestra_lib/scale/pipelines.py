"""The transfer and its verification as Apache Beam pipelines: the same on this machine and on Dataflow.

An element is a key range; its rows are on the target when it leaves the transform, so a bundle that an engine runs
again finds its ranges done. Progress is Beam's metrics in the namespace ``orchestra``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from typing import Generic, Protocol, TypeVar

import apache_beam as beam
import psycopg
from apache_beam.io.filesystems import FileSystems
from apache_beam.metrics import Metrics

from orchestra_lib.memory.ranges import KeyRange
from orchestra_lib.scale.checking import Checker
from orchestra_lib.scale.spec import TransferSpec
from orchestra_lib.scale.transfer import Carrier, Outcome

NAMESPACE = "orchestra"

Sessions = TypeVar("Sessions", bound="Closes")


class Closes(Protocol):
    """What a worker keeps open."""

    def close(self) -> None:
        """Let it go."""


class WithSessions(beam.DoFn, Generic[Sessions]):  # type: ignore[misc]
    """Keeps a worker's sessions from bundle to bundle, and opens new ones after they were lost."""

    def __init__(self, opened: Callable[[], Sessions]) -> None:
        self._opened = opened
        self._sessions: Sessions | None = None

    def sessions(self) -> Sessions:
        """Those that are open, or new ones."""
        if self._sessions is None:
            self._sessions = self._opened()
        return self._sessions

    def lose(self) -> None:
        """Open new ones when they are needed next."""
        if self._sessions is not None:
            self._sessions.close()
            self._sessions = None

    def teardown(self) -> None:
        """Beam ends the worker."""
        self.lose()


class TransferRange(WithSessions[Carrier]):
    """Brings a range to the target; yields its number."""

    def __init__(self, spec: TransferSpec) -> None:
        super().__init__(partial(Carrier, spec))
        self._rows = Metrics.counter(NAMESPACE, "rows")
        self._bytes = Metrics.counter(NAMESPACE, "bytes")
        self._slowed = Metrics.counter(NAMESPACE, "ranges slowed")
        self._outcomes = {outcome: Metrics.counter(NAMESPACE, f"ranges {outcome}") for outcome in Outcome}
        self._milliseconds = Metrics.distribution(NAMESPACE, "range ms")
        self._commit_ms = Metrics.distribution(NAMESPACE, "target commit ms")

    def process(self, element: KeyRange) -> Iterator[int]:
        """One range."""
        try:
            done = self.sessions().transfer(element)
        except psycopg.Error:
            self.lose()
            raise
        self._rows.inc(done.rows)
        self._bytes.inc(done.bytes)
        self._slowed.inc(int(done.slowed))
        self._outcomes[done.outcome].inc()
        self._milliseconds.update(round(done.seconds * 1e3))
        self._commit_ms.update(round(done.health.commit_ms))
        yield done.number


class CheckRange(WithSessions[Checker]):
    """Compares a range on both sides; yields what was found as a line of JSON."""

    def __init__(self, spec: TransferSpec) -> None:
        super().__init__(partial(Checker, spec))
        self._rows = Metrics.counter(NAMESPACE, "source rows checked")
        self._differing = Metrics.counter(NAMESPACE, "rows that differ")

    def process(self, element: KeyRange) -> Iterator[str]:
        """One range."""
        try:
            found = self.sessions().check(element)
        except psycopg.Error:
            self.lose()
            raise
        self._rows.inc(found.source_rows)
        self._differing.inc(found.differing)
        yield json.dumps(asdict(found))


def transfer_pipeline(pipeline: beam.Pipeline, spec: TransferSpec, ranges: Sequence[KeyRange]) -> None:
    """Put the transfer of these ranges into a pipeline."""
    _ = (
        pipeline
        | "ranges" >> beam.Create(ranges, reshuffle=False)
        | "share out" >> beam.Reshuffle()
        | "transfer" >> beam.ParDo(TransferRange(spec))
    )


def verify_pipeline(pipeline: beam.Pipeline, spec: TransferSpec, ranges: Sequence[KeyRange], report: str) -> None:
    """Put the comparison of these ranges into a pipeline; it writes ``<report>-*.jsonl``, a line a range."""
    _ = (
        pipeline
        | "ranges" >> beam.Create(ranges, reshuffle=False)
        | "share out" >> beam.Reshuffle()
        | "check" >> beam.ParDo(CheckRange(spec))
        | "report" >> beam.io.WriteToText(report, file_name_suffix=".jsonl")
    )


def read_report(report: str) -> Iterator[str]:
    """The lines that the verification wrote, in no order, wherever that was; none where nothing is."""
    (match,) = FileSystems.match([f"{report}-*.jsonl"])
    for file in match.metadata_list:
        with FileSystems.open(file.path) as lines:
            yield from lines.read().decode().splitlines()
