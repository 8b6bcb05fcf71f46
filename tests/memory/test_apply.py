"""Net changes on a real server: in replays, with poison, with several movers, with broken lines."""

from __future__ import annotations

import os
import signal
import threading
import time
from dataclasses import replace

import numpy as np
import psycopg
import pytest
from changes import Log, appliers, lasting_pair, own_row, rows_of, stored, without
from psycopg import sql
from stores import fill

from orchestra_lib.database import connect
from orchestra_lib.errors import DataError, LockHeld
from orchestra_lib.memory import state_tables
from orchestra_lib.memory.apply import Applied, Applier, apply_alone
from orchestra_lib.memory.checksum import row_digest
from orchestra_lib.memory.coalesce import Coalesced, partition_of
from orchestra_lib.memory.gathering import Gathering
from orchestra_lib.memory.lsn import lsn_text
from orchestra_lib.memory.schema import COLUMNS, create_table
from orchestra_lib.memory.source import source_table
from orchestra_lib.memory.stream_errors import Superseded
from orchestra_lib.memory.transactions import Truncated

EMBEDDING = COLUMNS.index("embedding")


@pytest.fixture(scope="module")
def lasting(servers):
    """Small tables of our own layout, vectors of three dimensions, on both sides."""
    with lasting_pair(servers, "applies") as pair:
        for conninfo in (pair.source, pair.target):
            with connect(conninfo) as connection:
                connection.execute(create_table(dimension=3))
        yield pair


@pytest.fixture
def small(lasting):
    """The same, empty."""
    yield lasting
    with connect(lasting.target) as target:
        target.execute("DROP SCHEMA IF EXISTS orchestra_stream CASCADE; DROP TABLE memories")
        target.execute(create_table(dimension=3))


@pytest.fixture
def log(small):
    with connect(small.source) as source:
        yield Log(source)


@pytest.fixture
def applier(small, log):
    (one,) = appliers(small.target, log.layout)
    yield one
    one.close()


def contents(pair):
    """Key -> content, version and vector of what the target holds."""
    with connect(pair.target) as target:
        rows = target.execute("SELECT id, content, version, embedding FROM memories").fetchall()
    return {key: (content, version, tuple(vector.to_numpy().tolist())) for key, content, version, vector in rows}


def quarantined(pair):
    with connect(pair.target) as target:
        return target.execute(
            "SELECT key, verb, error FROM orchestra_stream.quarantine WHERE resolved_at IS NULL ORDER BY number"
        ).fetchall()


# --- single changes ---------------------------------------------------------------------------------------------------


def test_every_kind_of_change_lands_and_is_counted(small, log, applier):
    applier.apply(log.nets(*(log.insert(own_row(key)) for key in "abcd")), log.lsn + 1)
    gone, come = log.delete(own_row("d")), log.insert(own_row("d", "again", 1, (9, 9, 9)))
    replaced = Coalesced()
    for net in log.nets(gone, come):
        replaced.add(net)
    applied = applier.apply(
        [
            *log.nets(
                log.insert(own_row("e")),
                log.update(own_row("a", "whole", 2, (4, 5, 6))),
                log.update(without(own_row("b", "part", 2, (7, 7, 7)), EMBEDDING)),
                log.delete(own_row("c")),
            ),
            *replaced,
        ],
        log.lsn + 1,
    )
    assert (applied.inserted, applied.updated, applied.deleted, applied.rows) == (2, 2, 1, 5)
    assert contents(small) == {
        "a": ("whole", 2, (4, 5, 6)),
        "b": ("part", 2, (1, 2, 3)),
        "d": ("again", 1, (9, 9, 9)),
        "e": ("x", 1, (1, 2, 3)),
    }


def test_the_checkpoint_moves_with_the_rows(small, log, applier):
    applier.apply(log.nets(log.insert(own_row("a"))), log.lsn + 1)
    again = Applier(small.target, "s", 0, log.layout, sql.Identifier("memories"))
    again.open()
    assert again.checkpoint == applier.checkpoint == log.lsn + 1
    again.close()


def test_what_lies_before_the_checkpoint_is_dropped(small, log, applier):
    nets = log.nets(log.insert(own_row("a")), log.insert(own_row("b")))
    applier.apply(nets, log.lsn + 1)
    with connect(small.target) as target:
        target.execute("DELETE FROM memories WHERE id = 'a'")
    assert applier.apply(nets, log.lsn + 1).rows == 0
    assert contents(small).keys() == {"b"}


def test_a_batch_inside_a_transaction_leaves_the_checkpoint(small, log, applier):
    applier.apply(log.nets(log.insert(own_row("a"))), None)
    assert applier.checkpoint == 1_000
    assert contents(small).keys() == {"a"}


def test_a_share_that_is_empty_moves_the_checkpoint_alone(log, applier):
    applier.apply([], 5_000)
    assert applier.checkpoint == 5_000


def test_a_metadata_update_leaves_the_vector_index_alone(small, log, applier):
    """HOT: no index is touched, so the vector gets no second entry."""
    with connect(small.target) as target:
        target.execute("ALTER TABLE memories SET (fillfactor = 50)")
        target.execute("CREATE INDEX ON memories USING ivfflat (embedding vector_cosine_ops) WITH (lists = 1)")
    applier.apply(log.nets(*(log.insert(own_row(f"k{n}")) for n in range(20))), log.lsn + 1)
    applier.apply(
        log.nets(*(log.update(without(own_row(f"k{n}", "new", 2), EMBEDDING)) for n in range(20))), log.lsn + 1
    )
    # A row that is sent whole with the vector that is there already.
    applier.apply(log.nets(log.update(own_row("k0", "newer", 3))), log.lsn + 1)
    applier.close()
    with connect(small.target) as target:
        deadline = time.monotonic() + 10
        counts = (0, 0)
        while counts != (21, 21) and time.monotonic() < deadline:
            counts = target.execute(
                "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'memories'"
            ).fetchone()
    assert counts == (21, 21), "updates, and those that were HOT"


# --- versions, replays ------------------------------------------------------------------------------------------------


def test_a_row_that_would_go_back_is_stale_in_a_replay_and_quarantined_above_the_horizon(small, log, applier):
    applier.apply(log.nets(log.insert(own_row("a", "new", 5)), log.insert(own_row("b", "new", 5))), log.lsn + 1)
    old = log.nets(log.update(own_row("a", "old", 3)), log.update(without(own_row("b", "old", 3), EMBEDDING)))
    applier.replay_until = log.lsn
    assert applier.apply(old, None).stale == 2
    assert quarantined(small) == []
    applier.replay_until = 0
    assert applier.apply(old, log.lsn + 1).quarantined == 2
    assert contents(small) == {"a": ("new", 5, (1, 2, 3)), "b": ("new", 5, (1, 2, 3))}
    assert quarantined(small) == [
        ("a", "upsert", "version went back from 5 to 3"),
        ("b", "patch", "version went back from 5 to 3"),
    ]


def test_a_row_that_is_replaced_may_begin_again_with_a_lower_version(small, log, applier):
    applier.apply(log.nets(log.insert(own_row("a", "old", 5))), log.lsn + 1)
    replaced = Coalesced()
    for net in log.nets(log.delete(own_row("a")), log.insert(own_row("a", "new", 1))):
        replaced.add(net)
    assert applier.apply(list(replaced), log.lsn + 1).inserted == 1
    assert contents(small) == {"a": ("new", 1, (1, 2, 3))}


def test_a_part_of_a_row_that_is_not_there_is_harmless_in_a_replay_and_quarantined_above_the_horizon(
    small, log, applier
):
    nets = log.nets(log.update(without(own_row("a", version=2), EMBEDDING)))
    applier.replay_until = log.lsn
    assert applier.apply(nets, None).stale == 1
    applier.replay_until = 0
    assert applier.apply(nets, log.lsn + 1).quarantined == 1
    assert quarantined(small) == [("a", "patch", "the row to change is not there")]


def test_a_commit_that_begins_where_the_copy_was_made_is_not_in_it(small, log, both):
    spread(both, log, log.insert(own_row("a", vector=(4, 5, 6))), new_lsn=log.lsn + 1)
    change = log.rekey(log.update(without(own_row("c", "moved", 2), EMBEDDING), old=own_row("a")))
    with connect(small.target) as target:
        target.execute("UPDATE orchestra_stream.stream SET copied_until = %s", [lsn_text(change.commit_lsn)])
    assert apply_alone(both, change, log.lsn + 1).updated == 1
    assert contents(small) == {"c": ("moved", 2, (4, 5, 6))}


def test_what_was_applied_of_an_unfinished_transaction_may_come_again(small, log, applier):
    first, second = log.insert(own_row("a", "first", 1)), log.update(own_row("a", "second", 2))
    applier.apply(log.nets(first, second)[:1], None)
    applier.apply(log.nets(second), None)
    (again,) = appliers(small.target, log.layout)
    assert again.apply(log.nets(first), None).stale == 1, "it was there, further on"
    assert again.apply(log.nets(second), log.lsn + 1).updated == 1
    assert quarantined(small) == []
    again.close()


def test_a_version_that_goes_back_within_one_large_transaction_is_not_taken_for_a_replay(small, log, applier):
    applier.apply(log.nets(log.insert(own_row("a", "new", 5))), None)
    back = log.nets(log.update(own_row("a", "old", 3)))
    assert applier.apply(back, log.lsn + 1).quarantined == 1


# --- poison -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("poison", "words"),
    [
        (own_row("p", vector=(1, 2)), "expected 3 dimensions, not 2"),
        (own_row("p", vector=(float("nan"), 1, 2)), "NaN not allowed"),
        (own_row("p", version=None), 'null value in column "version"'),
        (own_row("p", content="forbidden"), "no_such_content"),
        (own_row("p" * 4_000), "index row"),
        ((*own_row("p")[:6], memoryview(b"\0\0\0\2\xff\xfe"), *own_row("p")[7:]), "invalid byte sequence"),
    ],
)
@pytest.mark.parametrize("known", [False, True])
def test_poison_goes_to_quarantine_alone(small, log, applier, poison, words, known):
    rng = np.random.default_rng(0)
    with connect(small.target) as target:
        target.execute("ALTER TABLE memories ADD CONSTRAINT no_such_content CHECK (content <> 'forbidden')")
    if poison[0] == own_row("p" * 4_000)[0]:
        noise = bytes(rng.integers(97, 123, 4_000).astype(np.uint8)).decode()  # it is not to be compressed
        poison = own_row(noise)
    elif known:
        applier.apply(log.nets(log.insert(own_row("p", "before"))), log.lsn + 1)
    good = [own_row(f"k{number}") for number in range(9)]
    change = log.update(poison) if known else log.insert(poison)
    nets = log.nets(*map(log.insert, good[:5]), change, *map(log.insert, good[5:]))
    applied = applier.apply(nets, log.lsn + 1)
    assert (applied.inserted, applied.updated, applied.quarantined) == (9, 0, 1)
    assert contents(small).keys() - {"p"} == {f"k{number}" for number in range(9)}
    assert contents(small).get("p", ("before",))[0] == "before"
    ((_key, verb, error),) = quarantined(small)
    assert words in error
    assert verb == ("upsert" if known else "insert")
    assert applier.checkpoint == log.lsn + 1


def test_poison_of_several_kinds_in_one_batch(small, log, applier):
    applier.apply(log.nets(*(log.insert(own_row(key)) for key in "abc")), log.lsn + 1)
    applied = applier.apply(
        log.nets(
            log.update(without(own_row("a", "part", None), EMBEDDING)),
            log.update(without(own_row("b", "part", 2), EMBEDDING)),
            log.update(without(own_row("nowhere", "part", 2), EMBEDDING)),
            log.delete(own_row("c")),
            log.insert(own_row("d", vector=(1,))),
            log.insert(own_row("e")),
        ),
        log.lsn + 1,
    )
    assert applied == Applied(1, 1, 1, 0, 3, applied.seconds)
    assert {key for key, _, _ in quarantined(small)} == {"a", "nowhere", "d"}
    assert contents(small).keys() == {"a", "b", "e"}


def test_the_same_poison_twice_is_one_entry(small, log, applier):
    nets = log.nets(log.insert(own_row("p", vector=(1,))))
    applier.apply(nets, None)
    applier.apply(nets, log.lsn + 1)
    assert len(quarantined(small)) == 1


def test_the_change_in_quarantine_is_as_the_log_sent_it(small, log, applier):
    row = without(own_row("a", "part", 2), EMBEDDING)
    applier.apply(log.nets(log.update(row)), log.lsn + 1)
    with connect(small.target) as target:
        (change,) = target.execute("SELECT change FROM orchestra_stream.quarantine").fetchone()
    assert change == b"\x00\x0e" + b"".join(b"\xff\xff\xff\xfe" if one is None else bytes(one) for one in row)


# --- barriers ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def both(small, log):
    made = appliers(small.target, log.layout, partitions=2)
    yield made
    for one in made:
        one.close()


def spread(made, log, *changes, new_lsn=None):
    """Apply changes by partition, as the stream does."""
    gathering = Gathering([one.checkpoint for one in made])
    for change in changes:
        gathering.add(change, log.layout)
    for number, share in gathering.take().shares.items():
        made[number].apply(share, new_lsn)


def read_again(made):
    """As after a crash: the log is read from the checkpoints on once more."""
    for one in made:
        one.expect_replay()


def test_a_row_keeps_its_vector_when_its_id_changes(small, log, both):
    spread(both, log, *(log.insert(own_row(key, vector=(4, 5, 6))) for key in "ab"))
    change = log.rekey(log.update(without(own_row("c", "moved", 2), EMBEDDING), old=own_row("a")))
    assert apply_alone(both, change, log.lsn + 1).updated == 1
    assert contents(small) == {"b": ("x", 1, (4, 5, 6)), "c": ("moved", 2, (4, 5, 6))}
    assert [one.checkpoint for one in both] == [log.lsn + 1] * 2


def test_a_changed_id_that_comes_again_changes_nothing(small, log, both):
    spread(both, log, log.insert(own_row("a", vector=(4, 5, 6))))
    change = log.rekey(log.update(without(own_row("c", "moved", 2), EMBEDDING), old=own_row("a")))
    apply_alone(both, change, None)
    spread(both, log, log.insert(own_row("a", "another")))
    read_again(both)
    apply_alone(both, change, None)
    assert contents(small) == {"c": ("moved", 2, (4, 5, 6))}, "the log goes on with the insert of the other a"


def test_a_changed_id_that_comes_again_spares_the_partitions_that_are_past_it(small, log, both):
    assert [partition_of(key, 2) for key in (b"d", b"a")] == [0, 1]
    spread(both, log, log.insert(own_row("d", vector=(4, 5, 6))))
    change = log.rekey(log.update(without(own_row("a", "moved", 2), EMBEDDING), old=own_row("d")))
    apply_alone(both, change, None)
    spread(both, log, log.insert(own_row("d", "another")), new_lsn=log.lsn + 1)  # partition 1 was not reached
    read_again(both)
    apply_alone(both, change, None)
    assert contents(small) == {"a": ("moved", 2, (4, 5, 6)), "d": ("another", 1, (1, 2, 3))}


def test_a_changed_id_without_a_row_to_take_the_vector_from_is_quarantined_even_in_a_replay(small, log, both):
    change = log.rekey(log.update(without(own_row("c", "moved", 2), EMBEDDING), old=own_row("a")))
    for one in both:
        one.replay_until = log.lsn
    assert apply_alone(both, change, log.lsn + 1).quarantined == 1
    assert quarantined(small) == [("c", "rekey", "the row to change is not there")]


def test_a_changed_id_that_the_target_refuses_puts_both_ids_aside(small, log, both):
    with connect(small.target) as target:
        target.execute("ALTER TABLE memories ADD CONSTRAINT no_such_content CHECK (content <> 'forbidden')")
    spread(both, log, log.insert(own_row("a")))
    change = log.rekey(log.update(without(own_row("c", "forbidden", 2), EMBEDDING), old=own_row("a")))
    assert apply_alone(both, change, log.lsn + 1).quarantined == 2
    assert {key for key, _, _ in quarantined(small)} == {"a", "c"}


def test_a_new_id_takes_nothing_from_a_row_of_which_a_change_was_put_aside(small, log, both):
    """The target has the vector of before that change: the new id would have it, and nobody would know."""
    with connect(small.target) as target:
        target.execute("ALTER TABLE memories ADD CONSTRAINT no_such_content CHECK (content <> 'forbidden')")
    spread(both, log, log.insert(own_row("a", vector=(1, 1, 1))), new_lsn=log.lsn + 1)
    spread(both, log, log.update(own_row("a", "forbidden", 2, (2, 2, 2))), new_lsn=log.lsn + 1)
    moved = log.rekey(log.update(without(own_row("c", "ok", 3), EMBEDDING), old=own_row("a")))
    assert apply_alone(both, moved, log.lsn + 1).quarantined == 1
    further = log.rekey(log.update(without(own_row("e", "ok", 4), EMBEDDING), old=own_row("c")))
    assert apply_alone(both, further, log.lsn + 1).quarantined == 1
    assert contents(small) == {}
    assert [(key, verb) for key, verb, _ in quarantined(small)] == [("a", "upsert"), ("c", "rekey"), ("e", "rekey")]
    assert quarantined(small)[1][2] == "the row to change, a, is itself in quarantine"


def test_truncate_empties_the_table_and_moves_every_checkpoint(small, log, both):
    spread(both, log, *(log.insert(own_row(key)) for key in "abcdef"))
    apply_alone(both, Truncated((log.relation,), log.lsn + 5), log.lsn + 9)
    assert contents(small) == {}
    assert [one.checkpoint for one in both] == [log.lsn + 9] * 2


def test_truncate_that_comes_again_spares_the_partitions_that_are_past_it(small, log, both):
    apply_alone(both, truncated := Truncated((log.relation,), log.lsn + 5), None)
    log.lsn += 10
    gathering = Gathering([1_000, 1_000])
    for key in "abcdef":
        gathering.add(log.insert(own_row(key)), log.layout)
    shares = gathering.take().shares
    both[0].apply(shares[0], log.lsn + 1)  # and here it crashed: partition 1 begins again
    both[1].apply(shares[1], None)
    apply_alone(both, truncated, None)
    assert contents(small).keys() == {net.key.decode() for net in shares[0]}
    both[1].apply(shares[1], log.lsn + 1)
    assert contents(small).keys() == set("abcdef")


# --- movers and lines -------------------------------------------------------------------------------------------------


def test_of_two_movers_the_one_that_comes_second_changes_nothing(small, log, applier):
    (other,) = appliers(small.target, log.layout)
    other.apply(log.nets(log.insert(own_row("a", "other"))), log.lsn + 1)
    mine = log.nets(log.insert(own_row("b", "mine")))
    with pytest.raises(Superseded, match="another mover has moved the checkpoint"):
        applier.apply(mine, log.lsn + 1)
    assert contents(small).keys() == {"a"}
    with pytest.raises(Superseded):
        applier.open()
    other.close()


def test_of_two_movers_inside_one_large_transaction_the_first_is_superseded(small, log, applier):
    """The position stays while the parts are applied: by it alone a part would be applied over later ones."""
    parts = [log.nets(log.insert(own_row(key, "first"))) for key in "abc"]
    (other,) = appliers(small.target, log.layout)
    for part in parts[:2]:
        other.apply(part, None)
    with pytest.raises(Superseded):
        applier.apply(parts[0], None)
    other.close()


def test_a_mover_is_superseded_where_another_is_in_the_same_large_transaction_further_on(small, log, applier):
    changes = log.nets(*(log.update(own_row("a", content, 1)) for content in ("first", "second", "third")))
    parts = [replace(net, lsn=log.lsn) for net in changes]
    applier.apply(parts[:1], None)
    (other,) = appliers(small.target, log.layout)
    for part in parts:
        other.apply([part], None)
    assert (other.at.lsn, other.at.touched_until) == (applier.at.lsn, applier.at.touched_until)
    with pytest.raises(Superseded):
        applier.apply(parts[1:2], None)
    assert contents(small)["a"][0] == "third"
    other.close()


def test_a_barrier_of_a_mover_that_was_superseded_changes_nothing(small, log, both):
    others = appliers(small.target, log.layout, partitions=2)
    spread(others, log, log.insert(own_row("a")), log.insert(own_row("b")), log.insert(own_row("c")), new_lsn=9_000)
    with pytest.raises(Superseded):
        apply_alone(both, Truncated((log.relation,), 8_000), 8_010)
    assert contents(small).keys() == set("abc")
    for one in others:
        one.close()


def test_two_movers_at_once_are_refused_with_the_pid_of_the_other(small):
    with connect(small.target) as first, connect(small.target) as second:
        with state_tables.stream_lock(first, "s"):
            with (
                pytest.raises(LockHeld, match=rf"server process {first.info.backend_pid} "),
                state_tables.stream_lock(second, "s"),
            ):
                pass
            with state_tables.stream_lock(second, "another"):
                pass
        with state_tables.stream_lock(second, "s"):
            pass


def test_a_session_that_was_ended_is_opened_anew(small, log, applier):
    applier.apply(log.nets(log.insert(own_row("a"))), log.lsn + 1)
    with connect(small.target) as target:
        target.execute("SELECT pg_terminate_backend(%s)", [applier.session()[0].info.backend_pid])
    nets = log.nets(log.insert(own_row("b")))
    with pytest.raises(psycopg.OperationalError):
        applier.apply(nets, log.lsn + 1)
    assert applier.apply(nets, log.lsn + 1).inserted == 1
    assert contents(small).keys() == {"a", "b"}


def test_after_a_commit_whose_answer_was_lost_nothing_is_left_to_do(small, log, applier, monkeypatch):
    nets = log.nets(log.insert(own_row("a")))
    connection, _ = applier.session()
    execute = connection.execute

    def lose_the_answer(statement, *arguments, **options):
        if statement == "COMMIT":
            execute(statement)
            connection.close()
            raise psycopg.OperationalError("the line went dead")
        return execute(statement, *arguments, **options)

    monkeypatch.setattr(connection, "execute", lose_the_answer)
    with pytest.raises(psycopg.OperationalError):
        applier.apply(nets, log.lsn + 1)
    assert applier.apply(nets, log.lsn + 1).rows == 0
    assert applier.checkpoint == log.lsn + 1
    assert contents(small).keys() == {"a"}


def test_a_call_that_waits_comes_back_when_it_is_cut_off(small, log, applier):
    with connect(small.target) as target, target.transaction():
        target.execute("LOCK TABLE memories")
        cutter = threading.Timer(0.3, applier.cut)
        cutter.start()
        started = time.monotonic()
        with pytest.raises(psycopg.OperationalError):
            applier.apply(log.nets(log.insert(own_row("a"))), log.lsn + 1)
        assert time.monotonic() - started < 5
        cutter.join()


def test_a_target_that_went_away_in_the_middle_of_sending_is_an_error_and_not_a_wait(small, log, applier):
    """The batch is larger than what the line takes at once."""
    nets = log.nets(*(log.insert(own_row(f"k{n}", "y" * 100_000)) for n in range(50)))
    os.kill(applier.session()[0].info.backend_pid, signal.SIGTERM)
    with pytest.raises(psycopg.OperationalError):
        applier.apply(nets, log.lsn + 1)
    assert applier.apply(nets, log.lsn + 1).inserted == 50


@pytest.mark.parametrize(
    ("setting", "lock", "error"),
    [
        ("default_transaction_read_only = on", "ACCESS SHARE", psycopg.errors.ReadOnlySqlTransaction),
        ("lock_timeout = '20ms'", "SHARE", psycopg.errors.LockNotAvailable),
    ],
)
def test_what_is_not_the_rows_fault_is_raised_and_nothing_quarantined(small, log, applier, setting, lock, error):
    applier.session()[0].execute(f"SET {setting}")
    nets = log.nets(log.insert(own_row("a")))
    with connect(small.target) as target, target.transaction():
        target.execute(f"LOCK TABLE memories IN {lock} MODE")
        with pytest.raises(error):
            applier.apply(nets, log.lsn + 1)
    assert quarantined(small) == []
    assert contents(small) == {}
    applier.session()[0].execute("RESET ALL")
    assert applier.apply(nets, log.lsn + 1).inserted == 1


def test_checkpoints_of_another_number_of_partitions_begin_at_the_least(small, log, both):
    spread(both, log, log.insert(own_row("a")), log.insert(own_row("b")))
    both[0].apply([], 3_000)
    both[1].apply([], 2_000)
    three = appliers(small.target, log.layout, partitions=3)
    assert [one.checkpoint for one in three] == [2_000] * 3
    assert [one.replay_until for one in three] == [3_000] * 3
    for one in three:
        one.close()


def test_without_a_copy_there_are_no_checkpoints(small, log):
    with connect(small.target) as target:
        state_tables.create(target)
        with pytest.raises(DataError, match="knows no stream s"):
            state_tables.prepare_checkpoints(target, "s", 2)


def test_over_a_copy_that_is_not_finished_there_are_no_checkpoints(small, log, applier):
    with connect(small.target) as target:
        target.execute("UPDATE orchestra_stream.stream SET copy_done_at = NULL")
        target.execute("INSERT INTO orchestra_stream.copied_range (stream, number) VALUES ('s', 1), ('s', 2)")
        target.execute("UPDATE orchestra_stream.copied_range SET copied_at = now() WHERE number = 1")
        with pytest.raises(DataError, match="not finished, 1 of its key ranges are missing: run the copy again"):
            state_tables.prepare_checkpoints(target, "s", 1)


def test_tables_of_an_earlier_version_get_the_columns_that_they_lack(small, log, applier):
    applier.apply(log.nets(log.insert(own_row("a"))), log.lsn + 1)
    with connect(small.target) as target:
        for table, column in state_tables._ADDED:
            target.execute(f"ALTER TABLE orchestra_stream.{table} DROP COLUMN {column}")
        state_tables.create(target)
        assert state_tables.confirmed(target, "s") is None
    (again,) = appliers(small.target, log.layout)
    again.apply(log.nets(log.insert(own_row("b"))), log.lsn + 1)
    assert contents(small).keys() == {"a", "b"}
    again.close()


# --- the users' own tables --------------------------------------------------------------------------------------------

THEIRS = """
CREATE TYPE mood AS ENUM ('sad', 'glad');
CREATE DOMAIN short_text AS varchar(40);
CREATE TABLE theirs (
    serial_no int PRIMARY KEY, body short_text, external_id bigint NOT NULL UNIQUE, vec {vector}, who varchar(9),
    feeling mood, facts json, made timestamp, changes int
);
ALTER TABLE theirs REPLICA IDENTITY USING INDEX theirs_external_id_key
"""
MAPPING = {
    "id": "external_id", "embedding": "vec", "content": "body", "user_id": "who", "persona": "feeling",
    "metadata": "facts", "created_at": "made", "version": "changes",
}  # fmt: skip


@pytest.mark.parametrize("vector", ["vector(3)", "real[]", "double precision[]", "halfvec(3)"])
def test_rows_of_another_layout_are_cast_as_the_copy_casts_them(small, vector):
    with connect(small.source) as source:
        source.execute(THEIRS.format(vector=vector))
        try:
            source.execute(
                f"INSERT INTO theirs SELECT n, 'Zürich ' || n, n * 7000000000, '{{0.5,2,3}}'::real[]::{vector}, "
                "'w' || n, CASE WHEN n % 2 = 0 THEN 'sad' ELSE 'glad' END::mood, "
                """('{"b": ' || n || ', "a":  [1.50]}')::json, '2026-01-01 12:00'::timestamp + n * interval '1 h', n """
                "FROM generate_series(1, 20) n"
            )
            log = Log(source, "theirs", MAPPING)
            rows = rows_of(source, "SELECT * FROM theirs ORDER BY serial_no")
            (applier,) = appliers(small.target, log.layout)
            applier.apply(log.nets(*(log.insert(row) for row in rows)), log.lsn + 1)
            source.execute("UPDATE theirs SET body = 'changed', changes = changes + 1 WHERE serial_no % 3 = 0")
            after = rows_of(source, "SELECT * FROM theirs WHERE serial_no % 3 = 0")
            applier.apply(log.nets(*(log.update(without(row, 3)) for row in after)), log.lsn + 1)
            source.execute("DELETE FROM theirs WHERE serial_no = 5")
            applier.apply(log.nets(log.delete(rows[4])), log.lsn + 1)
            moved = (*after[0][:2], rows[4][2], None, *after[0][4:])
            change = log.rekey(log.update(moved, old=after[0]))
            source.execute("UPDATE theirs SET external_id = 5 * 7000000000 WHERE serial_no = 3")
            apply_alone([applier], change, log.lsn + 1)
            digests = sql.SQL("SELECT id, {} FROM ({}) AS rows")
            wanted = source.execute(digests.format(row_digest(), source_table(source, "theirs", MAPPING).select))
            with connect(small.target) as target:
                found = target.execute(digests.format(row_digest(), sql.SQL("SELECT * FROM memories")))
                assert sorted(found.fetchall()) == sorted(wanted.fetchall())
            assert quarantined(small) == []
            applier.close()
        finally:
            source.execute("DROP TABLE theirs; DROP DOMAIN short_text; DROP TYPE mood")


def test_a_type_that_the_target_does_not_know_is_named(small, log, monkeypatch):
    monkeypatch.setattr(log.layout, "columns", (log.layout.columns[0], *log.layout.columns[1:]))
    object.__setattr__(log.layout.columns[3], "type_name", "no_such_type")
    with pytest.raises(DataError, match="does not know the type no_such_type"):
        appliers(small.target, log.layout)


def test_real_rows_of_1536_dimensions_arrive_bit_by_bit(pair):
    fill(pair.source, 300)
    with connect(pair.target) as target:
        target.execute(create_table())
    with connect(pair.source) as source:
        log = Log(source)
        rows = rows_of(source, "SELECT * FROM memories")
        made = appliers(pair.target, log.layout, partitions=2)
        spread(made, log, *(log.insert(row) for row in rows), new_lsn=log.lsn)
    assert stored(pair.target) == stored(pair.source)
    for one in made:
        one.close()
