"""What is moved for an environment: from where, to where, and under which names on both sides."""

from __future__ import annotations

from dataclasses import dataclass

from psycopg import sql

from orchestra_lib.database import Address, connect
from orchestra_lib.memory.copy import CopyJob
from orchestra_lib.memory.initial_copy import CopySpec
from orchestra_lib.memory.source import source_table
from orchestra_lib.memory.stream import StreamSpec, Tuning
from orchestra_lib.settings import Settings

TARGET_TABLE = "memories"
STREAM = "orchestra_memory"
RETURN_STREAM = "orchestra_memory_return"
"""The names of the streams, there and back, in the tables that keep their checkpoints."""


@dataclass(frozen=True)
class Move:
    """A store on its way. Addresses are used, never shown."""

    settings: Settings
    source: Address
    target: Address

    def copy_job(self) -> CopyJob:
        """What is copied. Raises DataError for a table or a mapping that is not there."""
        store = self.settings.memory.source
        with connect(self.source, role="source") as session:
            table = source_table(session, store.table, store.columns)
        return CopyJob(self.source, table, self.target, sql.Identifier(TARGET_TABLE))

    def copy_spec(self) -> CopySpec:
        """The copy under the slot's snapshot. Raises as :meth:`copy_job`."""
        stream, wanted = self.settings.memory.stream, self.settings.memory.copy_
        return CopySpec(
            self.copy_job(),
            STREAM,
            stream.slot,
            stream.publication,
            wanted.ranges,
            wanted.workers,
            wanted.rows_per_second,
        )

    def stream_spec(self) -> StreamSpec:
        """The stream from the source to the target. Raises as :meth:`copy_job`."""
        job, stream = self.copy_job(), self.settings.memory.stream
        return StreamSpec(
            STREAM,
            self.source,
            job.source,
            self.target,
            job.target_table,
            stream.slot,
            stream.publication,
            self.tuning(),
        )

    def return_spec(self) -> StreamSpec | None:
        """The stream from the target back to the source; None where their tables are not laid out alike.

        Raises as :meth:`copy_job`, and DataError when the target has no table yet.
        """
        forward, store = self.stream_spec(), self.settings.memory.source
        if store.columns or forward.source_table.defaulted:
            return None
        with connect(self.target, role="target") as session:
            theirs = source_table(session, TARGET_TABLE, {})
        table = sql.Identifier(*store.table.split("."))
        slot = f"{forward.slot}_return"
        return StreamSpec(RETURN_STREAM, self.target, theirs, self.source, table, slot, slot, forward.tuning)

    def tuning(self) -> Tuning:
        """How the settings want changes gathered and applied."""
        sync, breaker = self.settings.memory.sync, self.settings.memory.circuit_breaker
        return Tuning(
            sync.debounce_seconds,
            sync.batch_size,
            sync.connections,
            breaker.failure_threshold,
            breaker.recovery_seconds,
            breaker.slow_seconds,
        )
