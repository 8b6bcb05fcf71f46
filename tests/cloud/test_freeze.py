"""A feature freeze as others see it: the project's label and the organisation's log of a running local Google Cloud."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from planes import Plane

from orchestra_lib.cloud.client import Client
from orchestra_lib.cloud.freeze import LABEL, LOG, label_of, publish, reading
from orchestra_lib.cloud.place import Place
from orchestra_lib.cloud.refusals import CloudRefused
from orchestra_lib.evidence import Source, Verdict
from orchestra_lib.settings.windows import Window

ORGANIZATION = "873291114285"
API = "cloudresourcemanager.v3"
SATURDAY = datetime(2027, 1, 17, 4, 30, tzinfo=UTC)  # 22:30 on the 16th in Chicago
NOON = datetime(2027, 1, 16, 18, tzinfo=UTC)
TOLD = {"operator": "ada", "run": "run-1", "runbook": "03_memory"}


def freeze(name: str = "memory-freeze", **values: Any) -> Window:
    plain = {"purpose": "feature_freeze", "phases": ["03"], "timezone": "America/Chicago", "days": ["SATURDAY"]}
    return Window.model_validate({**plain, "begins": "22:00", "ends": "06:00", "name": name, **values})


@pytest.fixture
def client(plane: Plane, project: str) -> Client:
    """A client of a project that has a label of its own."""
    found = plane.client()
    body = {"projectId": project, "parent": f"organizations/{ORGANIZATION}", "labels": {"application": "ai-orchestra"}}
    made = found.call(API, "cloudresourcemanager.projects.create", "projects", body=body)
    found.finish(API, project, made, 20.0)
    return found


@pytest.fixture
def place(project: str) -> Place:
    return Place(project, ORGANIZATION, None, Source.REHEARSED)


def labels(client: Client, place: Place) -> dict[str, str]:
    return dict(client.call(API, "cloudresourcemanager.projects.get", f"projects/{place.project}")["labels"])


def entries(client: Client, place: Place) -> list[dict[str, Any]]:
    body = {"resourceNames": [f"organizations/{ORGANIZATION}"], "filter": f'log_id("{LOG}")'}
    found = client.call("logging.v2", "logging.entries.list", "entries:list", body=body).get("entries", [])
    return [one["jsonPayload"] for one in found if one["jsonPayload"]["project"] == place.project]


def test_a_freeze_comes_and_goes_and_leaves_the_other_labels_alone(client: Client, place: Place) -> None:
    (row,) = publish(client, place, [freeze()], SATURDAY, TOLD)
    assert row.verdict is Verdict.REHEARSED
    assert labels(client, place) == {"application": "ai-orchestra", LABEL: "memory-freeze-until-20270117t1200z"}
    assert reading(client, place).value == "memory-freeze-until-20270117t1200z"
    publish(client, place, [freeze()], SATURDAY, TOLD)
    publish(client, place, [freeze()], NOON, TOLD)
    assert labels(client, place) == {"application": "ai-orchestra"}
    assert [entry["message"] for entry in entries(client, place)] == [
        f"features of {place.project} are frozen: memory-freeze-until-20270117t1200z",
        "the freeze memory-freeze-until-20270117t1200z is over",
    ], "what did not change is not told twice"
    assert {entry["operator"] for entry in entries(client, place)} == {"ada"}


def test_a_freeze_that_the_log_did_not_take_is_told_by_the_next_run(plane: Plane, client: Client, place: Place) -> None:
    plane.inject(faults=[{"method": "logging.entries.write", "answer": 503}])
    with pytest.raises(CloudRefused):
        publish(client, place, [freeze()], SATURDAY, TOLD)
    plane.inject()
    assert LABEL not in labels(client, place), "it says what the log does not know"
    publish(client, place, [freeze()], SATURDAY, TOLD)
    assert [entry["run"] for entry in entries(client, place)] == ["run-1"]


def test_of_two_open_freezes_the_label_tells_the_one_that_lasts_longer() -> None:
    longer = freeze(
        "release-freeze", days=None, begins="00:00", ends="24:00", first_day="2027-01-10", last_day="2027-01-20"
    )
    assert label_of([freeze(), longer], SATURDAY) == "release-freeze-until-20270121t0600z"
    assert label_of([freeze(), longer], NOON) == "release-freeze-until-20270121t0600z"
    endless = freeze("forever", days=None, begins="00:00", ends="24:00", first_day="2027-01-10")
    assert label_of([longer, endless], NOON) == "forever-until-further-notice"


def test_a_testing_window_freezes_nothing() -> None:
    assert label_of([freeze(purpose="testing")], SATURDAY) is None


def test_every_label_is_one_that_google_takes() -> None:
    longest = freeze("a" * 31, days=None, begins="00:00", ends="24:00", first_day="2027-01-10")
    assert len(str(label_of([longest], SATURDAY))) <= 63


def test_a_project_that_is_not_there_is_said_and_not_passed_over(client: Client) -> None:
    with pytest.raises(CloudRefused):
        publish(client, Place("nobody-has-this", ORGANIZATION, None, Source.REHEARSED), [freeze()], SATURDAY, TOLD)
