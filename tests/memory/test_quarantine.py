"""Rows that were put aside are brought in order from the source, or stay with what the target says of them."""

from __future__ import annotations

import pytest
from changes import Log, appliers, lasting_pair, own_row, without

from orchestra_lib.database import connect
from orchestra_lib.errors import LockHeld
from orchestra_lib.memory.apply import apply_alone
from orchestra_lib.memory.compare import Store
from orchestra_lib.memory.quarantine import resolve, unresolved
from orchestra_lib.memory.schema import COLUMNS, create_table
from orchestra_lib.memory.slot import current_lsn
from orchestra_lib.memory.source import source_table
from orchestra_lib.memory.state_tables import stream_lock
from orchestra_lib.memory.stream_errors import Superseded

EMBEDDING = COLUMNS.index("embedding")
CHECK = "ALTER TABLE memories ADD CONSTRAINT no_such_content CHECK (content <> 'forbidden')"


@pytest.fixture(scope="module")
def lasting(servers):
    with lasting_pair(servers, "quarantines") as pair:
        yield pair


@pytest.fixture
def pair(lasting):
    for conninfo in (lasting.source, lasting.target):
        with connect(conninfo) as connection:
            connection.execute("DROP SCHEMA IF EXISTS orchestra_stream CASCADE")
            connection.execute("DROP TABLE IF EXISTS memories")
            connection.execute(create_table(dimension=3))
    return lasting


def stores(pair):
    found = []
    for role, conninfo in (("source", pair.source), ("target", pair.target)):
        with connect(conninfo) as connection:
            found.append(Store(role, conninfo, source_table(connection, "memories", {})))
    return found


def write(conninfo, *rows):
    """Rows as key, content and version."""
    with connect(conninfo) as connection:
        for key, content, version in rows:
            connection.execute(
                "INSERT INTO memories VALUES (%s, 'agent', 'user', 'session', 'persona', 'note', %s, '{\"n\": 1}', "
                "'[1,2,3]', 'model', %s, '2000-01-01', '2000-01-01', NULL)",
                [key, content, version],
            )


@pytest.fixture
def aside(pair):
    """A target that has refused four rows: two it still would, one that was healed later, one that is gone."""
    write(pair.source, ("bad", "forbidden", 1), ("old", "as it is", 3), ("healed", "now", 2), ("good", "x", 1))
    with connect(pair.target) as target, connect(pair.source) as source:
        target.execute(CHECK)
        log = Log(source)
        (applier,) = appliers(pair.target, log.layout)
        applier.apply(log.nets(log.insert(own_row("old", version=7)), log.insert(own_row("good"))), log.lsn + 1)
        for change in (
            log.insert(own_row("bad", "forbidden")),
            log.update(own_row("old", "as it is", 3)),
            log.insert(own_row("healed", "forbidden")),
            log.insert(own_row("gone", "forbidden")),
            log.update(without(own_row("gone", "x", 2), EMBEDDING)),
        ):
            assert applier.apply(log.nets(change), change.commit_lsn + 1).quarantined == 1
        applier.apply(log.nets(log.update(own_row("healed", "now", 2))), log.lsn + 1)
        applier.close()
    return pair


def state(pair):
    with connect(pair.target) as target:
        return dict(target.execute("SELECT id, content FROM memories").fetchall())


def test_what_lies_aside_is_listed_in_the_order_of_the_log(aside):
    with connect(aside.target) as target:
        found = unresolved(target, "s")
        assert unresolved(target, "another") == ()
    assert [(row.key, row.verb) for row in found] == [
        ("bad", "insert"), ("old", "upsert"), ("healed", "insert"), ("gone", "insert"), ("gone", "patch"),
    ]  # fmt: skip
    assert "no_such_content" in found[0].error
    assert found[1].error == "version went back from 7 to 3"


def test_rows_become_what_the_source_has_and_the_rest_stays_with_its_error(aside):
    with connect(aside.target) as target:  # as if it had been left there
        target.execute("UPDATE orchestra_stream.quarantine SET error = 'old error'")
    found = resolve(*stores(aside), "s")
    assert (found.equal, found.written, found.deleted) == (("healed", "gone"), ("old",), ())
    assert [row.key for row in found.remaining] == ["bad"]
    assert "no_such_content" in found.remaining[0].error, "the new error"
    assert state(aside) == {"old": "as it is", "healed": "now", "good": "x"}


def test_when_the_target_lets_it_in_nothing_remains(aside):
    resolve(*stores(aside), "s")
    with connect(aside.target) as target:
        target.execute("ALTER TABLE memories DROP CONSTRAINT no_such_content")
    found = resolve(*stores(aside), "s")
    assert (found.written, found.remaining) == (("bad",), ())
    assert state(aside)["bad"] == "forbidden"
    assert resolve(*stores(aside), "s").written == ()


def test_a_row_that_the_source_no_longer_has_is_deleted(aside):
    with connect(aside.source) as source:
        source.execute("DELETE FROM memories WHERE id = 'old'")
    assert resolve(*stores(aside), "s").deleted == ("old",)
    assert "old" not in state(aside)


def test_a_row_that_was_brought_lends_nothing_to_a_change_from_before(aside):
    """Its id is by then another row's: the one that had it got a new id, and its vector is not sent."""
    with connect(aside.source) as source, connect(aside.target) as target:
        log = Log(source)
        log.lsn = current_lsn(source) - 100
        moved = log.rekey(log.update(without(own_row("d", "as it is", 4), EMBEDDING), old=own_row("old")))
        source.execute("UPDATE memories SET id = 'd' WHERE id = 'old'")
        write(aside.source, ("old", "another", 1))
        source.execute("UPDATE memories SET embedding = '[9,9,9]' WHERE id = 'old'")
        assert "old" in resolve(*stores(aside), "s").written
        (applier,) = appliers(aside.target, log.layout)
        assert apply_alone([applier], moved, log.lsn + 1).quarantined == 1
        applier.close()
        assert [row.key for row in unresolved(target, "s")] == ["bad", "d"]
    assert resolve(*stores(aside), "s").written == ("d",)


def test_a_change_from_before_a_repair_is_stale_and_one_of_another_row_is_not(aside):
    with connect(aside.source) as source, connect(aside.target) as target:
        log = Log(source)
        log.lsn = current_lsn(source) - 100
        before = [log.update(own_row("old", "before", 2)), log.update(own_row("good", "went back", 0))]
        resolve(*stores(aside), "s")
        (applier,) = appliers(aside.target, log.layout)
        applied = applier.apply(log.nets(*before), log.lsn + 1)
        applier.close()
        assert (applied.stale, applied.quarantined) == (1, 1)
        assert [row.key for row in unresolved(target, "s")] == ["bad", "good"]


def test_a_mover_that_has_lost_its_lock_is_superseded_by_a_repair(aside):
    with connect(aside.source) as source:
        log = Log(source)
        (mover,) = appliers(aside.target, log.layout)
        resolve(*stores(aside), "s")
        log.lsn = mover.checkpoint + 10
        with pytest.raises(Superseded):
            mover.apply(log.nets(log.update(own_row("old", "overwritten", 9))), log.lsn + 1)
        mover.close()
    assert state(aside)["old"] == "as it is"


def test_it_waits_for_no_stream_that_runs(aside):
    with connect(aside.target) as mover, stream_lock(mover, "s"), pytest.raises(LockHeld, match="in other hands"):
        resolve(*stores(aside), "s")
    assert state(aside)["old"] == "x"
