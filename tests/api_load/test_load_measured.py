"""A service of known capacity is measured as what it is."""

from __future__ import annotations

import asyncio
import re
import threading
from dataclasses import replace

import pytest
from http2_server import Http2

from orchestra_lib.api_load import limit as limit_module
from orchestra_lib.api_load.forms import SHORT
from orchestra_lib.api_load.in_flight import sweep
from orchestra_lib.api_load.limit import find_limit
from orchestra_lib.api_load.overload import Overload, overload
from orchestra_lib.api_load.protocol import speaks_http2
from orchestra_lib.api_load.rates import measure_rates
from orchestra_lib.api_load.report import overload_evidence, rates_evidence
from orchestra_lib.api_load.saturation import Saturation, find_saturation
from orchestra_lib.api_load.workload import WRONG_ANSWER, Kind, Workload
from orchestra_lib.bench.load import Load
from orchestra_lib.errors import GateFailed
from orchestra_lib.evidence import Source, Verdict

# 200 a second: one at a time, each for five milliseconds.
ONE_AT_A_TIME = {"AT_ONCE": 1, "SECONDS": 0.005}
FORM = replace(
    SHORT, rates=(20.0, 60.0), rate_seconds=0.8, fewest=4, first_rate=40.0, step_seconds=0.6, saturation_seconds=5.0,
    calm_seconds=0.2, overload_seconds=0.6, after_seconds=1.4, level_seconds=0.4,
)  # fmt: skip


def bears(per_second: float, where: object = None) -> Saturation:
    """A saturation point that was found elsewhere."""
    return Saturation(per_second, 1.1 * per_second, "", True, (), 0.0, where)  # type: ignore[arg-type]


def test_each_kind_is_measured_at_each_rate_and_what_is_right_is_known(workload):
    asked = workload(**ONE_AT_A_TIME).learnt()
    assert [answer.decode() for answer in asked.answers] == ["/search/0", "/history", "/search/1", "/history", "/search/2", "/history"]  # fmt: skip  # noqa: E501
    measured = measure_rates(asked, FORM)
    assert [one.stated_per_second for one in measured.at_rates] == [20, 60]
    assert not measured.http2_is_spoken
    for one in measured.at_rates:
        assert [seen.kind for seen in one.kinds] == ["search", "retrieval"]
        assert all(seen.failed == 0 and seen.p50_ms.value >= 5 for seen in one.kinds)
        assert all(seen.server_p95_ms.value == 5 for seen in one.kinds)
        assert abs(one.kinds[0].requests - one.kinds[1].requests) <= 3, "each part begins with the first"
    rows = rates_evidence(measured, Source.REHEARSED)
    assert [row.target is not None for row in rows if row.claim.startswith("p95")] == [True, True, False, False]
    assert [row.target is not None for row in rates_evidence(measured, Source.MEASURED)][:4] == [True] * 4
    (spoken,) = [row for row in rows if row.claim == "measured over"]
    assert (spoken.value, spoken.verdict) == ("HTTP/1.1", Verdict.NOTED)


def test_the_saturation_point_of_a_real_service_is_below_its_capacity(workload):
    found = find_saturation(workload(**ONE_AT_A_TIME), replace(FORM, saturation_seconds=3.0))
    assert found.holds_per_second < 210, "one that works, five milliseconds for each"
    assert found.steps[0].kinds[0].requests > 5


def test_so_many_are_in_flight_and_no_more(workload):
    one, four = sweep(workload(AT_ONCE=4, SECONDS=0.02), replace(FORM, levels=(1, 4))).levels
    assert one.per_second.value < 51
    assert one.per_second.value < four.per_second.value < 205


def test_a_service_that_refuses_in_time_is_overloaded_and_itself_again_at_once(workload):
    asked = workload(**ONE_AT_A_TIME, LIMIT=6).learnt()
    # Goals that a machine keeps which others use, too: what is not kept here is what a queue of all of them would do.
    patient = replace(asked, kinds=tuple(replace(kind, goal_p95_ms=250.0) for kind in asked.kinds))
    found = overload(patient, bears(150), FORM)
    assert found.during.shed > 30
    assert found.answered.p95_ms.value < 250
    assert found.recovery_seconds is not None
    assert found.answered_per_second > 50
    rows = {row.claim: row.verdict for row in overload_evidence(found, Source.REHEARSED)}
    assert set(rows.values()) == {Verdict.REHEARSED, Verdict.NOTED}


@pytest.mark.parametrize(
    ("environment", "broken"),
    [
        ({"LIMIT": 6, "SILENT": 1}, {"refused, and told when", "failed in any other way"}),
        ({"LIMIT": 6, "WRONG_ABOVE": 3}, {"answers 2xx that were wrong"}),
        ({}, {"refused, and told when"}),
    ],
)
def test_what_is_wrong_with_how_load_is_refused_is_told(workload, environment, broken):
    asked = workload(**ONE_AT_A_TIME, **environment).learnt()
    found = overload(asked, bears(150), FORM)
    rows = overload_evidence(found, Source.REHEARSED)
    failed = {row.claim for row in rows if row.verdict is Verdict.FAIL}
    assert all(any(word in claim for claim in failed) for word in broken), failed


@pytest.mark.parametrize(("limit", "refuses"), [(20, True), (10_000, False)])
def test_a_point_of_which_twice_is_borne_was_none_and_is_looked_for_once_more(
    workload, monkeypatch: pytest.MonkeyPatch, limit: int, refuses: bool
) -> None:
    # The first was found in a moment that was not the service's own.
    found, notes = [bears(20), bears(150)], []
    monkeypatch.setattr(limit_module, "find_saturation", lambda *_: found.pop(0))
    asked = workload(**ONE_AT_A_TIME, LIMIT=limit).learnt()
    saturated, overloaded = find_limit(asked, FORM, lambda _: None, notes.append)
    assert saturated.holds_per_second == 150
    assert not found
    assert (overloaded.during.shed > 0) is refuses, "the second time counts, whatever it is"
    (note,) = notes
    assert "taken for the saturation point" in note
    assert "looked for once more" in note


def test_a_point_of_which_twice_is_hardly_refused_was_none_either(workload, monkeypatch: pytest.MonkeyPatch) -> None:
    # The machine stood still for a moment, and what had come meanwhile was more than the service takes.
    def with_a_stall(*given: object) -> Overload:
        measured = overload(*given)  # type: ignore[arg-type]
        if not found:
            return measured
        few = {"HTTP 503": measured.during.requests // 30}
        return replace(
            measured, during=replace(measured.during, failures=few), total=replace(measured.total, failures=few)
        )

    found, notes = [bears(60), bears(150)], []
    monkeypatch.setattr(limit_module, "find_saturation", lambda *_: found.pop(0))
    monkeypatch.setattr(limit_module, "overload", with_a_stall)
    saturated, _ = find_limit(workload(**ONE_AT_A_TIME, LIMIT=20).learnt(), FORM, lambda _: None, notes.append)
    assert saturated.holds_per_second == 150
    (note,) = notes
    assert re.search(r"point, [1-9]\d* of \d+ were refused", note)


def test_a_point_of_which_twice_is_refused_is_the_one(workload, monkeypatch: pytest.MonkeyPatch) -> None:
    found, notes = [bears(150)], []
    monkeypatch.setattr(limit_module, "find_saturation", lambda *_: found.pop(0))
    _, overloaded = find_limit(workload(**ONE_AT_A_TIME, LIMIT=6).learnt(), FORM, lambda _: None, notes.append)
    assert overloaded.during.shed > 0
    assert not notes


def test_what_went_wrong_is_not_measured_away(workload, monkeypatch: pytest.MonkeyPatch) -> None:
    def with_a_wrong_answer(*given: object) -> Overload:
        found = overload(*given)  # type: ignore[arg-type]
        return replace(found, total=replace(found.total, failures={WRONG_ANSWER: 1}))

    found = [bears(20)]
    monkeypatch.setattr(limit_module, "find_saturation", lambda *_: found.pop(0))
    monkeypatch.setattr(limit_module, "overload", with_a_wrong_answer)
    asked = workload(**ONE_AT_A_TIME, LIMIT=6).learnt()
    _, overloaded = find_limit(asked, FORM, lambda _: None, lambda _: None)
    rows = {row.claim: row.verdict for row in overload_evidence(overloaded, Source.REHEARSED)}
    assert rows["answers 2xx that were wrong at 2 times the saturation point"] is Verdict.FAIL


def test_an_instance_that_does_not_come_back_is_not_measured_away(workload, monkeypatch: pytest.MonkeyPatch) -> None:
    found, notes = [bears(20), bears(150)], []
    monkeypatch.setattr(limit_module, "find_saturation", lambda *_: found.pop(0))
    monkeypatch.setattr(limit_module, "overload", lambda *given: replace(overload(*given), recovery_seconds=None))
    saturated, overloaded = find_limit(workload(**ONE_AT_A_TIME).learnt(), FORM, lambda _: None, notes.append)
    assert (saturated.holds_per_second, overloaded.recovery_seconds, notes) == (20, None, [])


def test_nothing_is_doubled_that_is_nothing(workload):
    with pytest.raises(GateFailed, match="the API bears no rate that was offered"):
        overload(workload(**ONE_AT_A_TIME), bears(0), FORM)


def test_what_is_refused_in_peace_is_not_measured(workload):
    asked = workload(**ONE_AT_A_TIME)
    missing = replace(asked, kinds=(Kind("missing", ({"method": "GET", "url": "/missing"},), 1.0),))
    with pytest.raises(GateFailed, match="GET /missing was answered 404 in peace"):
        missing.learnt()
    with pytest.raises(GateFailed, match="was not answered in peace"):
        asked.at("http://127.0.0.1:9").learnt()


def test_http2_is_asked_for_and_not_assumed(workload):
    asked = workload(**ONE_AT_A_TIME)
    assert not speaks_http2(asked.base_url)
    assert not speaks_http2("http://127.0.0.1:9")
    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(loop.create_server(Http2, "127.0.0.1", 0))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        assert speaks_http2(url)
        run = Workload(url, asked.kinds, asked.headers, http2=True).offer(Load(50, 0.3, 0, 8))
        assert run.failures == {}
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def test_an_interrupt_ends_the_load(workload):
    asked = workload(**ONE_AT_A_TIME)
    before = threading.active_count()

    def interrupted():
        raise KeyboardInterrupt

    import signal

    previous = signal.signal(signal.SIGALRM, lambda *_: interrupted())
    signal.setitimer(signal.ITIMER_REAL, 0.5)
    try:
        with pytest.raises(KeyboardInterrupt):
            asked.offer(Load(50, 30, 0, 8))
    finally:
        signal.signal(signal.SIGALRM, previous)
    assert threading.active_count() == before
