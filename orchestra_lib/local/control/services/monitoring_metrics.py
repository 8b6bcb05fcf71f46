"""Cloud Monitoring's metric descriptors: made by a call, or by the first point that is written.

https://cloud.google.com/monitoring/custom-metrics/creating-metrics#auto-creation
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from orchestra_lib.local.control import standard
from orchestra_lib.local.control.call import Call
from orchestra_lib.local.control.faults import bad_field
from orchestra_lib.local.control.kinds import Body, Kind
from orchestra_lib.local.control.services.monitoring_filters import for_descriptors
from orchestra_lib.local.control.services.monitoring_points import METRIC_DOMAINS, Unwritable
from orchestra_lib.local.control.store import Stored

_MOST_LABELS = 30
_AUTO_CREATED = "Auto created custom metric."


def _id(kind: str) -> str:
    return kind.replace("/", "%2F")


def _new_id(_call: Call, body: Body) -> str:
    return _id(str(body.get("type", "")))


def _check(_call: Call, body: Body, _before: Body | None) -> None:
    kind = body.get("type", "")
    if not kind.startswith(METRIC_DOMAINS):
        raise bad_field(
            "metricDescriptor.type",
            f'Field metricDescriptor.type had an invalid value of "{kind}": The metric type must be a URL-formatted '
            "string with a domain of custom.googleapis.com or external.googleapis.com and a non-empty path.",
        )
    for name in ("metricKind", "valueType"):
        if name not in body:
            raise bad_field(f"metricDescriptor.{name}", f"Field metricDescriptor.{name} must be specified.")


def _fill(call: Call, body: Body, _before: Body | None) -> None:
    body["name"] = _name(call, body["type"])


def _name(call: Call, kind: str) -> str:
    return f"projects/{call.project}/metricDescriptors/{kind}"


def key(call: Call, kind: str) -> str:
    """The key of the descriptor of a metric type in the call's project."""
    return f"monitoring/projects/{call.project}/metricDescriptors/{_id(kind)}"


def create(call: Call) -> Body:
    """A descriptor that is there already is replaced, as the service does."""
    own = key(call, call.body.get("type", ""))
    if call.control.find(own):
        call.control.store.remove(own)
    return standard.create(call)


def list_(call: Call) -> Body:
    """The descriptors that the filter over metric types lets through."""
    call.query["filter"] = for_descriptors(call.query.get("filter", ""))
    return standard.list_(call)


def described(call: Call, metric: Body, given: Body, value_type: str) -> Body:
    """The descriptor of a given time series, made now if it is the first, completed with new labels.

    Raises Unwritable when the time series is not of the kind or of the type that the descriptor says.
    """
    own = key(call, metric["type"])
    row = call.control.find(own)
    body = dict(row.body) if row else _new(call, metric, given, value_type)
    for name, stated, what in (
        ("metricKind", given.get("metricKind", body["metricKind"]), "Metric kind"),
        ("valueType", value_type, "Value type"),
    ):
        if stated != body[name]:
            raise Unwritable(f"{what} for metric {metric['type']} must be {body[name]}, but is {stated}.")
    labels = _with_labels(body, metric)
    if row is None or labels != body.get("labels", []):
        call.control.store.put(own, {**body, "labels": labels} if labels else body)
    return body


def _new(call: Call, metric: Body, given: Body, value_type: str) -> Body:
    kind = given.get("metricKind", "GAUGE")
    if kind not in ("GAUGE", "CUMULATIVE"):
        raise Unwritable(f"Metric kind for metric {metric['type']} must be GAUGE or CUMULATIVE, but is {kind}.")
    if kind == "CUMULATIVE" and value_type == "BOOL":
        raise Unwritable(f"Metric kind for metric {metric['type']} must be GAUGE, but is CUMULATIVE.")
    unit = {"unit": given["unit"]} if "unit" in given else {}
    return {
        "name": _name(call, metric["type"]),
        "type": metric["type"],
        "metricKind": kind,
        "valueType": value_type,
        **unit,
        "description": given.get("description", _AUTO_CREATED),
    }


def _with_labels(body: Body, metric: Body) -> list[dict[str, Any]]:
    known = list(body.get("labels", []))
    new = sorted(set(metric.get("labels", {})) - {label["key"] for label in known})
    if len(known) + len(new) > _MOST_LABELS:
        words = f"would cause the metric {metric['type']} to have over {_MOST_LABELS} labels."
        raise Unwritable(f"The new labels {words}")
    return [*known, *({"key": label} for label in new)]


def descriptors(before_delete: Callable[[Call, Stored], None]) -> Kind:
    """The row of the descriptors; ``before_delete`` removes what was written under one."""
    return Kind(
        "metricDescriptors",
        new_id=_new_id,
        check=_check,
        fill=_fill,
        before_delete=before_delete,
        not_found="Could not find descriptor for metric '{id}'.",
    )
