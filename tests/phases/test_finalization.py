"""What a killed finalization or validation leaves, and what the next one makes of it, on two databases of one's own."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import memory_stores
import psycopg
import pytest
from stores import Pair, fill

from orchestra_lib import record, runbook, settings, stream_process
from orchestra_lib.evidence import Verdict
from orchestra_lib.memory import state_tables
from orchestra_lib.move import RETURN_STREAM
from orchestra_lib.paths import state_directory
from orchestra_lib.phases.finalization_judge import SwitchJudge
from orchestra_lib.phases.memory import MemoryPhase
from orchestra_lib.phases.memory_cutover import TARGET, CutoverSteps
from orchestra_lib.phases.memory_load import RehearsalLoad
from orchestra_lib.phases.memory_stores import Stores
from orchestra_lib.phases.memory_stream import StreamSteps
from orchestra_lib.phases.validation_store import StoreAgain
from orchestra_lib.rehearsal.load_report import report
from orchestra_lib.rehearsal.writer import Load, writer_process
from orchestra_lib.rehearsal.written import KEY_SPACE
from orchestra_lib.runbook import Runbook

pytestmark = pytest.mark.slow

ROWS = 300


@pytest.fixture
def home(pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "parameters").mkdir()
    shutil.copy(settings.root() / "parameters" / "production.yaml", tmp_path / "parameters")
    memory_stores.write_parameters(tmp_path / "parameters", pair)
    monkeypatch.setenv("ORCHESTRA_HOME", str(tmp_path))
    for variable in ("ORCHESTRA_STATE_DIR", "ORCHESTRA_RUNS_DIR", record.RUN_CONTEXT_VARIABLE):
        monkeypatch.delenv(variable, raising=False)
    fill(pair.source, ROWS)
    memory_stores.make_writer(pair)
    yield tmp_path
    for run in tuple(runbook._open_here.values()):
        abandoned(run)
    memory_stores.clear(pair)


def abandoned(run: Runbook) -> None:
    lock = run._replaced()
    if lock is not None:
        lock.release()


def streamed() -> MemoryPhase:
    """The store is on the target, and the stream has brought what came since."""
    opened = Runbook.open("03_memory", environment="local")
    phase = MemoryPhase(opened)
    phase.inventory()
    opened.preflight(phase.checks())
    phase.copy()
    phase.verify()
    phase.stream.start()
    phase.stream.catch_up()
    return phase


def switched() -> None:
    """The writers write on the target, and nobody has come after the switch to tidy up."""
    phase = streamed()
    phase.cutover.switch_over()
    abandoned(phase._run)


def judge(mode: str = "apply") -> SwitchJudge:
    stores = Stores(Runbook.open("07_finalization", environment="local", mode=mode))
    load = RehearsalLoad(stores)
    stream = StreamSteps(stores, load, None)
    cutover = CutoverSteps(stores, load, stream)
    assert cutover.live == TARGET
    return SwitchJudge(stores, load, cutover, stream)


def write_as_a_rehearsal(conninfo: str, *names: str) -> None:
    """Rows as a rehearsal's writer makes them: inserted, then changed without their vector being sent again."""
    with psycopg.connect(conninfo, autocommit=True) as session:
        columns = session.execute(
            "SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) FROM pg_attribute "
            "WHERE attrelid = 'memories'::regclass AND attnum > 0 AND NOT attisdropped AND attname <> 'id'"
        ).fetchone()
        assert columns is not None
        for name in names:
            session.execute(
                f"INSERT INTO memories (id, {columns[0]}) SELECT %s, {columns[0]} FROM memories LIMIT 1",  # type: ignore[arg-type]
                [f"{KEY_SPACE}{name}"],
            )
            session.execute("UPDATE memories SET updated_at = now() WHERE id = %s", [f"{KEY_SPACE}{name}"])


def test_rows_of_a_writer_whose_run_was_killed_after_the_switch_go_from_both_stores(
    pair: Pair, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    switched()
    # Databases of one's own have no rehearsal's writer; these rows are as one has left them.
    monkeypatch.setattr(RehearsalLoad, "is_wanted", property(lambda _load: True))
    write_as_a_rehearsal(pair.target, "under way", "here alone")
    planning = judge("plan")
    assert planning.left() == 2
    planning.settle()
    assert planning.left() == 2, "a plan changes nothing"
    again = judge()
    again.settle()
    assert again.left() == 0
    assert stream_process.running("local") is None, "a rehearsal's stream rests"
    with psycopg.connect(pair.source) as source, psycopg.connect(pair.target) as target:
        assert state_tables.unresolved(source, RETURN_STREAM) == 0
        counted = [session.execute("SELECT count(*) FROM memories").fetchone() for session in (source, target)]
    assert counted == [(ROWS,), (ROWS,)]
    (note,) = [note for note in again._run.record.notes if "had left were deleted" in note]
    assert note.startswith("2 rows")
    notes = len(again._run.record.notes)
    again.settle()
    assert len(again._run.record.notes) == notes, "there is nothing left to do"


@pytest.mark.usefixtures("home")
def test_a_run_that_was_killed_before_its_judge_is_judged_by_the_next_from_its_writers_ledger(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    switched()
    monkeypatch.setattr(RehearsalLoad, "is_wanted", property(lambda _load: True))
    folder = state_directory() / "load"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "earlier.route").write_text(pair.target)
    load = Load(per_second=100, seed=5, table="memories")
    with writer_process(load, folder / "earlier.route", folder / "earlier.ledger") as writer:
        wait_until(lambda: writer.ledger.exists() and report(writer.ledger).acknowledged > 30)
        writer.kill()
    again = judge()
    again.settle()
    rows = {row.claim: row for row in again._run.evidence}
    assert int(str(rows["writes acknowledged"].value)) > 30
    assert [row for row in rows.values() if row.verdict is Verdict.FAIL] == []
    assert rows["rows on the target acknowledged and not there"].verdict is Verdict.PASS
    assert again.left() == 0
    counted = len(rows)
    again.settle()
    assert len(again._run.evidence) == counted, "what is gone was judged"


@pytest.mark.usefixtures("home")
def test_the_pile_of_a_validation_that_was_killed_goes_before_the_next_one_measures(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    phase = streamed()
    monkeypatch.setattr(RehearsalLoad, "is_wanted", property(lambda _load: True))
    write_as_a_rehearsal(pair.source, "came", "comes")
    phase.stream.drain()
    phase.stream.stop()
    with psycopg.connect(pair.source, autocommit=True) as source:
        source.execute("DELETE FROM memories WHERE id = %s", [f"{KEY_SPACE}came"])  # not streamed yet
    again = StoreAgain(phase._run, phase._stores, pair.target, None)
    assert again.left() == 2
    again.clear_left()
    assert (again.left(), again.rows()) == (0, ROWS)
    assert phase._run.record.notes[-1].startswith("1 rows that a measurement had left")
    assert stream_process.running("local") is None
    again.clear_left()
    assert len([note for note in phase._run.record.notes if "had left" in note]) == 1


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)
