"""The cutover on real servers: nothing is lost on the way there or back, whatever happens in between."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path

import psycopg
import pytest
from changes import emptied
from stage import QUICK, Stage
from stores import Pair

from orchestra_lib.errors import DataError, GateFailed, RecordError
from orchestra_lib.evidence import Verdict
from orchestra_lib.local import postgres
from orchestra_lib.memory import cutover as cutting
from orchestra_lib.memory import cutover_journal
from orchestra_lib.memory.cutover import Cutover, CutoverUndone, CutoverUnfinished
from orchestra_lib.memory.cutover_checks import cutover_checks
from orchestra_lib.memory.cutover_journal import CutoverJournal, Outcome, Step

pytestmark = pytest.mark.slow

_numbers = count(1)
AS_FORK = multiprocessing.get_context("fork")


@pytest.fixture(scope="module")
def logical_pair() -> Iterator[Pair]:
    """Databases on two servers of their own: positions in one's log mean nothing in the other's."""
    directory = Path(tempfile.mkdtemp(prefix="orchestra-cutover-"))
    directory.chmod(0o755)
    settings = {**postgres.SETTINGS, "wal_level": "logical"}
    names = ("source", "target")
    try:
        conninfos = {
            name: postgres.start(directory / name, f"the tests' {name}", settings).conninfo() for name in names
        }
        for conninfo in conninfos.values():
            Stage.run(conninfo, "CREATE EXTENSION vector")
        yield Pair(**conninfos)
    finally:
        for name in names:
            postgres.stop(directory / name, f"the tests' {name}")
        shutil.rmtree(directory)


@pytest.fixture
def stage(logical_pair: Pair, tmp_path: Path) -> Iterator[Stage]:
    made = Stage(logical_pair.source, logical_pair.target, tmp_path, f"app_{next(_numbers)}")
    made.prepare()
    yield made
    made.clear()
    for conninfo in (logical_pair.source, logical_pair.target):
        emptied(conninfo)


INSERT = (
    "INSERT INTO memories SELECT '{}', agent_id, user_id, session_id, persona, item_type, content, metadata, "
    "embedding, embedding_model, version, created_at, updated_at, expires_at FROM memories WHERE id = 'id-00000001'"
)


def may_write(stage: Stage, conninfo: str) -> bool:
    statement = "UPDATE memories SET version = version + 1 WHERE id = 'id-00000002'"
    try:
        stage.writes(conninfo, statement)
    except psycopg.errors.InsufficientPrivilege:
        return False
    return True


def slots(conninfo: str) -> set[str]:
    with psycopg.connect(conninfo) as connection:
        rows = connection.execute(
            "SELECT slot_name FROM pg_replication_slots WHERE database = current_database()"
        ).fetchall()
    return {name for (name,) in rows}


def assert_whole(stage: Stage) -> None:
    for side, verdict in stage.judged().items():
        assert verdict.holds, f"{side}: {verdict}"


def test_there_and_back_three_times_under_load_nothing_is_lost(stage: Stage) -> None:
    with stage.writer() as writer:
        results = [stage.cut_over() for _ in range(6)]
        told = writer.stop()
    assert [(result.here, result.there) for result in results] == [("source", "target"), ("target", "source")] * 3
    assert stage.here == "source"
    assert_whole(stage)
    for result in results:
        failing = [str(row) for row in result.evidence() if row.verdict is Verdict.FAIL and "pause" not in row.claim]
        assert failing == []
        assert result.rows_compared_in_pause > 0, "nothing was written: the test shows nothing"
    assert len(told.pauses) == 6
    assert all(pause.before != pause.after for pause in told.pauses)
    assert slots(stage.source) == {"there"}
    assert slots(stage.target) == set()


def test_only_the_live_side_takes_writes_before_and_after(stage: Stage) -> None:
    stage.run(stage.target, f"GRANT SELECT, INSERT, UPDATE ON memories TO {stage.writer_role}")
    stage.cut_over()
    assert (may_write(stage, stage.source), may_write(stage, stage.target)) == (False, True)
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        stage.writes(stage.target, "DELETE FROM memories")  # it had no such right there, and did not get it
    stage.cut_over()
    assert (may_write(stage, stage.source), may_write(stage, stage.target)) == (True, False)
    stage.writes(stage.source, "DELETE FROM memories WHERE id = 'id-00000003'")


def test_sequences_of_the_application_go_along(stage: Stage) -> None:
    stage.run(stage.source, "CREATE SEQUENCE turns; ALTER SEQUENCE turns OWNED BY memories.version")
    stage.run(stage.source, f"SELECT setval('turns', 500); GRANT USAGE ON SEQUENCE turns TO {stage.writer_role}")
    stage.cut_over()
    assert stage.one(stage.endpoint(stage.target), "SELECT nextval('turns')") == 500 + QUICK.sequence_margin + 1


def test_the_result_says_what_was_done_and_measured(stage: Stage) -> None:
    result = stage.cut_over()
    assert result.rows == 300
    assert set(Step) - set(result.step_seconds) == {Step.SHUT_THERE}
    assert result.pause_seconds > 0
    rows = {row.claim: row for row in result.evidence()}
    assert rows["pause of the writers from the source to the target"].value == round(result.pause_seconds, 3)
    assert rows["changes on the source after its writers were shut out"].verdict is Verdict.PASS


def test_a_cutover_does_not_begin_while_a_check_fails(stage: Stage) -> None:
    stranger = f"{stage.writer_role}_not_named"
    stage.run(stage.source, f"CREATE ROLE {stranger} LOGIN")
    stage.run(stage.source, f"GRANT UPDATE ON memories TO {stranger}")
    try:
        with pytest.raises(GateFailed, match=stranger):
            stage.cut_over()
    finally:
        stage.run(stage.source, f"DROP OWNED BY {stranger}; DROP ROLE {stranger}")
    assert stage.journal().cutovers == (), "nothing was begun"
    assert may_write(stage, stage.source)


def test_rows_in_quarantine_stand_in_the_way(stage: Stage) -> None:
    stage.run(
        stage.target,
        "INSERT INTO orchestra_stream.quarantine (stream, key, verb, change, error, commit_lsn) "
        "VALUES ('there', 'id-1', 'insert', '', 'it was refused', '0/1')",
    )
    with pytest.raises(GateFailed, match=r"rows in quarantine: 1 rows, wanted == 0, OBSERVED \(id-1: it was refused"):
        stage.cut_over()


def test_a_row_that_differs_is_found_before_anybody_is_shut_out(stage: Stage) -> None:
    stage.run(stage.target, "UPDATE memories SET content = 'damaged' WHERE id = 'id-00000042'")
    with pytest.raises(CutoverUndone, match=r"1 rows differ between the sides: id-00000042 \(changed\)"):
        stage.cut_over()
    assert Step.CLOSE.value not in (stage.folder / "journal.jsonl").read_text()
    assert slots(stage.target) == set()
    assert may_write(stage, stage.source)


def test_a_failing_switch_is_undone_under_load_and_the_next_one_succeeds(stage: Stage) -> None:
    def broken(endpoint: str) -> None:
        stage.switch(endpoint)
        if endpoint == stage.endpoint(stage.target):
            raise DataError("the secret was written, and then the connection was lost")

    with stage.writer() as writer:
        with pytest.raises(
            CutoverUndone, match=r"the secret was written.*undone: switch the endpoint, shut the writers"
        ):
            stage.cut_over(switch=broken)
        assert stage.switched_to[-1] == stage.endpoint(stage.source)
        assert (slots(stage.source), slots(stage.target)) == ({"there"}, set())
        stage.written_on(writer)
        stage.cut_over()
        writer.stop()
    assert_whole(stage)


def test_an_endpoint_that_cannot_be_put_back_is_told_and_the_writers_are_let_in_all_the_same(stage: Stage) -> None:
    def broken(_endpoint: str) -> None:
        raise DataError("the secret cannot be reached")

    with pytest.raises(CutoverUndone, match="could not undo 'switch the endpoint': the secret cannot be reached"):
        stage.cut_over(switch=broken)
    assert (may_write(stage, stage.source), may_write(stage, stage.target)) == (True, False)


def test_an_interruption_is_undone_and_raised_again(stage: Stage) -> None:
    def interrupted(endpoint: str) -> None:
        if endpoint == stage.endpoint(stage.target):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stage.cut_over(switch=interrupted)
    assert stage.journal().cutovers[-1].outcome is Outcome.UNDONE
    assert may_write(stage, stage.source)


def test_without_a_stream_back_there_is_a_cutover_and_no_return(stage: Stage) -> None:
    one_way = replace(stage.direction(), back=None)
    with stage.stream() as (stream, touched):
        Cutover(one_way, stage.journal(), stage.switch, QUICK).run(
            stream, touched, lambda _spec: pytest.fail("started")
        )
    assert (slots(stage.source), slots(stage.target)) == (set(), set())
    assert may_write(stage, stage.target)
    with pytest.raises(DataError, match="no stream from the target back to the source"):
        one_way.reversed()


def test_a_source_that_lacks_columns_could_not_take_the_rows_back(stage: Stage) -> None:
    direction = stage.direction()
    mapped = {**direction.here.table.columns, "content": "body"}
    poorer = replace(direction.here.table, defaulted=("persona",), columns=mapped)
    with stage.stream() as (stream, _):
        rows = cutover_checks(replace(direction, here=replace(direction.here, table=poorer)), stream.status(), 5)
    failing = [(row.claim, row.note) for row in rows if row.verdict is Verdict.FAIL]
    assert failing == [("columns that the source could not take back", "persona, content")]


def test_somebody_who_writes_in_the_pause_ends_it(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A superuser, whom no revoke shuts out."""
    mark, marks = cutting.mark, count(1)

    def mark_and_write(connection: psycopg.Connection) -> int:
        if next(marks) == 1:
            stage.run(stage.source, INSERT.format("of a superuser"))
        return mark(connection)

    monkeypatch.setattr(cutting, "mark", mark_and_write)
    with pytest.raises(CutoverUndone, match="somebody writes to the source though its writers are shut out"):
        stage.cut_over()
    assert may_write(stage, stage.source)
    assert stage.one(stage.target, "SELECT count(*) FROM memories WHERE id = 'of a superuser'") == 1


def test_an_open_transaction_of_somebody_else_ends_the_pause(stage: Stage) -> None:
    with psycopg.connect(stage.source) as superuser:
        superuser.execute(INSERT.format("not committed"))
        with pytest.raises(CutoverUndone, match=r"postgres \(process \d+\) still writes"):
            stage.cut_over(rules=cutting.Rules(ranges=8, pause_limit_seconds=0.5))
        superuser.commit()
    assert may_write(stage, stage.source)


def test_what_was_written_too_late_is_told_and_the_slot_is_kept(stage: Stage) -> None:
    def write_late(endpoint: str) -> None:
        stage.switch(endpoint)
        # The stream has stopped by the time that this commits: it is past everything that could undo.
        late.append(INSERT.format("too late"))

    late: list[str] = []
    with stage.stream() as (stream, touched):
        stop = stream.stop

        def stop_and_write() -> None:
            stop()
            stage.run(stage.source, late[0])

        stream.stop = stop_and_write
        result = stage.cutover(switch=write_late).run(stream, touched, lambda _spec: None)
    assert (result.late_applied, result.late_kept) == (0, 1)
    rows = {row.claim: row for row in result.evidence()}
    assert rows["changes on the source after its writers were shut out"].verdict is Verdict.FAIL
    assert slots(stage.source) == {"there"}


def test_an_emptied_table_begins_the_comparison_again(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    compare = cutting.compare_live

    def empty_meanwhile(*given):
        found = compare(*given)
        stage.run(stage.source, "TRUNCATE memories")
        with stage_session(stage) as source:
            assert given[4](cutting.mark(source), 10)
        return found

    monkeypatch.setattr(cutting, "compare_live", empty_meanwhile)
    with pytest.raises(CutoverUndone, match="the table was emptied"):
        stage.cut_over()


def stage_session(stage: Stage) -> psycopg.Connection:
    return psycopg.connect(stage.source, autocommit=True)


def test_an_unfinished_cutover_has_to_be_recovered_first(stage: Stage) -> None:
    stage.journal().begin("source", "target")
    with pytest.raises(RecordError, match="has not ended; recover it first"):
        stage.cut_over()
    assert stage.cutover().recover(lambda _spec: None).outcome is Outcome.UNDONE
    stage.cut_over()


def test_nothing_to_recover_is_told(stage: Stage) -> None:
    assert stage.cutover().recover(lambda _spec: None).outcome is None


def test_a_stream_back_that_does_not_start_leaves_a_cutover_to_recover(stage: Stage) -> None:
    def broken(_spec: object) -> None:
        raise DataError("no stream today")

    with (
        stage.stream() as (stream, touched),
        pytest.raises(CutoverUnfinished, match="no stream today; recover does it"),
    ):
        stage.cutover().run(stream, touched, broken)
    assert (may_write(stage, stage.source), may_write(stage, stage.target)) == (False, True)
    started = []
    assert stage.cutover().recover(started.append).outcome is Outcome.DONE
    assert [spec.name for spec in started] == ["back"]
    assert stage.here == "target"


# Every step done and not noted yet; and those that decide noted as begun, with nothing of them done.
POINTS = [
    *((step, "done", "before") for step in Step),
    *((step, "begun", "after") for step in (Step.CLOSE, Step.SWITCH, Step.OPEN)),
]


def test_killed_at_any_step_and_recovered_nothing_is_lost(stage: Stage) -> None:
    """One store goes back and forth while its mover is killed at step after step; the ledger is judged each time."""
    with stage.writer(per_second=100) as writer:
        for step, event, when in POINTS:
            here, told = stage.here, f"killed {when} '{step}' was noted as {event}"
            killed = AS_FORK.Process(target=cut_over_and_die, args=(stage, step, event, when))
            killed.start()
            killed.join(30)
            assert killed.exitcode == -signal.SIGKILL, told
            assert stage.journal().unfinished() is not None, told
            recovered = stage.cutover().recover(lambda _spec: None)
            switched = list(Step).index(step) >= list(Step).index(Step.SWITCH)
            assert recovered.outcome is (Outcome.DONE if switched else Outcome.UNDONE), told
            assert (stage.here != here) is switched, told
            live, other = (stage.source, stage.target) if stage.here == "source" else (stage.target, stage.source)
            assert (may_write(stage, live), may_write(stage, other)) == (True, False), told
            stage.written_on(writer)
            with stage.resting(writer):
                for side, verdict in stage.judged().items():
                    assert verdict.holds, f"{told}: on the {side} {verdict}"
        writer.stop()


def cut_over_and_die(stage: Stage, step: Step, event: str, when: str) -> None:
    """In a process of its own: it dies around one line of the journal."""
    append = cutover_journal.append_line

    def append_or_die(path: Path, line: str) -> None:
        wanted = f'"step":"{step}"' in line and f'"event":"{event}"' in line
        if wanted and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        append(path, line)
        if wanted:
            os.kill(os.getpid(), signal.SIGKILL)

    cutover_journal.append_line = append_or_die
    tempfile.tempdir = str(stage.folder)  # a killed stream cannot remove its files
    stage.cut_over()


def test_a_journal_that_was_torn_by_a_crash_is_read_up_to_there(tmp_path: Path) -> None:
    journal = CutoverJournal(tmp_path / "journal.jsonl")
    cutover = journal.begin("source", "target")
    journal.begun(cutover, Step.RETURN_SLOT)
    with journal.path.open("a") as file:
        file.write('{"sequence":2,"cut')
    again = CutoverJournal(journal.path)
    assert list(again.unfinished().steps) == [Step.RETURN_SLOT]
    again.ended(again.unfinished(), Outcome.UNDONE)
    assert CutoverJournal(journal.path).unfinished() is None


def test_a_journal_that_was_tampered_with_is_not_believed(tmp_path: Path) -> None:
    journal = CutoverJournal(tmp_path / "journal.jsonl")
    journal.begin("source", "target")
    journal.path.write_text(journal.path.read_text().replace('"sequence":0', '"sequence":1'))
    with pytest.raises(RecordError, match="line 1 cannot be believed"):
        CutoverJournal(journal.path)
