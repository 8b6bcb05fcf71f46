"""No user sees, finds or deletes what is another's: not through the API, and not by a statement that forgot to ask."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import sql
from service.serving import DIMENSION, ROLE, USERS, Api, ids, is_problem, memory, prepared, serve, wait_for
from stores import Pair

from orchestra_lib.service import schema

SESSIONS = ("one", "two")
WORDS = ("breaker", "rain", "door")


@dataclass
class Expected:
    """What each user has stored and not deleted."""

    rows: dict[str, dict[str, dict]] = field(default_factory=lambda: {user: {} for user in USERS})

    def of(self, user: str, session: str | None = None) -> set[str]:
        return {id_ for id_, one in self.rows[user].items() if session in (None, one["session_id"])}


users, sessions, words = st.sampled_from(USERS), st.sampled_from(SESSIONS), st.sampled_from(WORDS)
steps = st.one_of(
    st.tuples(st.just("store"), users, sessions, words, st.integers(1, 9)),
    st.tuples(st.just("delete"), users, st.integers(0, 99)),
    st.tuples(st.just("get"), users, st.integers(0, 99)),
    st.tuples(st.just("list"), users, st.none() | sessions),
    st.tuples(st.just("history"), users, sessions),
    st.tuples(st.just("search"), users, st.none() | sessions, st.none() | words),
)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(steps, min_size=5, max_size=25))
def test_whatever_users_do_each_sees_exactly_its_own(api: Api, taken: list[tuple]):
    with psycopg.connect(api.dsn, autocommit=True) as connection:
        connection.execute("TRUNCATE memories")
    expected, all_ids = Expected(), []
    for what, user, *details in taken:
        client = api.as_user(user)
        if what == "store":
            session, word, number = details
            body = memory(session_id=session, content=word, embedding=[number, 1, 1])
            id_ = client.post("/v1/memories", json=body).json()["id"]
            all_ids.append(id_)
            expected.rows[user][id_] = body
        elif what in ("get", "delete") and all_ids:
            id_ = all_ids[details[0] % len(all_ids)]
            status = client.request(what.upper(), f"/v1/memories/{id_}").status_code
            assert (status != 404) == (id_ in expected.rows[user])
            if what == "delete":
                expected.rows[user].pop(id_, None)
        elif what in ("list", "history"):
            session = details[0]
            path = f"/v1/sessions/{session}/history" if what == "history" else "/v1/memories"
            params = {"limit": 100, **({"session_id": session} if what == "list" and session else {})}
            assert set(ids(client.get(path, params=params).json()["memories"])) == expected.of(user, session)
        elif what == "search":
            session, word = details
            filters = {"session_id": session} if session else {}
            query = {"text": word} if word else {"embedding": [1, 1, 1]}
            hits = client.post("/v1/search", json={**query, "k": 100, "filters": filters}).json()["hits"]
            wanted = {id_ for id_ in expected.of(user, session) if word in (None, expected.rows[user][id_]["content"])}
            assert {hit["memory"]["id"] for hit in hits} == wanted


def test_another_users_id_is_answered_as_one_that_there_is_not(api: Api):
    id_ = api.store("ada")
    for method in ("GET", "DELETE"):
        others = api.as_user("grace").request(method, f"/v1/memories/{id_}")
        nobodys = api.as_user("grace").request(method, "/v1/memories/none")
        assert is_problem(others, 404, "not-found")
        assert others.json() == nobodys.json()
    assert api.as_user("ada").get(f"/v1/memories/{id_}").status_code == 200


def test_a_cursor_of_another_user_shows_ones_own_rows(api: Api):
    for _ in range(3):
        api.store("ada")
    mine = api.store("grace")
    cursor = api.as_user("ada").get("/v1/memories", params={"limit": 1}).json()["next_cursor"]
    page = api.as_user("grace").get("/v1/memories", params={"cursor": cursor}).json()
    assert set(ids(page["memories"])) <= {mine}


# --- in the database itself -------------------------------------------------------------------------------------------


@pytest.fixture
def confined(api: Api):
    """A session in the API's role, without a user yet."""
    for user in USERS:
        api.store(user)
    with psycopg.connect(api.dsn, autocommit=True, options=f"-c role={ROLE}") as connection:
        yield connection


def count(connection: psycopg.Connection) -> int:
    row = connection.execute("SELECT count(*) FROM memories").fetchone()
    assert row is not None
    return row[0]


def test_a_statement_that_asks_for_everything_gets_one_users_rows(confined: psycopg.Connection):
    with confined.transaction():
        confined.execute("SELECT set_config(%s, 'ada', true)", [schema.USER_SETTING])
        assert count(confined) == 1
        assert confined.execute("DELETE FROM memories").rowcount == 1


def test_a_statement_without_a_user_fails_or_finds_nothing(confined: psycopg.Connection):
    with pytest.raises(psycopg.errors.UndefinedObject):
        count(confined)
    with confined.transaction():
        confined.execute("SELECT set_config(%s, 'ada', true)", [schema.USER_SETTING])
    assert count(confined) == 0, "the user ends with the transaction"


def test_rows_cannot_be_written_for_another_user(confined: psycopg.Connection):
    now = datetime.now(UTC)
    insert = sql.SQL(
        "INSERT INTO memories (id, agent_id, user_id, session_id, persona, item_type, content, embedding,"
        " embedding_model, created_at, updated_at) VALUES ('x', 'a', %s, 's', 'p', 'i', 'c', '[1,2,3]', 'm', %s, %s)"
    )
    confined.execute("SELECT set_config(%s, 'ada', false)", [schema.USER_SETTING])
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        confined.execute(insert, ["grace", now, now])


@pytest.mark.parametrize(
    "statement", ["UPDATE memories SET user_id = 'ada'", "TRUNCATE memories", "DROP TABLE memories"]
)
def test_the_role_may_not_do_what_the_api_does_not(confined: psycopg.Connection, statement: str):
    confined.execute("SELECT set_config(%s, 'ada', false)", [schema.USER_SETTING])
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        confined.execute(statement)


def test_other_roles_keep_what_they_were_granted(api: Api):
    for user in USERS:
        api.store(user)
    with psycopg.connect(api.dsn, autocommit=True) as connection:
        connection.execute("DROP ROLE IF EXISTS orchestra_test_reader")
        connection.execute("CREATE ROLE orchestra_test_reader")
        connection.execute("GRANT SELECT ON memories TO orchestra_test_reader")
        connection.execute("SET ROLE orchestra_test_reader")
        assert count(connection) == len(USERS)
        connection.execute("RESET ROLE")
        connection.execute("DROP OWNED BY orchestra_test_reader")
        connection.execute("DROP ROLE orchestra_test_reader")


def test_a_login_takes_the_role_on_and_does_not_inherit_it(api: Api):
    with psycopg.connect(api.dsn, autocommit=True) as connection:
        connection.execute("DROP ROLE IF EXISTS orchestra_test_login")
        connection.execute("CREATE ROLE orchestra_test_login LOGIN")
        for _ in range(2):
            schema.prepare(connection, table="memories", role=ROLE, login="orchestra_test_login")
        connection.execute("SET SESSION AUTHORIZATION orchestra_test_login")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            count(connection)
        connection.execute(f"SET ROLE {ROLE}")
        connection.execute("SELECT set_config(%s, 'ada', false)", [schema.USER_SETTING])
        assert count(connection) == 0
        connection.execute("RESET SESSION AUTHORIZATION")
        connection.execute("DROP ROLE orchestra_test_login")


def test_a_store_that_would_show_everything_is_not_served(pair: Pair, tmp_path):
    prepared(pair.target, DIMENSION)
    with psycopg.connect(pair.target, autocommit=True) as connection:
        connection.execute("ALTER TABLE memories DISABLE ROW LEVEL SECURITY")
    with serve(pair.target, tmp_path, pool_timeout_seconds=0.3) as api:
        answer = wait_for(api, "/readyz", 503)
        assert is_problem(answer, 503, "not-ready")
        assert "would see the rows of every user" in answer.json()["detail"]
        assert is_problem(api.as_user().get("/v1/memories"), 503, "store-unavailable")
        with psycopg.connect(pair.target, autocommit=True) as connection:
            connection.execute("ALTER TABLE memories ENABLE ROW LEVEL SECURITY")
        wait_for(api, "/readyz", 200)


def test_more_sessions_than_the_server_has_room_for_are_not_opened(pair: Pair, tmp_path):
    prepared(pair.target, DIMENSION)
    with serve(pair.target, tmp_path, pool_timeout_seconds=0.3, pool_max=9, max_instances=9) as api:
        answer = wait_for(api, "/readyz", 503)
    assert "9 instances with 9 sessions each are 81; of the server's 100 connections 80% may be used" in answer.text


def test_a_store_of_other_vectors_is_not_served(pair: Pair, tmp_path):
    prepared(pair.target, DIMENSION)
    with serve(pair.target, tmp_path, pool_timeout_seconds=0.3, dimension=4) as api:
        answer = wait_for(api, "/readyz", 503)
    assert "the vectors of memories have 3 dimensions, the service is set to 4" in answer.text


def test_a_store_that_is_not_there_is_not_served(pair: Pair, tmp_path):
    prepared(pair.target, DIMENSION)
    with serve(pair.target, tmp_path, pool_timeout_seconds=0.3, table="memoirs") as api:
        answer = wait_for(api, "/readyz", 503)
    assert 'relation "memoirs" does not exist' in answer.json()["detail"]
