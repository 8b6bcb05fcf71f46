"""Cloud Monitoring's time series: what may be written, what is said of the rest, what is kept, and how it is found."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import count

import pytest
from control_plane import PROJECT, serving
from googleapiclient.errors import HttpError
from hypothesis import given
from hypothesis import strategies as st

from orchestra_lib.local.control.services import monitoring_points, monitoring_series

NAME = f"projects/{PROJECT}"
TASK = {"location": "us-central1", "namespace": "local", "job": "memory-stream", "task_id": "7@here"}
RESOURCE = {"type": "generic_task", "labels": TASK}
START = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)
BUCKETS = {"explicitBuckets": {"bounds": [1, 10, 100]}}
_numbers = count(1)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A control plane whose clock stands at noon, five minutes after the first point that the tests write."""
    clock = (START + timedelta(minutes=5)).timestamp
    with serving(tmp_path_factory.mktemp("control"), clock=clock) as running:
        running.new_project(PROJECT)
        yield running


@pytest.fixture(scope="module")
def client(server):
    return server.client("monitoring", "v3").projects()


@pytest.fixture
def metric():
    return f"custom.googleapis.com/test/m{next(_numbers)}"


def at(seconds):
    return (START + timedelta(seconds=seconds)).isoformat().replace("+00:00", "Z")


def series(metric, end=0, value=None, start=None, labels=None, **more):
    interval = {"endTime": at(end)} | ({} if start is None else {"startTime": at(start)})
    point = {"interval": interval, "value": {"int64Value": "1"} if value is None else value}
    return {
        "metric": {"type": metric} | ({"labels": labels} if labels else {}),
        "resource": RESOURCE,
        "points": [point],
        **more,
    }


def counter(metric, start, end, value=1):
    return series(metric, end, {"int64Value": str(value)}, start, metricKind="CUMULATIVE")


def write(client, *given):
    return client.timeSeries().create(name=NAME, body={"timeSeries": list(given)}).execute()


def refused(client, *given):
    with pytest.raises(HttpError) as caught:
        write(client, *given)
    assert caught.value.status_code == 400
    return caught.value


def found(client, metric, more="", **query):
    names = {"interval_startTime": at(-3600), "interval_endTime": at(3600)} | query
    text = f'metric.type = "{metric}"{more}'
    return client.timeSeries().list(name=NAME, filter=text, **names).execute().get("timeSeries", [])


def ends(client, metric, more="", **query):
    return [point["interval"]["endTime"] for one in found(client, metric, more, **query) for point in one["points"]]


# --- what is written is found ---


def test_a_gauge_is_found_as_it_was_written_with_the_project_and_both_times(client, metric):
    assert write(client, series(metric, labels={"side": "left"})) == {}
    assert found(client, metric) == [
        {
            "metric": {"type": metric, "labels": {"side": "left"}},
            "resource": {"type": "generic_task", "labels": {"project_id": PROJECT, **TASK}},
            "metricKind": "GAUGE",
            "valueType": "INT64",
            "points": [{"interval": {"startTime": at(0), "endTime": at(0)}, "value": {"int64Value": "1"}}],
        }
    ]


def test_points_are_listed_newest_first_and_by_the_interval_without_its_start(client, metric):
    for second in (0, 10, 20):
        write(client, series(metric, second))
    assert ends(client, metric) == [at(20), at(10), at(0)]
    assert ends(client, metric, interval_startTime=at(0), interval_endTime=at(10)) == [at(10)]
    assert ends(client, metric, interval_startTime=at(10), interval_endTime=at(10)) == [at(10)]
    assert ends(client, metric, interval_startTime=at(21), interval_endTime=at(30)) == []


def test_headers_are_listed_without_points_and_only_of_series_with_data(client, metric):
    write(client, series(metric, 0, labels={"a": "1"}), series(metric, 60, labels={"a": "2"}))
    headers = found(client, metric, view="HEADERS", interval_startTime=at(30))
    assert [one["metric"]["labels"] for one in headers] == [{"a": "2"}]
    assert "points" not in headers[0]


@pytest.mark.parametrize(
    ("more", "wanted"),
    [
        (' AND metric.labels.a = "left"', ["left"]),
        (' metric.label.a != "left"', ["leave", "right"]),
        (' AND metric.labels.a = starts_with("le")', ["leave", "left"]),
        (' AND metric.labels.a = one_of("left")', None),
        (' AND metric.labels.a = ends_with("t")', ["left", "right"]),
        (' AND metric.labels.a = has_substring("ea")', ["leave"]),
        (' AND metric.labels.a != monitoring.regex.full_match("lef.|righ")', ["leave", "right"]),
        (' AND resource.type = "generic_task" AND resource.labels.job = "memory-stream"', ["leave", "left", "right"]),
        (' AND resource.labels.location = "us-east1"', []),
        (' AND group.id = "g"', None),
    ],
)
def test_a_filter_chooses_by_labels_or_is_said_not_to_be_served(client, metric, more, wanted):
    write(client, *(series(metric, labels={"a": name}) for name in ("left", "leave", "right")))
    if wanted is None:
        with pytest.raises(HttpError) as caught:
            found(client, metric, more)
        assert caught.value.status_code == 501
    else:
        assert sorted(one["metric"]["labels"]["a"] for one in found(client, metric, more)) == wanted


def test_a_list_has_pages_of_points(client, metric):
    for second in (0, 10, 20):
        write(client, series(metric, second, labels={"a": "1"}), series(metric, second, labels={"a": "2"}))
    query = {"filter": f'metric.type = "{metric}"', "interval_startTime": at(-1), "interval_endTime": at(60)}
    request, pages = client.timeSeries().list(name=NAME, pageSize=4, **query), []
    while request is not None:
        answer = request.execute()
        pages.append([len(one["points"]) for one in answer["timeSeries"]])
        request = client.timeSeries().list_next(request, answer)
    assert pages == [[3, 1], [2]]


@pytest.mark.parametrize(
    ("query", "status", "words"),
    [
        ({"filter": ""}, 400, "single metric type"),
        ({"filter": 'resource.type = "generic_task"'}, 400, "single metric type"),
        ({"filter": 'metric.type = "custom.googleapis.com/none"'}, 404, "Cannot find metric"),
        ({"interval_endTime": ""}, 400, "Request was missing field interval.endTime"),
        ({"interval_endTime": "yesterday"}, 400, "Timestamp"),
        ({"interval_startTime": at(3601)}, 400, "must not be later"),
        ({"orderBy": "points"}, 400, "order_by"),
        ({"aggregation_perSeriesAligner": "ALIGN_RATE"}, 501, "does not aggregate"),
        ({"secondaryAggregation_crossSeriesReducer": "REDUCE_SUM"}, 501, "does not aggregate"),
    ],
)
def test_a_list_that_cannot_be_served_says_why(client, metric, query, status, words):
    write(client, series(metric))
    given = {"filter": f'metric.type = "{metric}"', "interval_startTime": at(-1), "interval_endTime": at(60)}
    with pytest.raises(HttpError) as caught:
        client.timeSeries().list(name=NAME, **given | query).execute()
    assert caught.value.status_code == status
    assert words in caught.value.reason


# --- descriptors ---


def test_the_first_point_makes_the_descriptor_and_a_new_label_completes_it(client, metric):
    write(client, series(metric, unit="By", description="kept", labels={"a": "1"}))
    made = client.metricDescriptors().get(name=f"{NAME}/metricDescriptors/{metric}").execute()
    assert made == {
        "name": f"{NAME}/metricDescriptors/{metric}",
        "type": metric,
        "metricKind": "GAUGE",
        "valueType": "INT64",
        "unit": "By",
        "description": "kept",
        "labels": [{"key": "a"}],
    }
    write(client, series(metric, labels={"a": "1", "b": "2"}))
    query = f'metric.type = starts_with("{metric}")'
    (listed,) = client.metricDescriptors().list(name=NAME, filter=query).execute()["metricDescriptors"]
    assert listed == {**made, "labels": [{"key": "a"}, {"key": "b"}]}


def test_a_refused_point_makes_no_descriptor(client, metric):
    refused(client, {**series(metric), "resource": {"type": "generic_task", "labels": {}}})
    with pytest.raises(HttpError) as caught:
        client.metricDescriptors().get(name=f"{NAME}/metricDescriptors/{metric}").execute()
    assert caught.value.status_code == 404


def test_points_have_to_be_of_the_kind_and_the_type_of_the_descriptor(client, metric):
    write(client, series(metric))
    error = refused(client, series(metric, 60, {"doubleValue": 1.5}))
    assert f"Value type for metric {metric} must be INT64, but is DOUBLE." in error.reason
    error = refused(client, counter(metric, 0, 60))
    assert f"Metric kind for metric {metric} must be GAUGE, but is CUMULATIVE." in error.reason


def test_a_descriptor_takes_what_was_written_with_it(client, metric):
    write(client, series(metric))
    client.metricDescriptors().delete(name=f"{NAME}/metricDescriptors/{metric}").execute()
    write(client, series(metric, 10, {"doubleValue": 1.5}))
    assert [one["valueType"] for one in found(client, metric)] == ["DOUBLE"]


# --- what is refused ---


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"metric": {"type": "compute.googleapis.com/x"}}, "The metric type must be a URL-formatted string"),
        ({"metric": {"type": "custom.googleapis.com/"}}, "The metric type must be a URL-formatted string"),
        (
            {"metric": {"type": "custom.googleapis.com/x", "labels": {"a-b": "1"}}},
            'labels had an invalid value of "a-b"',
        ),
        ({"resource": {"type": "toaster", "labels": {}}}, 'resource.type had an invalid value of "toaster"'),
        ({"resource": {"type": "generic_task", "labels": {"location": "global", "job": "j"}}}, "(namespace task_id)"),
        ({"resource": {"type": "global", "labels": {"zone": "x"}}}, "Unrecognized resource label: zone"),
        (
            {"resource": {"type": "global", "labels": {"project_id": "other"}}},
            'project_id had an invalid value of "other"',
        ),
        (
            {"resource": {"type": "generic_task", "labels": {**TASK, "location": "moon"}}},
            "Unrecognized region or location.",
        ),
        ({"metricKind": "DELTA"}, "must be GAUGE or CUMULATIVE, but is DELTA"),
        ({"valueType": "DOUBLE"}, "value_type had an invalid value"),
        ({"points": []}, "Only one point can be written per TimeSeries per request."),
        ({"points": [{"value": {"int64Value": "1"}}]}, "missing field timeSeries[0].points[0].interval.endTime"),
        ({"points": [{"interval": {"endTime": at(0)}}]}, "Exactly one value"),
        ({"points": [{"interval": {"endTime": at(0)}, "value": {"stringValue": "x"}}]}, "String values"),
    ],
)
def test_a_point_that_can_be_of_no_series_is_refused(client, metric, change, words):
    error = refused(client, {**series(metric), **change})
    assert words in error.reason
    assert "timeSeries[0]" in error.reason


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"end": -26 * 3600}, "written more than 25h in the past"),
        ({"end": 601}, "written more than 5m in the future"),
        ({"end": 0, "start": -60}, "The start time must be equal to the end time"),
        ({"end": 0, "metricKind": "CUMULATIVE"}, "The start time must be before the end time"),
        ({"end": 0, "start": 1, "metricKind": "CUMULATIVE"}, "The start time must be before the end time"),
    ],
)
def test_an_interval_that_the_kind_of_metric_cannot_have_refuses_the_whole_request(client, metric, given, words):
    other = f"{metric}/other"
    error = refused(client, series(other), series(metric, **given))
    assert "Field timeSeries[1].points[0].interval." in error.reason
    assert words in error.reason
    with pytest.raises(HttpError):
        found(client, other)


def test_a_request_without_series_with_too_many_or_with_one_twice_is_refused(client, metric):
    assert "At least one" in refused(client).reason
    many = [series(metric, labels={"a": str(number)}) for number in range(201)]
    assert "Only 200 TimeSeries" in refused(client, *many).reason
    assert "Duplicate TimeSeries" in refused(client, series(metric), series(metric, 10)).reason


def test_points_come_in_order_and_at_most_every_five_seconds(client, metric):
    write(client, series(metric, 0))
    error = refused(client, series(metric, 4.999))
    assert error.reason == (
        f'One or more TimeSeries could not be written: timeSeries[0] (example metric.type="{metric}", '
        "metric.labels={}): write for resource=generic_task{location:us-central1,namespace:local,job:memory-stream,"
        "task_id:7@here} failed with: One or more points were written more frequently than the maximum sampling "
        f"period configured for the metric. {{Metric: {metric}, Timestamps: {{Youngest Existing: "
        "'2026/01/01-04:00:00.000', New: '2026/01/01-04:00:04.999'}}"
    )
    write(client, series(metric, 5))
    assert "had an older end time than the most recent point" in refused(client, series(metric, 4)).reason
    assert ends(client, metric) == [at(5), at(0)]


def test_what_can_be_written_is_written_and_the_rest_is_counted(client, metric):
    names = [f"{metric}/{name}" for name in "abcd"]
    write(client, *(series(name) for name in names[:3]))
    error = refused(client, *(series(name, 1) for name in names))
    assert "timeSeries[0-2] (example" in error.reason
    assert error.error_details == [
        {
            "@type": "type.googleapis.com/google.monitoring.v3.CreateTimeSeriesSummary",
            "totalPointCount": 4,
            "successPointCount": 1,
            "errors": [{"status": {"code": 3}, "pointCount": 3}],
        }
    ]
    assert [ends(client, name) for name in names] == [[at(0)], [at(0)], [at(0)], [at(1)]]


def test_a_counter_goes_on_from_its_start_or_begins_anew_after_its_last_point(client, metric):
    write(client, counter(metric, 0, 10))
    write(client, counter(metric, 0, 20))
    for start in (-1, 5, 20):
        error = refused(client, counter(metric, start, 30))
        assert "had an older start time than the most recent point" in error.reason
    write(client, counter(metric, 20.001, 30))
    assert ends(client, metric) == [at(30), at(20), at(10)]


# --- distributions ---


def distribution(counts=(1, 0, 2), total=3, **more):
    body = {"count": str(total), "bucketCounts": [str(one) for one in counts], "bucketOptions": BUCKETS, "mean": 4.5}
    return {"distributionValue": body | more}


def test_a_distribution_is_found_as_it_was_written(client, metric):
    write(client, series(metric, 10, distribution(), 0, metricKind="CUMULATIVE"))
    (one,) = found(client, metric)
    assert (one["valueType"], one["points"][0]["value"]) == ("DISTRIBUTION", distribution())


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (distribution((1, 1, 1, 1, 1), 5), "has 5 |bucket_counts| fields, which is more than the 4 buckets allowed"),
        (distribution((1,), 2), "sum to 1 which does not equal the |count| field value of 2."),
        (distribution((1,), 0, mean=0), "sum to 1 which does not equal the |count| field value of 0."),
        (distribution((), 0), "|mean|"),
        (distribution((-1, 1), 0, mean=0), "negative"),
        (distribution(bucketOptions={}), "exactly one kind of buckets"),
        (distribution(bucketOptions={"explicitBuckets": {}}), "does not have at least one entry"),
        (distribution(bucketOptions={"explicitBuckets": {"bounds": [2, 2]}}), "is not increasing"),
        (distribution(bucketOptions={"linearBuckets": {"numFiniteBuckets": 1}}), "width greater than 0"),
        (
            distribution(bucketOptions={"exponentialBuckets": {"numFiniteBuckets": 1, "growthFactor": 1, "scale": 1}}),
            "growthFactor greater than 1",
        ),
    ],
)
def test_a_distribution_whose_numbers_do_not_agree_is_refused(client, metric, value, words):
    error = refused(client, series(metric, value=value))
    assert "Field timeSeries[0].points[0].distributionValue had an invalid value: Distribution" in error.reason
    assert words in error.reason


# --- what is kept ---


def test_the_newest_points_are_kept_and_a_series_without_any_makes_room(tmp_path, monkeypatch):
    monkeypatch.setattr(monitoring_series, "_POINTS_KEPT", 3)
    now = [START.timestamp()]
    with serving(tmp_path, clock=lambda: now[0]) as server:
        server.new_project(PROJECT)
        client = server.client("monitoring", "v3").projects()
        for second in range(0, 50, 10):
            write(client, series("custom.googleapis.com/kept", second))
        assert ends(client, "custom.googleapis.com/kept") == [at(40), at(30), at(20)]
        now[0] += timedelta(days=3).total_seconds()
        write(client, series("custom.googleapis.com/later", 3 * 86_400))
        assert found(client, "custom.googleapis.com/kept") == []


def test_a_missing_permission_is_that_of_any_call(server, client, metric):
    server.inject(missing_permissions=[{"permissions": ["monitoring.timeSeries.create"]}])
    with pytest.raises(HttpError) as caught:
        write(client, series(metric))
    assert caught.value.status_code == 403
    server.inject()


@given(st.lists(st.integers(0, 60), unique=True).map(sorted))
def test_ranges_name_exactly_the_series_that_were_refused(indices):
    named = [part.split("-") for part in monitoring_series._ranges(indices).split(",") if part]
    assert [number for part in named for number in range(int(part[0]), int(part[-1]) + 1)] == indices


@given(st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)))
def test_a_moment_is_read_as_it_is_shown(moment):
    assert monitoring_points.moment(monitoring_points.shown_moment(moment)) == moment
