"""Production queries from files, and from the logs of a real PostgreSQL."""

from __future__ import annotations

import json
import time

import numpy as np
import psycopg
import pyarrow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pgvector import Vector
from pgvector.psycopg import register_vector
from pyarrow import parquet

from orchestra_lib.bench.load import Load, run_load
from orchestra_lib.bench.replay import read_queries, read_server_log
from orchestra_lib.bench.sql_load import SqlRequests
from orchestra_lib.errors import DataError

VECTORS = np.random.default_rng(1).standard_normal((4, 24)).astype(np.float32)
SEARCH = "SELECT id FROM items WHERE owner = %(owner)s AND kind = %(kind)s ORDER BY embedding <=> %(query)b LIMIT 3"


@pytest.fixture
def log(own_server):
    """The server's log, after an application has searched."""
    before = {kind: file.stat().st_size for kind, file in _files(own_server).items() if file.exists()}
    with psycopg.connect(own_server.conninfo, autocommit=True) as connection:
        register_vector(connection)
        connection.execute(
            "CREATE TABLE items (id int PRIMARY KEY, owner text, kind text, embedding vector(24)); "
            "INSERT INTO items SELECT n, 'it''s ' || n, 'note', array_fill(n, ARRAY[24]) FROM generate_series(1, 9) n"
        )
        for number, vector in enumerate(VECTORS[:3]):
            # Prepared and in binary, as the application does it: the server writes parameters as text nevertheless.
            values = {"owner": f"it's {number}", "kind": None if number == 2 else "note", "query": Vector(vector)}
            connection.execute(SEARCH, values, prepare=True, binary=True)
            time.sleep(0.1)
        literal = str(VECTORS[3].tolist())
        connection.execute(f"SELECT id FROM items WHERE kind = 'note' ORDER BY embedding <-> '{literal}' LIMIT 3")
        connection.execute("SELECT 'a line with ''quotes'', commas\nand a second line'")
        connection.execute("DROP TABLE items")
    return lambda kind: _since(_files(own_server)[kind], before.get(kind, 0))


def _files(server):
    return {kind: server.data / "logged" / f"queries.{kind}" for kind in ("csv", "json")}


def _since(file, start):
    copy = file.with_name(f"part.{file.name}")
    deadline = time.monotonic() + 10
    while b"DROP TABLE items" not in (content := file.read_bytes()[start:]) and time.monotonic() < deadline:
        time.sleep(0.02)  # the collector writes it, a moment later
    copy.write_bytes(content)
    return copy


@pytest.mark.parametrize("kind", ["csv", "json"])
def test_the_searches_in_a_servers_log_are_asked_again_as_they_were(log, kind):
    replay = read_server_log(log(kind))
    assert np.array_equal(replay.vectors, VECTORS), "every bit of a float32 survives the log"
    assert replay.filters == (
        {"owner": "it's 0", "kind": "note"},
        {"owner": "it's 1", "kind": "note"},
        {"owner": "it's 2"},
        {"kind": "note"},
    )
    assert np.all(np.diff(replay.at) >= 0.09)
    assert replay.at[0] == 0
    assert replay.skipped >= 4


def test_what_was_replayed_comes_at_the_pace_at_which_it_came(tmp_path, pair):
    file = tmp_path / "queries.jsonl"
    lines = [{"at": 7.0 + number / 10, "embedding": vector.tolist()} for number, vector in enumerate(VECTORS)]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    replay = read_queries(file)
    requests = SqlRequests(
        pair.target,
        psycopg.sql.SQL("SELECT 1 - (%b::vector <=> %b::vector)"),
        [[Vector(vector), Vector(vector)] for vector in replay.vectors],
    )
    run = run_load(Load(1, replay.seconds, seed=0, workers=1), requests, intended=replay.faster(2))
    assert np.allclose(run.intended, [0, 0.05, 0.1, 0.15])
    assert run.failures == {}


@settings(max_examples=40)
@given(st.lists(st.tuples(st.floats(0, 1e6), st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False),
                                                       min_size=3, max_size=3)), min_size=1, max_size=20))  # fmt: skip
def test_queries_in_a_file_are_read_in_the_order_of_their_times(tmp_path_factory, queries):
    file = tmp_path_factory.mktemp("queries") / "queries.jsonl"
    file.write_text(
        "".join(json.dumps({"at": at, "embedding": vector, "user": "u"}) + "\n\n" for at, vector in queries)
    )
    replay = read_queries(file)
    expected = sorted(queries, key=lambda query: query[0])
    assert np.allclose(replay.at, [at - expected[0][0] for at, _ in expected])
    assert np.array_equal(replay.vectors, np.asarray([vector for _, vector in expected], dtype=np.float32))
    assert replay.filters == ({"user": "u"},) * len(queries)


def test_parquet_is_read_as_json_lines_are(tmp_path):
    rows = [
        {"at": number / 2, "embedding": vector.tolist(), "persona": "Cherry"} for number, vector in enumerate(VECTORS)
    ]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "queries.parquet")
    (tmp_path / "queries.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    columns, lines = (read_queries(tmp_path / f"queries.{kind}") for kind in ("parquet", "jsonl"))
    assert np.array_equal(columns.at, lines.at)
    assert np.array_equal(columns.vectors, lines.vectors)
    assert columns.filters == lines.filters == ({"persona": "Cherry"},) * 4


def test_vectors_of_another_dimension_are_counted_not_mixed(tmp_path):
    file = tmp_path / "queries.jsonl"
    file.write_text('{"at": 1, "embedding": [1, 2]}\n{"at": 2, "embedding": [1]}\n{"at": 3, "embedding": [3, 4]}\n')
    replay = read_queries(file)
    assert replay.vectors.tolist() == [[1, 2], [3, 4]]
    assert replay.skipped == 1


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("not json", "line 2: this is no JSON"),
        ("[1, 2]", "line 2: a query is a JSON object, this is list"),
        ('{"embedding": [1]}', "line 2: a query has a number `at`"),
        ('{"at": 1, "embedding": "text"}', "line 2: a query has"),
        ('{"at": 1, "embedding": [[1], [2]]}', "line 2: the embedding has to be one list"),
        ('{"at": 1, "embedding": [NaN]}', "line 2: the embedding has to be one list of finite"),
    ],
)
def test_a_line_that_is_no_query_is_refused_by_its_number(tmp_path, line, words):
    file = tmp_path / "queries.jsonl"
    file.write_text('{"at": 0, "embedding": [1]}\n' + line + "\n")
    with pytest.raises(DataError, match=words):
        read_queries(file)


def logged(*parameters):
    detail = "parameters: " + ", ".join(f"${number} = '{value}'" for number, value in enumerate(parameters, start=1))
    statement = "SELECT id FROM items WHERE label = $1 ORDER BY embedding <=> $2 LIMIT 3"
    return {"timestamp": "2026-11-26 05:00:00.000 UTC", "message": f"execute <unnamed>: {statement}", "detail": detail}


@pytest.mark.parametrize("label", ["[draft] of today", "[]", "[1, 2", "[1,,2]", "[-]", '["a"]', "[1.2.3]"])
def test_a_parameter_that_only_begins_like_a_vector_is_none(tmp_path, label):
    file = tmp_path / "log.json"
    lines = logged(label, "[1, -2.5e-3]"), logged(label, "no vector at all")
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    replay = read_server_log(file)
    assert replay.vectors.tolist() == [[1.0, np.float32(-2.5e-3)]]
    assert replay.filters == ({"label": label},)
    assert replay.skipped == 1


def test_a_log_without_searches_is_refused(tmp_path):
    (tmp_path / "log.csv").write_text("")
    with pytest.raises(DataError, match="no vector search"):
        read_server_log(tmp_path / "log.csv")
