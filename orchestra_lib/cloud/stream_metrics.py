"""What the stream tells Cloud Monitoring of itself: one call every ten seconds, which can fail and stops nothing."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from orchestra_lib.blueprint import metrics
from orchestra_lib.blueprint.metrics import Metric
from orchestra_lib.cloud.client import Client
from orchestra_lib.cloud.refusals import CloudRefused
from orchestra_lib.errors import TargetUnreachable
from orchestra_lib.memory.slot import SlotState
from orchestra_lib.memory.stream_status import StreamStatus

JOB = "memory-stream"
# A time series takes a point every five seconds at most: https://cloud.google.com/monitoring/quotas
_INTERVAL_SECONDS = 10.0
_CLOSED = "closed"


@dataclass(frozen=True)
class Row:
    """One metric, and its value as the service takes it: None when there is nothing to say yet."""

    metric: Metric
    value: Callable[[StreamStatus, SlotState | None], dict[str, Any] | None]
    kind: str = "GAUGE"


def _whole(number: int) -> dict[str, Any]:
    return {"int64Value": str(number)}


def _real(number: float | None) -> dict[str, Any] | None:
    return None if number is None else {"doubleValue": number}


ROWS = (
    Row(metrics.SYNC_RECORDS, lambda status, _: _whole(status.rows_applied), "CUMULATIVE"),
    Row(metrics.SYNC_BACKLOG, lambda status, _: _whole(status.lag_rows)),
    Row(metrics.SYNC_LAG, lambda status, _: _real(status.lag_seconds)),
    Row(metrics.SYNC_LAG_BYTES, lambda status, _: _whole(status.lag_bytes)),
    Row(metrics.SYNC_FRESHNESS, lambda status, _: _real(status.freshness_p95)),
    Row(metrics.SYNC_QUARANTINED, lambda status, _: _whole(status.quarantined)),
    Row(metrics.SYNC_BREAKER, lambda status, _: _whole(int(status.breaker != _CLOSED))),
    Row(metrics.SLOT_RETAINED, lambda _, slot: _whole(slot.retained_bytes) if slot else None),
)
"""Everything that is written, in one call."""


class StreamMetrics:
    """The stream's metrics in Cloud Monitoring. Made when the stream begins: its counter counts from there.

    A write goes on beside its caller, who never waits for it. ``written`` and ``failed`` count the calls; ``trouble``
    is why the last one failed, empty when it did not.
    """

    def __init__(self, client: Client, project: str, region: str, environment: str) -> None:
        self._client, self._project = client, project
        self._began = time.time()
        # Who writes is part of what names a time series, so a restarted stream gets one of its own.
        task = f"{os.getpid()}@{socket.gethostname()}"
        labels = {"project_id": project, "location": region, "namespace": environment, "job": JOB, "task_id": task}
        self._labels = labels
        self._due = 0.0
        self._writing: threading.Thread | None = None
        self.written = self.failed = 0
        self.trouble = ""

    @property
    def is_due(self) -> bool:
        """Whether a write would go out now."""
        return time.monotonic() >= self._due and not self._is_writing()

    def write(self, status: StreamStatus, slot: SlotState | None) -> str:
        """Begin to write these values, unless less than ten seconds have passed or a write is still under way.

        Returns ``trouble``: never raises for what Cloud Monitoring answers, or does not.
        """
        if self.is_due:
            self._due = time.monotonic() + _INTERVAL_SECONDS
            body = {"timeSeries": self._series(status, slot)}
            # As a daemon: a call that hangs must not keep the process from ending.
            self._writing = threading.Thread(target=self._send, args=(body,), name="stream metrics", daemon=True)
            self._writing.start()
        return self.trouble

    def finish(self, timeout_seconds: float) -> str:
        """Wait until the write that is under way has ended, at most so long; returns ``trouble``."""
        if self._writing is not None:
            self._writing.join(timeout_seconds)
        return self.trouble

    def sentence(self) -> str:
        """How it went so far, in words."""
        if not self.failed:
            return f"{self.written:,} writes to Cloud Monitoring"
        of = f"{self.failed:,} of {self.written + self.failed:,} writes to Cloud Monitoring failed"
        return f"{of}; the last: {self.trouble}" if self.trouble else f"{of}; the last did not"

    def _is_writing(self) -> bool:
        return self._writing is not None and self._writing.is_alive()

    def _send(self, body: dict[str, Any]) -> None:
        path = f"projects/{self._project}/timeSeries"
        try:
            self._client.call("monitoring.v3", "monitoring.projects.timeSeries.create", path, body=body)
        except (CloudRefused, TargetUnreachable) as error:
            self.failed += 1
            self.trouble = str(error)
        else:
            self.written += 1
            self.trouble = ""

    def _series(self, status: StreamStatus, slot: SlotState | None) -> list[dict[str, Any]]:
        values = ((row, row.value(status, slot)) for row in ROWS)
        return [self._point(row, value, status.at) for row, value in values if value is not None]

    def _point(self, row: Row, value: dict[str, Any], at: float) -> dict[str, Any]:
        start = self._began if row.kind == "CUMULATIVE" else at
        return {
            "metric": {"type": row.metric.type},
            "resource": {"type": row.metric.resource, "labels": self._labels},
            "metricKind": row.kind,
            "unit": row.metric.unit,
            "points": [{"interval": {"startTime": _timestamp(start), "endTime": _timestamp(at)}, "value": value}],
        }


def _timestamp(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
