"""A transfer at scale as a whole: begun once, gone on with after whatever stopped it, finished when all is there.

The work itself is the engine's (see ``pipelines``). What is begun and what is there stands on the target, so any
launcher can go on with it: this one, another machine's, or the memory phase's own copy.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg

from orchestra_lib.database import connect
from orchestra_lib.errors import DataError
from orchestra_lib.memory import state_tables
from orchestra_lib.memory.copied_ranges import all_ranges, note_begin
from orchestra_lib.memory.copy import CopyJob
from orchestra_lib.memory.initial_copy import DONE, NEW, standing
from orchestra_lib.memory.ranges import KeyRange
from orchestra_lib.memory.replication import ReplicationSession
from orchestra_lib.memory.slot import drop_slot, publish
from orchestra_lib.scale.range_state import missing_ranges, note_done
from orchestra_lib.scale.size_ranges import ranges_by_size
from orchestra_lib.scale.spec import TransferSpec


@dataclass(frozen=True)
class Begun:
    """A transfer that may be worked on: why it stands as it does, in words, and the ranges that are missing.

    ``done`` says that its end is noted already: with nothing missing and no note, a launcher died between the two.
    """

    reason: str
    done: bool
    ranges: int
    missing: tuple[KeyRange, ...]


def begin(spec: TransferSpec) -> Begun:
    """Begin the transfer, or find where it stands. Needs the target's table.

    A slot keeps every change from before the first row is read. Raises DataError, StreamError, TargetUnreachable.
    """
    job = spec.job()
    with _both(job) as (source, target):
        state_tables.create(target)
        before = standing(spec.copy_spec(job))
        if before.state == NEW:
            _begin_anew(spec, job, source, target)
        missing = () if before.state == DONE else missing_ranges(target, spec.stream)
        return Begun(before.reason, before.state == DONE, len(all_ranges(target, spec.stream)), missing)


@contextmanager
def held(spec: TransferSpec) -> Iterator[None]:
    """Hold the stream's lock inside, unless the transfer is complete: then a stream may run. Raises LockHeld."""
    job = spec.job()
    if standing(spec.copy_spec(job)).state == DONE:
        yield
        return
    with connect(job.target_conninfo, role="target") as target, state_tables.stream_lock(target, spec.stream):
        yield


def missing_ranges_of(spec: TransferSpec) -> tuple[KeyRange, ...]:
    """The ranges of a transfer that are not there yet."""
    with connect(spec.addresses()[1], role="target") as target:
        return missing_ranges(target, spec.stream)


def ranges_there(spec: TransferSpec) -> int:
    """How many ranges are on the target by now."""
    with connect(spec.addresses()[1], role="target") as target:
        return len(all_ranges(target, spec.stream)) - len(missing_ranges(target, spec.stream))


def finish(spec: TransferSpec) -> None:
    """Note that the transfer is complete; a stream may begin. Raises DataError when ranges are missing."""
    with connect(spec.addresses()[1], role="target") as target:
        if not note_done(target, spec.stream):
            missing = missing_ranges(target, spec.stream)
            first = f", the first is {missing[0]}" if missing else ""
            raise DataError(f"{len(missing)} ranges of {spec.stream} are missing{first}; run the transfer again")


def _begin_anew(spec: TransferSpec, job: CopyJob, source: psycopg.Connection, target: psycopg.Connection) -> None:
    state_tables.forget(target, spec.stream)
    drop_slot(source, spec.slot)
    publish(source, spec.publication, job.source.table)
    ranges = ranges_by_size(source, job.source, spec.range_bytes)
    with ReplicationSession.open(job.source_conninfo, role="source") as session:
        slot = session.create_slot(spec.slot)
    note_begin(
        source,
        target,
        stream=spec.stream,
        slot=spec.slot,
        publication=spec.publication,
        table=job.source.table.as_string(source),
        start_lsn=slot.consistent_lsn,
        ranges=ranges,
    )


@contextmanager
def _both(job: CopyJob) -> Iterator[tuple[psycopg.Connection, psycopg.Connection]]:
    with connect(job.source_conninfo, role="source") as source, connect(job.target_conninfo, role="target") as target:
        yield source, target
