"""Cloud Monitoring's time series: points are written, kept for a while and listed; nothing is aggregated.

What can be written of a request is written, also when the rest is refused.
https://cloud.google.com/monitoring/api/ref_v3/rest/v3/projects.timeSeries
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Any

from orchestra_lib.local.control import filters
from orchestra_lib.local.control.call import Call
from orchestra_lib.local.control.faults import Fault, bad_field
from orchestra_lib.local.control.kinds import Body, Handler
from orchestra_lib.local.control.pages import page
from orchestra_lib.local.control.services import monitoring_filters, monitoring_metrics, monitoring_points
from orchestra_lib.local.control.services.monitoring_points import Interval, Unwritable, moment, shown_moment
from orchestra_lib.local.control.store import Stored

# https://cloud.google.com/monitoring/quotas: one point each 5 seconds.
_SAMPLING = timedelta(seconds=5)
# Of each time series, the newest points: at one each ten seconds, those of almost six hours.
_POINTS_KEPT = 2048
# A time series that got no point for so long makes room when a new one begins.
_IDLE_KEPT = timedelta(days=2)
_LARGEST_PAGE = 100_000
_FULL, _HEADERS = "FULL", "HEADERS"
_NO_AGGREGATION = frozenset({"", "ALIGN_NONE", "REDUCE_NONE"})
_OUT_OF_ORDER = "Points must be written in order. One or more of the points specified had an older {} time than the "
_OUT_OF_ORDER += "most recent point."
_TOO_OFTEN = "One or more points were written more frequently than the maximum sampling period configured for the "
_TOO_OFTEN += "metric."


# --- create -------------------------------------------------------------------------------------------------------


def _create(call: Call) -> Body:
    """Write the point of each given time series. Raises Fault (400) that counts those that could not be written."""
    given = [_specified(one) for one in call.body.get("timeSeries", [])]
    monitoring_points.require_one_point_each(given)
    refused: dict[int, Unwritable] = {}
    with call.control.writing():
        for index, one in enumerate(given):
            try:
                _write(call, index, one)
            except Unwritable as error:
                refused[index] = error
    if refused:
        raise _partly_refused(len(given), refused)
    return {}


def _specified(given: Body) -> Body:
    """A time series without the enums that say that nothing is said."""
    return {name: value for name, value in given.items() if not str(value).endswith("_UNSPECIFIED")}


def _write(call: Call, index: int, given: Body) -> None:
    metric = monitoring_points.metric_of(given, index)
    resource = monitoring_points.resource_of(given, index, str(call.project), call.project_number)
    value_type = monitoring_points.value_type_of(given, index)
    metric_kind = monitoring_metrics.described(call, metric, given, value_type)["metricKind"]
    interval = monitoring_points.interval_of(given, index, metric["type"], metric_kind, _now(call))
    header = {"metric": metric, "resource": resource, "metricKind": metric_kind, "valueType": value_type}
    key = (
        f"{_collection(call)}/{hashlib.sha256(monitoring_points.identity(metric, resource).encode()).hexdigest()[:32]}"
    )
    row = call.control.store.get(key)
    if row is None:
        _make_room(call)
    else:
        _require_later(header, _last(row), interval)
    _keep(call, key, header, int(row.hidden["written"]) if row else 0, interval, given["points"][0]["value"])


def _keep(call: Call, key: str, header: Body, written: int, interval: Interval, value: Body) -> None:
    """Put the point in the place of the oldest one, once there are as many as are kept."""
    times = {"startTime": shown_moment(interval.start), "endTime": shown_moment(interval.end)}
    call.control.store.put(key, header, {"written": written + 1, "interval": times})
    point = {"interval": times, "value": value}
    call.control.store.put(f"{key}/points/{written % _POINTS_KEPT:04}", point)


def _require_later(header: Body, last: Interval, new: Interval) -> None:
    """Raise Unwritable for a point that does not follow the last one, or follows it too soon."""
    if new.end < last.end:
        raise _conflict(header, _OUT_OF_ORDER.format("end"))
    # A counter goes on from its start, or begins anew after its last point; a delta begins after it.
    goes_on = header["metricKind"] == "CUMULATIVE" and new.start == last.start
    if header["metricKind"] != "GAUGE" and not goes_on and new.start <= last.end:
        raise _conflict(header, _OUT_OF_ORDER.format("start"))
    if new.end - last.end < _SAMPLING:
        times = [f"'{monitoring_points.in_a_message(at)}'" for at in (last.end, new.end)]
        compared = f"Timestamps: {{Youngest Existing: {times[0]}, New: {times[1]}}}"
        raise _conflict(header, _TOO_OFTEN, f" {{Metric: {header['metric']['type']}, {compared}}}")


def _conflict(header: Body, words: str, detail: str = "") -> Unwritable:
    metric, resource = header["metric"], header["resource"]
    labels = ", ".join(f'"{name}": "{value}"' for name, value in sorted(metric.get("labels", {}).items()))
    # The project is in the request's path: the service does not repeat it.
    own = ",".join(f"{name}:{value}" for name, value in resource["labels"].items() if name != "project_id")
    return Unwritable(
        words,
        context=f"write for resource={resource['type']}{{{own}}} failed with: ",
        example=f' (example metric.type="{metric["type"]}", metric.labels={{{labels}}})',
        detail=detail,
    )


def _partly_refused(total: int, refused: Mapping[int, Unwritable]) -> Fault:
    """400 that says which time series were not written and why; the others were."""
    alike: dict[tuple[str, str], list[int]] = {}
    for index, error in refused.items():
        alike.setdefault((error.context, error.words), []).append(index)
    sentences = []
    for (context, words), indices in alike.items():
        first = refused[indices[0]]
        sentences.append(f"timeSeries[{_ranges(indices)}]{first.example}: {context}{words}{first.detail}")
    written = total - len(refused)
    summary = {
        "@type": "type.googleapis.com/google.monitoring.v3.CreateTimeSeriesSummary",
        "totalPointCount": total,
        **({"successPointCount": written} if written else {}),
        "errors": [{"status": {"code": 3}, "pointCount": len(refused)}],
    }
    message = f"One or more TimeSeries could not be written: {'; '.join(sentences)}"
    return Fault("INVALID_ARGUMENT", message, details=[summary])


def _ranges(indices: Sequence[int]) -> str:
    """``0-2,5`` for 0, 1, 2, 5."""
    runs = [list(run) for _, run in groupby(enumerate(indices), lambda pair: pair[1] - pair[0])]
    return ",".join(f"{run[0][1]}-{run[-1][1]}" if len(run) > 1 else str(run[0][1]) for run in runs)


# --- list ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Wanted:
    """The interval of a list: after ``start``, up to and with ``end``; exactly ``end`` where they are the same."""

    start: datetime
    end: datetime

    def holds(self, point: Mapping[str, Any]) -> bool:
        at = moment(point["interval"]["endTime"])
        return at == self.end if self.start == self.end else self.start < at <= self.end


def _list(call: Call) -> Body:
    """One page of the points, or of the headers, of the time series of one metric that the filter lets through."""
    _require_served(call)
    metric, text = monitoring_filters.for_series(call.query.get("filter", ""))
    wanted = _wanted(call.query)
    descriptor = call.control.find(monitoring_metrics.key(call, metric))
    if descriptor is None:
        later = "If a metric was created recently, it could take up to 10 minutes to become available. Please try again"
        raise Fault("NOT_FOUND", f'Cannot find metric(s) that match type = "{metric}". {later} soon.')
    matches = filters.compiled(text)
    rows = [row for row in _rows(call) if row.body["metric"]["type"] == metric and matches(row.body)]
    points = [(row, point) for row in rows for point in _points(call, row) if wanted.holds(point)]
    if call.query.get("view", _FULL) == _HEADERS:
        headers = list({row.key: row for row, _ in points}.values())
        chosen, token = page(headers, call.query, usual=_LARGEST_PAGE, largest=_LARGEST_PAGE)
        shown = [row.body for row in chosen]
    else:
        found, token = page(points, call.query, usual=_LARGEST_PAGE, largest=_LARGEST_PAGE)
        shown = [
            {**row.body, "points": [point for _, point in group]}
            for row, group in ((pairs[0][0], pairs) for pairs in _by_series(found))
        ]
    answer: Body = {"timeSeries": shown} if shown else {}
    unit = descriptor.body.get("unit")
    return {**answer, **({"nextPageToken": token} if token else {}), **({"unit": unit} if unit and shown else {})}


def _by_series(found: Sequence[tuple[Stored, Body]]) -> list[list[tuple[Stored, Body]]]:
    return [list(pairs) for _, pairs in groupby(found, lambda pair: pair[0].key)]


def _require_served(call: Call) -> None:
    """Raise Fault: 501 for what is not served here, 400 for what the service does not do either."""
    if call.project is None:
        raise Fault("UNIMPLEMENTED", "The local Google Cloud lists the time series of projects only.")
    for name, value in call.query.items():
        if name.endswith((".perSeriesAligner", ".crossSeriesReducer")) and value not in _NO_AGGREGATION:
            raise Fault("UNIMPLEMENTED", f"The local Google Cloud does not aggregate time series: {name}={value}.")
    if call.query.get("orderBy"):
        words = "Ordering is not supported."
        raise bad_field("orderBy", f'Field order_by had an invalid value of "{call.query["orderBy"]}": {words}')


def _wanted(query: Mapping[str, str]) -> _Wanted:
    if not query.get("interval.endTime"):
        raise bad_field("interval.endTime", "Request was missing field interval.endTime.")
    end = moment(query["interval.endTime"])
    start = moment(query["interval.startTime"]) if query.get("interval.startTime") else end
    if start > end:
        words = f"The start time must not be later than the end time ({shown_moment(end)})."
        place = f'Field interval.start_time had an invalid value of "{shown_moment(start)}"'
        raise bad_field("interval.startTime", f"{place}: {words}")
    return _Wanted(start, end)


# --- what is kept -------------------------------------------------------------------------------------------------


def _collection(call: Call) -> str:
    return f"monitoring/projects/{call.project}/timeSeries"


def _rows(call: Call) -> list[Stored]:
    return call.control.store.children(f"monitoring/projects/{call.project}", "monitoring/timeSeries")


def _points(call: Call, row: Stored) -> list[Body]:
    """The points of a time series, newest first."""
    kept = [point.body for point in call.control.store.children(row.key, "monitoring/points")]
    return sorted(kept, key=lambda point: moment(point["interval"]["endTime"]), reverse=True)


def _last(row: Stored) -> Interval:
    times = row.hidden["interval"]
    return Interval(moment(times["startTime"]), moment(times["endTime"]))


def _now(call: Call) -> datetime:
    return datetime.fromtimestamp(call.now, UTC)


def _make_room(call: Call) -> None:
    for row in _rows(call):
        if _last(row).end < _now(call) - _IDLE_KEPT:
            call.control.store.remove(row.key)


def forget(call: Call, descriptor: Stored) -> None:
    """Remove what was written under a metric descriptor that is being deleted."""
    for row in _rows(call):
        if row.body["metric"]["type"] == descriptor.body["type"]:
            call.control.store.remove(row.key)


METHODS: Mapping[str, Handler] = {"timeSeries.create": _create, "timeSeries.list": _list}
"""Handlers by short id."""

OUTSIDE = frozenset({"timeSeries.create"})
"""Those of them that write in a transaction of their own."""
