"""The copy of a table that is too large for one process: both ways with their time and cost, and the pipeline.

It leaves the target as the phase's own copy would have: that one then finds every range there, and the stream goes on.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from orchestra_lib.display import Progress
from orchestra_lib.errors import ParameterError
from orchestra_lib.evidence import Evidence, Source
from orchestra_lib.memory.inventory import Inventory
from orchestra_lib.memory_target import primary_instance
from orchestra_lib.move import STREAM, TARGET_TABLE, Move
from orchestra_lib.scale.attempts import run_transfer
from orchestra_lib.scale.estimate import Machines, one_process, pipeline
from orchestra_lib.scale.options import dataflow_flags, most_at_once
from orchestra_lib.scale.spec import MIB, Pace, TransferSpec
from orchestra_lib.settings import Settings
from orchestra_lib.target import DATABASE

# What the log of a database takes is assumed, not measured: it bounds both ways alike (docs/scale.md).
_LOG_BYTES_PER_SECOND = 400e6
_CPUS_OF_A_DATABASE = 8.0
_JOB = "orchestra-memory-transfer"


def wants_pipeline(settings: Settings, taken: Inventory) -> bool:
    """Whether the table is so large that the settings want the pipeline for it, and changes are streamed after it."""
    return settings.memory.stream.live and taken.rows >= settings.scale.pipeline_from_rows


def both_ways(settings: Settings, taken: Inventory) -> tuple[Evidence, ...]:
    """Time and cost of the copy by one process and by the pipeline; nothing where the pipeline is not wanted."""
    if not wants_pipeline(settings, taken):
        return ()
    dataflow, row_bytes = settings.scale.dataflow, taken.table_bytes / max(1, taken.rows)
    shared = None if dataflow else float(os.cpu_count() or 1)
    machines = Machines(_CPUS_OF_A_DATABASE, _CPUS_OF_A_DATABASE, _LOG_BYTES_PER_SECOND, shared)
    cpus, where = float(most_at_once(settings)), "dataflow" if dataflow else "here"
    ways = one_process(taken.rows, row_bytes, machines), pipeline(taken.rows, row_bytes, machines, cpus, where)
    return tuple(way.evidence() for way in ways)


def copied_by_pipeline(settings: Settings, move: Move, taken: Inventory) -> tuple[Evidence, ...]:
    """Bring every range to the target by the pipeline; nothing where it is not wanted.

    Raises ParameterError without Apache Beam, or where workers cannot reach a side; DataError, TargetUnreachable.
    """
    if not wants_pipeline(settings, taken):
        return ()
    wanted, stream = settings.scale, settings.memory.stream
    flags = dataflow_flags(settings, _JOB) if wanted.dataflow else ()
    with _endpoints(settings, move) as (source, target):
        spec = TransferSpec(
            source,
            target,
            STREAM,
            stream.slot,
            stream.publication,
            settings.memory.source.table,
            settings.memory.source.columns,
            TARGET_TABLE,
            wanted.range_mib * MIB,
            most_at_once(settings),
            Pace(wanted.rows_per_second, wanted.commit_ms),
        )
        done = run_transfer(spec, flags, Progress("transfer", "ranges"))
    seconds = f"{done.seconds:.1f} s, {len(done.attempts)} attempts"
    return (
        Evidence(
            "key ranges brought by the pipeline",
            Source.MEASURED,
            done.ranges - done.ranges_before,
            "ranges",
            note=f"{done.ranges_before} of {done.ranges} were there before; {seconds}",
        ),
    )


@contextmanager
def _endpoints(settings: Settings, move: Move) -> Iterator[tuple[str, str]]:
    """Where workers find both sides: by name on Google Cloud, in files that only we can read on this machine."""
    if settings.scale.dataflow is not None:
        yield _on_google_cloud(settings)
        return
    with tempfile.TemporaryDirectory(prefix="orchestra-endpoints-") as folder:  # nobody else may enter it
        found = []
        for role, address in (("source", move.source), ("target", move.target)):
            if not isinstance(address, str):
                raise ParameterError(
                    f"the {role} is reached through a connector of this process, so workers cannot share it: give the "
                    f"{role} a connection string of its own, or let one process copy (scale.pipeline_from_rows)"
                )
            (Path(folder) / role).write_text(address)
            found.append(f"file:{folder}/{role}")
        yield found[0], found[1]


def _on_google_cloud(settings: Settings) -> tuple[str, str]:
    if settings.project is None or settings.secrets is None or settings.scale.dataflow is None:
        raise ParameterError(f"{settings.environment.name} has no project and secrets for workers on Dataflow")
    project = settings.project.id
    # A service account is a database user without the end of its address.
    user = f"{settings.scale.dataflow.service_account}@{project}.iam"
    return (
        f"secret:projects/{project}/secrets/{settings.secrets.source_dsn}/versions/latest",
        f"alloydb:{primary_instance(settings)}?user={user}&database={DATABASE}",
    )
