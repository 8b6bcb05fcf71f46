"""The traffic goes back to what served before a run, whichever run since let another revision take over."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestra_lib import settings
from orchestra_lib.evidence import Source, Verdict
from orchestra_lib.phases import api_release
from orchestra_lib.phases.api_release import TrafficReturn
from orchestra_lib.rollout.blue_green import Gate, roll_out
from orchestra_lib.rollout.comparison import Requests
from orchestra_lib.rollout.journal import Outcome, RolloutJournal
from orchestra_lib.rollout.service import RunService, Share, revision_name

ASKED = Requests(({"method": "GET", "url": "/"},), dict, {"answered_by": "it names the revision"})
GATE = Gate(percents=(100,), warm_requests=1, requests=20, latency_ratio=1_000)
RUNS = tuple(f"20261126T1{hour}0000Z-000000" for hour in range(4))


@pytest.fixture
def journal(tmp_path: Path) -> RolloutJournal:
    return RolloutJournal(tmp_path / "rollouts.jsonl")


@pytest.fixture
def since(bench, journal, monkeypatch):
    """The return of a service's traffic to what was before a run."""

    def opened(service: RunService, run: str) -> TrafficReturn:
        monkeypatch.setattr(api_release, "rollouts", lambda _settings: journal)
        monkeypatch.setattr(api_release, "_service_path", lambda _settings: service.name)
        return TrafficReturn(settings.load("local"), bench.client, run)

    return opened


def test_a_run_whose_own_rollout_was_undone_takes_the_traffic_of_the_next_one_back(bench, journal, since):
    service, template = bench.service(), bench.template(GREETING="new")
    blue = service.serving()
    journal.end(journal.begin(service.name, blue, "closed", RUNS[1]), Outcome.UNDONE, "its gate stayed closed")
    green = roll_out(service, template, ASKED, GATE, journal, Source.REHEARSED, run_id=RUNS[2]).green
    assert since(service, RUNS[3]).changes() == ()
    found = since(service, RUNS[1])
    assert found.journalled == 1
    assert found.evidence()[0].verdict is Verdict.FAIL
    assert [(change.before, change.after) for change in found.changes()] == [(green, blue)]
    assert found.apply() == 1
    assert service.serving() == blue
    assert found.evidence()[0].verdict is Verdict.PASS
    assert found.changes() == ()
    assert since(service, RUNS[0]).journalled == 0, "a run that nobody knows is not known by those after it"


@pytest.mark.parametrize("is_decided", [False, True])
def test_a_rollout_that_was_cut_off_is_ended_before_the_traffic_goes_back(bench, journal, since, is_decided):
    service, template = bench.service(), bench.template(GREETING="new")
    blue, green = service.serving(), revision_name(service.id, template)
    service.deploy(template, green, [Share(blue, 50, "blue"), Share(green, 50, "green")])
    left = journal.begin(service.name, blue, green, RUNS[1])
    journal.shift(left, 50)
    if is_decided:
        journal.decide(left)
    found = since(service, RUNS[1])
    assert found.check().verdict is Verdict.PASS
    divided = f"50 % to {blue}, 50 % to {green}"
    back = [(divided, green), (green, blue)] if is_decided else [(divided, blue)]
    assert [(change.before, change.after) for change in found.changes()] == back
    found.apply()
    assert service.serving() == blue
    assert journal.unfinished(service.name) is None
    assert found.evidence()[0].verdict is Verdict.PASS
