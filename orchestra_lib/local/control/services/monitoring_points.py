"""What Cloud Monitoring lets into a time series: one point, a complete resource, an interval and a value of its kind.

The words are those that the service was seen to answer with.
https://cloud.google.com/monitoring/custom-metrics/creating-metrics
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise
from typing import Any

from orchestra_lib.local.control import places
from orchestra_lib.local.control.faults import Fault

METRIC_DOMAINS = (
    "custom.googleapis.com/",
    "external.googleapis.com/",
    "prometheus.googleapis.com/",
    "workload.googleapis.com/",
)
"""The domains of the metrics that others than Google write."""

_TYPE = re.compile(r"[a-z0-9.-]+/[A-Za-z0-9_./-]+")
_LABEL = re.compile(r"[a-zA-Z][a-zA-Z0-9_]*")
_LARGEST_REQUEST = 200
_OLDEST, _NEWEST = timedelta(hours=25), timedelta(minutes=5)
_VALUE_TYPES = {
    "boolValue": "BOOL",
    "int64Value": "INT64",
    "doubleValue": "DOUBLE",
    "distributionValue": "DISTRIBUTION",
    "stringValue": "STRING",
}
_PLACES = frozenset(places.REGIONS) | places.ALL_ZONES | {"global"}
_PLACE_LABELS = ("location", "region", "zone")
# https://cloud.google.com/monitoring/custom-metrics/creating-metrics#create-metric-desc, without that of AWS.
_RESOURCES: Mapping[str, tuple[str, ...]] = {
    "dataflow_job": ("region", "job_name"),
    "gae_instance": ("location", "module_id", "version_id", "instance_id"),
    "gce_instance": ("zone", "instance_id"),
    "generic_node": ("location", "namespace", "node_id"),
    "generic_task": ("location", "namespace", "job", "task_id"),
    "gke_container": ("zone", "cluster_name", "namespace_id", "instance_id", "pod_id", "container_name"),
    "global": (),
    "k8s_cluster": ("location", "cluster_name"),
    "k8s_container": ("location", "cluster_name", "namespace_name", "pod_name", "container_name"),
    "k8s_node": ("location", "cluster_name", "node_name"),
    "k8s_pod": ("location", "cluster_name", "namespace_name", "pod_name"),
    "prometheus_target": ("location", "cluster", "namespace", "job", "instance"),
}
_PROJECT = "project_id"
_PACIFIC = timezone(timedelta(hours=-8))


class Unwritable(Exception):
    """Why one time series of a request cannot be written; the others can.

    ``context`` names the resource and ``example`` the metric, ``detail`` what was compared: time series with the same
    ``words`` and ``context`` are told of in one sentence.
    """

    def __init__(self, words: str, *, context: str = "", example: str = "", detail: str = "") -> None:
        super().__init__(words)
        self.words, self.context, self.example, self.detail = words, context, example, detail


@dataclass(frozen=True)
class Interval:
    """The time that a point is about. A gauge's begins where it ends."""

    start: datetime
    end: datetime


def require_one_point_each(series: Sequence[Mapping[str, Any]]) -> None:
    """Raise Fault (400) for a request that is none: too large, without a point, or with a time series twice."""
    if not series:
        raise _refused("Field timeSeries had an invalid value: At least one TimeSeries has to be given.")
    if len(series) > _LARGEST_REQUEST:
        words = f"Only {_LARGEST_REQUEST} TimeSeries can be written per request, not {len(series)}."
        raise _refused(f"Field timeSeries had an invalid value: {words}")
    seen: set[str] = set()
    for index, given in enumerate(series):
        points = given.get("points", [])
        if len(points) != 1:
            words = "Only one point can be written per TimeSeries per request."
            raise _refused(f"Field timeSeries[{index}].points had an invalid value: {words}")
        if not points[0].get("interval", {}).get("endTime"):
            raise _refused(f"Request was missing field timeSeries[{index}].points[0].interval.endTime.")
        same = identity(given.get("metric", {}), given.get("resource", {}))
        if same in seen:
            words = "Duplicate TimeSeries encountered. Only one point can be written per TimeSeries per request."
            raise _refused(f"Field timeSeries[{index}] had an invalid value: {words}")
        seen.add(same)


def identity(metric: Mapping[str, Any], resource: Mapping[str, Any]) -> str:
    """What tells a time series from all others: the types and labels of its metric and of its resource."""
    return repr([(part.get("type", ""), sorted(part.get("labels", {}).items())) for part in (metric, resource)])


def metric_of(given: Mapping[str, Any], index: int) -> dict[str, Any]:
    """The metric of a given time series. Raises Unwritable for a type or a label that cannot be one."""
    metric = dict(given.get("metric", {}))
    kind = metric.get("type", "")
    if not _TYPE.fullmatch(kind) or not kind.startswith(METRIC_DOMAINS):
        words = "The metric type must be a URL-formatted string with a domain and non-empty path."
        raise Unwritable(f'Field timeSeries[{index}].metric.type had an invalid value of "{kind}": {words}')
    for label in metric.get("labels", {}):
        if not _LABEL.fullmatch(label):
            raise Unwritable(f'Field timeSeries[{index}].metric.labels had an invalid value of "{label}".')
    return metric


def resource_of(given: Mapping[str, Any], index: int, project: str, number: str) -> dict[str, Any]:
    """The resource of a given time series, with the project's id. Raises Unwritable when it is none, or incomplete."""
    resource = given.get("resource", {})
    kind, labels = resource.get("type", ""), {_PROJECT: project, **resource.get("labels", {})}
    place = f"Field timeSeries[{index}].resource"
    if kind not in _RESOURCES:
        words = "This monitored resource type cannot be used with user-defined metrics."
        raise Unwritable(f'{place}.type had an invalid value of "{kind}": {words}')
    missing = [label for label in _RESOURCES[kind] if label not in labels]
    if missing:
        words = "The set of resource labels is incomplete. Missing labels"
        raise Unwritable(f"{words}: ({' '.join(sorted(missing))}).")
    for label in labels:
        if label not in (_PROJECT, *_RESOURCES[kind]):
            raise Unwritable(f"Unrecognized resource label: {label}")
    if labels[_PROJECT] not in (project, number):
        words = f"It has to be the project that is written to, {project}."
        raise Unwritable(f'{place}.labels.project_id had an invalid value of "{labels[_PROJECT]}": {words}')
    if any(labels[label] not in _PLACES for label in _PLACE_LABELS if label in labels):
        raise Unwritable("Unrecognized region or location.")
    return {"type": kind, "labels": {**labels, _PROJECT: project}}


def interval_of(given: Mapping[str, Any], index: int, metric: str, metric_kind: str, now: datetime) -> Interval:
    """The interval of a given time series' point. Raises Fault (400) for one that its kind of metric cannot have."""
    field = f"Field timeSeries[{index}].points[0].interval"
    raw = given["points"][0]["interval"]
    end = moment(raw["endTime"])
    start = moment(raw["startTime"]) if "startTime" in raw else end
    if end < now - _OLDEST:
        words = f"Data points cannot be written more than {_OLDEST // timedelta(hours=1)}h in the past."
        raise _refused(f'{field}.end_time had an invalid value of "{_local(end)}": {words}')
    if end > now + _NEWEST:
        words = f"Data points cannot be written more than {_NEWEST // timedelta(minutes=1)}m in the future."
        raise _refused(f'{field}.end_time had an invalid value of "{_local(end)}": {words}')
    wrong = f'{field}.start_time had an invalid value of "{_local(start)}": The start time must be'
    if metric_kind == "GAUGE" and start != end:
        raise _refused(f"{wrong} equal to the end time ({_local(end)}) for the gauge metric '{metric}'.")
    if metric_kind != "GAUGE" and start >= end:
        raise _refused(f"{wrong} before the end time ({_local(end)}) for the non-gauge metric '{metric}'.")
    return Interval(start, end)


def value_type_of(given: Mapping[str, Any], index: int) -> str:
    """The type of a given point's value. Raises Unwritable when it has none, several, or one that nobody may write."""
    field = f"Field timeSeries[{index}]"
    value = given["points"][0].get("value", {})
    if len(value) != 1:
        raise Unwritable(f"{field}.points[0].value had an invalid value: Exactly one value has to be set.")
    (name,) = value
    found = _VALUE_TYPES[name]
    if found == "STRING":
        raise Unwritable(f"{field}.points[0].value had an invalid value: String values cannot be written.")
    stated = given.get("valueType", found)
    if stated != found:
        raise Unwritable(f'{field}.value_type had an invalid value of "{stated}": The point\'s value is {found}.')
    if found == "DISTRIBUTION" and (wrong := _wrong_distribution(value[name])):
        raise Unwritable(f"{field}.points[0].distributionValue had an invalid value: {wrong}")
    return found


def moment(text: str) -> datetime:
    """A point in time from RFC 3339, to the microsecond. Raises Fault (400) for what is none."""
    try:
        return datetime.fromisoformat(text.upper()).astimezone(UTC)
    except ValueError:
        words = f'Invalid value (type.googleapis.com/google.protobuf.Timestamp), "{text}"'
        raise _refused(words) from None


def shown_moment(at: datetime) -> str:
    """As the service writes it: in UTC, with as many digits as it takes in groups of three."""
    precision = "seconds" if not at.microsecond else "microseconds" if at.microsecond % 1000 else "milliseconds"
    return at.isoformat(timespec=precision).replace("+00:00", "Z")


def in_a_message(at: datetime) -> str:
    """As the service writes it into a sentence about the order of points: to the millisecond, where Google is."""
    return at.astimezone(_PACIFIC).strftime("%Y/%m/%d-%H:%M:%S.%f")[:-3]


def _local(at: datetime) -> str:
    return at.astimezone(_PACIFIC).isoformat()


def _wrong_distribution(value: Mapping[str, Any]) -> str:
    """What is wrong with a distribution; empty when nothing is."""
    options, counts = value.get("bucketOptions", {}), [int(count) for count in value.get("bucketCounts", [])]
    total = int(value.get("count", 0))
    wrong_buckets = _wrong_buckets(options)
    if wrong_buckets:
        return wrong_buckets
    allowed = _bucket_count(options)
    if len(counts) > allowed:
        more = f"which is more than the {allowed} buckets allowed by the bucketing options."
        return f"Distribution value has {len(counts)} |bucket_counts| fields, {more}"
    if min(counts, default=0) < 0 or total < 0:
        return "Distribution value has a negative |count| or |bucket_counts| field."
    if sum(counts) != total:
        words = f"sum to {sum(counts)} which does not equal the |count| field value of {total}."
        return f"Distribution value has |bucket_counts| fields that {words}"
    if total == 0 and (value.get("mean") or value.get("sumOfSquaredDeviation")):
        return "Distribution value has a |mean| or a |sum_of_squared_deviation| and a |count| of zero."
    return ""


def _wrong_buckets(options: Mapping[str, Any]) -> str:
    if len(options) != 1:
        return "Distribution |bucket_options| has to hold exactly one kind of buckets."
    if "explicitBuckets" in options:
        bounds = options["explicitBuckets"].get("bounds", [])
        if not bounds:
            return "Distribution |explicit_buckets.bounds| does not have at least one entry."
        if any(before >= after for before, after in pairwise(bounds)):
            return "Distribution |explicit_buckets.bounds| is not increasing."
        return ""
    (name,) = options
    buckets, field = options[name], name.removesuffix("Buckets")
    for part, least in _LEAST[name].items():
        if buckets.get(part, 0) <= least:
            return f"Distribution |{field}_buckets| needs a {part} greater than {least}."
    return ""


_LEAST: Mapping[str, Mapping[str, int]] = {
    "linearBuckets": {"numFiniteBuckets": 0, "width": 0},
    "exponentialBuckets": {"numFiniteBuckets": 0, "growthFactor": 1, "scale": 0},
}


def _bucket_count(options: Mapping[str, Any]) -> int:
    """How many buckets there are, those below and above all bounds included."""
    ((name, buckets),) = options.items()
    return len(buckets["bounds"]) + 1 if name == "explicitBuckets" else int(buckets["numFiniteBuckets"]) + 2


def _refused(words: str) -> Fault:
    return Fault("INVALID_ARGUMENT", words)
