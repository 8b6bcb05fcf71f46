"""``python -m orchestra_lib stream``: run an environment's stream here, say how it stands, stop it, repair its rows."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict

from orchestra_lib import settings, stream_process
from orchestra_lib.cloud.client import Client
from orchestra_lib.cloud.stream_metrics import StreamMetrics
from orchestra_lib.cloud.target import Target
from orchestra_lib.cloud.target import connect as connect_cloud
from orchestra_lib.database import connect
from orchestra_lib.errors import ParameterError, TargetUnreachable
from orchestra_lib.memory.compare import Store
from orchestra_lib.memory.cutover_journal import CutoverJournal
from orchestra_lib.memory.quarantine import resolve
from orchestra_lib.memory.slot import slot_state
from orchestra_lib.memory.source import source_table
from orchestra_lib.memory.stream import Stream, StreamSpec
from orchestra_lib.memory.stream_status import StreamStatus
from orchestra_lib.memory_target import primary_instance
from orchestra_lib.move import STREAM, TARGET_TABLE, Move
from orchestra_lib.paths import move_journal_path
from orchestra_lib.settings import Settings
from orchestra_lib.target import Instances, source_database

_RUNBOOK = "03_memory"


def run(options: argparse.Namespace) -> int:
    """Carry out one action; returns the exit code."""
    if options.action == "status":
        return _status(options.environment, as_json=options.json)
    if options.action == "stop":
        stopped = stream_process.stop(options.environment)
        sys.stdout.write("stopped; the slot keeps what comes now\n" if stopped else "no stream runs\n")
        return 0
    overrides = json.load(sys.stdin) if options.overrides else {}
    work = _resolve if options.action == "resolve" else _serve
    return work(options.environment, overrides)


def _serve(environment: str, overrides: dict[str, object]) -> int:
    running = stream_process.running(environment)
    if running is not None:
        raise ParameterError(f"the stream of {environment} runs already, as process {running.pid}")
    wanted, cloud, spec = _moved(environment, overrides)
    metrics = _metrics(wanted, Client(cloud)) if cloud else None
    stream = Stream(spec)
    return stream_process.serve(environment, stream, lambda status: _publish(metrics, spec, status))


def _resolve(environment: str, overrides: dict[str, object]) -> int:
    """Make the rows in quarantine what the side that is written to has; 1 while the other side refuses some."""
    wanted, _, spec = _moved(environment, overrides)
    forward = spec.name == STREAM
    written, follows = ("source", "target") if forward else ("target", "source")
    with connect(spec.target, role=follows) as session:
        table = source_table(session, TARGET_TABLE if forward else wanted.memory.source.table, {})
    found = resolve(Store(written, spec.source, spec.source_table), Store(follows, spec.target, table), spec.name)
    done = f"{len(found.written)} rows written, {len(found.deleted)} deleted, {len(found.equal)} were alike already"
    left = [f"still refused: {row.key}: {row.error}" for row in found.remaining]
    sys.stdout.write("\n".join([done, *left]) + "\n")
    return 1 if left else 0


def _moved(environment: str, overrides: dict[str, object]) -> tuple[Settings, Target | None, StreamSpec]:
    """The settings, Google Cloud where they name it, and the stream of the present direction."""
    wanted = settings.load(environment, _RUNBOOK, overrides)
    source, own = source_database(wanted).address, wanted.memory.target.dsn
    cloud = None if own and wanted.project is None else connect_cloud(wanted)
    if own is None and cloud is None:
        raise ParameterError(f"environment {environment} names no target")
    target = own.reveal() if own else Instances(cloud).address(primary_instance(wanted))  # type: ignore[arg-type]
    return wanted, cloud, _spec(wanted, Move(wanted, source, target))


def _spec(wanted: Settings, move: Move) -> StreamSpec:
    """From the side that is written to, by the journal of the cutovers, to the other one.

    Raises ParameterError after a cutover that has no way back.
    """
    local = wanted.environment.kind == "local"
    if CutoverJournal(move_journal_path(wanted.environment.name, "cutover", local=local)).live() != "target":
        return move.stream_spec()
    back = move.return_spec()
    if back is None:
        raise ParameterError("the application writes on the target, and there is no stream back into another layout")
    return back


def _metrics(wanted: Settings, client: Client) -> StreamMetrics | None:
    if wanted.project is None or wanted.regions is None:
        return None
    return StreamMetrics(client, wanted.project.id, wanted.regions.primary, wanted.environment.name)


def _publish(metrics: StreamMetrics | None, spec: StreamSpec, status: StreamStatus) -> str:
    """Write the metrics, if it is time to; returns why they could not be, empty when they could."""
    if metrics is None or not metrics.is_due:
        return metrics.trouble if metrics else ""
    try:
        with connect(spec.source, role="source") as source:
            slot = slot_state(source, spec.slot)
    except TargetUnreachable as error:
        return metrics.write(status, None) or str(error)
    return metrics.write(status, slot)


def _status(environment: str, *, as_json: bool) -> int:
    found = stream_process.report(environment)
    if found is None:
        sys.stdout.write("null\n" if as_json else f"no stream of {environment} has ever run here\n")
        return 0
    if as_json:
        sys.stdout.write(json.dumps({**asdict(found), "running": found.is_running}, indent=1) + "\n")
        return 0
    alive = f"process {found.pid}" if found.is_running else f"ended: {found.ended or 'killed'}"
    sys.stdout.write(f"{alive}\n{found.status.sentence()}\n")
    for trouble in filter(None, (found.status.trouble, found.metrics)):
        sys.stdout.write(f"{trouble}\n")
    return 0
