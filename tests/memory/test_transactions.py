"""Messages become whole transactions in the order of their commits, by a model and by a real source."""

from __future__ import annotations

import itertools
import random
import resource
import tracemalloc
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import gettempdir

import psycopg
import pytest
from following import following, make_slot, text_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pgoutput_encoder import encode, messages
from pgoutput_encoder import field as field_of
from stores import fill

from orchestra_lib.memory import pgoutput
from orchestra_lib.memory.pgoutput import NULL_FIELD, Column, Relation
from orchestra_lib.memory.replication import Keepalive, WalData
from orchestra_lib.memory.stream_errors import StreamError
from orchestra_lib.memory.transactions import Change, Committed, Idle, Transactions, Truncated

NOTES = Relation(7, "public", "notes", "d", (Column("id", 25, -1, True),))
RELATIONS = (NOTES, replace(NOTES, oid=8, name="others"))
TEMPORARY = Path(gettempdir())
FORCED = " options='-c logical_decoding_work_mem=64kB'"
"""What is larger than that is sent before it is committed."""


def data(message: pgoutput.Message) -> WalData:
    return WalData(1, 1, 0.0, memoryview(encode(message)))


def take(transactions: Transactions, *sent: pgoutput.Message):
    return [event for message in sent for event in transactions.take(data(message))]


def inserted(number: int, xid: int | None = None, oid: int = NOTES.oid) -> pgoutput.Insert:
    return pgoutput.Insert(xid, oid, (field_of(str(number).encode()),))


def numbers(events) -> list[int]:
    return [int(text_of(event.new[0])) for event in events if isinstance(event, Change)]


@pytest.fixture
def transactions(tmp_path):
    with Transactions(tmp_path) as opened:
        yield opened


# --- by a model ---------------------------------------------------------------------------------------------------


@dataclass
class Open:
    """A transaction that is open: its changes with the subtransactions that each is inside of, and the open ones."""

    xid: int
    changes: list[tuple[int, tuple[int, ...]]] = field(default_factory=list)
    savepoints: tuple[int, ...] = ()
    sent: bool = False
    told: set[int] = field(default_factory=set)


class Source:
    """A source as PostgreSQL is one: says what each action sends, and knows what has to come of it."""

    def __init__(self) -> None:
        self.sent: list[WalData | Keepalive] = []
        self.expected: list[list[int]] = []
        self._open: dict[int, Open] = {}
        self._xids, self._values, self._lsns = itertools.count(100), itertools.count(), itertools.count(1)
        self._told = False

    def act(self, action: str, number: int, count: int) -> None:
        transaction = self._open.get(number)
        if transaction is None:
            transaction = self._open[number] = Open(next(self._xids))
        getattr(self, action)(transaction, count)
        if action in ("commit", "abort"):
            del self._open[number]

    def block(self, transaction: Open, count: int) -> None:
        self._send(pgoutput.StreamStart(transaction.xid, not transaction.sent))
        xid = (transaction.xid, *transaction.savepoints)[-1]
        for _ in range(count):
            value = next(self._values)
            relation = RELATIONS[value % 2]
            if relation.oid not in transaction.told:
                self._send(pgoutput.RelationMessage(xid, relation))
                transaction.told.add(relation.oid)
            transaction.changes.append((value, transaction.savepoints))
            self._send(inserted(value, xid, relation.oid))
        self._send(pgoutput.StreamStop())
        transaction.sent = True

    def savepoint(self, transaction: Open, _count: int) -> None:
        transaction.savepoints += (next(self._xids),)

    def release(self, transaction: Open, _count: int) -> None:
        transaction.savepoints = transaction.savepoints[:-1]

    def roll_back(self, transaction: Open, _count: int) -> None:
        if not transaction.savepoints:
            return
        ended = transaction.savepoints[-1]
        inside = [owners for _, owners in transaction.changes if ended in owners]
        # Those inside first, as an abort record lists them; only those that sent something are known to the plugin.
        for subxid in sorted({owners[-1] for owners in inside}, reverse=True):
            self._send(pgoutput.StreamAbort(transaction.xid, subxid))
        transaction.changes = [change for change in transaction.changes if ended not in change[1]]
        transaction.savepoints = transaction.savepoints[:-1]

    def commit(self, transaction: Open, _count: int) -> None:
        if transaction.sent:
            lsn = next(self._lsns)
            self._send(pgoutput.StreamCommit(transaction.xid, lsn, lsn, 0.0))
            self.expected.append([value for value, _ in transaction.changes])

    def abort(self, transaction: Open, _count: int) -> None:
        if transaction.sent:
            self._send(pgoutput.StreamAbort(transaction.xid, transaction.xid))

    def small(self, _transaction: Open, count: int) -> None:
        lsn = next(self._lsns)
        values = [next(self._values) for _ in range(count)]
        described = [] if self._told else [pgoutput.RelationMessage(None, NOTES)]
        self._told = True
        for message in (
            pgoutput.Begin(lsn, 0.0, 1), *described, *map(inserted, values), pgoutput.Commit(lsn, lsn, 0.0)
        ):  # fmt: skip
            self._send(message)
        self.expected.append(values)

    def _send(self, message: pgoutput.Message) -> None:
        self.sent.append(data(message))


ACTIONS = ("block", "block", "block", "savepoint", "savepoint", "release", "roll_back", "commit", "abort", "small")


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(ACTIONS), st.integers(1, 3), st.integers(0, 3)), max_size=40))
def test_whatever_is_interleaved_and_rolled_back_whole_transactions_come_in_commit_order(actions):
    source = Source()
    for action in actions:
        source.act(*action)
    found, current = [], []
    with Transactions(TEMPORARY) as transactions:
        for received in source.sent:
            for event in transactions.take(received):
                if isinstance(event, Committed):
                    found.append(numbers(current))
                    assert {change.commit_lsn for change in current} <= {event.commit_lsn}
                    current = []
                else:
                    current.append(event)
    assert current == []
    assert found == source.expected


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.booleans().flatmap(messages), max_size=12))
def test_messages_out_of_turn_are_refused_and_leave_no_file(sequence):
    before = open_files_in(TEMPORARY)
    with Transactions(TEMPORARY) as transactions:
        for message in sequence:
            with suppress(StreamError):
                list(transactions.take(data(message)))
    assert open_files_in(TEMPORARY) == before


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        ([inserted(1)], "Insert out of turn, between transactions"),
        ([pgoutput.Commit(1, 1, 0.0)], "Commit out of turn, between transactions"),
        ([pgoutput.Begin(255, 0.0, 1), pgoutput.Begin(2, 0.0, 1)], "Begin out of turn, .* commits at 0/FF"),
        ([pgoutput.Begin(1, 0.0, 1), pgoutput.Commit(2, 2, 0.0)], "Commit out of turn"),
        ([pgoutput.Begin(1, 0.0, 1), inserted(1)], "change of table 7 and has not said what that is"),
        ([pgoutput.StreamStart(5, False)], "StreamStart out of turn"),
        ([pgoutput.StreamStart(5, True), pgoutput.StreamCommit(5, 1, 1, 0.0)], "StreamCommit .* in a block of .* 5"),
        ([pgoutput.StreamCommit(5, 1, 1, 0.0)], r"StreamCommit out of turn, .*\(sent in blocks and open: none\)"),
        (
            [
                pgoutput.Begin(1, 0.0, 1),
                pgoutput.RelationMessage(None, NOTES),
                pgoutput.Insert(None, 7, (NULL_FIELD, NULL_FIELD)),
            ],
            "Insert of public.notes that has not the 1 columns",
        ),
    ],
)
def test_a_message_out_of_turn_is_refused_by_name(transactions, sent, words):
    with pytest.raises(StreamError, match=words):
        take(transactions, *sent)


def test_a_keepalive_inside_a_transaction_says_nothing_and_between_two_says_how_far_all_is_told(transactions):
    keepalive = Keepalive(9, 0.0, False)
    assert list(transactions.take(keepalive)) == [Idle(9)]
    take(transactions, pgoutput.Begin(8, 0.0, 1))
    assert list(transactions.take(keepalive)) == []
    take(transactions, pgoutput.Commit(8, 9, 0.0), pgoutput.StreamStart(5, True))
    assert list(transactions.take(keepalive)) == []
    take(transactions, pgoutput.StreamStop())
    assert list(transactions.take(keepalive)) == [Idle(9)], "what is open on the source commits behind that position"


def test_what_a_streamed_transaction_says_of_a_table_holds_after_its_commit_unless_something_newer_was_said(
    transactions,
):
    older = Relation(7, "public", "notes", "d", (Column("old", 25, -1, True),))
    streamed = [pgoutput.StreamStart(5, True), pgoutput.RelationMessage(5, older), inserted(1, 5)]
    small = [pgoutput.Begin(1, 0.0, 6), pgoutput.RelationMessage(None, NOTES), inserted(2), pgoutput.Commit(1, 2, 0.0)]
    late = [pgoutput.Begin(3, 0.0, 6), inserted(3), pgoutput.Commit(3, 4, 0.0)]
    found = take(
        transactions, *streamed, pgoutput.StreamStop(), *small, pgoutput.StreamCommit(5, 2, 3, 0.0), *late
    )  # fmt: skip
    assert [event.relation for event in found if isinstance(event, Change)] == [NOTES, older, NOTES]
    found = take(
        transactions, *streamed, pgoutput.StreamStop(), pgoutput.StreamCommit(5, 4, 5, 0.0),
        pgoutput.Begin(6, 0.0, 6), inserted(3),
    )  # fmt: skip
    assert [event.relation for event in found if isinstance(event, Change)] == [older, older]


def test_what_a_subtransaction_said_of_a_table_outlives_it(transactions):
    """The source counts the table as described and does not describe it again."""
    notes, others = (pgoutput.RelationMessage(6, relation) for relation in RELATIONS)
    take(transactions, pgoutput.StreamStart(5, True), notes, inserted(0, 6), others, inserted(1, 6, 8))
    take(transactions, pgoutput.StreamStop(), pgoutput.StreamAbort(5, 6), pgoutput.StreamStart(5, False))
    take(transactions, inserted(2, 5, 8), inserted(3, 5, 7), pgoutput.StreamStop())
    events = take(transactions, pgoutput.StreamCommit(5, 1, 1, 0.0))
    assert [event.relation.name for event in events if isinstance(event, Change)] == ["others", "notes"]


def test_subtransactions_that_are_rolled_back_in_any_order_take_their_own_changes_alone(transactions):
    changes = [inserted(number, xid) for number, xid in enumerate((5, 6, 7, 8))]
    take(transactions, pgoutput.StreamStart(5, True), pgoutput.RelationMessage(5, NOTES), *changes)
    take(transactions, pgoutput.StreamStop(), pgoutput.StreamAbort(5, 6), pgoutput.StreamAbort(5, 8))
    take(
        transactions, pgoutput.StreamAbort(5, 99), pgoutput.StreamStart(5, False), inserted(9, 5), pgoutput.StreamStop()
    )
    assert numbers(take(transactions, pgoutput.StreamAbort(5, 7), pgoutput.StreamCommit(5, 1, 1, 0.0))) == [0, 9]


def test_a_large_transaction_takes_disk_and_no_memory(transactions):
    wide = field_of(bytes(6_000))
    change = data(pgoutput.Insert(5, 7, (wide,)))
    take(transactions, pgoutput.StreamStart(5, True), pgoutput.RelationMessage(5, NOTES))
    tracemalloc.start()
    try:
        for _ in range(3_000):
            list(transactions.take(change))
        take(transactions, pgoutput.StreamStop())
        count = sum(1 for _ in transactions.take(data(pgoutput.StreamCommit(5, 1, 1, 0.0))))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == 3_001
    assert peak < 1_000_000, "18 MB went through"


def test_no_room_on_the_disk_is_said(tmp_path):
    large = [pgoutput.StreamStart(5, True), *[pgoutput.Insert(5, 7, (field_of(bytes(6_000)),))] * 100]
    words = "transaction 5 of the source is large and cannot be kept on disk"
    with no_larger_file_than(100_000), pytest.raises(StreamError, match=words), Transactions(tmp_path) as transactions:
        take(transactions, *large)
    with Transactions(tmp_path / "nowhere") as transactions, pytest.raises(StreamError, match="No such file"):
        take(transactions, pgoutput.StreamStart(5, True))


@contextmanager
def no_larger_file_than(size: int):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


# --- from a real source -------------------------------------------------------------------------------------------


@pytest.fixture
def notes(followed):
    """A connection to a source with an empty table ``notes`` whose log is followed."""
    with psycopg.connect(followed, autocommit=True) as connection:
        connection.execute("CREATE TABLE notes (id text PRIMARY KEY, body text)")
        connection.execute("CREATE PUBLICATION test_publication FOR ALL TABLES")
        make_slot(followed)
        yield connection


def told(event) -> tuple:
    if isinstance(event, Change):
        old, new = (None if row is None else tuple(map(text_of, row)) for row in (event.old, event.new))
        return event.verb, old, new
    return (type(event).__name__,)


def test_every_kind_of_change_arrives(followed, notes, tmp_path):
    with following(followed, tmp_path) as follower:
        notes.execute("INSERT INTO notes VALUES ('a', 'one'), ('b', NULL)")
        notes.execute("UPDATE notes SET body = 'two' WHERE id = 'a'")
        notes.execute("UPDATE notes SET id = 'c' WHERE id = 'a'")
        notes.execute("DELETE FROM notes WHERE id = 'b'")
        notes.execute("TRUNCATE notes")
        notes.execute("SELECT pg_logical_emit_message(true, 'orchestra', 'marks')")
        notes.execute("SELECT pg_logical_emit_message(false, 'orchestra', 'is of no transaction')")
        events = follower.up_to_now(notes)
    null = ""  # NULL has no bytes behind its length
    assert [told(event) for event in events] == [
        ("insert", None, ("a", "one")), ("insert", None, ("b", null)), ("Committed",),
        ("update", None, ("a", "two")), ("Committed",),
        ("update", ("a", null), ("c", "two")), ("Committed",),
        ("delete", ("b", null), None), ("Committed",),
        ("Truncated",), ("Committed",),
        ("Committed",),
    ]  # fmt: skip
    assert events[1].new[1] == NULL_FIELD
    (truncated,) = [event for event in events if isinstance(event, Truncated)]
    assert [relation.name for relation in truncated.relations] == ["notes"]
    ends = [event.end_lsn for event in events if isinstance(event, Committed)]
    assert ends == sorted(ends)


def test_a_full_replica_identity_sends_the_whole_old_row(followed, notes, tmp_path):
    notes.execute("ALTER TABLE notes REPLICA IDENTITY FULL")
    with following(followed, tmp_path) as follower:
        notes.execute("INSERT INTO notes VALUES ('a', 'one')")
        notes.execute("UPDATE notes SET body = 'two'")
        notes.execute("DELETE FROM notes")
        changes = [event for event in follower.up_to_now(notes) if isinstance(event, Change)]
    assert [told(change) for change in changes] == [
        ("insert", None, ("a", "one")),
        ("update", ("a", "one"), ("a", "two")),
        ("delete", ("a", "two"), None),
    ]
    assert {change.relation.replica_identity for change in changes} == {"f"}


def test_a_row_is_what_copy_binary_sends_and_an_unchanged_vector_is_not_sent_again(followed, notes, tmp_path):
    with following(followed, tmp_path) as follower:
        fill(followed, 2)
        with notes.cursor().copy("COPY (SELECT * FROM memories ORDER BY id) TO STDOUT (FORMAT binary)") as copy:
            copied = b"".join(map(bytes, copy))
        notes.execute("UPDATE memories SET metadata = '{}', version = version + 1 WHERE id = 'id-00000001'")
        *rows, update = (event for event in follower.up_to_now(notes) if isinstance(event, Change))
    assert len(rows) == 2
    sent = b"".join(len(row.new).to_bytes(2, "big") + b"".join(row.new) for row in rows)
    assert sent == copied[19:-2], "all but the header and the trailer of the COPY stream"
    position = [column.name for column in update.relation.columns].index("embedding")
    assert update.new[position] is None
    assert [field is None for field in update.new].count(True) == 1
    assert update.old is None


def test_a_new_column_is_told_before_the_next_change(followed, notes, tmp_path):
    with following(followed, tmp_path) as follower:
        notes.execute("INSERT INTO notes VALUES ('a', 'one')")
        notes.execute("ALTER TABLE notes ADD COLUMN colour text")
        notes.execute("INSERT INTO notes VALUES ('b', 'two', 'red')")
        before, after = (event for event in follower.up_to_now(notes) if isinstance(event, Change))
    assert [column.name for column in before.relation.columns] == ["id", "body"]
    assert [column.name for column in after.relation.columns] == ["id", "body", "colour"]
    assert before.relation.columns[0].in_key


def test_a_type_without_a_binary_form_is_refused_with_its_column(followed, notes, tmp_path):
    notes.execute("CREATE TABLE granted (id text PRIMARY KEY, rights aclitem)")
    with following(followed, tmp_path) as follower:
        notes.execute("INSERT INTO granted VALUES ('a', 'postgres=r/postgres')")
        with pytest.raises(StreamError, match=r"column 2 of a change .* text"):
            follower.up_to_now(notes)


def grow(connection, prefix: str, rows: int = 150) -> None:
    """Insert rows of about a kilobyte."""
    connection.execute(
        "INSERT INTO notes SELECT %s || n, (SELECT string_agg(md5(%s || n || i), '') FROM generate_series(1, 30) AS i) "
        "FROM generate_series(1, %s) AS n",
        [prefix, prefix, rows],
    )


def state(connection) -> dict[str, str]:
    return dict(connection.execute("SELECT id, md5(body) FROM notes").fetchall())


def followed_states(events, connection) -> list[dict[str, str]]:
    """What the table holds after each commit, if these events are all that happens to it."""
    held: dict[str, str] = {}
    states = []
    for event in events:
        if isinstance(event, Committed):
            states.append(dict(held))
        elif isinstance(event, Change):
            if event.old is not None:
                del held[text_of(event.old[0])]
            if event.new is not None:
                held[text_of(event.new[0])] = text_of(event.new[1])
    every = sorted({body for held in states for body in held.values()})
    digests = connection.execute("SELECT body, md5(body) FROM unnest(%s::text[]) AS body", [every]).fetchall()
    digest = dict(digests)
    return [{key: digest[body] for key, body in held.items()} for held in states]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_large_transactions_interleaved_with_savepoints_leave_what_the_source_holds_after_each_commit(
    followed, notes, tmp_path, seed
):
    rng, states, number = random.Random(seed), [], itertools.count()
    with following(followed + FORCED, tmp_path) as follower:
        writers = [psycopg.connect(followed, autocommit=True) for _ in range(3)]
        savepoints: dict[psycopg.Connection, list[str]] = {}
        for _ in range(60):
            writer = rng.choice(writers)
            action = rng.choice(["grow"] * 4 + ["change", "savepoint", "savepoint", "roll back", "release", "end"])
            if writer not in savepoints:
                writer.execute("BEGIN")
                savepoints[writer] = []
                action = "grow"
            mine = f"w{writers.index(writer)}-"
            match action:
                case "grow":
                    grow(writer, f"{mine}{next(number)}-", rng.choice([1, 50, 150]))
                case "change":
                    writer.execute(
                        "UPDATE notes SET body = body || '!' WHERE id LIKE %s AND id LIKE '%%7'", [f"{mine}%"]
                    )
                    writer.execute("UPDATE notes SET id = id || 'x' WHERE id LIKE %s AND id LIKE '%%3'", [f"{mine}%"])
                    writer.execute("DELETE FROM notes WHERE id LIKE %s AND id LIKE '%%9'", [f"{mine}%"])
                case "savepoint":
                    savepoints[writer].append(f"s{next(number)}")
                    writer.execute(f"SAVEPOINT {savepoints[writer][-1]}")
                case "roll back" if savepoints[writer]:
                    writer.execute(f"ROLLBACK TO {rng.choice(savepoints[writer])}")
                    savepoints[writer] = []  # some are still there; they are not gone back to
                case "release" if savepoints[writer]:
                    writer.execute(f"RELEASE {savepoints[writer].pop()}")
                case "end":
                    writer.execute(rng.choice(["COMMIT", "COMMIT", "ROLLBACK"]))
                    del savepoints[writer]
                    states.append(state(notes))
        for writer in writers:
            writer.execute("COMMIT")
            states.append(state(notes))
            writer.close()
        events = follower.up_to_now(notes)
    changed = [one for before, one in itertools.pairwise([{}, *states]) if one != before]
    assert followed_states(events, notes) == changed
    assert follower.kinds["S"] > 10, "it came in blocks"


def test_a_subtransaction_that_is_rolled_back_inside_a_large_transaction_leaves_nothing(followed, notes, tmp_path):
    with following(followed + FORCED, tmp_path) as follower:
        with notes.transaction():
            with notes.transaction(force_rollback=True):
                grow(notes, "gone-")
            grow(notes, "stays-")
        notes.execute("INSERT INTO notes VALUES ('small-', 'one')")
        events = follower.up_to_now(notes)
    assert shapes(events) == [("stays", 2, 150), ("small", 2, 1)]
    assert follower.kinds["A"] == 1


def test_a_large_transaction_that_is_rolled_back_leaves_nothing(followed, notes, tmp_path):
    with following(followed + FORCED, tmp_path) as follower:
        with notes.transaction(force_rollback=True):
            grow(notes, "gone-", 500)
        notes.execute("INSERT INTO notes VALUES ('small', 'one')")
        events = follower.up_to_now(notes)
        assert [told(event) for event in events] == [
            ("insert", None, ("small", "one")), ("Committed",),
        ]  # fmt: skip
        assert follower.kinds["A"] == 1
        assert open_files_in(tmp_path) == 0


@pytest.mark.parametrize("streaming", [True, False])
def test_a_new_column_inside_a_large_transaction_changes_what_follows(followed, notes, tmp_path, streaming):
    with following(followed + FORCED, tmp_path, streaming=streaming) as follower:
        with notes.transaction():
            grow(notes, "two-")
            with notes.transaction():
                notes.execute("ALTER TABLE notes ADD COLUMN colour text DEFAULT 'red'")
                grow(notes, "three-")
            grow(notes, "again-")
        notes.execute("INSERT INTO notes VALUES ('small-', 'one', 'blue')")
        events = follower.up_to_now(notes)
    assert shapes(events) == [("two", 2, 150), ("three", 3, 150), ("again", 3, 150), ("small", 3, 1)]
    assert (follower.kinds["S"] > 1) == streaming


@pytest.mark.parametrize("streaming", [True, False])
def test_a_new_column_that_is_rolled_back_inside_a_large_transaction_is_none(followed, notes, tmp_path, streaming):
    with following(followed + FORCED, tmp_path, streaming=streaming) as follower:
        with notes.transaction():
            grow(notes, "two-")
            with notes.transaction(force_rollback=True):
                notes.execute("ALTER TABLE notes ADD COLUMN never text")
                grow(notes, "never-")
            grow(notes, "again-")
        notes.execute("INSERT INTO notes VALUES ('small-', 'one')")
        events = follower.up_to_now(notes)
    assert shapes(events) == [("two", 2, 150), ("again", 2, 150), ("small", 2, 1)]
    assert (follower.kinds["S"] > 1) == streaming


def shapes(events) -> list[tuple[str, int, int]]:
    """Runs of changes: what their keys begin with, how many columns they have, how many there are."""
    changes = [event for event in events if isinstance(event, Change)]
    assert all(len(change.new) == len(change.relation.columns) for change in changes)
    seen = [(text_of(change.new[0]).split("-")[0], len(change.new)) for change in changes]
    return [(*one, len(list(run))) for one, run in itertools.groupby(seen)]


def test_files_go_with_the_transaction_and_with_the_session(followed, notes, tmp_path):
    with following(followed + FORCED, tmp_path) as follower, psycopg.connect(followed) as writer:
        grow(writer, "open-", 500)
        notes.execute("INSERT INTO notes VALUES ('small', 'one')")
        follower.up_to_now(notes)
        assert open_files_in(tmp_path) == 1
        assert list(tmp_path.iterdir()) == [], "a file without a name outlives no process"
        writer.commit()
        follower.up_to_now(notes)
        assert open_files_in(tmp_path) == 0
        grow(writer, "open-again-", 500)
        notes.execute("INSERT INTO notes VALUES ('small two', 'one')")
        follower.up_to_now(notes)
        assert open_files_in(tmp_path) == 1
    assert open_files_in(tmp_path) == 0


def test_a_large_transaction_that_was_open_when_the_session_broke_comes_whole_in_the_next(followed, notes, tmp_path):
    with psycopg.connect(followed) as writer:
        with following(followed + FORCED, tmp_path) as follower:
            grow(writer, "before-")
            notes.execute("INSERT INTO notes VALUES ('small', 'one')")
            end = follower.up_to_now(notes)[-1].end_lsn
            assert follower.kinds["S"] > 0
            follower.session.confirm(end)
        grow(writer, "between-")
        writer.commit()
        with following_again(followed, tmp_path, end) as follower:
            changes = [event for event in follower.up_to_now(notes) if isinstance(event, Change)]
    assert len(changes) == 300


@contextmanager
def following_again(conninfo: str, spool: Path, lsn: int):
    """As soon as the session before has given the slot free."""
    with psycopg.connect(conninfo, autocommit=True) as connection:
        while connection.execute("SELECT bool_or(active) FROM pg_replication_slots").fetchone()[0]:
            pass
    with following(conninfo + FORCED, spool, lsn) as follower:
        yield follower


def test_without_streaming_a_large_transaction_comes_after_its_commit(followed, notes, tmp_path):
    with following(followed + FORCED, tmp_path, streaming=False) as follower:
        grow(notes, "large-", 300)
        changes = [event for event in follower.up_to_now(notes) if isinstance(event, Change)]
    assert len(changes) == 300
    assert follower.kinds["S"] == 0


def open_files_in(directory: Path) -> int:
    found = 0
    for link in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):
            found += str(link.readlink()).startswith(str(directory))
    return found
