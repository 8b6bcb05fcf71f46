"""Two stores are compared while one follows the other: what is on its way is no difference, what is lost is one."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import psycopg
import pytest
from changes import emptied, lasting_pair
from hypothesis import given
from hypothesis import strategies as st
from psycopg import sql
from stores import Pair, fill

from orchestra_lib.database import connect
from orchestra_lib.errors import DataError
from orchestra_lib.evidence import Verdict
from orchestra_lib.local.databases import LocalState
from orchestra_lib.memory.compare import Difference, Store, _merged, compare_live, differences, key_comparison
from orchestra_lib.memory.ranges import KeyRange, key_ranges
from orchestra_lib.memory.schema import create_table
from orchestra_lib.memory.slot import current_lsn
from orchestra_lib.memory.source import source_table

UPDATE = "UPDATE memories SET version = version + 1, content = content || 'x' WHERE id = %s"


@pytest.fixture(scope="module")
def lasting(servers: LocalState) -> Iterator[Pair]:
    with lasting_pair(servers, "compared") as pair:
        yield pair


@pytest.fixture
def pair(lasting: Pair) -> Iterator[Pair]:
    """Both databases for one test, empty again after it."""
    yield lasting
    for conninfo in (lasting.source, lasting.target):
        emptied(conninfo)


class Follower:
    """Carries rows that were written from source to target a moment later, as a stream does."""

    def __init__(self, pair, lag_seconds):
        self.lag_seconds = lag_seconds
        self.writer, self.source, self.target = connect(pair.source), connect(pair.source), connect(pair.target)
        self.writing, self.waiting = threading.Lock(), queue.Queue()
        self.written = self.applied = 0
        self.thread = threading.Thread(target=self._follow)
        self.thread.start()

    def write(self, statement, key):
        with self.writing:
            self.writer.execute(statement, [key])
            self.written = current_lsn(self.writer)
            self.waiting.put((self.written, key, time.monotonic() + self.lag_seconds))

    def wait_for(self, lsn, timeout_seconds):
        with self.writing:
            wanted = min(lsn, self.written)
        deadline = time.monotonic() + timeout_seconds
        while self.applied < wanted and time.monotonic() < deadline:
            time.sleep(0.002)
        return self.applied >= wanted

    def _follow(self):
        while (item := self.waiting.get()) is not None:
            lsn, key, due = item
            keys = {key}
            time.sleep(max(0.0, due - time.monotonic()))
            while self.waiting.queue and self.waiting.queue[0] and self.waiting.queue[0][2] <= time.monotonic():
                lsn, key, _ = self.waiting.get()
                keys.add(key)
            self._carry(sorted(keys))
            self.applied = lsn

    def _carry(self, keys):
        reading = sql.SQL("COPY (SELECT * FROM memories WHERE id = ANY({})) TO STDOUT (FORMAT binary)").format(keys)
        with self.source.cursor().copy(reading) as copy:
            rows = b"".join(copy)
        with self.target.transaction():
            self.target.execute("DELETE FROM memories WHERE id = ANY(%s)", [keys])
            with self.target.cursor().copy("COPY memories FROM STDIN (FORMAT binary)") as copy:
                copy.write(rows)

    def stop(self):
        self.waiting.put(None)
        self.thread.join()
        for session in (self.writer, self.source, self.target):
            session.close()


@contextmanager
def written_to(follower, keys):
    """A store that is written to all the time, the first of the keys most of all."""
    stop = threading.Event()

    def write():
        while not stop.is_set():
            for key in keys:
                follower.write(UPDATE, key)
                follower.write(UPDATE, keys[0])
                time.sleep(0.002)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        follower.stop()


def stores(pair, name="memories", mapping=None):
    with connect(pair.source) as source, connect(pair.target) as target:
        return (
            Store("source", pair.source, source_table(source, name, mapping or {})),
            Store("target", pair.target, source_table(target, "memories", {})),
        )


def at_rest(_lsn, _timeout_seconds):
    return True


def compared(source, target, wait_for=at_rest, timeout_seconds=10.0):
    with connect(source.address) as session:
        ranges = key_ranges(session, source.table, 8)
    return compare_live(source, target, ranges, 2, wait_for, lambda rows: None, timeout_seconds)


def damage(conninfo):
    with connect(conninfo) as connection:
        connection.execute("UPDATE memories SET content = 'other' WHERE id = 'id-00000010'")
        connection.execute("DELETE FROM memories WHERE id = 'id-00000200'")
        connection.execute("UPDATE memories SET id = 'id-00000399x' WHERE id = 'id-00000399'")


DAMAGED = {
    Difference("id-00000010", "changed"), Difference("id-00000200", "missing"), Difference("id-00000399", "missing"),
    Difference("id-00000399x", "extra"),
}  # fmt: skip


@pytest.fixture
def same(pair):
    """The same 400 rows on both sides."""
    fill(pair.source, 400)
    fill(pair.target, 400)
    return pair


def test_stores_that_are_the_same_agree_in_every_range(same):
    found = compared(*stores(same))
    assert (found.source_rows, found.target_rows, found.suspects, found.differences) == (400, 400, 0, ())
    assert [row.verdict for row in found.evidence()] == [Verdict.PASS]


def test_a_changed_a_missing_and_an_extra_row_are_named(same):
    damage(same.target)
    found = compared(*stores(same))
    assert set(found.differences) == DAMAGED
    (row,) = found.evidence()
    assert row.verdict is Verdict.FAIL
    assert "id-00000200 (missing)" in row.note


def test_what_is_on_its_way_is_no_difference_and_what_is_lost_is_one(same):
    follower = Follower(same, lag_seconds=0.05)
    with written_to(follower, [f"id-{number:08}" for number in range(20, 60)]):
        time.sleep(0.2)
        alike = compared(*stores(same), follower.wait_for)
        damage(same.target)
        damaged = compared(*stores(same), follower.wait_for)
    assert alike.suspects > 0, "nothing was on its way: the test shows nothing"
    assert alike.differences == ()
    assert alike.unsettled <= {f"id-{number:08}" for number in range(20, 60)}
    assert set(damaged.differences) == DAMAGED


def test_a_stream_that_does_not_come_is_told(same):
    damage(same.target)
    with pytest.raises(DataError, match=r"did not pass [0-9A-F]+/[0-9A-F]+ within 0.1 s"):
        compared(*stores(same), lambda lsn, timeout_seconds: False, timeout_seconds=0.1)


def test_keys_are_compared_alone(same):
    damage(same.target)
    with key_comparison(*stores(same)) as by_key:
        assert by_key.differences(["id-00000010", "id-00000011", "nowhere"]) == (Difference("id-00000010", "changed"),)
        assert set(by_key.differences([*(row.id for row in DAMAGED), "id-00000001"])) == DAMAGED
        assert by_key.differences([]) == ()


@pytest.mark.parametrize("key_type", ["varchar(20)", "bigint", "uuid"])
def test_keys_of_the_users_own_table_find_their_rows_by_its_index(pair, key_type):
    fill(pair.source, 50)
    as_key = {"uuid": "md5(id)::uuid", "bigint": "substr(id, 4)::bigint", "varchar(20)": "id"}[key_type]
    with psycopg.connect(pair.source, autocommit=True) as source:
        source.execute(f"CREATE TABLE mine AS SELECT {as_key}::{key_type} AS key, embedding AS vec FROM memories")
        source.execute("ALTER TABLE mine ADD PRIMARY KEY (key)")
        keys = [row[0] for row in source.execute("SELECT key::text FROM mine").fetchall()]
        source.execute("INSERT INTO mine SELECT m.key, m.vec FROM mine m WHERE false")
    theirs, ours = stores_after_copy(pair)
    with key_comparison(theirs, ours) as by_key, connect(pair.source) as source:
        assert by_key.differences(keys) == ()
        source.execute("SET enable_seqscan = off")
        by_key._source.connection.execute("SET enable_seqscan = off")
        plan = by_key._source.connection.execute(
            sql.SQL("EXPLAIN ") + by_key._source.statement, [keys[:5]], prepare=False
        ).fetchall()
    assert any("mine_pkey" in line for (line,) in plan), plan


def stores_after_copy(pair):
    """The user's table and its copy on the target."""
    with connect(pair.target) as target, connect(pair.source) as source:
        target.execute(create_table())
        mine = source_table(source, "mine", {"id": "key", "embedding": "vec"})
        with source.cursor().copy(sql.SQL("COPY ({}) TO STDOUT (FORMAT binary)").format(mine.select)) as reading:
            content = b"".join(reading)
        with target.cursor().copy("COPY memories FROM STDIN (FORMAT binary)") as writing:
            writing.write(content)
    return stores(pair, "mine", {"id": "key", "embedding": "vec"})


def test_a_thousand_keys_take_little_more_than_their_digests(same):
    keys = [f"id-{number:08}" for number in range(400)]
    with key_comparison(*stores(same)) as by_key:
        started = time.perf_counter()
        for _ in range(5):
            by_key.differences(keys)
        assert (time.perf_counter() - started) / 5 < 0.2, "400 rows took more than 0.5 ms each"


@given(st.dictionaries(st.text(max_size=3), st.integers(0, 2)), st.dictionaries(st.text(max_size=3), st.integers(0, 2)))
def test_running_through_both_sides_finds_what_looking_at_every_key_finds(theirs, ours):
    found = {row.id: row.kind for row in _merged(iter(sorted(theirs.items())), iter(sorted(ours.items())))}
    kinds = {
        key: "missing" if key not in ours else "extra" if key not in theirs else "changed" for key in theirs | ours
    }
    assert found == {key: kind for key, kind in kinds.items() if theirs.get(key) != ours.get(key)}


def test_memory_stays_bounded_whatever_differs(pair):
    """150,000 rows that only one side has: as digests of a range they would take 30 MB and more."""
    with connect(pair.source) as source, connect(pair.target) as target:
        for session in (source, target):
            session.execute(create_table(dimension=1))
        source.execute(
            "INSERT INTO memories SELECT 'a-key-of-usual-length-' || n, 'a', 'u', 's', 'p', 'i', 'c', '{}', '[1]', "
            "'m', 1, 'epoch', 'epoch' FROM generate_series(1, 150000) AS n"
        )
        theirs, ours = (source, source_table(source, "memories", {})), (target, source_table(target, "memories", {}))
        process = psutil.Process()
        before = process.memory_info().rss
        reads = [(session, table.select) for session, table in (theirs, ours)]
        found = sum(1 for _ in differences(*reads, KeyRange(1, None, None)))
        grown = process.memory_info().rss - before
    assert found == 150_000
    assert grown < 10 * 2**20, f"{grown / 2**20:.1f} MiB"
    with pytest.raises(DataError, match="more than 100,000 rows differ"):
        compared(*stores(pair))
