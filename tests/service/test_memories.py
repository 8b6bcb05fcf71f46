"""What the routes do: store, get, delete, list, history, and the three ways to search."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import numpy as np
import psycopg
import pytest
from pgvector.psycopg import register_vector
from service.serving import DIMENSION, Api, ids, is_problem, memory, prepared, serve, wait_for
from stores import Pair, fill, unit_vectors

from orchestra_lib.service import sessions
from orchestra_lib.service.index_form import IndexForm


def test_a_memory_is_stored_got_and_deleted(api: Api):
    ada = api.as_user()
    stored = ada.post("/v1/memories", json=memory(metadata={"π": [1, 2.5, None]}))
    assert stored.status_code == 201
    got = ada.get(stored.headers["location"])
    assert got.json() == {
        "id": stored.json()["id"], "user_id": "ada", "agent_id": "agent", "session_id": "session", "persona": "Cherry",
        "item_type": "note", "content": "Zürich is rainy ☂", "metadata": {"π": [1, 2.5, None]},
        "embedding_model": "test/1", "version": 1, "created_at": stored.json()["created_at"],
        "updated_at": stored.json()["created_at"], "expires_at": None,
    }  # fmt: skip
    assert ada.delete(stored.headers["location"]).status_code == 204
    assert is_problem(ada.get(stored.headers["location"]), 404, "not-found")
    assert is_problem(ada.delete(stored.headers["location"]), 404, "not-found")


def test_an_answer_says_how_long_the_server_took(api: Api):
    timing = api.as_user().get("/v1/memories").headers["server-timing"]
    figures = {part.split(";")[0].strip(): float(part.split("=")[1]) for part in timing.split(",")}
    assert figures.keys() == {"total", "wait", "db"}
    assert 0 < figures["db"] < figures["total"]


@pytest.mark.parametrize("limit", [1, 3, 7, 100])
def test_pages_hold_every_memory_once_and_the_newest_first(api: Api, limit: int):
    stored = [api.store(content=str(number)) for number in range(7)]
    # Equal moments must not lose or repeat a row at the edge of a page.
    with psycopg.connect(api.dsn, autocommit=True) as connection:
        connection.execute("UPDATE memories SET created_at = date_trunc('hour', created_at) WHERE content < '4'")
    found, cursor = [], None
    while True:
        answer = api.as_user().get("/v1/memories", params={"limit": limit, **({"cursor": cursor} if cursor else {})})
        found.extend(answer.json()["memories"])
        cursor = answer.json()["next_cursor"]
        if cursor is None:
            break
        assert len(answer.json()["memories"]) == limit
    assert sorted(ids(found)) == sorted(stored)
    assert found == sorted(found, key=lambda one: (one["created_at"], one["id"]), reverse=True)


@pytest.mark.parametrize("id_", ["a\u00a0b\tc\u200bd", "☂" * 900])
def test_a_page_may_end_with_an_id_of_anothers_making(api: Api, id_: str):
    api.store()
    with psycopg.connect(api.dsn, autocommit=True) as connection:
        connection.execute("UPDATE memories SET id = %s", [id_])
        connection.execute("UPDATE memories SET created_at = created_at + interval '1 hour'")
    last = api.store()
    first = api.as_user().get("/v1/memories", params={"limit": 1}).json()
    assert ids(first["memories"]) == [id_]
    further = api.as_user().get("/v1/memories", params={"limit": 1, "cursor": first["next_cursor"]})
    assert ids(further.json()["memories"]) == [last]


def test_a_cursor_belongs_to_its_filters(api: Api):
    for _ in range(2):
        api.store(persona="Sophia")
    cursor = api.as_user().get("/v1/memories", params={"persona": "Sophia", "limit": 1}).json()["next_cursor"]
    again = api.as_user().get("/v1/memories", params={"persona": "Cherry", "limit": 1, "cursor": cursor})
    assert is_problem(again, 422, "invalid")
    assert is_problem(api.as_user().get("/v1/memories", params={"cursor": "bm9uZQ=="}), 422, "invalid")


def test_a_conversation_reads_forward_and_pages_back(api: Api):
    turns = [api.store(session_id="talk/1", content=f"turn {number}") for number in range(5)]
    api.store(session_id="another")
    latest = api.as_user().get("/v1/sessions/talk%2F1/history", params={"limit": 3})
    assert ids(latest.json()["memories"]) == turns[2:]
    earlier = {"limit": 3, "cursor": latest.json()["next_cursor"]}
    assert ids(api.as_user().get("/v1/sessions/talk%2F1/history", params=earlier).json()["memories"]) == turns[:2]


FILTERS = ("agent_id", "session_id", "persona", "item_type")


@pytest.mark.parametrize("name", FILTERS)
def test_a_filter_holds_for_listings_and_searches(api: Api, name: str):
    wanted = api.store(**{name: "wanted"}, embedding=[0.3, 0.1, 0.1])
    api.store()
    assert ids(api.as_user().get("/v1/memories", params={name: "wanted"}).json()["memories"]) == [wanted]
    for query in ({"embedding": [0.1, 0.2, 0.3]}, {"text": "rainy"}, {"embedding": [0.1, 0.2, 0.3], "text": "rainy"}):
        hits = api.as_user().post("/v1/search", json={**query, "filters": {name: "wanted"}}).json()["hits"]
        assert [hit["memory"]["id"] for hit in hits] == [wanted]


def test_times_filter_from_the_first_moment_to_before_the_last(api: Api):
    stored = [api.store(content=str(number)) for number in range(3)]
    start = datetime(2026, 1, 1, tzinfo=UTC)
    with psycopg.connect(api.dsn, autocommit=True) as connection:
        for number, id_ in enumerate(stored):
            connection.execute(
                "UPDATE memories SET created_at = %s WHERE id = %s", [start + timedelta(days=number), id_]
            )
    params = {"created_after": "2026-01-01T00:00:00Z", "created_before": "2026-01-03T00:00:00Z"}
    assert ids(api.as_user().get("/v1/memories", params=params).json()["memories"]) == stored[1::-1]


def test_what_has_expired_is_not_there(api: Api):
    id_ = api.store(expires_at=(datetime.now(UTC) + timedelta(minutes=1)).isoformat())
    ada = api.as_user()
    assert ada.get(f"/v1/memories/{id_}").status_code == 200
    with psycopg.connect(api.dsn, autocommit=True) as connection:
        connection.execute("UPDATE memories SET expires_at = now()")
    assert ada.get(f"/v1/memories/{id_}").status_code == 404
    assert ada.get("/v1/memories").json()["memories"] == []
    for query in ({"embedding": [0.1, 0.2, 0.3]}, {"text": "rainy"}):
        assert ada.post("/v1/search", json=query).json()["hits"] == []


def test_a_vector_finds_the_nearest_first_with_their_distances(api: Api):
    stored = [api.store(embedding=vector) for vector in ([1, 0, 0], [1, 1, 0], [0, 1, 0])]
    hits = api.as_user().post("/v1/search", json={"embedding": [2, 0, 0], "k": 2}).json()["hits"]
    assert [hit["memory"]["id"] for hit in hits] == stored[:2]
    assert hits[0]["distance"] == pytest.approx(0, abs=1e-6)
    assert hits[1]["distance"] == pytest.approx(1 - 1 / np.sqrt(2), abs=1e-6)


def test_a_text_finds_what_holds_any_of_its_words_and_the_best_first(api: Api):
    best = api.store(content="a circuit breaker opens after failures")
    also = api.store(content="the door opens")
    api.store(content="nothing of the kind")
    hits = api.as_user().post("/v1/search", json={"text": "when do circuit breakers open?"}).json()["hits"]
    assert [hit["memory"]["id"] for hit in hits] == [best, also]
    assert all(hit["distance"] is None for hit in hits)


def test_a_memory_that_is_larger_than_full_text_takes_hides_no_other(api: Api):
    found = api.store(content="the door opens")
    long = api.store()
    with psycopg.connect(api.dsn, autocommit=True) as connection:
        longer = "(SELECT string_agg(n::text, ' ') FROM generate_series(1, 200000) n)"
        connection.execute(f"UPDATE memories SET content = {longer} WHERE id = %s", [long])
    answer = api.as_user().post("/v1/search", json={"text": "open 12345"})
    assert answer.status_code == 200
    assert {hit["memory"]["id"] for hit in answer.json()["hits"]} == {found, long}, "its beginning is found as well"


def test_fusion_prefers_what_both_rankings_know(api: Api):
    both = api.store(content="breaker, breaker", embedding=[1, 0.1, 0])
    near = api.store(content="unrelated", embedding=[1, 0, 0])
    text = api.store(content="breaker", embedding=[-1, 0, 0])
    hits = api.as_user().post("/v1/search", json={"embedding": [1, 0, 0], "text": "breaker", "k": 3}).json()["hits"]
    assert hits[0]["memory"]["id"] == both
    assert {hit["memory"]["id"] for hit in hits} == {both, near, text}
    assert hits[0]["score"] > hits[1]["score"] >= hits[2]["score"]


@pytest.mark.parametrize("storage", ["vector", "halfvec"])
def test_the_index_and_the_comparison_of_few_rows_find_the_same(pair: Pair, tmp_path, monkeypatch, storage: str):
    monkeypatch.setattr(sessions, "_FEWEST", 0)
    fill(pair.target, 600, clusters=5)
    prepared(pair.target, 1536)
    with psycopg.connect(pair.target, autocommit=True) as connection:
        column = "embedding" if storage == "vector" else "(embedding::halfvec(1536))"
        connection.execute("SET maintenance_work_mem = '256MB'")
        connection.execute(
            f"CREATE INDEX by_vector ON memories USING ivfflat ({column} {storage}_cosine_ops) WITH (lists = 10)"
        )
        connection.execute("UPDATE memories SET user_id = 'ada', expires_at = NULL WHERE user_id <> 'user0'")
        connection.execute("ANALYZE memories")
        name = connection.info.dbname
        connection.execute(f"ALTER DATABASE {name} SET ivfflat.probes = 10")
    queries = unit_vectors(5, seed=1, clusters=5)
    with serve(pair.target, tmp_path, dimension=1536) as api:
        ada = api.as_user()

        def found() -> list[list[str]]:
            bodies = [{"embedding": [float(one) for one in query], "k": 10} for query in queries]
            answers = [ada.post("/v1/search", json=body).json()["hits"] for body in bodies]
            return [[hit["memory"]["id"] for hit in hits] for hits in answers]

        def scans() -> int:
            with psycopg.connect(pair.target) as connection:
                connection.execute("SELECT pg_stat_force_next_flush()")
                row = connection.execute("SELECT idx_scan FROM pg_stat_user_indexes WHERE indexrelname = 'by_vector'")
                return row.fetchone()[0]

        by_index = found()
        assert api.app.state.sessions.form == IndexForm("ivfflat", storage, "<=>", rows=600)
        monkeypatch.setattr(sessions, "_FEWEST", 1_000)
        one_by_one = found()
    assert all(len(one) == 10 for one in by_index)
    if storage == "vector":
        assert by_index == one_by_one
    else:  # half the digits: ties may be broken otherwise
        assert all(len({*left} & {*right}) >= 9 for left, right in zip(by_index, one_by_one, strict=True))
    assert scans() >= len(queries), "the index was walked"


CROWD, OWN = 30_000, 400
HNSW = "CREATE INDEX by_vector ON memories USING hnsw (embedding vector_cosine_ops) WITH (m = 8, ef_construction = 32)"
IVFFLAT = "CREATE INDEX by_vector ON memories USING ivfflat (embedding vector_cosine_ops) WITH (lists = 30)"


@pytest.fixture
def crowded(pair: Pair) -> Iterator[psycopg.Connection]:
    """Others have tens of thousands of memories nearer to the query than any of ada's."""
    prepared(pair.target, DIMENSION)
    with psycopg.connect(pair.target, autocommit=True) as connection:
        for user, count, first in (("grace", CROWD, 1), ("ada", OWN, -1)):
            connection.execute(
                "INSERT INTO memories (id, agent_id, user_id, session_id, persona, item_type, content, embedding,"
                " embedding_model, created_at, updated_at) SELECT %(user)s || n, 'a', %(user)s, 's', 'p', 'i', 'c',"
                " ARRAY[%(first)s, random() / 2, random() / 2]::real[]::vector, 'm', now(), now()"
                " FROM generate_series(1, %(count)s) n",
                {"user": user, "count": count, "first": first},
            )
        yield connection


def exact(connection: psycopg.Connection) -> list[str]:
    """The ids of ada's ten nearest, by comparing all of hers."""
    query = "SELECT id FROM memories WHERE user_id = 'ada' ORDER BY (embedding <=> '[1,0.25,0.25]') + 0 LIMIT 10"
    return [id_ for (id_,) in connection.execute(query)]


def nearest(api: Api) -> list[str]:
    hits = api.as_user().post("/v1/search", json={"embedding": [1, 0.25, 0.25]}).json()["hits"]
    return [hit["memory"]["id"] for hit in hits]


def walks_of_users_rows(connection: psycopg.Connection) -> int:
    """How often an index of the users' rows was walked: once to count them, and once more to compare each.

    A session tells when it ends, which is a moment after its client has gone.
    """
    ours = "SELECT 1 FROM pg_stat_activity WHERE application_name = 'orchestra-memory-api' AND datname = %s"
    while connection.execute(ours, [connection.info.dbname]).fetchone():
        time.sleep(0.01)
    row = connection.execute(
        "SELECT sum(idx_scan) FROM pg_stat_user_indexes WHERE indexrelname LIKE 'memories_user_%'"
    ).fetchone()
    return int(row[0])


def test_a_walk_goes_on_where_all_that_is_near_is_somebody_elses(crowded: psycopg.Connection, tmp_path):
    crowded.execute(HNSW)
    crowded.execute("ANALYZE memories")
    before = walks_of_users_rows(crowded)
    with serve(crowded.info.dsn, tmp_path) as api:
        assert len(nearest(api)) == 10
    assert walks_of_users_rows(crowded) - before == 1, "the walk was enough"


def test_where_a_walk_ends_too_early_every_row_of_the_users_is_compared(
    crowded: psycopg.Connection, tmp_path, monkeypatch
):
    crowded.execute(HNSW)
    crowded.execute("ANALYZE memories")
    monkeypatch.setattr(sessions, "SEARCHING", {**sessions.SEARCHING, "hnsw.max_scan_tuples": "1000"})
    before = walks_of_users_rows(crowded)
    with serve(crowded.info.dsn, tmp_path) as api:
        assert nearest(api) == exact(crowded)
    assert walks_of_users_rows(crowded) - before == 2, "the walk was not enough"


def test_a_session_that_is_older_than_the_index_walks_it_to_the_users_rows(crowded: psycopg.Connection, tmp_path):
    crowded.execute(IVFFLAT)
    crowded.execute("ANALYZE memories")
    before = walks_of_users_rows(crowded)
    with serve(crowded.info.dsn, tmp_path, pool_min=1, pool_max=1) as api:
        assert len(nearest(api)) == 10
        crowded.execute("DROP INDEX by_vector")
        crowded.execute(HNSW)
        assert len(nearest(api)) == 10
        assert api.app.state.sessions.form.method == "ivfflat", "no session was opened since"
    assert walks_of_users_rows(crowded) - before == 2, "the walk was enough"


def test_an_index_that_is_tried_out_beside_the_live_one_is_not_searched(pair: Pair, tmp_path):
    prepared(pair.target, DIMENSION)
    with psycopg.connect(pair.target, autocommit=True) as connection:
        connection.execute("CREATE INDEX live ON memories USING hnsw (embedding vector_l2_ops)")
        connection.execute("CREATE INDEX tried ON memories USING hnsw ((embedding::halfvec(3)) halfvec_cosine_ops)")
        bits = "((binary_quantize(embedding)::bit(3)) bit_hamming_ops)"
        connection.execute(f"CREATE INDEX other ON memories USING hnsw {bits}")
        with serve(pair.target, tmp_path) as api:
            wait_for(api, "/readyz", 200)
            assert api.app.state.sessions.form == IndexForm("hnsw", "vector", "<->", rows=0)
        connection.execute("DROP INDEX live, tried")
    with serve(pair.target, tmp_path, pool_timeout_seconds=0.3) as api:
        answer = wait_for(api, "/readyz", 503)
    assert "the index of memories is hnsw with bit_hamming_ops" in answer.text


def test_a_key_stores_once_however_often_and_at_once_it_comes(api: Api):
    together = threading.Barrier(12)

    def send(_number: int):
        together.wait()
        return api.as_user().post("/v1/memories", json=memory(), headers={"Idempotency-Key": "once"})

    api.as_user()
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(send, range(12)))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.text for answer in answers}) == 1
    assert sum("idempotent-replayed" not in answer.headers for answer in answers) == 1
    assert len(api.as_user().get("/v1/memories").json()["memories"]) == 1


def test_a_key_comes_back_after_its_memory_has_expired(api: Api):
    headers, expires_at = {"Idempotency-Key": "brief"}, datetime.now(UTC) + timedelta(seconds=0.5)
    body = memory(expires_at=expires_at.isoformat())
    first = api.as_user().post("/v1/memories", json=body, headers=headers)
    assert first.status_code == 201
    while datetime.now(UTC) <= expires_at:
        time.sleep(0.02)
    again = api.as_user().post("/v1/memories", json=body, headers=headers)
    assert (again.status_code, again.json()) == (201, first.json())
    late = api.as_user().post("/v1/memories", json=body, headers={"Idempotency-Key": "late"})
    assert is_problem(late, 422, "invalid")


def test_a_key_belongs_to_its_request_and_its_user(api: Api):
    headers = {"Idempotency-Key": "mine"}
    first = api.as_user("ada").post("/v1/memories", json=memory(), headers=headers)
    other = api.as_user("ada").post("/v1/memories", json=memory(content="other"), headers=headers)
    assert is_problem(other, 409, "key-in-use")
    moved = api.as_user("ada").post("/v1/memories", json=memory(embedding=[0.1, 0.2, 0.31]), headers=headers)
    assert is_problem(moved, 409, "key-in-use")
    hers = api.as_user("grace").post("/v1/memories", json=memory(), headers=headers)
    assert hers.status_code == 201
    assert hers.json()["id"] != first.json()["id"]


def test_a_key_is_free_again_after_a_day(api: Api):
    headers = {"Idempotency-Key": "daily"}
    first = api.as_user().post("/v1/memories", json=memory(), headers=headers)
    with psycopg.connect(api.dsn, autocommit=True) as connection:
        connection.execute("UPDATE orchestra_api.idempotency_keys SET created_at = now() - interval '25 hours'")
    second = api.as_user().post("/v1/memories", json=memory(), headers=headers)
    assert second.json()["id"] != first.json()["id"]


def test_a_vector_that_came_by_another_way_and_has_no_direction_is_no_broken_answer(api: Api):
    api.store()
    with psycopg.connect(api.dsn, autocommit=True) as connection:
        register_vector(connection)
        connection.execute("UPDATE memories SET embedding = %s", [np.zeros(DIMENSION)])
    hits = api.as_user().post("/v1/search", json={"embedding": [1, 0, 0]}).json()["hits"]
    assert [hit["distance"] for hit in hits] == [None]


def test_metrics_tell_of_routes_the_pool_and_the_breaker_and_of_no_user(api: Api):
    api.store()
    text = api.as_user(None).get("/metrics").text
    assert 'orchestra_api_request_seconds_count{method="POST",route="/v1/memories",status="201"} ' in text
    assert 'orchestra_api_breaker{state="closed"} 1.0' in text
    assert 'orchestra_api_pool{figure="pool_max"} 8.0' in text
    assert "ada" not in text
