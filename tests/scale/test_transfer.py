"""A range on its way: whole or not at all, once only, and merged where there are rows already."""

from __future__ import annotations

import sys
import threading
from dataclasses import replace

import psycopg
import pytest
from transfers import execute

from orchestra_lib.database import connect
from orchestra_lib.errors import DataError, LockHeld
from orchestra_lib.memory import state_tables
from orchestra_lib.memory.checksum import Checksum
from orchestra_lib.memory.copied_ranges import AlreadyThere, begun_at, note_range
from orchestra_lib.memory.copy import CopiedRange
from orchestra_lib.memory.initial_copy import DONE, standing
from orchestra_lib.memory.running_stream import RunningStream
from orchestra_lib.memory.schema import COLUMNS
from orchestra_lib.memory.slot import mark
from orchestra_lib.memory.state_tables import stream_lock
from orchestra_lib.memory.stream import StreamSpec, Tuning
from orchestra_lib.scale.attempts import run_transfer
from orchestra_lib.scale.backfill import begin, finish, held, missing_ranges_of, ranges_there
from orchestra_lib.scale.checking import Checker, together
from orchestra_lib.scale.extra import VARIABLE
from orchestra_lib.scale.size_ranges import ranges_of
from orchestra_lib.scale.transfer import Carrier, Outcome


def transferred(spec, ranges):
    with Carrier(spec) as carrier:
        return [carrier.transfer(one) for one in ranges]


def checked(spec):
    ranges = ranges_of(spec)
    with Checker(spec) as checker:
        return together(map(checker.check, ranges), [one.number for one in ranges])


def target_writes(pair):
    """Rows ever written to the target's table, as its statistics count them."""
    execute(pair.target, "SELECT pg_stat_force_next_flush()")
    return execute(
        pair.target, "SELECT n_tup_ins + n_tup_upd + n_tup_del FROM pg_stat_user_tables WHERE relname = 'memories'"
    )[0][0]


def test_all_ranges_bring_all_rows(pair, transfer):
    begun = begin(transfer)
    found = transferred(transfer, begun.missing)
    finish(transfer)
    assert len(found) == begun.ranges > 3
    assert {one.outcome for one in found} == {Outcome.SENT}
    assert sum(one.rows for one in found) == 600
    assert checked(transfer).differing == 0
    assert checked(transfer).target_rows == 600


def test_a_range_that_is_there_is_not_touched_again(pair, transfer):
    begun = begin(transfer)
    transferred(transfer, begun.missing)
    # By now a stream may have changed what was copied: nobody may bring the old rows back.
    execute(pair.target, "UPDATE memories SET content = 'newer' WHERE id = 'id-00000100'")
    before = target_writes(pair)
    again = transferred(transfer, begun.missing)
    assert {one.outcome for one in again} == {Outcome.DONE}
    assert sum(one.bytes for one in again) == 0
    assert target_writes(pair) == before
    assert execute(pair.target, "SELECT content FROM memories WHERE id = 'id-00000100'") == [("newer",)]


def test_two_workers_at_the_same_range_bring_it_once(pair, transfer):
    first = begin(transfer).missing[0]
    found = []
    threads = [threading.Thread(target=lambda: found.extend(transferred(transfer, [first]))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(one.outcome for one in found) == [Outcome.DONE] * 3 + [Outcome.SENT]
    assert len({one.rows for one in found}) == 1


def test_a_worker_that_comes_second_undoes_what_it_wrote(pair, transfer, monkeypatch):
    """Without the lock, as if the first one's session had been lost: its note decides."""
    first = begin(transfer).missing[0]
    transferred(transfer, [first])
    monkeypatch.setattr("orchestra_lib.scale.transfer.noted", lambda *_: None)
    execute(pair.target, "UPDATE memories SET content = 'newer' WHERE id = 'id-00000001'")
    (again,) = transferred(transfer, [first])
    assert again.outcome is Outcome.DONE
    assert execute(pair.target, "SELECT content FROM memories WHERE id = 'id-00000001'") == [("newer",)]
    assert execute(pair.target, "SELECT count(*) FROM pg_tables WHERE tablename LIKE 'staging%'") == [(0,)]


def test_a_range_that_fails_before_its_note_leaves_nothing(pair, transfer, monkeypatch):
    first = begin(transfer).missing[0]

    def fail(*_):
        raise psycopg.errors.AdminShutdown("the worker dies here")

    with monkeypatch.context() as patched:
        patched.setattr("orchestra_lib.scale.transfer.note_range", fail)
        with pytest.raises(psycopg.errors.AdminShutdown):
            transferred(transfer, [first])
    assert execute(pair.target, "SELECT count(*) FROM memories") == [(0,)]
    (found,) = transferred(transfer, [first])
    assert found.outcome is Outcome.SENT


def test_only_rows_that_differ_are_written_where_there_are_rows(pair, transfer):
    ranges = begin(transfer).missing
    transferred(transfer, ranges)
    # The stream's state is lost, the rows are not; three of them differ.
    execute(pair.target, "DELETE FROM orchestra_stream.stream")
    execute(pair.target, "DELETE FROM orchestra_stream.copied_range")
    execute(pair.target, "UPDATE memories SET content = 'changed' WHERE id = 'id-00000001'")
    execute(pair.target, "DELETE FROM memories WHERE id = 'id-00000002'")
    execute(pair.target, "UPDATE memories SET id = 'id-00000003x' WHERE id = 'id-00000003'")
    before = target_writes(pair)
    begun = begin(transfer)
    found = transferred(transfer, begun.missing)
    finish(transfer)
    assert [one.outcome for one in found] == [Outcome.MERGED] + [Outcome.KEPT] * (len(found) - 1)
    assert checked(transfer).differing == 0
    # One updated, two inserted, one deleted.
    assert target_writes(pair) - before == 4
    assert execute(pair.target, "SELECT count(*) FROM pg_tables WHERE tablename LIKE 'staging%'") == [(0,)]


def test_a_transfer_goes_on_where_it_was_cut_off(pair, transfer):
    begun = begin(transfer)
    transferred(transfer, begun.missing[:2])
    with pytest.raises(DataError, match=rf"{begun.ranges - 2} ranges of .* are missing, the first is range 3"):
        finish(transfer)
    again = begin(transfer)
    assert [one.number for one in again.missing] == [one.number for one in begun.missing[2:]]
    assert ranges_there(transfer) == 2
    transferred(transfer, again.missing)
    finish(transfer)
    assert missing_ranges_of(transfer) == begin(transfer).missing == ()


def test_a_transfer_whose_launcher_died_before_it_noted_the_end_is_noted_by_the_next(pair, transfer, monkeypatch):
    transferred(transfer, begin(transfer).missing)
    job = transfer.job()
    assert standing(transfer.copy_spec(job)).state != DONE
    monkeypatch.setenv(VARIABLE, sys.executable)  # nothing is missing, so no pipeline is let begin
    run = run_transfer(transfer)
    assert (run.attempts, run.ranges_before) == ((), run.ranges)
    assert standing(transfer.copy_spec(job)).state == DONE
    noted = "SELECT copy_done_at FROM orchestra_stream.stream"
    before = execute(pair.target, noted)
    run_transfer(transfer)
    assert execute(pair.target, noted) == before


def test_the_memory_phase_finds_the_transfer_done_and_streams_on_from_it(pair, transfer):
    """Rows that change while ranges are copied arrive by the stream, whichever range was first."""
    begun = begin(transfer)
    half = len(begun.missing) // 2
    transferred(transfer, begun.missing[:half])
    execute(pair.source, "UPDATE memories SET content = 'changed meanwhile' WHERE right(id, 1) = '7'")
    execute(pair.source, "DELETE FROM memories WHERE right(id, 1) = '3'")
    transferred(transfer, begun.missing[half:])
    execute(pair.source, "DELETE FROM memories WHERE right(id, 1) = '4'")
    finish(transfer)
    job = transfer.job()
    assert standing(transfer.copy_spec(job)).state == DONE
    spec = StreamSpec(
        transfer.stream, pair.source, job.source, pair.target, job.target_table, transfer.slot, transfer.publication,
        Tuning(debounce_seconds=0.05),
    )  # fmt: skip
    with RunningStream(spec) as stream, connect(pair.source) as source:
        assert stream.wait_for(mark(source), 20)
    found = checked(transfer)
    assert (found.differing, found.target_rows) == (0, 480)


def test_a_transfer_is_held_by_one_launcher_until_it_is_complete(pair, transfer):
    with connect(pair.target) as other:
        state_tables.create(other)
        with stream_lock(other, transfer.stream), pytest.raises(LockHeld, match="in other hands"), held(transfer):
            pass
        transferred(transfer, begin(transfer).missing)
        finish(transfer)
        with stream_lock(other, transfer.stream), held(transfer):
            pass  # a stream may run over a complete one


def test_every_planted_difference_is_named(pair, transfer):
    transferred(transfer, begin(transfer).missing)
    execute(pair.target, "UPDATE memories SET version = version + 1 WHERE id IN ('id-00000000', 'id-00000311')")
    execute(pair.target, "DELETE FROM memories WHERE id = 'id-00000599'")
    others = ", ".join(COLUMNS[1:])
    execute(pair.target, f"INSERT INTO memories (id, {others}) SELECT 'zz', {others} FROM memories LIMIT 1")
    found = checked(transfer)
    assert [(row.id, row.kind) for row in found.named] == [
        ("id-00000000", "changed"), ("id-00000311", "changed"), ("id-00000599", "missing"), ("zz", "extra"),
    ]  # fmt: skip
    (evidence,) = found.evidence()
    assert evidence.verdict == "FAIL"
    assert "id-00000599 (missing)" in evidence.note


def test_a_rate_is_kept(pair, transfer):
    slow = replace(transfer, workers=1, pace=replace(transfer.pace, rows_per_second=600))
    found = transferred(slow, begin(slow).missing)
    assert sum(one.seconds for one in found) > 0.8


def test_noting_a_range_twice_is_refused(pair, transfer):
    first = begin(transfer).missing[0]
    with connect(pair.target) as target:
        begun = begun_at(target, transfer.stream)
        note_range(target, transfer.stream, begun, "0/1", CopiedRange(first, Checksum(1, 1), True, 1))
        with pytest.raises(AlreadyThere):
            note_range(target, transfer.stream, begun, "0/2", CopiedRange(first, Checksum(2, 2), True, 1))
