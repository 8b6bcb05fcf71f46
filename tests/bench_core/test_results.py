"""Result files are read back as they were written, and say where they come from."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from psycopg import sql
from stores import fill

from orchestra_lib.bench import results
from orchestra_lib.bench.environment import environment
from orchestra_lib.bench.fingerprint import table_fingerprint
from orchestra_lib.bench.load import Load
from orchestra_lib.bench.results import read_result, read_samples, result, write_result
from orchestra_lib.bench.samples import Outcome, Sample, load_run
from orchestra_lib.bench.states import Cache, Prepared
from orchestra_lib.database import connect
from orchestra_lib.errors import DataError, ParameterError, RecordError

TABLE = sql.Identifier("memories")
HERE = environment()
outcomes = st.builds(
    Outcome,
    failure=st.sampled_from([None, None, "QueryCanceled", "HTTP 503"]),
    short=st.booleans(),
    server_ms=st.none() | st.floats(0, 1e3),
)


def run_of(outcomes):
    samples = [
        Sample(number, number - 0.5, number + 0.001, number + 0.011, outcome) for number, outcome in enumerate(outcomes)
    ]
    return load_run(np.arange(len(outcomes), dtype=np.float64), float(len(outcomes)), 50.0, samples)


@settings(max_examples=25)
@given(st.lists(outcomes, min_size=1, max_size=30))
def test_a_result_and_its_samples_are_read_back_as_they_were_written(tmp_path_factory, outcomes):
    path = tmp_path_factory.mktemp("results") / "search.json"
    run = run_of(outcomes)
    state = Prepared(Cache.COLD, ("restarted",), ("not seen",), None)
    written = write_result(result("search", Load(1, len(outcomes), 7, 2, 50.0), run, HERE, state), path, run)
    found = read_result(path)
    assert found == written
    samples = read_samples(found, path)
    for name in ("intended", "free", "sent", "done", "server_ms", "failure", "short"):
        column = getattr(samples, name)
        assert column.dtype.kind == getattr(run, name).dtype.kind
        assert np.array_equal(column, getattr(run, name), equal_nan=column.dtype.kind == "f")
    assert samples.p95 == run.p95
    assert found.latency_ms["p95"] == run.p95
    json.loads(path.read_text(), parse_constant=pytest.fail)  # strict JSON: no NaN, no Infinity


def test_a_result_says_on_what_machine_with_which_settings_on_which_table(pair):
    fill(pair.target, 30)
    with connect(pair.target) as connection:
        connection.execute("CREATE INDEX ON memories USING ivfflat (embedding vector_cosine_ops) WITH (lists = 2)")
        found = environment(connection, TABLE)
    assert found.host["cores"] >= 1
    assert found.host["memory_bytes"] > 1 << 28
    assert len(found.load_average) == 3
    assert found.settings["shared_buffers"] == "256MB"
    assert found.settings["server_version"].startswith("16.")
    assert "vector" in found.extensions
    assert found.same_machine is True
    assert found.table.rows == 30
    assert "lists='2'" in found.indexes["memories_embedding_idx"]


def test_the_fingerprint_of_a_table_changes_with_its_rows_and_not_with_their_order(pair):
    fill(pair.target, 30)
    with connect(pair.target) as connection:
        first = table_fingerprint(connection, TABLE)
        connection.execute("CREATE TABLE copied AS SELECT * FROM memories ORDER BY id DESC")
        copied = table_fingerprint(connection, sql.Identifier("copied"))
        assert copied.digest == first.digest
        connection.execute("UPDATE memories SET version = version + 1 WHERE id = 'id-00000003'")
        changed = table_fingerprint(connection, TABLE)
        connection.execute("DELETE FROM memories WHERE id = 'id-00000004'")
        assert len({first.digest, changed.digest, table_fingerprint(connection, TABLE).digest}) == 3
        connection.execute("DELETE FROM memories")
        assert table_fingerprint(connection, TABLE).rows == 0


def test_a_table_without_versions_is_told_apart_by_its_transactions(pair):
    with connect(pair.target) as connection:
        connection.execute("CREATE TABLE plain (id int, v int)")
        connection.execute("INSERT INTO plain VALUES (1, 1), (2, 2)")
        first = table_fingerprint(connection, sql.Identifier("plain"))
        connection.execute("UPDATE plain SET v = 3 WHERE id = 1")
        assert first.version_column == "xmin"
        assert table_fingerprint(connection, sql.Identifier("plain")).digest != first.digest
        with pytest.raises(DataError, match="no table"):
            table_fingerprint(connection, sql.Identifier("nowhere"))


def test_what_is_no_result_of_this_schema_is_refused_with_its_place(tmp_path):
    path = tmp_path / "search.json"
    with pytest.raises(RecordError, match="cannot be read"):
        read_result(path)
    run = run_of([Outcome()])
    write_result(result("search", Load(1, 1, 7, 2), run, HERE), path)
    content = json.loads(path.read_text())
    for change, place in (
        ({"schema_version": 2}, "schema_version"),
        ({"surprise": 1}, "surprise"),
        ({"latency_ms": {"p50": "quick"}}, "latency_ms.p50"),
    ):
        path.write_text(json.dumps({**content, **change}))
        with pytest.raises(RecordError, match=place):
            read_result(path)
    path.write_text(json.dumps(content)[:200])
    with pytest.raises(RecordError, match="none of this schema"):
        read_result(path)


def test_samples_that_were_not_kept_are_not_made_up(tmp_path, monkeypatch):
    path = tmp_path / "search.json"
    run = run_of([Outcome()])
    found = write_result(result("search", Load(1, 1, 7, 2), run, HERE), path)
    with pytest.raises(RecordError, match="without its samples"):
        read_samples(found, path)
    monkeypatch.setattr(results, "find_spec", lambda name: None)
    with pytest.raises(ParameterError, match=r"orchestra-lib\[bench\]"):
        write_result(found, path, run)
