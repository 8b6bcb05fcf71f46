"""A feature freeze that others can see: a label on the project, and an entry in the organisation's log.

A label says how things are, so a build can look at it before it brings changes in:
``gcloud projects describe PROJECT --format 'value(labels.feature-freeze)'``. The log says when it came and went, to
everybody who reads the organisation's: ``gcloud logging read 'log_id("orchestra-feature-freeze")' --organization ID``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from orchestra_lib.cloud.client import Client
from orchestra_lib.cloud.place import Place
from orchestra_lib.evidence import Evidence, yes_or_no
from orchestra_lib.settings.windows import Window
from orchestra_lib.windows import FREEZE, closes, is_open

LABEL = "feature-freeze"
LOG = "orchestra-feature-freeze"

_PROJECTS, _LOGGING = "cloudresourcemanager.v3", "logging.v2"
_TIMEOUT_SECONDS = 120.0
_NO_END = "further-notice"


def label_of(windows: Sequence[Window], now: datetime) -> str | None:
    """The label's value, such as ``memory-freeze-until-20270117t1200z``: the open freeze that lasts longest, in UTC.

    None when no freeze is open.
    """
    frozen = {
        window.name: closes(window, now) for window in windows if window.purpose == FREEZE and is_open(window, now)
    }
    endless = next((name for name, end in frozen.items() if end is None), None)
    if endless is not None:
        return f"{endless}-until-{_NO_END}"
    ends = {name: end for name, end in frozen.items() if end is not None}
    if not ends:
        return None
    name = max(ends, key=lambda one: ends[one])
    return f"{name}-until-{ends[name]:%Y%m%dt%H%Mz}"


def publish(
    client: Client, place: Place, windows: Sequence[Window], now: datetime, told: Mapping[str, str]
) -> tuple[Evidence, ...]:
    """Bring the project's label in line with the freezes that are open now, and read it back.

    When that changes something it is written to the organisation's log too, with ``told`` beside it: who, in which run.
    Raises CloudRefused when one of them is refused, as without ``resourcemanager.projects.update`` or
    ``logging.logEntries.create`` on the organisation.
    """
    wanted, found = label_of(windows, now), _labels(client, place).get(LABEL)
    if wanted != found:
        # The entry first: by the label the next run sees whether something is left to tell. Cut off in between it is
        # told twice, and never not at all.
        _write_entry(client, place, wanted, found, told)
        _write_label(client, place, wanted)
    live = _labels(client, place).get(LABEL)
    changed = "as it was" if wanted == found else f"it was {found or 'not there'}; the organisation's log says so"
    return (
        yes_or_no(
            "the project's label tells whether features are frozen",
            place.source,
            live == wanted,
            command=f"gcloud projects describe {place.project} --format 'value(labels.{LABEL})'",
            note=f"{LABEL} is {live or 'not there: no freeze'}; {changed}",
        ),
    )


def reading(client: Client, place: Place) -> Evidence:
    """The label as it is."""
    return Evidence("feature freeze, by the project's label", place.source, _labels(client, place).get(LABEL) or "none")


def _labels(client: Client, place: Place) -> dict[str, str]:
    return dict(_project(client, place).get("labels", {}))


def _project(client: Client, place: Place) -> dict[str, Any]:
    return client.call(_PROJECTS, "cloudresourcemanager.projects.get", f"projects/{place.project}")


def _write_label(client: Client, place: Place, wanted: str | None) -> None:
    """Labels are written as a whole; the etag keeps out whoever has changed them meanwhile."""
    project = _project(client, place)
    labels = {name: value for name, value in project.get("labels", {}).items() if name != LABEL}
    body = {"labels": {**labels, **({LABEL: wanted} if wanted else {})}, "etag": project.get("etag", "")}
    operation = client.call(
        _PROJECTS,
        "cloudresourcemanager.projects.patch",
        f"projects/{place.project}",
        body={name: value for name, value in body.items() if value != ""},
        query={"updateMask": "labels"},
    )
    client.finish(_PROJECTS, f"label {place.project}", operation, _TIMEOUT_SECONDS)


def _write_entry(client: Client, place: Place, wanted: str | None, found: str | None, told: Mapping[str, str]) -> None:
    parent = f"organizations/{place.organization}"
    message = f"features of {place.project} are frozen: {wanted}" if wanted else f"the freeze {found} is over"
    entry = {
        "logName": f"{parent}/logs/{LOG}",
        "resource": {"type": "organization", "labels": {"organization_id": place.organization}},
        "severity": "NOTICE",
        "jsonPayload": {"message": message, "project": place.project, **told},
    }
    client.call(_LOGGING, "logging.entries.write", "entries:write", body={"entries": [entry]})
