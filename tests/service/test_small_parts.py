"""The breaker for awaited work, fusion, cursors, settings, problems: each alone."""

from __future__ import annotations

import asyncio
import base64
import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg import sql

from orchestra_lib.errors import ParameterError
from orchestra_lib.memory.breaker import BreakerOpen
from orchestra_lib.service import cursors, problems
from orchestra_lib.service.breaker import StoreBreaker
from orchestra_lib.service.cursors import Position
from orchestra_lib.service.fusion import RANK_CONSTANT, fuse
from orchestra_lib.service.index_form import IndexForm
from orchestra_lib.service.problems import Problem
from orchestra_lib.service.sessions import Sessions, StoreBusy, StoreTimeout
from orchestra_lib.service.settings import from_environment
from orchestra_lib.service.store import MemoryStore


async def fails(error: Exception) -> None:
    raise error


async def works() -> str:
    return "done"


def breaker(recovery_seconds: float = 60.0) -> StoreBreaker:
    return StoreBreaker(2, recovery_seconds, lambda error: isinstance(error, OSError))


async def failing(one: StoreBreaker, error: Exception, times: int) -> None:
    for _ in range(times):
        with pytest.raises(type(error)):
            await one.call(lambda: fails(error))


def test_only_errors_that_speak_against_the_store_open_it():
    async def run():
        one = breaker()
        await failing(one, ValueError(), 5)
        assert one.state == "closed"
        await failing(one, OSError(), 2)
        with pytest.raises(BreakerOpen) as refused:
            await one.call(works)
        assert 59 < refused.value.seconds <= 60

    asyncio.run(run())


def test_one_trial_at_a_time_decides():
    async def run():
        one, gate, tried = breaker(0.05), asyncio.Event(), []

        async def trial():
            tried.append(1)
            await gate.wait()
            return "back"

        await failing(one, OSError(), 2)
        await asyncio.sleep(0.06)
        first = asyncio.create_task(one.call(trial))
        await asyncio.sleep(0)
        for _ in range(3):
            with pytest.raises(BreakerOpen):
                await one.call(trial)
        gate.set()
        assert await first == "back"
        assert (tried, one.state) == ([1], "closed")

    asyncio.run(run())


def test_a_trial_that_is_given_up_leaves_room_for_another():
    async def run():
        one = breaker(0.02)
        await failing(one, OSError(), 2)
        await asyncio.sleep(0.03)
        given_up = asyncio.create_task(one.call(lambda: asyncio.sleep(60)))
        await asyncio.sleep(0)
        given_up.cancel()
        with pytest.raises(asyncio.CancelledError):
            await given_up
        assert await one.call(works) == "done"
        assert one.state == "closed"

    asyncio.run(run())


def test_what_ends_after_it_has_opened_changes_nothing():
    async def run():
        one, gate = breaker(), asyncio.Event()

        async def late():
            await gate.wait()
            return "late"

        slow = asyncio.create_task(one.call(late))
        await asyncio.sleep(0)
        await failing(one, OSError(), 2)
        gate.set()
        assert await slow == "late"
        assert one.state == "open"

    asyncio.run(run())


def test_a_store_that_was_too_busy_to_be_asked_has_not_answered():
    async def run():
        one = Sessions(from_environment({**GOOD, "ORCHESTRA_API_BREAKER_FAILURES": "25"})).breaker
        for _ in range(25):
            await failing(one, StoreBusy("full"), 1)
            assert one.state == "closed"
            await failing(one, StoreTimeout("slow"), 1)
        assert one.state == "open"

    asyncio.run(run())


def test_a_trial_of_a_store_that_was_too_busy_to_be_asked_is_followed_by_another():
    async def run():
        environment = {"ORCHESTRA_API_BREAKER_FAILURES": "1", "ORCHESTRA_API_BREAKER_RECOVERY_SECONDS": "0.02"}
        one = Sessions(from_environment({**GOOD, **environment})).breaker
        await failing(one, StoreTimeout("slow"), 1)
        await asyncio.sleep(0.03)
        await failing(one, StoreBusy("full"), 3)
        assert one.state == "open"
        assert await one.call(works) == "done"
        assert one.state == "closed"

    asyncio.run(run())


RANKINGS = st.lists(st.lists(st.sampled_from("abcdefgh"), unique=True, max_size=8), max_size=4)


@given(RANKINGS)
def test_fusion_knows_every_id_once_and_orders_them_by_their_ranks(rankings):
    fused = fuse(rankings)
    assert sorted(id_ for id_, _ in fused) == sorted({id_ for one in rankings for id_ in one})
    assert [score for _, score in fused] == sorted((score for _, score in fused), reverse=True)
    for id_, score in fused:
        wanted = sum(1 / (RANK_CONSTANT + one.index(id_) + 1) for one in rankings if id_ in one)
        assert score == pytest.approx(wanted)


def test_fusion_keeps_a_ranking_that_is_alone():
    assert [id_ for id_, _ in fuse([["c", "a", "b"], []])] == ["c", "a", "b"]


MOMENTS = st.datetimes(min_value=datetime(1970, 1, 1), max_value=datetime(2900, 1, 1), timezones=st.just(UTC))
IDS = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), min_size=1)
"""Every text that PostgreSQL can hold: ids that were migrated are not the service's own."""


@given(MOMENTS, IDS, st.dictionaries(st.sampled_from(["persona", "session_id"]), st.text()))
def test_a_cursor_comes_back_as_it_was_given(moment, id_, filters):
    assert cursors.read(cursors.write(Position(moment, id_), filters), filters) == Position(moment, id_)


@given(st.text() | st.binary().map(lambda raw: raw.decode("latin-1")))
def test_any_other_text_is_refused_as_a_cursor(text):
    with pytest.raises(Problem):
        cursors.read(text, {})


@pytest.mark.parametrize("id_", ["a\0b", "\ud800"])
def test_an_id_that_no_text_of_the_store_can_be_is_refused_as_a_cursor(id_: str):
    parts = json.loads(base64.urlsafe_b64decode(cursors.write(Position(datetime.now(UTC), "id"), {})))
    cursor = base64.urlsafe_b64encode(json.dumps([parts[0], id_, parts[2]]).encode()).decode()
    with pytest.raises(Problem):
        cursors.read(cursor, {})


def test_who_has_no_more_than_are_asked_for_has_few():
    one = Sessions(from_environment(GOOD))
    one.form = IndexForm("hnsw", "vector", "<=>", rows=2_000)
    assert one.few_rows(400) == 400


def test_one_statement_serves_a_form_however_many_rows_the_table_has():
    store = MemoryStore(Sessions(from_environment(GOOD)), "memories", 3)
    forms = [IndexForm("hnsw", "vector", "<=>", rows) for rows in range(5)]
    statements = {id(store._near_statement(form, (), sql.Identifier("id"))) for form in forms}
    assert len(statements) == 1
    assert store._near_statement(IndexForm("hnsw", "vector", "<->", 4), (), sql.Identifier("id")) not in statements


GOOD = {"ORCHESTRA_API_DSN": "dbname=x", "ORCHESTRA_API_TOKENS_FILE": "/tokens"}
INSTANCE = "projects/p/locations/l/clusters/c/instances/i"


def test_settings_come_from_the_environment_and_cloud_runs_port():
    settings = from_environment({**GOOD, "PORT": "9090", "ORCHESTRA_API_POOL_MAX": "4", "HOME": "/"})
    assert (settings.port, settings.pool_max, settings.host) == (9_090, 4, "127.0.0.1")
    assert "dbname=x" not in repr(settings)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"PORT": "http"}, "PORT: "),
        ({"ORCHESTRA_API_POOL_MAX": "0"}, "ORCHESTRA_API_POOL_MAX: "),
        ({"ORCHESTRA_API_POOL_MIN": "9"}, "pool_min 9 is more than pool_max 8"),
        ({"ORCHESTRA_API_POOLMAX": "9"}, "ORCHESTRA_API_POOLMAX: there is no such setting"),
        ({"ORCHESTRA_API_INSTANCE": INSTANCE}, "name one database"),
        ({"ORCHESTRA_API_JWT_ISSUER": "x"}, "signed tokens need"),
        ({"ORCHESTRA_API_JWT_CERTIFICATES_URL": "http://example.com"}, "ORCHESTRA_API_JWT_CERTIFICATES_URL: "),
        ({"ORCHESTRA_API_TABLE": "memories; DROP"}, "ORCHESTRA_API_TABLE: "),
    ],
)
def test_a_setting_that_cannot_be_is_refused_by_its_variable(changes, told):
    with pytest.raises(ParameterError) as refused:
        from_environment({**GOOD, **changes})
    assert told in str(refused.value)


def test_an_instance_needs_a_user_and_no_connection_string():
    given = {"ORCHESTRA_API_INSTANCE": INSTANCE, "ORCHESTRA_API_TOKENS_FILE": "/tokens"}
    with pytest.raises(ParameterError, match="DATABASE_USER"):
        from_environment(given)
    assert from_environment({**given, "ORCHESTRA_API_DATABASE_USER": "api@p.iam"}).instance == INSTANCE


def test_a_vector_of_nothing_but_nonsense_is_refused_in_few_words():
    errors = [{"type": "float_type", "loc": ("body", "embedding", number), "msg": "no"} for number in range(1_536)]
    problem = problems.of_validation(errors)
    assert len(problem.errors) == 10
    assert problem.detail.endswith(", and 1526 more")
