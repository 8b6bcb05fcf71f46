"""The steps of the memory phase on real servers, with databases of the user's own on both sides."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import memory_stores
import psycopg
import pytest
from stores import Pair, fill

from orchestra_lib import record, runbook, settings, stream_process
from orchestra_lib.errors import DataError, GateFailed, TargetUnreachable
from orchestra_lib.evidence import Evidence, Source, Verdict
from orchestra_lib.local import postgres
from orchestra_lib.memory import cutover
from orchestra_lib.memory.cutover import CutoverUndone
from orchestra_lib.phases import validation_store
from orchestra_lib.phases.memory import MemoryPhase
from orchestra_lib.plan import Verb
from orchestra_lib.runbook import Runbook

pytestmark = pytest.mark.slow

RECALL = "recall@10 on the target, lower end of its interval"

PARAMETERS = settings.root() / "parameters"
OWN = {"id": "external_id", "embedding": "vec"}
STILL = {"lists": 8, "live": False}

Opened = Callable[..., MemoryPhase]


@pytest.fixture
def opened(pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Opened]:
    """Opens the phase in a home of its own, on the pair's databases and with few lists and queries.

    The store stands still unless a test says that it is ``live``.
    """
    shutil.copytree(PARAMETERS, tmp_path / "parameters")
    monkeypatch.setenv("ORCHESTRA_HOME", str(tmp_path))
    for variable in ("ORCHESTRA_STATE_DIR", "ORCHESTRA_RUNS_DIR", record.RUN_CONTEXT_VARIABLE):
        monkeypatch.delenv(variable, raising=False)
    environments = {"local"}

    def phase(environment: str = "local", kind: str = "local", **parameters: object) -> MemoryPhase:
        environments.add(environment)
        memory_stores.write_parameters(tmp_path / "parameters", pair, environment, kind)
        return MemoryPhase(Runbook.open("03_memory", environment=environment, **{**STILL, **parameters}))

    yield phase
    for run in tuple(runbook._open_here.values()):
        lock = run._replaced()
        if lock is not None:
            lock.release()
    memory_stores.clear(pair, environments)


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
    phase.index.build()
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
    fill(pair.source, 39)
    phase = opened()
    phase.inventory()
    with pytest.raises(GateFailed, match="rows to search with: 39 rows, wanted >= 40"):
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
    assert planned(phase)[1]["index"][0] is Verb.KEEP
    on(
        pair.target,
        "DROP INDEX memories_embedding_ivfflat_8",
        "CREATE INDEX memories_embedding_ivfflat_8 ON memories USING ivfflat (embedding vector_l2_ops) WITH (lists=8)",
    )
    assert planned(phase)[1]["index"][0] is Verb.REPLACE
    phase.index.build()
    assert planned(phase)[1]["index"][0] is Verb.KEEP


def test_the_digest_of_a_plan_is_of_one_environment(pair: Pair, opened: Opened) -> None:
    fill(pair.source, 50)
    here, again, elsewhere = planned(opened())[0], planned(opened())[0], planned(opened("other"))[0]
    assert here == again
    assert here != elsewhere


# --- the gates --------------------------------------------------------------------------------------------------------


def test_an_index_that_the_search_does_not_read_is_not_measured_however_good_the_recall(
    pair: Pair, opened: Opened
) -> None:
    fill(pair.source, 400)
    phase = opened()
    phase.inventory()
    phase.copy()
    phase.index.build()
    on(
        pair.target,
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'memories_embedding_ivfflat_8'::regclass",
    )
    with pytest.raises(DataError, match="IVFFlat with 8 lists cannot be measured: the plan reads the whole table"):
        phase.measure()


def test_what_a_formula_says_is_not_called_measured(pair: Pair, opened: Opened) -> None:
    fill(pair.source, 400)
    phase = opened()
    phase.inventory()
    phase.copy()
    phase.index.build()
    assert evidence(phase)["memory that the build needs"].source is Source.ASSUMED


def test_what_the_source_holds_is_shown_once_and_kept(pair: Pair, opened: Opened) -> None:
    fill(pair.source, 400)
    phase = opened()
    shown = {row[1] for row in phase.inventory().rows}
    checked = {row.claim for row in phase.checks()}
    assert shown == {row["claim"] for row in phase._run.record.evidence}
    assert "size of the table, without its indexes" in shown
    assert shown.isdisjoint(checked)


# --- the index --------------------------------------------------------------------------------------------------------


def tuned(phase: MemoryPhase) -> None:
    phase.inventory()
    phase._run.preflight(phase.checks())
    phase.copy()
    phase.index.tune()
    phase.index.build()
    phase.measure()
    for show in (phase.index.plane, phase.index.pages, phase.index.builds, phase.index.load,
                 phase.index.before_and_after, phase.index.certificate, phase.index.explain):  # fmt: skip
        assert show() is not None


def test_lists_that_are_asked_for_are_built_and_certified_with_the_best_beside_them(pair: Pair, opened: Opened) -> None:
    fill(pair.source, 1_000, clusters=200)
    phase = opened(lists=40, queries=200)
    tuned(phase)
    found = evidence(phase)
    assert found["lists of the index, read back"].verdict is Verdict.PASS
    assert (found["lists of the index, read back"].value, found["the index is"].value) == (40, "certified")
    assert [row.claim for row in found.values() if row.verdict not in (Verdict.PASS, Verdict.NOTED)] == []
    assert any(note.startswith("IVFFlat with 40 lists, as it was asked for, is certified")
               for note in phase._run.record.notes)  # fmt: skip


def test_without_lists_the_index_that_is_measured_to_be_best_is_built_and_its_effort_is_every_sessions(
    pair: Pair, opened: Opened
) -> None:
    fill(pair.source, 1_000, clusters=200)
    phase = opened(lists=None, queries=200)
    tuned(phase)
    found = evidence(phase)
    failed = [row.claim for row in found.values() if row.verdict not in (Verdict.PASS, Verdict.NOTED)]
    # What is built again is another index: on so few queries it may miss its target by chance, and then says so.
    missed = float(found[RECALL].value) < 0.95
    assert failed == ([RECALL] if missed else [])
    assert found["index chosen by measurement"].value != "none"


# --- a store that is written to ---------------------------------------------------------------------------------------


def test_a_table_whose_changes_cannot_be_followed_closes_the_gate_with_what_cures_it(
    pair: Pair, opened: Opened
) -> None:
    own_table(pair)
    phase = opened(source_table="own", source_columns=OWN, live=True)
    phase.inventory()
    cure = r"CREATE UNIQUE INDEX CONCURRENTLY ON \"own\" \(\"external_id\"\).* or live = False"
    with pytest.raises(GateFailed, match=cure):
        phase._run.preflight(phase.checks())
    on(pair.source, "ALTER TABLE own ADD PRIMARY KEY (external_id)")
    phase._run.preflight(phase.checks())


def test_a_server_that_writes_no_logical_log_closes_the_gate_unless_the_store_stands_still(
    opened: Opened,
) -> None:
    data = memory_stores.server_directory() / "source"
    try:
        source = postgres.start(data, "a source as it comes", {**postgres.SETTINGS, "wal_level": "replica"}).conninfo()
        on(source, "CREATE EXTENSION vector")
        fill(source, 40)
        phase = opened(source_dsn=source, live=True)
        phase.inventory()
        with pytest.raises(GateFailed, match=r"its wal_level is replica; set wal_level = logical .* live = False"):
            phase._run.preflight(phase.checks())
        still = opened(source_dsn=source)
        still.inventory()
        still._run.preflight(still.checks())
    finally:
        postgres.discard(data, "a source as it comes")
        shutil.rmtree(data.parent)


def test_a_store_is_copied_while_it_is_written_to_followed_compared_and_asked(pair: Pair, opened: Opened) -> None:
    fill(pair.source, 400)
    phase = opened(live=True)
    changes = planned(phase)[1]
    assert {verb for kind, (verb, _) in changes.items() if kind.endswith("on the source")} == {Verb.CREATE}
    phase.copy()
    on(pair.source, "UPDATE memories SET version = version + 1", "DELETE FROM memories WHERE id < 'id-00000050'")
    phase.verify()
    phase.index.build()
    phase.stream.start()
    phase.stream.catch_up()
    phase.stream.figure()
    phase.stream.compare()
    phase.stream.shadow()
    phase.read_back()
    found = evidence(phase)
    assert found["the copy was"].value == "begun"
    assert found["rows sent"].value == 400
    assert found["changes in quarantine"].value == 0
    assert [row.claim for row in found.values() if row.verdict not in (Verdict.PASS, Verdict.NOTED)] == []
    with psycopg.connect(pair.target) as connection:
        assert connection.execute("SELECT count(*), min(version) FROM memories").fetchone() == (350, 2)


def test_the_next_run_finds_the_copy_complete_and_the_stream_running(pair: Pair, opened: Opened) -> None:
    fill(pair.source, 60)
    phase = opened(live=True)
    phase.inventory()
    phase.copy()
    phase.stream.start()
    pid = evidence(phase)["process of the stream"].value
    on(pair.source, "DELETE FROM memories WHERE id < 'id-00000010'")
    phase.stream.catch_up()
    again = opened(live=True)
    changes = planned(again)[1]
    assert changes["rows"][0] is Verb.KEEP
    assert changes["rows"][1].startswith("goes on where it was: 16 of 16 key ranges are there, from slot ")
    assert {verb for kind, (verb, _) in changes.items() if kind.endswith("on the source")} == {Verb.KEEP}
    again.copy()
    again.verify()
    again.stream.start()
    found = evidence(again)
    assert (found["the copy was"].value, found["process of the stream"].value) == ("found complete", pid)
    assert "rows sent" not in found
    assert "the copy is older than this run" in found


def test_on_this_machine_the_stream_rests_when_the_run_is_over(pair: Pair, opened: Opened) -> None:
    fill(pair.source, 60)
    phase = opened(live=True)
    phase.inventory()
    phase.copy()
    phase.stream.start()
    phase.leave()
    assert evidence(phase)["the stream"].value == "rests; run this notebook again and it goes on"
    assert stream_process.running("local") is None


def test_drills_that_a_database_of_ones_own_cannot_give_are_left_out_with_their_reason(
    pair: Pair, opened: Opened
) -> None:
    fill(pair.source, 60)
    phase = opened(drill_cutover=False)
    phase.inventory()
    phase.provision()
    phase.start_load()
    phase.drill_point_in_time()
    phase.drill_switchover()
    phase.cutover.there()
    phase.cutover.back()
    phase.cutover.judge()
    notes = {row.claim: row.note for row in phase._run.evidence}
    assert notes["target"] == "nothing is provisioned for it"
    assert notes["load on the source"] == "no rehearsal's writer"
    assert notes["drill: restore to a moment"] == "the target is no AlloyDB"
    assert notes["drill: switchover to the other region"] == "the target is no AlloyDB"
    assert notes["drill: cutover and return"] == "drills.cutover is false"
    assert notes["return"] == "the writers write on the source"
    assert notes["the judge"] == "only a rehearsal's writer keeps a ledger"


# --- the cutover ------------------------------------------------------------------------------------------------------


def test_the_writers_are_switched_over_and_brought_back_with_what_they_wrote_there(pair: Pair, opened: Opened) -> None:
    fill(pair.source, 60)
    role = memory_stores.make_writer(pair)
    phase = opened(live=True)
    phase.inventory()
    phase.copy()
    phase.index.build()
    phase.stream.start()
    phase.stream.catch_up()
    assert phase.cutover.live == "source"
    phase.cutover.there()
    assert phase.cutover.live == "target"
    delete = "DELETE FROM memories WHERE id = 'id-00000001'"
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        on(f"{pair.source} user={role}", delete)
    on(f"{pair.target} user={role}", delete)
    phase.cutover.back()
    assert phase.cutover.live == "source"
    on(f"{pair.source} user={role}", "DELETE FROM memories WHERE id = 'id-00000002'")
    phase.stream.drain()
    for conninfo in (pair.source, pair.target):
        with psycopg.connect(conninfo) as connection:
            assert connection.execute("SELECT count(*), min(id) FROM memories").fetchone() == (58, "id-00000000")
    found = evidence(phase)
    assert found["pause of the writers from the source to the target"].verdict is Verdict.PASS
    assert found["pause of the writers from the target to the source"].verdict is Verdict.PASS


def test_nothing_is_copied_over_a_target_that_is_written_to(pair: Pair, opened: Opened) -> None:
    fill(pair.source, 60)
    role = memory_stores.make_writer(pair)
    phase = opened(live=True)
    phase.inventory()
    phase.copy()
    phase.stream.start()
    phase.stream.catch_up()
    phase.cutover.there()
    again = opened(live=True, drill_cutover=False)
    again.inventory()
    with pytest.raises(GateFailed, match=r"the writers write on the source.*bring them back first \(drill_cutover\)"):
        again._run.preflight(again.checks())
    back = opened(live=True)
    assert back.cutover.live == "source"
    assert back._run.record.notes[-1] == (
        "an earlier run has left the writers on the target: they have been brought back"
    )
    on(f"{pair.source} user={role}", "DELETE FROM memories WHERE id = 'id-00000002'")


def streaming(phase: MemoryPhase) -> MemoryPhase:
    """A phase whose stream has caught up."""
    phase.inventory()
    phase.copy()
    phase.stream.start()
    phase.stream.catch_up()
    return phase


def test_a_plan_leaves_the_writers_where_they_are_and_says_that_applying_brings_them_back(
    pair: Pair, opened: Opened
) -> None:
    fill(pair.source, 60)
    role = memory_stores.make_writer(pair)
    streaming(opened(live=True)).cutover.switch_over()  # as 07 does
    looked = opened(live=True, mode="plan")
    assert looked.cutover.live == "target"
    on(f"{pair.target} user={role}", "DELETE FROM memories WHERE id = 'id-00000001'")
    looked.inventory()
    looked._run.preflight(looked.checks())
    way_back = [change for change in looked.plan().changes if change.kind == "writers"]
    assert [(change.verb, change.before, change.after) for change in way_back] == [(Verb.UPDATE, "target", "source")]
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        on(f"{pair.source} user={role}", "DELETE FROM memories WHERE id = 'id-00000002'")
    assert opened(live=True).cutover.live == "source"


@pytest.fixture
def cloud(pair: Pair, opened: Opened, monkeypatch: pytest.MonkeyPatch) -> tuple[Opened, list[str]]:
    """Opens the phase in an environment that is no rehearsal, with its rows copied; and the streams that were started.

    These are not started: they would go through Google Cloud.
    """
    fill(pair.source, 60)
    memory_stores.make_writer(pair)
    started: list[str] = []
    monkeypatch.setattr(stream_process, "start", lambda environment, _overrides: started.append(environment))

    def phase(**parameters: object) -> MemoryPhase:
        return opened("elsewhere", "gcp", live=True, drill_cutover=True, **parameters)

    first = phase()
    first.inventory()
    first.copy()
    return phase, started


def test_outside_a_rehearsal_a_drills_writers_are_brought_back_and_those_that_were_switched_for_good_are_not(
    cloud: tuple[Opened, list[str]],
) -> None:
    opened, started = cloud
    opened().cutover.there()
    looked = opened(mode="plan")
    assert looked.cutover.live == "target"
    assert started == ["elsewhere"], "the drill's run has ended, and with it the stream in its process"
    back = opened()
    assert back.cutover.live == "source"
    assert started == ["elsewhere"] * 2
    back.cutover.there()
    back.cutover.switch_over()  # as 07 does, which finds them there: from now on it is no drill's
    stays = opened()
    assert stays.cutover.live == "target"
    assert stays.cutover.changes() == ()
    (row,) = stays.cutover.checks()
    assert row.verdict is Verdict.FAIL
    assert "rollback --phase 07 --environment elsewhere" in row.note


def test_a_journal_that_does_not_say_what_a_cutover_was_for_is_taken_for_one_for_good(
    cloud: tuple[Opened, list[str]],
) -> None:
    opened, _ = cloud
    phase = opened()
    phase.cutover.there()
    path = phase._stores.journal("cutover")
    path.write_text(path.read_text().replace('"purpose":"drill",', ""))
    assert "purpose" not in path.read_text()
    assert opened().cutover.live == "target"


@pytest.mark.parametrize("ends", [DataError("no comparison today"), KeyboardInterrupt()])
def test_outside_a_rehearsal_the_stream_goes_on_after_a_cutover_that_was_given_up(
    cloud: tuple[Opened, list[str]], pair: Pair, monkeypatch: pytest.MonkeyPatch, ends: BaseException
) -> None:
    opened, started = cloud
    phase = opened()

    def fails(*_: object) -> None:
        raise ends

    monkeypatch.setattr(cutover, "compare_live", fails)
    with pytest.raises((CutoverUndone, KeyboardInterrupt)):
        phase.cutover.there()
    assert phase.cutover.live == "source"
    assert started == ["elsewhere"]
    with psycopg.connect(pair.source) as session:
        slots = session.execute(
            "SELECT active FROM pg_replication_slots WHERE database = current_database()"
        ).fetchall()
    assert slots == [(False,)], "the process could not read it otherwise"


def test_outside_a_rehearsal_a_stream_that_ran_when_a_run_began_runs_when_it_ends(
    cloud: tuple[Opened, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, started = cloud
    opened()
    assert started == []
    monkeypatch.setattr(stream_process, "running", lambda environment: environment)
    opened()
    monkeypatch.setattr(stream_process, "running", lambda _environment: None)
    opened()  # the run before ends: a drill had stopped the stream, and was cut off
    assert started == ["elsewhere"]


def test_a_stream_that_does_not_go_on_is_noted_and_hides_nothing(
    cloud: tuple[Opened, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, _ = cloud
    phase = opened()

    def fails(*_: object) -> None:
        raise TargetUnreachable("no stream today")

    monkeypatch.setattr(stream_process, "start", fails)
    monkeypatch.setattr(phase.cutover, "_look_ahead", fails)
    with pytest.raises(TargetUnreachable, match="no stream today"):
        phase.cutover.there()
    note = phase._run.record.notes[-1]
    assert note.startswith("the stream does not go on: no stream today; until python -m orchestra_lib stream run --env")


def test_outside_a_rehearsal_a_validation_that_is_interrupted_leaves_the_stream_running(
    cloud: tuple[Opened, list[str]], pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, started = cloud
    phase = opened()
    again = validation_store.StoreAgain(phase._run, phase._stores, pair.target, None)

    def interrupted(seconds: float) -> None:
        assert seconds == validation_store.BACKLOG_SECONDS
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(stream_process, "stop", lambda _environment: True)
        patched.setattr(validation_store.time, "sleep", interrupted)
        with pytest.raises(KeyboardInterrupt):
            again.stream("a machine", "no load")
    assert started == ["elsewhere"]


def test_a_store_that_stands_still_goes_through_every_cell_of_the_stream_and_says_that_nothing_is_streamed(
    pair: Pair, opened: Opened
) -> None:
    fill(pair.source, 300)
    phase = opened()
    phase.inventory()
    phase.start_load()
    phase.copy()
    phase.verify()
    told = [phase.stream.start(), phase.stream.catch_up(), phase.stream.figure()]
    told += [phase.stream.compare(), phase.stream.shadow()]
    assert all("nothing is streamed" in str(one._repr_html_()) for one in told)
    phase.cutover.there()
    phase.cutover.back()
    phase.cutover.judge()
    phase.read_back()
    phase.leave()
    assert not [row.claim for row in phase._run.evidence if row.verdict in (Verdict.FAIL, Verdict.MISSING)]
