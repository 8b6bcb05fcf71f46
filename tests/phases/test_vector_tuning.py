"""The steps of runbook 08 on a real store that is searched meanwhile, and what its rollback brings back."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import memory_stores
import psycopg
import pytest
from psycopg import sql
from stores import Pair, fill

from orchestra_lib import record, runbook, settings
from orchestra_lib.errors import GateFailed, ParameterError, TargetUnreachable
from orchestra_lib.evidence import Evidence, Verdict
from orchestra_lib.phases.index_return import IndexReturn, _finding
from orchestra_lib.phases.vector_tuning import VectorTuningPhase, memory_store
from orchestra_lib.plan import Verb
from orchestra_lib.runbook import Runbook
from orchestra_lib.vectors.index import vector_indexes
from orchestra_lib.vectors.session_defaults import defaults, persist
from orchestra_lib.vectors.swap_journal import Orders, Outcome, Promise, Settled, Step, SwapJournal

pytestmark = pytest.mark.slow

OLD = "memories_embedding_ivfflat_4"
EVERY_LIST = 4
RECALL = "recall@10 on the target, lower end of its interval"
QUICK = {"methods": "ivfflat", "storages": "vector", "queries": 200, "budget_seconds": 15}

Opened = Callable[..., VectorTuningPhase]


@pytest.fixture
def opened(pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Opened]:
    """Opens the phase in a home of its own, on a store with an index of four lists and all of them probed."""
    shutil.copytree(settings.root() / "parameters", tmp_path / "parameters")
    memory_stores.write_parameters(tmp_path / "parameters", pair)
    monkeypatch.setenv("ORCHESTRA_HOME", str(tmp_path))
    for variable in ("ORCHESTRA_STATE_DIR", "ORCHESTRA_RUNS_DIR", record.RUN_CONTEXT_VARIABLE):
        monkeypatch.delenv(variable, raising=False)
    fill(pair.target, 1_000, clusters=25)
    on(pair.target, f"CREATE INDEX {OLD} ON memories USING ivfflat (embedding vector_cosine_ops) WITH (lists = 4)")
    persist(pair.target, {"ivfflat.probes": str(EVERY_LIST)})

    def phase(**parameters: object) -> VectorTuningPhase:
        return VectorTuningPhase(Runbook.open("08_vector_tuning", environment="local", **{**QUICK, **parameters}))

    yield phase
    for run in tuple(runbook._open_here.values()):
        lock = run._replaced()
        if lock is not None:
            lock.release()
    memory_stores.clear(pair)


def on(conninfo: str, *statements: str) -> None:
    with psycopg.connect(conninfo, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)


def indexes(conninfo: str) -> list[str]:
    with psycopg.connect(conninfo) as connection:
        rows = connection.execute("SELECT indexname FROM pg_indexes WHERE indexdef ~ 'embedding' ORDER BY 1").fetchall()
    return [row[0] for row in rows]


def probes(conninfo: str) -> int:
    with psycopg.connect(conninfo) as connection:
        row = connection.execute("SELECT '[1]'::vector <=> '[1]'::vector, current_setting('ivfflat.probes')").fetchone()
    assert row is not None
    return int(row[1])


def evidence(phase: VectorTuningPhase) -> dict[str, Evidence]:
    return {row.claim: row for row in phase._run.evidence}


def missed_by_chance(phase: VectorTuningPhase) -> list[str]:
    """An index built again is another one: on 80 queries it may miss its target by chance, and then has to say so."""
    certified = phase._need_certificate()
    return [] if certified.recall.low >= certified.recall_target else [RECALL]


def tuned(phase: VectorTuningPhase) -> None:
    phase.profile()
    phase._run.preflight(phase.checks())
    phase.drift()
    phase.tune()
    for show in (phase.plane, phase.pages, phase.builds, phase.explain):
        assert show() is not None


def applied(phase: VectorTuningPhase) -> None:
    phase.swap()
    for show in (phase.certificate, phase.load, phase.before_and_after):
        assert show() is not None
    phase.drift()
    phase.read_back()


def test_the_best_index_takes_the_place_of_the_present_one_and_a_rollback_brings_that_back(
    pair: Pair, opened: Opened
) -> None:
    phase = opened()
    tuned(phase)
    assert indexes(pair.target) == [OLD], "choosing changes nothing"
    plan = phase.plan()
    assert [change.verb for change in plan.changes] == [Verb.REPLACE, Verb.UPDATE]
    assert plan.digest == phase.plan().digest
    applied(phase)
    found, certified = evidence(phase), phase._need_certificate()
    failed = [row.claim for row in found.values() if row.verdict not in (Verdict.PASS, Verdict.NOTED)]
    assert failed == missed_by_chance(phase)
    (new,) = indexes(pair.target)
    assert new != OLD
    assert probes(pair.target) == found["ivfflat.probes that a new session has"].value
    watched = found["index as it is now: recall of the last searches watched"].value
    assert watched == pytest.approx(certified.recall.value, abs=0.05), "the new index is watched"

    with_new_effort = probes(pair.target)
    back = IndexReturn(phase._run, "08")
    assert [(change.verb, change.name) for change in back.changes() if change.kind == "index"] == [
        (Verb.CREATE, OLD),
        (Verb.DELETE, new),
    ]
    assert (back.apply(), back.apply()) == (1, 0)
    assert indexes(pair.target) == [OLD]
    assert probes(pair.target) == EVERY_LIST != with_new_effort, "the index found enough with it, and does"
    assert back.evidence()[-1].note.startswith("ivfflat.probes 4, before 4: recall 1 ")
    assert (back.journalled, [row.verdict for row in back.evidence()]) == (2, [Verdict.PASS] * 3)


HUNDRED = "memories_embedding_ivfflat_100"


def swapped_away(pair: Pair, phase: VectorTuningPhase, promise: Promise | None) -> None:
    """An index of a hundred lists, searched with one of them, that the present one has replaced, by the journal."""
    method = "ivfflat (embedding vector_cosine_ops) WITH (lists = 100)"
    on(pair.target, f"CREATE INDEX {HUNDRED} ON memories USING {method}")
    with psycopg.connect(pair.target) as connection:
        present = {index.name: index for index in vector_indexes(connection, sql.Identifier("memories"))}
    on(pair.target, f"DROP INDEX {HUNDRED}")
    persist(pair.target, {"ivfflat.iterative_scan": "relaxed_order"})
    journal = SwapJournal(phase._swaps)
    before, after = {"ivfflat.probes": "1"}, {"ivfflat.probes": str(EVERY_LIST)}
    making, dropping = (present[OLD],), (present[HUNDRED],)
    swap = journal.begin(Orders("memories", "embedding", making, dropping, before, {}, after, None, None, promise))
    journal.done(swap, Step.CERTIFY)
    journal.ended(swap, Outcome.DONE)


@pytest.mark.parametrize(
    ("promise", "verdict", "told"),
    [
        (Promise(0.95, "rows of the table"), Verdict.PASS, "before 1: recall"),
        (Promise(0.95, "held-out questions"), Verdict.MISSING, "was measured with held-out questions"),
        (Promise(0.95, "logged production queries", "/nowhere.jsonl"), Verdict.MISSING, "/nowhere.jsonl is not there"),
        (None, None, ""),
    ],
)
def test_an_index_that_comes_back_is_given_the_effort_to_find_what_its_predecessor_found(
    pair: Pair, opened: Opened, promise: Promise | None, verdict: Verdict | None, told: str
) -> None:
    phase = opened()
    swapped_away(pair, phase, promise)
    back = IndexReturn(phase._run, "08")
    assert back.check().verdict is Verdict.PASS
    assert back.apply() == 1
    rows = {row.claim: row for row in back.evidence()}
    assert rows.pop("swaps of the index that stand").verdict is Verdict.PASS
    assert rows.pop("the vector indexes are those of before").verdict is Verdict.PASS
    assert [row.verdict for row in rows.values()] == ([verdict] if verdict else [])
    assert all(told in row.note for row in rows.values())
    assert (probes(pair.target) > 1) == (verdict is Verdict.PASS), "else it is as it was"
    with psycopg.connect(pair.target) as connection:
        assert defaults(connection, ["ivfflat.iterative_scan"]) == {"ivfflat.iterative_scan": "relaxed_order"}
    found = probes(pair.target)
    again = IndexReturn(phase._run, "08")
    assert (again.changes(), again.apply(), probes(pair.target)) == ((), 0, found)
    assert [row.verdict for row in again.evidence()][1:] == ([verdict] if verdict else [])


def test_nothing_comes_back_beside_an_index_that_somebody_made_since(pair: Pair, opened: Opened) -> None:
    phase = opened()
    swapped_away(pair, phase, None)
    on(pair.target, f"ALTER INDEX {OLD} RENAME TO another")
    (red,) = [IndexReturn(phase._run, "08").check()]
    assert (red.verdict, f"another, {OLD} came or went" in red.note) == (Verdict.FAIL, True)


def test_an_index_that_finds_too_little_after_all_is_told_as_that() -> None:
    settled = Settled("one", "ivfflat.probes", "9", False, "recall 0.94")
    assert (_finding(settled).verdict, _finding(settled).note) == (Verdict.FAIL, "recall 0.94")


def test_lists_that_are_asked_for_are_built_and_when_they_are_there_nothing_is_planned(
    pair: Pair, opened: Opened
) -> None:
    phase = opened(lists=40)
    tuned(phase)
    assert phase.plan().changes[0].after == "IVFFlat with 40 lists"
    applied(phase)
    assert indexes(pair.target) == ["memories_embedding_ivfflat_40"]
    changes = phase.plan().changes
    assert [change.verb for change in changes] == [Verb.KEEP, Verb.UPDATE]
    applied(phase)
    assert indexes(pair.target) == ["memories_embedding_ivfflat_40"], "what is there is left alone"
    failed = [row.claim for row in evidence(phase).values() if row.verdict is Verdict.FAIL]
    assert failed == missed_by_chance(phase)


def test_an_index_that_is_not_certified_is_dropped_and_the_present_one_goes_on(pair: Pair, opened: Opened) -> None:
    phase = opened(lists=40, p95_ms=0.001)
    phase._tuning.tune(phase._address, phase._serving.queries(), (40,))
    with pytest.raises(GateFailed, match=r"not certified, so it was dropped and the old index goes on serving: .*p95"):
        phase.swap()
    assert (indexes(pair.target), probes(pair.target)) == ([OLD], EVERY_LIST)


def test_logged_queries_are_what_the_index_is_judged_by(opened: Opened, tmp_path: Path) -> None:
    log = tmp_path / "queries.jsonl"
    vectors = fill_vectors()
    log.write_text("".join(json.dumps({"at": n, "embedding": v}) + "\n" for n, v in enumerate(vectors)))
    found = opened(replay=str(log), queries=60)._serving.queries()
    assert (len(found), found.origin, found.own_ids) == (60, "logged production queries", None)
    with pytest.raises(ParameterError, match=r"replay .*nowhere.jsonl is not there"):
        opened(replay=str(tmp_path / "nowhere.jsonl"))._serving.queries()
    with pytest.raises(ParameterError, match=r"is read by its ending: .jsonl"):
        opened(replay="queries.txt")._serving.queries()


def fill_vectors() -> list[list[float]]:
    from stores import unit_vectors

    return unit_vectors(80, seed=9).tolist()


def test_without_a_store_it_is_said_what_to_run_first(pair: Pair, opened: Opened) -> None:
    on(pair.target, "DROP TABLE memories")
    with pytest.raises(TargetUnreachable, match="no table memories to tune: run 03_memory first, or give target_dsn"):
        opened()
    nowhere = settings.load("local", "08_vector_tuning", {"target_dsn": "host=/nowhere dbname=none"})
    with pytest.raises(TargetUnreachable, match="there is no memory store to tune: run 03_memory first"):
        memory_store(nowhere)
