"""A revision that answers as the one before takes over; one that does not is taken back, whatever cut it off."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest
from run_planes import INVOKER, soon

from orchestra_lib.cloud.refusals import CloudRefused
from orchestra_lib.errors import GateFailed, RecordError
from orchestra_lib.evidence import Source
from orchestra_lib.rollout.blue_green import BLUE, GREEN, Gate, is_served, recover, redirect, roll_out
from orchestra_lib.rollout.comparison import Requests, compare
from orchestra_lib.rollout.journal import Outcome, RolloutJournal
from orchestra_lib.rollout.service import RunService, Share, is_revision_of, revision_name

ASKED = Requests(({"method": "GET", "url": "/"},), dict, {"answered_by": "it names the revision"})
# Two processes on a busy machine: a ratio of 3 is far above noise, and what the slow one is, is far above 3.
GATE = Gate(warm_requests=5, requests=40, latency_ratio=3.0)


class Load:
    """Requests one after the other from two threads as long as the block lasts; statuses and revisions are kept."""

    def __init__(self, uri: str) -> None:
        self._uri, self._stop = uri, threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(2)]
        self.answers: list[tuple[float, int, str]] = []

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        with httpx.Client(trust_env=False, timeout=20) as client:
            while not self._stop.is_set():
                sent = time.perf_counter()
                got = client.get(self._uri)
                self.answers.append((sent, got.status_code, got.json()["answered_by"] if got.is_success else ""))


@pytest.fixture
def journal(tmp_path: Path) -> RolloutJournal:
    return RolloutJournal(tmp_path / "rollouts.jsonl")


def answered(service):
    """What a client gets, and from whom."""
    got = httpx.get(service.uri(), trust_env=False, timeout=20)
    return got.status_code, got.json(), [share.percent for share in service.shares() if share.percent]


def test_a_revision_that_answers_alike_takes_over_and_goes_back_in_one_call(bench, journal):
    service, template = bench.service(), bench.template(GREETING="new")
    blue = service.serving()
    assert not is_served(service, template)
    before = answered(service)
    with Load(service.uri()) as load:
        done = roll_out(service, template, ASKED, GATE, journal, Source.REHEARSED)
        assert (done.blue, service.serving()) == (blue, done.green)
        assert answered(service) != before
        asked = time.perf_counter()
        seconds = redirect(service, blue)
        back = time.perf_counter()
        time.sleep(0.2)
    assert answered(service) == before, "the strategy's procedure: traffic goes back at once, and all is as it was"
    assert {status for _, status, _ in load.answers} == {200}, "nobody notices"
    assert {revision for sent, _, revision in load.answers if sent > back} == {blue}
    assert {revision for sent, _, revision in load.answers if sent < asked} == {blue, done.green}
    assert seconds < 1
    assert [step.percent for step in done.steps] == [0, 5, 25, 100]
    assert all(row.verdict == "REHEARSED" for step in done.steps for row in step.rows)
    assert {share.tag for share in service.shares()} == {BLUE, GREEN}, "a tag keeps instances up"
    redirect(service, done.green)
    assert is_served(service, template)
    assert RolloutJournal(journal.path).previous(service.name) == blue
    assert [one.percents for one in RolloutJournal(journal.path).rollouts] == [[5, 25, 100]]


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"ROWS": "a c b"}, "the same rows in another order"),
        ({"ROWS": "a b d"}, "2 rows that only one of them has"),
        ({"STATUS": "500"}, "blue answers 200, green 500"),
        ({"SECONDS": "0.05"}, "latency of green divided by blue's"),
    ],
)
def test_a_revision_that_differs_gets_no_traffic(bench, journal, environment, words):
    service = bench.service()
    blue = service.serving()
    with pytest.raises(GateFailed, match=f"at 0 % of the traffic: .*{words}") as failed:
        roll_out(service, bench.template(**environment), ASKED, GATE, journal, Source.REHEARSED)
    assert failed.value.failures
    assert service.shares() == (Share(blue, 100, BLUE),)
    assert [(one.outcome, one.percents) for one in journal.rollouts] == [(Outcome.UNDONE, [])]


def test_a_revision_that_does_not_start_leaves_everything_and_another_attempt_has_another_name(bench, journal):
    service, template = bench.service(), bench.template(READY_STATUS="503")
    template["containers"][0]["startupProbe"] = {"failureThreshold": 1, "httpGet": {"path": "/ready"}}
    template["containers"][0]["startupProbe"] |= {"periodSeconds": 2, "timeoutSeconds": 2}
    blue = service.serving()
    with pytest.raises(CloudRefused, match="/ready was answered 503"):
        roll_out(service, template, ASKED, GATE, journal, Source.REHEARSED)
    assert service.serving() == blue
    names = {revision_name("api", template) for _ in range(3)}
    assert len(names) == 3
    assert all(is_revision_of(name, template) for name in names)
    assert not is_revision_of(names.pop(), bench.template())


@pytest.mark.parametrize(("dies", "green_stays"), [("25 %", False), ("decided", True)])
def test_a_rollout_that_is_killed_is_completed_or_taken_back_by_the_next_run(bench, journal, dies, green_stays):
    service, template = bench.service(), bench.template(GREETING="new")
    blue = service.serving()
    script = Path(__file__).parent / "killed_rollout.py"
    planes, arguments = bench.planes, (service.name, str(journal.path), json.dumps(template), dies)
    ended = subprocess.run([sys.executable, str(script), planes.url, planes.token, *arguments], check=False, timeout=60)
    assert ended.returncode == -signal.SIGKILL
    found = RolloutJournal(journal.path)
    with pytest.raises(RecordError, match="has not ended; recover it first"):
        found.begin(service.name, "a", "b")
    recover(service, found)
    assert is_served(service, template) is green_stays
    assert (service.serving() == blue) is not green_stays
    assert [one.outcome for one in found.rollouts] == [Outcome.DONE if green_stays else Outcome.UNDONE]
    assert recover(service, found) is None


def test_divided_traffic_is_said_and_not_rolled_out_over(bench, journal):
    service = bench.service()
    blue, green = service.serving(), revision_name(service.id, bench.template(GREETING="x"))
    service.deploy(bench.template(GREETING="x"), green, [Share(blue, 60), Share(green, 40)])
    with pytest.raises(GateFailed, match=rf"60 % to {blue}, 40 % to {green}: send all of it to one revision first"):
        roll_out(service, bench.template(), ASKED, GATE, journal, Source.REHEARSED)
    assert not journal.rollouts


def test_an_address_that_nobody_answers_at_is_a_difference_and_no_exception(bench):
    found = compare(bench.service().uri(), "http://127.0.0.1:9", ASKED, 2)
    assert found.answered_by_both == 0
    assert found.failed_by_green_alone == 2
    assert "green no answer (ConnectError)" in found.told()


def test_a_private_service_is_rolled_out_with_a_token_for_its_own_address_at_the_tags_too(bench, journal):
    planes = bench.planes
    made = planes.service("private-api", template=bench.template())
    made.allow(f"serviceAccount:{INVOKER}")
    service = RunService(bench.client, made.name)
    token = planes.id_token(INVOKER, made.uri)
    soon(lambda: httpx.get(made.uri, headers=bearer(token), trust_env=False).status_code == 200)
    few = Gate(percents=(100,), warm_requests=1, requests=20, latency_ratio=1_000)
    with pytest.raises(GateFailed, match=r"answers that differ from blue's: .*0 compared"):
        roll_out(service, bench.template(GREETING="x"), ASKED, few, journal, Source.REHEARSED)
    asked = Requests(ASKED.requests, lambda: bearer(token), ASKED.explained)
    done = roll_out(service, bench.template(GREETING="x"), asked, few, journal, Source.REHEARSED)
    assert service.serving() == done.green


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}
