"""The stream on real servers: what is committed on the source is on the target, once, in the end and after anything."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace

import psycopg
import pytest
from psycopg import sql
from stores import Pair, fill, row, unit_vectors

from orchestra_lib.database import connect
from orchestra_lib.errors import DataError, LockHeld
from orchestra_lib.memory import state_tables
from orchestra_lib.memory.checksum import Checksum
from orchestra_lib.memory.confirming import Confirming
from orchestra_lib.memory.copied_ranges import AlreadyThere, all_ranges, begun_at, note_range
from orchestra_lib.memory.copy import CopiedRange, CopyJob
from orchestra_lib.memory.hold import Hold
from orchestra_lib.memory.initial_copy import DONE, NEW, UNFINISHED, CopySpec, forget, initial_copy, standing
from orchestra_lib.memory.lsn import lsn_text
from orchestra_lib.memory.schema import COLUMNS, create_table
from orchestra_lib.memory.slot import drop_slot, mark, slot_state
from orchestra_lib.memory.source import source_table
from orchestra_lib.memory.stream import Stream, StreamSpec, Tuning
from orchestra_lib.memory.stream_errors import SchemaChanged, SlotLost

pytestmark = pytest.mark.slow

TABLE = sql.Identifier("memories")
FAST = Tuning(debounce_seconds=0.02, batch_size=200, recovery_seconds=0.2, silence_seconds=5, busy_seconds=5)


@pytest.fixture
def stores(followed: str, pair: Pair) -> Pair:
    """A source whose log can be followed, with 300 rows, and an empty target."""
    fill(followed, 300)
    with connect(pair.target) as target:
        target.execute(create_table())
    return Pair(followed, pair.target)


def copy_spec(stores: Pair, ranges: int = 5) -> CopySpec:
    with connect(stores.source) as source:
        table = source_table(source, "memories", {})
    return CopySpec(CopyJob(stores.source, table, stores.target, TABLE), "tested", "tested", "tested", ranges, 2)


def stream_of(stores: Pair, tuning: Tuning = FAST) -> Stream:
    job = copy_spec(stores).job
    spec = StreamSpec("tested", stores.source, job.source, stores.target, TABLE, "tested", "tested", tuning)
    return Stream(spec)


@contextmanager
def running(stream: Stream) -> Iterator[Stream]:
    """The stream in a thread; what it raised is raised at the end."""
    stop, raised = threading.Event(), []

    def run() -> None:
        try:
            stream.run(stop)
        except BaseException as error:  # noqa: BLE001 - raised again in the test's own thread
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield stream
    finally:
        stop.set()
        thread.join(30)
        assert not thread.is_alive()
    if raised:
        raise raised[0]


def broken_off(stream: Stream, meanwhile: Callable[[Stream], None] = lambda _stream: None) -> None:
    """Run the stream, and do something meanwhile; raises what it ended with, if it has ended by itself in time."""
    with running(stream):
        meanwhile(stream)
        deadline = time.monotonic() + 8
        while stream.status().state != "stopped" and time.monotonic() < deadline:
            time.sleep(0.02)


def drained(stream: Stream, stores: Pair, seconds: float = 20) -> None:
    with connect(stores.source) as source:
        assert stream.wait_for(mark(source), seconds), stream.status().sentence() + stream.status().trouble


def rows_of(conninfo: str) -> list[tuple]:
    with psycopg.connect(conninfo) as connection:
        return connection.execute(f"SELECT {', '.join(COLUMNS)} FROM memories ORDER BY id").fetchall()


def on(conninfo: str, *statements: str) -> None:
    with psycopg.connect(conninfo, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)


def copied(stores: Pair) -> None:
    initial_copy(copy_spec(stores), lambda _done, _total: None)


def insert(stores: Pair, first: int, count: int) -> None:
    placeholders = ", ".join(["%s"] * len(COLUMNS))
    with connect(stores.source) as source, source.transaction():
        source.cursor().executemany(
            f"INSERT INTO memories VALUES ({placeholders})",
            [row(number, vector) for number, vector in enumerate(unit_vectors(count, seed=first), start=first)],
        )


CHANGES = (
    "UPDATE memories SET metadata = metadata || '{\"seen\": true}', version = version + 1 WHERE id < 'id-00000020'",
    "UPDATE memories SET embedding = (SELECT embedding FROM memories WHERE id = 'id-00000100') WHERE id > 'id-0000029'",
    "DELETE FROM memories WHERE id BETWEEN 'id-00000050' AND 'id-00000060'",
    "UPDATE memories SET id = 'renamed-' || id WHERE id BETWEEN 'id-00000070' AND 'id-00000075'",
)


# --- the copy and the stream meet -------------------------------------------------------------------------------------


def test_changes_of_every_kind_arrive_and_a_quiet_source_is_followed_to_its_end(stores: Pair) -> None:
    copied(stores)
    with running(stream_of(stores)) as stream:
        insert(stores, 1000, 700)
        on(stores.source, *CHANGES)
        drained(stream, stores)
        status = stream.status()
        assert rows_of(stores.target) == rows_of(stores.source)
        assert (status.state, status.lag_rows, status.quarantined, status.breaker) == ("streaming", 0, 0, "closed")
        assert status.freshness_p95 is not None
        assert status.freshness_p95 < 2
    with connect(stores.source) as source:
        kept = slot_state(source, "tested")
        assert kept is not None
        assert not kept.is_lost
        assert kept.confirmed_lsn >= status.applied_lsn - 1000


def test_what_was_written_before_and_during_the_copy_is_there_once(stores: Pair) -> None:
    stop = threading.Event()

    def write() -> None:
        number = 5000
        while not stop.is_set():
            insert(stores, number, 5)
            number += 5

    writer = threading.Thread(target=write)
    writer.start()
    try:
        copied(stores)
        with running(stream_of(stores)) as stream:
            time.sleep(0.3)
            stop.set()
            writer.join()
            drained(stream, stores)
    finally:
        stop.set()
    assert rows_of(stores.target) == rows_of(stores.source)


def test_a_truncated_table_is_empty_and_fills_again(stores: Pair) -> None:
    copied(stores)
    with running(stream_of(stores)) as stream:
        on(stores.source, CHANGES[0], "TRUNCATE memories")
        insert(stores, 10, 3)
        drained(stream, stores)
    assert rows_of(stores.target) == rows_of(stores.source)
    assert len(rows_of(stores.target)) == 3


def test_a_transaction_larger_than_many_batches_arrives_whole_and_in_its_order(stores: Pair) -> None:
    copied(stores)
    with connect(stores.source) as source:
        source.execute(
            sql.SQL("ALTER DATABASE {} SET logical_decoding_work_mem = '64kB'").format(
                sql.Identifier(source.info.dbname)
            )
        )
        with running(stream_of(stores)) as stream:
            with source.transaction():
                source.execute("UPDATE memories SET version = version + 1, content = content || 'x'")
                # A row whose vector is not sent again is renamed; another takes its old place; both are changed after.
                source.execute("UPDATE memories SET id = 'renamed' WHERE id = 'id-00000007'")
                source.execute("UPDATE memories SET id = 'id-00000007' WHERE id = 'id-00000008'")
                source.execute(
                    "INSERT INTO memories SELECT 'copy-' || n || id, agent_id, user_id, session_id, persona, "
                    "item_type, content, metadata, embedding, embedding_model, version, created_at, updated_at, "
                    "expires_at FROM memories, generate_series(1, 4) AS n"
                )
                source.execute("UPDATE memories SET content = content || 'y' WHERE id IN ('renamed', 'id-00000007')")
            drained(stream, stores)
            status = stream.status()
    assert rows_of(stores.target) == rows_of(stores.source)
    assert len(rows_of(stores.target)) == 1500
    assert status.quarantined == 0
    assert status.batches >= 1800 / (4 * FAST.batch_size)


def test_a_version_that_goes_back_after_the_copy_is_put_aside_also_before_the_stream_has_begun(stores: Pair) -> None:
    on(stores.source, "UPDATE memories SET version = 7 WHERE id = 'id-00000003'")
    copied(stores)
    on(stores.source, "UPDATE memories SET version = 1, content = 'reset' WHERE id = 'id-00000003'")
    with running(stream_of(stores)) as stream:
        drained(stream, stores)
        assert (stream.status().stale, stream.status().quarantined) == (0, 1)


def test_a_table_beside_it_that_is_published_and_emptied_stops_the_stream_and_empties_nothing(stores: Pair) -> None:
    copied(stores)
    on(stores.source, "CREATE TABLE beside (id int PRIMARY KEY)", "ALTER PUBLICATION tested ADD TABLE beside")
    with pytest.raises(SchemaChanged, match=r"changes of public\.beside"):
        broken_off(stream_of(stores), lambda _: on(stores.source, "TRUNCATE beside"))
    assert rows_of(stores.target) == rows_of(stores.source)


# --- stopping and going on --------------------------------------------------------------------------------------------


def test_a_stream_that_was_stopped_goes_on_where_it_was(stores: Pair) -> None:
    copied(stores)
    with running(stream_of(stores)) as stream:
        insert(stores, 1000, 50)
        drained(stream, stores)
    on(stores.source, *CHANGES)
    with running(stream_of(stores, Tuning(debounce_seconds=0.02, connections=3))) as stream:
        drained(stream, stores)
        assert stream.status().stale == 0
    assert rows_of(stores.target) == rows_of(stores.source)


def test_a_second_mover_is_refused(stores: Pair) -> None:
    copied(stores)
    with running(stream_of(stores)) as stream:
        drained(stream, stores)
        with pytest.raises(LockHeld, match="in other hands"):
            stream_of(stores, Tuning(busy_seconds=0.2)).run(threading.Event())


def holder(target: psycopg.Connection) -> int:
    """The session that holds the stream's lock; 0 when none does."""
    row = target.execute(
        "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 1 "
        "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    ).fetchone()
    return row[0] if row else 0


def test_a_lock_that_went_with_its_session_alone_is_taken_again(stores: Pair) -> None:
    copied(stores)
    with running(stream_of(stores)) as stream, connect(stores.target) as target:
        drained(stream, stores)
        first = holder(target)
        target.execute("SELECT pg_terminate_backend(%s, 5000)", [first])
        deadline = time.monotonic() + 10
        while holder(target) in (0, first):
            assert time.monotonic() < deadline, "nobody has the lock, and the stream runs"
            time.sleep(0.02)
        insert(stores, 1000, 20)
        drained(stream, stores)
    assert rows_of(stores.target) == rows_of(stores.source)


def test_a_stream_whose_lock_somebody_else_has_taken_ends(stores: Pair) -> None:
    copied(stores)
    with connect(stores.target) as other, ExitStack() as taken:

        def take(stream: Stream) -> None:
            drained(stream, stores)
            while True:
                other.execute("SELECT pg_terminate_backend(%s, 5000)", [holder(other)])
                with suppress(LockHeld):  # the stream was faster
                    return taken.enter_context(state_tables.stream_lock(other, "tested"))

        with pytest.raises(LockHeld, match="in other hands"):
            broken_off(stream_of(stores, replace(FAST, busy_seconds=0.2)), take)


def test_a_target_that_was_set_back_behind_its_slot_is_not_streamed_to(stores: Pair) -> None:
    """By a restore, or a failover to a copy that lagged: the source has let go of what lies between."""
    tables = ("public.memories", "orchestra_stream.stream", "orchestra_stream.checkpoint")
    copied(stores)
    with running(stream_of(stores)) as stream:
        insert(stores, 1000, 20)
        drained(stream, stores)
    on(stores.target, "CREATE SCHEMA kept", *(f"CREATE TABLE kept.{t.split('.')[1]} AS TABLE {t}" for t in tables))
    with running(stream_of(stores)) as stream:
        insert(stores, 2000, 20)
        drained(stream, stores)
    for table in tables:
        on(stores.target, f"DELETE FROM {table}", f"INSERT INTO {table} SELECT * FROM kept.{table.split('.')[1]}")
    with pytest.raises(SlotLost, match="what lies between is missing: run the copy again"):
        broken_off(stream_of(stores))
    left = standing(copy_spec(stores))
    assert (left.state, "the target was set back to" in left.reason) == (NEW, True)
    copied(stores)
    with running(stream_of(stores)) as stream:
        drained(stream, stores)
    assert rows_of(stores.target) == rows_of(stores.source)


def test_what_another_mover_has_noted_while_this_one_slept_is_no_gap(stores: Pair) -> None:
    copied(stores)
    with closing_hold(stores) as (hold, session):
        confirming = Confirming(hold, 5, 5, print)
        confirming.begin(session, "tested")
        told = standing(copy_spec(stores)).start_lsn + 1_000
        on(stores.target, f"UPDATE orchestra_stream.stream SET confirmed = '{lsn_text(told)}'")
        confirming.require_no_gap("tested", told)
        with pytest.raises(SlotLost, match="what lies between is missing"):
            confirming.require_no_gap("tested", told + 1)
        on(stores.target, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'holds'")
        with (
            connect(stores.target) as other,
            state_tables.stream_lock(other, "tested"),
            pytest.raises(LockHeld),
        ):
            confirming.require_no_gap("tested", told + 1)
        confirming.close()


@contextmanager
def closing_hold(stores: Pair) -> Iterator[tuple[Hold, psycopg.Connection]]:
    hold = Hold(stores.target, "tested", "holds")
    try:
        yield hold, hold.take()
    finally:
        hold.release()


def test_a_target_that_is_set_back_while_nothing_is_written_ends_the_stream(stores: Pair) -> None:
    copied(stores)

    def set_back(stream: Stream) -> None:
        insert(stores, 1000, 20)
        drained(stream, stores)
        time.sleep(2.2)  # until it is noted
        on(stores.target, "UPDATE orchestra_stream.stream SET confirmed = start_lsn")

    with pytest.raises(SlotLost, match="no longer knows"):
        broken_off(stream_of(stores), set_back)


def test_what_the_source_is_told_is_noted_on_the_target_first(stores: Pair) -> None:
    copied(stores)
    with running(stream_of(stores)) as stream, connect(stores.source) as source, connect(stores.target) as target:
        for number in range(10):
            insert(stores, 1000 + number, 1)
            told = slot_state(source, "tested")
            assert told is not None
            assert told.confirmed_lsn <= (state_tables.confirmed(target, "tested") or 0)
            time.sleep(0.3)
        drained(stream, stores)
        assert told.confirmed_lsn > standing(copy_spec(stores)).start_lsn, "it is told while it runs"


def test_a_stream_that_an_earlier_version_left_goes_on(stores: Pair) -> None:
    copied(stores)
    with running(stream_of(stores)) as stream:
        insert(stores, 1000, 20)
        drained(stream, stores)
    on(stores.target, *(f"ALTER TABLE orchestra_stream.{t} DROP COLUMN {c}" for t, c in state_tables._ADDED))
    assert standing(copy_spec(stores)).state == DONE
    insert(stores, 2000, 20)
    with running(stream_of(stores)) as stream:
        drained(stream, stores)
    assert rows_of(stores.target) == rows_of(stores.source)


def test_the_target_may_refuse_for_a_while(stores: Pair) -> None:
    copied(stores)
    name = psycopg.conninfo.conninfo_to_dict(stores.target)["dbname"]
    tuning = Tuning(debounce_seconds=0.02, failure_threshold=2, recovery_seconds=0.2)
    with running(stream_of(stores, tuning)) as stream:
        drained(stream, stores)
        on(stores.target, f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        with connect(stores.target) as target:
            target.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE application_name = 'orchestra stream' AND datname = %s",
                [name],
            )
        insert(stores, 1000, 20)
        deadline = time.monotonic() + 10
        while stream.status().breaker_opened == 0:
            assert time.monotonic() < deadline, stream.status()
            time.sleep(0.02)
        assert "read-only" in stream.status().trouble
        with connect(stores.target) as target:
            target.execute("SET default_transaction_read_only = off")
            target.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")
            target.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE application_name = 'orchestra stream' AND datname = %s",
                [name],
            )
        drained(stream, stores)
        assert stream.status().breaker == "closed"
    assert rows_of(stores.target) == rows_of(stores.source)


def test_a_column_that_is_added_stops_the_stream_with_its_name(stores: Pair) -> None:
    copied(stores)
    on(stores.source, "ALTER TABLE memories ADD COLUMN note text", "ALTER TABLE memories DROP COLUMN note")
    stream = stream_of(stores)
    halt = threading.Timer(0.5, lambda: on(stores.source, "ALTER TABLE memories ADD COLUMN mood text", CHANGES[0]))
    halt.start()
    with pytest.raises(SchemaChanged, match="mood"):
        stream.run(threading.Event())
    assert "mood" in stream.status().trouble


# --- the copy, cut off ------------------------------------------------------------------------------------------------


def test_a_copy_that_was_cut_off_goes_on_with_the_ranges_that_are_missing(stores: Pair, monkeypatch) -> None:
    spec, seen = copy_spec(stores), []

    class Cut(Exception):
        pass

    def progress(done: int, _total: int) -> None:
        seen.append(done)

    from orchestra_lib.memory import copy as copying

    sent = copying._send
    calls = []

    def twice(*arguments):
        calls.append(1)
        if len(calls) > 2:
            raise Cut
        return sent(*arguments)

    monkeypatch.setattr(copying, "_send", twice)
    with pytest.raises(Cut):
        initial_copy(spec, progress)
    monkeypatch.setattr(copying, "_send", sent)
    left = standing(spec)
    assert (left.state, left.ranges_done, left.ranges) == (UNFINISHED, 2, 5)
    on(stores.source, *CHANGES)
    result = initial_copy(spec, progress)
    assert len(result.ranges) == 5
    assert len(result.sent.ranges) == 3
    assert standing(spec).state == DONE
    with running(stream_of(stores)) as stream:
        drained(stream, stores)
        assert stream.status().quarantined == 0
    assert rows_of(stores.target) == rows_of(stores.source)


def test_no_stream_runs_over_a_copy_that_is_not_finished(stores: Pair) -> None:
    copied(stores)
    on(stores.target, "UPDATE orchestra_stream.stream SET copy_done_at = NULL")
    with pytest.raises(DataError, match="the copy for the stream tested is not finished"):
        broken_off(stream_of(stores))


def test_two_copies_at_once_are_refused_and_a_finished_one_may_be_asked_for_while_the_stream_runs(stores: Pair) -> None:
    with connect(stores.target) as other:
        state_tables.create(other)
        with state_tables.stream_lock(other, "tested"), pytest.raises(LockHeld, match="in other hands"):
            copied(stores)
    with connect(stores.source) as source:
        assert slot_state(source, "tested") is None, "nothing was begun"
    copied(stores)
    with running(stream_of(stores)) as stream:
        drained(stream, stores)
        copied(stores)


def test_a_range_of_a_copy_that_was_given_up_is_none_of_the_one_after_it(stores: Pair) -> None:
    """A copier that slept meanwhile has read its rows before there was the new slot, which knows nothing of them."""
    copied(stores)
    with connect(stores.target) as target:
        before, first = begun_at(target, "tested"), all_ranges(target, "tested")[0]
        forget(copy_spec(stores))
        copied(stores)
        now = begun_at(target, "tested")
        target.execute("UPDATE orchestra_stream.copied_range SET copied_at = NULL")
        for begun, key_range in ((before, first), (now, replace(first, high="id-0"))):
            with pytest.raises(AlreadyThere, match="begun anew"):
                note_range(target, "tested", begun, "0/1", CopiedRange(key_range, Checksum(1, 1), True, 1))
        note_range(target, "tested", now, "0/1", CopiedRange(first, Checksum(1, 1), True, 1))


def test_a_slot_that_is_gone_means_a_new_copy_and_nothing_is_lost(stores: Pair) -> None:
    copied(stores)
    with connect(stores.source) as source:
        assert drop_slot(source, "tested")
    on(stores.source, *CHANGES)
    with pytest.raises(SlotLost):
        stream_of(stores).run(threading.Event())
    assert standing(copy_spec(stores)).state == NEW
    copied(stores)
    with running(stream_of(stores)) as stream:
        drained(stream, stores)
    assert rows_of(stores.target) == rows_of(stores.source)


def test_a_table_that_was_made_anew_is_another_one(stores: Pair) -> None:
    copied(stores)
    on(stores.source, "DROP TABLE memories")
    fill(stores.source, 40)
    left = standing(copy_spec(stores))
    assert left.state == NEW
    assert "another table" in left.reason
    copied(stores)
    assert rows_of(stores.target) == rows_of(stores.source)
