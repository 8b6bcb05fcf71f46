"""What the stream tells Cloud Monitoring arrives there as the alerts ask for it; what does not arrive stops nothing."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from google.oauth2.credentials import Credentials
from planes import Plane

from orchestra_lib.blueprint import metrics
from orchestra_lib.cloud import stream_metrics
from orchestra_lib.cloud.client import Client
from orchestra_lib.cloud.refusals import CloudRefused
from orchestra_lib.cloud.stream_metrics import ROWS, StreamMetrics
from orchestra_lib.cloud.target import Target
from orchestra_lib.memory.slot import SlotState
from orchestra_lib.memory.stream_status import StreamStatus

SLOT = SlotState("orchestra", "reserved", 7, 0, 0, retained_bytes=5 << 30, limit_bytes=None)
WAIT_SECONDS = 20.0


def status(at: float, **values: Any) -> StreamStatus:
    plain = StreamStatus(
        state="streaming",
        received_lsn=0,
        applied_lsn=0,
        lag_bytes=4096,
        lag_rows=12,
        lag_seconds=0,
        rows_applied=1500,
        rows_per_second=0.0,
        batches=3,
        stale=0,
        quarantined=0,
        breaker="closed",
        breaker_opened=0,
        reconnects=0,
        freshness_p50=None,
        freshness_p95=None,
        freshness_p99=None,
        trouble="",
        at=at,
    )
    return replace(plain, **values)


@pytest.fixture
def client(plane: Plane, project: str) -> Client:
    """A client of a project in which Cloud Monitoring is enabled."""
    found = plane.client()
    made = found.call(
        "cloudresourcemanager.v3", "cloudresourcemanager.projects.create", "projects", body={"projectId": project}
    )
    found.finish("cloudresourcemanager.v3", project, made, WAIT_SECONDS)
    service = f"projects/{project}/services/monitoring.googleapis.com:enable"
    enabled = found.call("serviceusage.v1", "serviceusage.services.enable", service, body={})
    found.finish("serviceusage.v1", "monitoring", enabled, WAIT_SECONDS)
    return found


@pytest.fixture
def written(client: Client, project: str, no_waiting: None) -> StreamMetrics:
    return StreamMetrics(client, project, "us-central1", "local")


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is given to be written is due."""
    monkeypatch.setattr(stream_metrics, "_INTERVAL_SECONDS", 0.0)


def write(target: StreamMetrics, at: float, slot: SlotState | None = SLOT, **values: Any) -> str:
    target.write(status(at, **values), slot)
    return target.finish(WAIT_SECONDS)


def listed(client: Client, project: str, metric: metrics.Metric) -> list[dict[str, Any]]:
    """The time series of a metric, as the alerts select them: by the type of its resource too."""
    now = datetime.now(UTC)
    query = {
        "filter": f'metric.type = "{metric.type}" AND resource.type = "{metric.resource}"',
        "interval.startTime": (now - timedelta(hours=1)).isoformat(),
        "interval.endTime": (now + timedelta(hours=1)).isoformat(),
    }
    # The client spells a parameter with a dot with an underscore.
    named = {name.replace(".", "_"): value for name, value in query.items()}
    path = f"projects/{project}/timeSeries"
    answer = client.call("monitoring.v3", "monitoring.projects.timeSeries.list", path, query=named)
    return list(answer.get("timeSeries", []))


def values(client: Client, project: str, metric: metrics.Metric) -> list[Any]:
    """Every value of a metric, oldest first."""
    points = [point for series in listed(client, project, metric) for point in series["points"]]
    return [next(iter(point["value"].values())) for point in reversed(points)]


def test_everything_arrives_in_one_call_under_the_resource_that_the_alerts_select(
    plane: Plane, client: Client, project: str, written: StreamMetrics
) -> None:
    assert write(written, time.time() + 1, lag_seconds=0.5, freshness_p95=0.25) == ""
    assert {row.metric: values(client, project, row.metric) for row in ROWS} == {
        metrics.SYNC_RECORDS: ["1500"],
        metrics.SYNC_BACKLOG: ["12"],
        metrics.SYNC_LAG: [0.5],
        metrics.SYNC_LAG_BYTES: ["4096"],
        metrics.SYNC_FRESHNESS: [0.25],
        metrics.SYNC_QUARANTINED: ["0"],
        metrics.SYNC_BREAKER: ["0"],
        metrics.SLOT_RETAINED: [str(5 << 30)],
    }
    (series,) = listed(client, project, metrics.SYNC_BACKLOG)
    labels = series["resource"]["labels"]
    assert labels.pop("task_id")
    assert labels == {
        "project_id": project,
        "location": "us-central1",
        "namespace": "local",
        "job": "memory-stream",
    }
    assert (written.written, written.failed, written.sentence()) == (1, 0, "1 writes to Cloud Monitoring")


def test_the_counter_counts_from_where_the_stream_began_and_the_rest_are_moments(
    client: Client, project: str, written: StreamMetrics
) -> None:
    now = time.time()
    for second in (1, 11, 21):
        assert write(written, now + second, rows_applied=1000 * second) == ""
    (counter,) = listed(client, project, metrics.SYNC_RECORDS)
    (gauge,) = listed(client, project, metrics.SYNC_LAG)
    assert (counter["metricKind"], gauge["metricKind"]) == ("CUMULATIVE", "GAUGE")
    assert values(client, project, metrics.SYNC_RECORDS) == ["1000", "11000", "21000"]
    assert len({point["interval"]["startTime"] for point in counter["points"]}) == 1
    assert all(point["interval"]["startTime"] == point["interval"]["endTime"] for point in gauge["points"])


def test_what_is_not_known_yet_is_not_written(client: Client, project: str, written: StreamMetrics) -> None:
    assert write(written, time.time() + 1, slot=None) == ""
    for metric in (metrics.SYNC_FRESHNESS, metrics.SLOT_RETAINED):
        path = f"projects/{project}/metricDescriptors/{metric.type}"
        with pytest.raises(CloudRefused) as caught:
            client.call("monitoring.v3", "monitoring.projects.metricDescriptors.get", path)
        assert caught.value.is_absence


@pytest.mark.parametrize(("breaker", "wanted"), [("closed", "0"), ("open", "1"), ("half-open", "1")])
def test_the_breaker_counts_as_open_until_it_is_closed(
    client: Client, project: str, written: StreamMetrics, breaker: str, wanted: str
) -> None:
    write(written, time.time() + 1, breaker=breaker)
    assert values(client, project, metrics.SYNC_BREAKER) == [wanted]


def test_nothing_is_written_twice_within_ten_seconds(client: Client, project: str) -> None:
    patient = StreamMetrics(client, project, "us-central1", "local")
    now = time.time()
    for second in (1, 11):
        write(patient, now + second)
    assert patient.written == 1
    assert values(client, project, metrics.SYNC_BACKLOG) == ["12"]


def test_a_refusal_is_told_and_counted_and_the_next_write_goes_on(
    plane: Plane, client: Client, project: str, written: StreamMetrics
) -> None:
    plane.inject(missing_permissions=[{"permissions": ["monitoring.timeSeries.create"]}])
    assert "monitoring.timeSeries.create" in write(written, time.time() + 1)
    assert written.sentence().startswith("1 of 1 writes to Cloud Monitoring failed; the last: ")
    plane.inject()
    assert write(written, time.time() + 2) == ""
    assert (written.written, written.failed) == (1, 1)
    assert written.sentence() == "1 of 2 writes to Cloud Monitoring failed; the last did not"
    assert "more frequently" in write(written, time.time() + 3)


def test_an_unreachable_cloud_monitoring_is_told_and_counted(no_waiting: None) -> None:
    nobody = Client(Target("local", "http://127.0.0.1:1", Credentials("token")))  # type: ignore[no-untyped-call]
    target = StreamMetrics(nobody, "nowhere", "us-central1", "local")
    assert "no answer" in write(target, time.time() + 1)
    assert (target.written, target.failed) == (0, 1)


def test_the_stream_does_not_wait_for_a_call_that_hangs(no_waiting: None) -> None:
    class Hanging(Client):
        def call(self, *_: Any, **__: Any) -> dict[str, Any]:
            calls.append(threading.current_thread().name)
            answered.wait(WAIT_SECONDS)
            return {}

    calls: list[str] = []
    answered = threading.Event()
    target = StreamMetrics(Hanging(Target("local", "", None)), "p", "us-central1", "local")
    for second in range(3):
        assert target.write(status(float(second)), SLOT) == ""
    assert target.written == 0
    answered.set()
    target.finish(WAIT_SECONDS)
    assert (target.written, calls) == (1, ["stream metrics"])
