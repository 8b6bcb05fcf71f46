"""The replication session on a real source: slots, snapshots, confirmations, and every way in which a stream ends."""

from __future__ import annotations

import itertools
import os
import threading
import time
from pathlib import Path

import psycopg
import pytest
from following import PUBLICATION, SLOT, following, make_slot, text_of
from psycopg import sql

from orchestra_lib.errors import LockHeld, ParameterError, TargetUnreachable
from orchestra_lib.memory.replication import Keepalive, ReplicationSession
from orchestra_lib.memory.slot import drop_slot, mark, slot_state
from orchestra_lib.memory.stream_errors import SlotBusy, SlotLost, StreamBroken, StreamError
from orchestra_lib.memory.transactions import Change, Committed


@pytest.fixture
def notes(followed):
    """A connection to a source with an empty table ``notes`` that is published."""
    with psycopg.connect(followed, autocommit=True) as connection:
        connection.execute("CREATE TABLE notes (id text PRIMARY KEY, body text)")
        connection.execute("CREATE PUBLICATION test_publication FOR TABLE notes")
        yield connection


def received_within(session: ReplicationSession, seconds: float) -> list:
    """All that comes in that time."""
    found, deadline = [], time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        received = session.receive()
        if received is None:
            session.wait(left)
        else:
            found.append(received)
    return found


def until_it_ends(session: ReplicationSession, seconds: float = 10.0) -> None:
    received_within(session, seconds)
    raise AssertionError(f"the stream goes on after {seconds} s")


def wait_until(condition, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it does not come"
        time.sleep(0.01)


# --- slot and snapshot --------------------------------------------------------------------------------------------


def test_every_row_is_in_the_snapshot_or_in_the_stream_and_none_in_both_while_others_write(followed, notes, tmp_path):
    acknowledged: list[list[str]] = [[], [], []]
    stop = threading.Event()

    def write(number: int) -> None:
        with psycopg.connect(followed) as writer:
            for n in itertools.count():
                if stop.is_set():
                    return
                ids = [f"{number}-{n}-{row}" for row in range(1 + n % 3)]
                for one in ids:
                    writer.execute("INSERT INTO notes VALUES (%s, 'x')", [one])
                writer.commit()
                acknowledged[number] += ids

    threads = [threading.Thread(target=write, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    try:
        wait_until(lambda: all(acknowledged))
        with ReplicationSession.open(followed) as session:
            slot = session.create_slot(SLOT)
            at_creation = [len(ids) for ids in acknowledged]
            with psycopg.connect(followed) as importer:
                importer.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
                importer.execute(sql.SQL("SET TRANSACTION SNAPSHOT {}").format(sql.Literal(slot.snapshot)))
                wait_until(lambda: all(len(ids) > at + 20 for ids, at in zip(acknowledged, at_creation, strict=True)))
                copied = [row[0] for row in importer.execute("SELECT id FROM notes").fetchall()]
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    with following(followed, tmp_path, slot.consistent_lsn) as follower:
        events = follower.up_to_now(notes)
    streamed = [text_of(event.new[0]) for event in events if isinstance(event, Change)]
    assert sorted(copied + streamed) == sorted(itertools.chain.from_iterable(acknowledged))
    assert len(copied) > 3
    assert len(streamed) > 60
    assert all(event.commit_lsn >= slot.consistent_lsn for event in events if isinstance(event, Committed))


def test_the_snapshot_ends_with_the_session(followed, notes):
    def can_be_imported() -> bool:
        with psycopg.connect(followed) as importer:
            importer.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            try:
                importer.execute(sql.SQL("SET TRANSACTION SNAPSHOT {}").format(sql.Literal(slot.snapshot)))
            except (psycopg.errors.InvalidParameterValue, psycopg.errors.UndefinedObject):  # until 16, from 17 on
                return False
            return True

    with ReplicationSession.open(followed) as session:
        slot = session.create_slot(SLOT)
        assert can_be_imported()
    wait_until(lambda: not can_be_imported())


def test_a_slot_that_exists_is_not_made_again(followed, notes):
    make_slot(followed)
    with pytest.raises(StreamError, match=f"does not make replication slot {SLOT}: .*already exists; drop it"):
        make_slot(followed)


@pytest.mark.parametrize("name", ["", "Capitals", "x LOGICAL pgoutput; DROP_REPLICATION_SLOT y", "a\0b", "a" * 64])
def test_a_name_that_no_slot_can_have_is_refused(followed, name):
    with ReplicationSession.open(followed) as session:
        for refused in (lambda: session.create_slot(name), lambda: session.start(name, PUBLICATION, 0)):
            with pytest.raises(ParameterError, match="is no name for a replication slot: it has 1 to 63"):
                refused()


def test_a_publications_name_is_taken_as_it_is(followed, notes, tmp_path):
    name = """it's, "quoted" \\ ☂"""
    notes.execute(sql.SQL("CREATE PUBLICATION {} FOR TABLE notes").format(sql.Identifier(name)))
    make_slot(followed)
    with ReplicationSession.open(followed) as session:
        session.start(SLOT, name, 0)
        notes.execute("INSERT INTO notes VALUES ('a', 'one')")
        assert [chr(one.payload[0]) for one in received_within(session, 0.3) if not isinstance(one, Keepalive)] == list(
            "BRIC"
        )


def test_texts_come_in_utf8_whatever_the_client_says(followed, notes, tmp_path, monkeypatch):
    monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    make_slot(followed)
    with following(followed, tmp_path) as follower:
        notes.execute("INSERT INTO notes VALUES ('Zürich ☂', '')")
        change = follower.up_to_now(notes)[0]
    assert text_of(change.new[0]) == "Zürich ☂"


# --- confirming ---------------------------------------------------------------------------------------------------


def test_what_was_confirmed_does_not_come_again_and_what_was_not_does(followed, notes, tmp_path):
    make_slot(followed)
    notes.execute("INSERT INTO notes VALUES ('a', 'one')")
    notes.execute("INSERT INTO notes VALUES ('b', 'two')")
    with following(followed, tmp_path) as follower:
        ends = [event.end_lsn for event in follower.up_to_now(notes) if isinstance(event, Committed)]
        follower.session.confirm(ends[0])
        wait_until(lambda: slot_state(notes, SLOT).confirmed_lsn == ends[0])
    wait_until(lambda: slot_state(notes, SLOT).active_pid is None)
    with following(followed, tmp_path) as follower:
        changes = [event for event in follower.up_to_now(notes) if isinstance(event, Change)]
    assert [text_of(change.new[0]) for change in changes] == ["b"]


def test_a_stream_begins_where_it_is_told_when_that_is_later_than_what_was_confirmed(followed, notes, tmp_path):
    make_slot(followed)
    notes.execute("INSERT INTO notes VALUES ('a', 'one')")
    later = mark(notes)
    notes.execute("INSERT INTO notes VALUES ('b', 'two')")
    with following(followed, tmp_path, later) as follower:
        changes = [event for event in follower.up_to_now(notes) if isinstance(event, Change)]
    assert [text_of(change.new[0]) for change in changes] == ["b"]


def test_a_reply_comes_when_it_is_wanted_and_says_how_far_the_source_is(followed, notes):
    make_slot(followed)
    with ReplicationSession.open(followed) as session:
        session.start(SLOT, PUBLICATION, 0)
        last = received_within(session, 0.2)[-1]
        session.confirm(last.end_lsn)
        assert received_within(session, 0.2) == [], "a source that is told that all is safe has nothing to say"
        session.confirm(last.end_lsn, want_reply=True)
        (reply,) = received_within(session, 0.2)
    assert reply.end_lsn >= last.end_lsn
    assert abs(reply.sent_at - time.time()) < 60


def test_keepalives_have_to_be_answered(followed, notes):
    make_slot(followed)
    impatient = f"{followed} options='-c wal_sender_timeout=400ms'"
    with ReplicationSession.open(impatient) as session:
        session.start(SLOT, PUBLICATION, 0)
        asked, deadline = 0, time.monotonic() + 1.2
        while time.monotonic() < deadline:
            received = session.receive()
            if isinstance(received, Keepalive) and received.reply_wanted:
                asked += 1
                session.confirm(received.end_lsn)
            session.wait(0.05)
        assert asked > 1
        with pytest.raises(StreamBroken):
            until_it_ends(session)


# --- waiting ------------------------------------------------------------------------------------------------------


def test_waiting_ends_with_time_with_something_to_receive_or_with_another_descriptor(followed, notes):
    make_slot(followed)
    read, write = os.pipe()
    with ReplicationSession.open(followed) as session:
        session.start(SLOT, PUBLICATION, 0)
        received_within(session, 0.3)

        def waited() -> float:
            started = time.monotonic()
            session.wait(2.0, read)
            return time.monotonic() - started

        started = time.monotonic()
        session.wait(0.05, read)
        assert 0.04 < time.monotonic() - started < 1
        os.write(write, b"!")
        assert waited() < 1
        os.read(read, 1)
        notes.execute("INSERT INTO notes VALUES ('a', 'one')")
        assert waited() < 1
        assert session.receive() is not None
    os.close(read)
    os.close(write)


# --- how it ends --------------------------------------------------------------------------------------------------


def test_a_slot_that_is_gone_is_lost(followed, notes):
    make_slot(followed)
    assert drop_slot(notes, SLOT)
    words = f"{SLOT} does not exist on the source: .* run the copy again"
    with ReplicationSession.open(followed) as session, pytest.raises(SlotLost, match=words):
        session.start(SLOT, PUBLICATION, 0)


def test_a_slot_that_another_reads_is_busy_and_the_message_names_its_process(followed, notes):
    make_slot(followed)
    with ReplicationSession.open(followed) as first, ReplicationSession.open(followed) as second:
        first.start(SLOT, PUBLICATION, 0)
        pid = slot_state(notes, SLOT).active_pid
        with pytest.raises(SlotBusy, match=f"{pid}; one stream at a time") as refused:
            second.start(SLOT, PUBLICATION, 0)
        assert isinstance(refused.value, LockHeld)
        first.close()
        wait_until(lambda: slot_state(notes, SLOT).active_pid is None)
        second.start(SLOT, PUBLICATION, 0)


def test_a_slot_that_kept_more_than_it_may_is_lost_while_it_is_read_and_after(followed, notes):
    make_slot(followed)
    with ReplicationSession.open(followed) as reading, ReplicationSession.open(followed) as later:
        reading.start(SLOT, PUBLICATION, 0)
        try:
            notes.execute("ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'")
            notes.execute("SELECT pg_reload_conf()")
            for _ in range(3):
                notes.execute("SELECT pg_logical_emit_message(false, 'fills', 'a segment'), pg_switch_wal()")
            notes.execute("CHECKPOINT")
            wait_until(lambda: slot_state(notes, SLOT).is_lost)
        finally:
            notes.execute("ALTER SYSTEM RESET max_slot_wal_keep_size")
            notes.execute("SELECT pg_reload_conf()")
        with pytest.raises(StreamBroken, match="ended the stream: terminating"):
            until_it_ends(reading)
        with pytest.raises(SlotLost, match=r"was invalidated: .* max_slot_wal_keep_size .* run the copy again"):
            later.start(SLOT, PUBLICATION, 0)


def test_a_slot_whose_log_has_been_removed_is_lost(followed, notes):
    make_slot(followed)
    notes.execute("INSERT INTO notes VALUES ('a', 'one')")
    row = notes.execute("SELECT current_setting('data_directory'), pg_walfile_name(pg_switch_wal())").fetchone()
    segment = Path(row[0]) / "pg_wal" / row[1]
    aside = segment.rename(segment.with_name("aside"))
    try:
        with ReplicationSession.open(followed) as session:
            session.start(SLOT, PUBLICATION, 0)
            with pytest.raises(SlotLost, match=r"removed a part of its log .* run the copy again"):
                until_it_ends(session)
    finally:
        aside.rename(segment)


def test_a_session_that_the_source_ends_is_broken_and_can_be_tried_again(followed, notes, tmp_path):
    make_slot(followed)
    with ReplicationSession.open(followed) as session:
        session.start(SLOT, PUBLICATION, 0)
        notes.execute("SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = %s", [SLOT])
        with pytest.raises(StreamBroken, match="ended the stream: terminating connection") as broken:
            until_it_ends(session)
        assert isinstance(broken.value, TargetUnreachable)
        for call in (session.receive, lambda: session.confirm(0)):
            with pytest.raises(StreamBroken):
                call()
    notes.execute("INSERT INTO notes VALUES ('a', 'one')")
    with following(followed, tmp_path) as follower:
        assert [type(event) for event in follower.up_to_now(notes)] == [Change, Committed]


def test_a_publication_that_did_not_exist_when_the_change_was_made_is_named(followed, notes):
    make_slot(followed)
    notes.execute("INSERT INTO notes VALUES ('a', 'one')")
    with ReplicationSession.open(followed) as session:
        session.start(SLOT, "nowhere", 0)
        with pytest.raises(StreamError, match=r'publication "nowhere" does not exist; .* before the slot is made'):
            until_it_ends(session)


def test_a_user_who_may_not_replicate_is_refused_at_the_door(followed, notes):
    notes.execute("CREATE ROLE plain LOGIN")
    try:
        with pytest.raises(TargetUnreachable, match=r"the source database cannot be reached: .*permission denied"):
            ReplicationSession.open(followed.replace("user=postgres", "user=plain"), role="source")
    finally:
        notes.execute("DROP ROLE plain")
