"""The steps of the memory phase on real servers, with a table of the user's own as the source."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
import yaml
from stores import Pair, fill

from orchestra_lib import record, runbook, settings
from orchestra_lib.errors import DataError, GateFailed
from orchestra_lib.evidence import Evidence, Source, Verdict
from orchestra_lib.phases.memory import MemoryPhase
from orchestra_lib.plan import Verb
from orchestra_lib.runbook import Runbook

pytestmark = pytest.mark.slow

PARAMETERS = settings.root() / "parameters"
OWN = {"id": "external_id", "embedding": "vec"}

Opened = Callable[..., MemoryPhase]


@pytest.fixture
def opened(pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Opened]:
    """Opens the phase in a home of its own, against the pair's databases and with few lists and queries."""
    shutil.copytree(PARAMETERS, tmp_path / "parameters")
    monkeypatch.setenv("ORCHESTRA_HOME", str(tmp_path))
    for variable in ("ORCHESTRA_STATE_DIR", "ORCHESTRA_RUNS_DIR", record.RUN_CONTEXT_VARIABLE):
        monkeypatch.delenv(variable, raising=False)

    def phase(environment: str = "local", **parameters: object) -> MemoryPhase:
        content = yaml.safe_load((PARAMETERS / "local.yaml").read_text())
        content["environment"]["name"] = environment
        content["memory"]["source"]["dsn"] = pair.source
        content["memory"]["target"]["dsn"] = pair.target
        content["memory"]["corpus"]["queries"] = 40
        (tmp_path / "parameters" / f"{environment}.yaml").write_text(yaml.safe_dump(content))
        return MemoryPhase(Runbook.open("03_memory", environment=environment, **{"lists": 8, **parameters}))

    yield phase
    for run in tuple(runbook._open_here.values()):
        lock = run._replaced()
        if lock is not None:
            lock.release()


def on(conninfo: str, *statements: str) -> None:
    with psycopg.connect(conninfo, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)


def own_table(pair: Pair, columns: str = "id AS external_id, content, embedding AS vec") -> None:
    fill(pair.source, 400)
    on(pair.source, f"CREATE TABLE own AS SELECT {columns} FROM memories")


def evidence(phase: MemoryPhase) -> dict[str, Evidence]:
    return {row.claim: row for row in phase._run.evidence}


def moved(phase: MemoryPhase) -> None:
    phase.inventory()
    phase.copy()
    phase.verify()
    phase.build_index()
    phase.measure()


# --- the source -------------------------------------------------------------------------------------------------------


def test_a_table_of_ones_own_is_moved_and_measured_whether_it_holds_vectors_or_arrays(
    pair: Pair, opened: Opened
) -> None:
    own_table(pair, "id AS external_id, content, embedding::real[] AS vec")
    phase = opened(source_table="own", source_columns=OWN)
    moved(phase)
    found = evidence(phase)
    assert found["rows on the target less rows on the source"].verdict is Verdict.PASS
    assert found["key ranges whose checksums differ"].verdict is Verdict.PASS
    assert found["before: recall@k"].value == 1.0, "without an index the source is searched exactly"
    with psycopg.connect(pair.target) as connection:
        assert connection.execute("SELECT count(*), count(DISTINCT content) FROM memories").fetchone() == (400, 400)


def test_a_null_where_the_memory_table_wants_a_value_closes_the_gate_before_anything_is_copied(
    pair: Pair, opened: Opened
) -> None:
    own_table(pair)
    on(pair.source, "UPDATE own SET content = NULL WHERE external_id IN ('id-00000001', 'id-00000002')")
    phase = opened(source_table="own", source_columns=OWN)
    phase.inventory()
    with pytest.raises(GateFailed, match="rows without a content: 2 rows, wanted == 0"):
        phase._run.preflight(phase.checks())


def test_duplicate_ids_are_named_where_they_close_the_gate(pair: Pair, opened: Opened) -> None:
    own_table(pair)
    on(pair.source, "UPDATE own SET external_id = 'id-00000002' WHERE external_id = 'id-00000001'")
    phase = opened(source_table="own", source_columns=OWN)
    phase.inventory()
    with pytest.raises(GateFailed, match=r"rows whose id another row has: 1 rows, .*id-00000002"):
        phase._run.preflight(phase.checks())


def test_a_table_too_small_to_be_measured_is_refused_before_anything_is_copied(pair: Pair, opened: Opened) -> None:
    fill(pair.source, 19)
    phase = opened()
    phase.inventory()
    with pytest.raises(GateFailed, match="rows to search with: 19 rows, wanted >= 20"):
        phase._run.preflight(phase.checks())


def test_a_table_that_the_user_may_not_read_is_said_in_one_line(pair: Pair, opened: Opened) -> None:
    own_table(pair)
    on(pair.source, "CREATE SCHEMA app", "CREATE TABLE app.own AS SELECT * FROM own", "DROP ROLE IF EXISTS reader")
    on(pair.source, "CREATE ROLE reader LOGIN", "REVOKE ALL ON own FROM reader")
    as_reader = pair.source.replace("user=postgres", "user=reader")
    try:
        for table, what in (("own", "table own"), ("app.own", "schema app")):
            with pytest.raises(DataError) as refusal:
                opened(source_dsn=as_reader, source_table=table, source_columns=OWN).inventory()
            assert f"{table} cannot be read: permission denied for {what}; grant" in str(refusal.value)
            assert "\n" not in str(refusal.value)
    finally:
        on(pair.source, "DROP ROLE reader")


# --- the plan ---------------------------------------------------------------------------------------------------------


def planned(phase: MemoryPhase) -> tuple[str, dict[str, tuple[Verb, str]]]:
    phase.inventory()
    plan = phase.plan()
    return plan.digest, {change.kind: (change.verb, change.detail) for change in plan.changes}


def test_a_plan_says_what_will_be_taken_off_the_target(pair: Pair, opened: Opened) -> None:
    fill(pair.source, 50)
    fill(pair.target, 30, first=1000)
    _, changes = planned(opened())
    assert changes["rows"] == (
        Verb.UPDATE, "50 from the source; 30 there now: key ranges that agree stay, all rows of the others are replaced"
    )  # fmt: skip


def test_a_plan_keeps_an_index_only_if_it_is_the_one_that_is_wanted(pair: Pair, opened: Opened) -> None:
    fill(pair.source, 400)
    phase = opened()
    assert planned(phase)[1]["index"][0] is Verb.CREATE
    moved(phase)
    assert phase.plan().changes[3].verb is Verb.KEEP
    on(
        pair.target,
        "DROP INDEX memories_embedding_ivfflat_8",
        "CREATE INDEX memories_embedding_ivfflat_8 ON memories USING ivfflat (embedding vector_l2_ops) WITH (lists=8)",
    )
    assert phase.plan().changes[3].verb is Verb.REPLACE
    phase.build_index()
    assert phase.plan().changes[3].verb is Verb.KEEP


def test_the_digest_of_a_plan_is_of_one_environment(pair: Pair, opened: Opened) -> None:
    fill(pair.source, 50)
    here, again, elsewhere = planned(opened())[0], planned(opened())[0], planned(opened("other"))[0]
    assert here == again
    assert here != elsewhere


# --- the gates --------------------------------------------------------------------------------------------------------


def test_an_index_that_the_search_does_not_read_fails_however_good_the_recall(pair: Pair, opened: Opened) -> None:
    fill(pair.source, 400)
    phase = opened()
    phase.inventory()
    phase.copy()
    phase.build_index()
    on(
        pair.target,
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'memories_embedding_ivfflat_8'::regclass",
    )
    phase.measure()
    found = evidence(phase)
    assert found["after: recall@k"].value == 1.0
    assert found["the search reads the index"].verdict is Verdict.FAIL


def test_what_a_formula_says_is_not_called_measured(pair: Pair, opened: Opened) -> None:
    fill(pair.source, 400)
    phase = opened()
    phase.inventory()
    phase.copy()
    phase.build_index()
    assert evidence(phase)["memory that the build needs"].source is Source.ASSUMED


def test_what_the_source_holds_is_shown_once_and_kept(pair: Pair, opened: Opened) -> None:
    fill(pair.source, 400)
    phase = opened()
    shown = {row[1] for row in phase.inventory().rows}
    checked = {row.claim for row in phase.checks()}
    assert shown == {row["claim"] for row in phase._run.record.evidence}
    assert "size of the table, without its indexes" in shown
    assert shown.isdisjoint(checked)
