"""The stream on real servers: what is committed on the source is on the target, once, in the end and after anything."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest
from psycopg import sql
from stores import Pair, fill, row, unit_vectors

from orchestra_lib.database import connect
from orchestra_lib.errors import LockHeld
from orchestra_lib.memory.copy import CopyJob
from orchestra_lib.memory.initial_copy import DONE, NEW, UNFINISHED, CopySpec, initial_copy, standing
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
