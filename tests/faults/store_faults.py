"""The faults, as data: a name, and how to inject and to heal it. Each is a context: inside the ``with`` it is there."""

from __future__ import annotations

import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial

import psycopg
from arena import Arena, Mover, NotSettled, Server
from mover_spec import SLOT, TABLE
from network import Flow, Network

Injected = Callable[[Arena, random.Random], AbstractContextManager[None]]
Side = Callable[[Arena], Server]
Way = Callable[[Arena], Network]


@dataclass(frozen=True)
class Fault:
    """``seconds``: for how long it is there, drawn between the two. ``endings``: the errors that may end the mover,
    which is then started again. ``rounds``: how often it comes where the others come once (it takes long if below 1).
    ``mixes``: whether it may be there together with another; ``by_statement``: it begins with a statement to a server,
    so it has to come before one that is killed.
    """

    name: str
    inject: Injected
    seconds: tuple[float, float] = (0.2, 1.0)
    endings: tuple[str, ...] = ()
    rounds: float = 1.0
    mixes: bool = False
    by_statement: bool = False


def _source(arena: Arena) -> Server:
    return arena.source


def _target(arena: Arena) -> Server:
    return arena.target


def _to_source(arena: Arena) -> Network:
    return arena.source_network


def _to_target(arena: Arena) -> Network:
    return arena.target_network


# --- processes --------------------------------------------------------------------------------------------------------


@contextmanager
def _mover_killed(arena: Arena, draw: random.Random) -> Iterator[None]:
    arena.mover.kill()
    yield


@contextmanager
def _mover_suspended(arena: Arena, draw: random.Random) -> Iterator[None]:
    arena.mover.signal(signal.SIGSTOP)
    yield
    arena.mover.signal(signal.SIGCONT)


@contextmanager
def _clock_set(arena: Arena, draw: random.Random) -> Iterator[None]:
    """An hour or a day, forwards or back: first in a mover that is started for it, then at work."""
    arena.restart_mover(clock_jump_seconds=draw.choice((-86_400.0, -3_600.0, 3_600.0, 86_400.0)))
    arena.streaming()
    arena.mover.signal(signal.SIGUSR1)
    yield


@contextmanager
def _server_killed(side: Side, arena: Arena, draw: random.Random) -> Iterator[None]:
    side(arena).kill()
    yield
    side(arena).start()


@contextmanager
def _server_restarted(side: Side, arena: Arena, draw: random.Random) -> Iterator[None]:
    side(arena).stop()
    yield
    side(arena).start()


@contextmanager
def _sessions_ended(side: Side, arena: Arena, draw: random.Random) -> Iterator[None]:
    side(arena).execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'orchestra stream%'"
    )
    yield


# --- network ----------------------------------------------------------------------------------------------------------


@contextmanager
def _cut(way: Way, arena: Arena, draw: random.Random) -> Iterator[None]:
    way(arena).cut()
    yield


@contextmanager
def _away(way: Way, arena: Arena, draw: random.Random) -> Iterator[None]:
    """Connections are reset and new ones refused."""
    way(arena).refusing = True
    way(arena).cut()
    yield
    way(arena).heal()


@contextmanager
def _conditions(way: Way, conditions: dict[str, object], arena: Arena, draw: random.Random) -> Iterator[None]:
    way(arena).change(**conditions)
    yield
    way(arena).heal()


@contextmanager
def _answers_lost(way: Way, direction: str, arena: Arena, draw: random.Random) -> Iterator[None]:
    """One direction loses every byte, then the connections are cut: whoever sent does not know what arrived."""
    network = way(arena)
    setattr(network, direction, replace(getattr(network, direction), flow=Flow.SWALLOW))
    yield
    network.cut()
    network.heal()


# --- the target -------------------------------------------------------------------------------------------------------


@contextmanager
def _read_only(arena: Arena, draw: random.Random) -> Iterator[None]:
    arena.target.execute("ALTER SYSTEM SET default_transaction_read_only = on")
    arena.target.execute("SELECT pg_reload_conf()")
    yield
    arena.target.execute("ALTER SYSTEM RESET default_transaction_read_only")
    arena.target.execute("SELECT pg_reload_conf()")


@contextmanager
def _disk_full(arena: Arena, draw: random.Random) -> Iterator[None]:
    """No file may grow beyond the size that the largest has now; what is smaller, such as the log's files, may."""
    ((size,),) = arena.target.execute(
        "SELECT pg_relation_size(reltoastrelid) FROM pg_class WHERE oid = %s::regclass", TABLE
    )
    least = 16 * 2**20  # one file of the write-ahead log: a server that cannot write that ends
    if size <= least:
        raise NotSettled(f"the vectors of the target take {size:,} B; with less than {least:,} B no disk can be full")
    arena.target.limit_files(size)
    stop = threading.Event()
    filling = threading.Thread(target=_insert_steadily, args=[arena, stop])
    filling.start()
    yield
    stop.set()
    filling.join()
    arena.target.limit_files(None)
    arena.leave("filling")


def _insert_steadily(arena: Arena, stop: threading.Event) -> None:
    """Rows beside the writer's, so that the target's files have to grow."""
    number = 0
    while not stop.wait(0.05):
        arena.source.execute(insert_rows("filling", number, number + 20))
        number += 20


@contextmanager
def _table_locked(arena: Arena, draw: random.Random) -> Iterator[None]:
    with suppress(psycopg.OperationalError), psycopg.connect(arena.target.conninfo) as connection:
        connection.execute(f"LOCK TABLE {TABLE} IN ACCESS EXCLUSIVE MODE")
        yield


@contextmanager
def _poison(arena: Arena, draw: random.Random) -> Iterator[None]:
    """The target refuses one row: it alone is set aside, named, and settled by a person."""
    id_ = f"poison:{draw.randrange(10**9)}"
    arena.target.execute(f"ALTER TABLE {TABLE} ADD CONSTRAINT no_poison CHECK (id NOT LIKE 'poison:%') NOT VALID")
    arena.source.execute(insert_rows(id_, 0, 1))
    key_aside = f"{id_}:0"
    unresolved = "SELECT key, error FROM orchestra_stream.quarantine WHERE resolved_at IS NULL"
    arena.until(lambda: bool(arena.target.execute(unresolved)), "the refused row is in quarantine")
    ((key, error),) = arena.target.execute(unresolved)
    if key != key_aside or "no_poison" not in error:
        raise NotSettled(f"in quarantine is {key!r} with {error!r}, and not {key_aside}")
    yield
    arena.source.execute(f"DELETE FROM {TABLE} WHERE id = %s", key_aside)
    arena.target.execute(f"ALTER TABLE {TABLE} DROP CONSTRAINT no_poison")
    arena.target.execute("UPDATE orchestra_stream.quarantine SET resolved_at = now() WHERE key = %s", key_aside)


@contextmanager
def _table_missing(arena: Arena, draw: random.Random) -> Iterator[None]:
    arena.target.execute(f"ALTER TABLE {TABLE} RENAME TO hidden")
    yield
    arena.target.execute(f"ALTER TABLE hidden RENAME TO {TABLE}")


# --- the source -------------------------------------------------------------------------------------------------------


def insert_rows(prefix: str, first: int, end: int) -> str:
    """The statement that inserts rows ``prefix:first`` … with the vector of some row."""
    return (
        f"INSERT INTO {TABLE} SELECT '{prefix}:' || n, 'a', 'u', 's', 'p', 'note', repeat('x', n % 3000), '{{}}', "
        f"(SELECT embedding FROM {TABLE} WHERE id = 'id-' || lpad((n % 50)::text, 8, '0')), 'm', 1, now(), now(), NULL "
        f"FROM generate_series({first}, {end - 1}) AS n ON CONFLICT (id) DO NOTHING"
    )


@contextmanager
def _long_transaction(arena: Arena, draw: random.Random) -> Iterator[None]:
    prefix = f"long:{draw.randrange(10**9)}"
    # With a source that is killed meanwhile, the transaction is gone.
    with suppress(psycopg.OperationalError), psycopg.connect(arena.source.conninfo) as connection:
        connection.execute(insert_rows(prefix, 0, 5))
        yield
        connection.execute(f"UPDATE {TABLE} SET version = version + 1 WHERE id LIKE '{prefix}:%'")
        connection.rollback() if draw.random() < 0.3 else connection.commit()
    arena.leave(prefix)


@contextmanager
def _large_transaction(arena: Arena, draw: random.Random) -> Iterator[None]:
    """Many rows in one transaction with savepoints, some rolled back; it is sent in blocks before it commits."""
    prefix, rows = f"large:{draw.randrange(10**9)}", 600
    with suppress(psycopg.OperationalError), psycopg.connect(arena.source.conninfo) as connection:
        for part in range(3):
            connection.execute(insert_rows(prefix, part * rows, (part + 1) * rows))
            connection.execute("SAVEPOINT here")
            connection.execute(f"DELETE FROM {TABLE} WHERE id LIKE '{prefix}:%{part}'")
            connection.execute(f"UPDATE {TABLE} SET content = 'changed', version = 2 WHERE id LIKE '{prefix}:%7'")
            connection.execute(insert_rows(f"{prefix}:inner", part * 100, (part + 1) * 100))
            if draw.random() < 0.5:
                connection.execute("ROLLBACK TO SAVEPOINT here")
            else:
                connection.execute("RELEASE SAVEPOINT here")
        connection.execute(f"UPDATE {TABLE} SET agent_id = 'b', version = version + 1 WHERE id LIKE '{prefix}:%3'")
        yield
        connection.rollback() if draw.random() < 0.25 else connection.commit()
    arena.leave(prefix)


@contextmanager
def _truncated(arena: Arena, draw: random.Random) -> Iterator[None]:
    """The table is emptied and filled again in one transaction, so that what the writer knows stays true."""
    with psycopg.connect(arena.source.conninfo) as connection:
        connection.execute(f"LOCK TABLE {TABLE} IN ACCESS EXCLUSIVE MODE")
        connection.execute(f"CREATE TEMPORARY TABLE kept ON COMMIT DROP AS SELECT * FROM {TABLE}")
        connection.execute(f"TRUNCATE {TABLE}")
        connection.execute(f"INSERT INTO {TABLE} SELECT * FROM kept")
    yield


@contextmanager
def _side_table(arena: Arena, draw: random.Random) -> Iterator[None]:
    """A table that is not published is written to and emptied, alone and in one transaction with a row that is."""
    arena.source.execute("INSERT INTO side SELECT n, 'x' FROM generate_series(1, 2000) AS n ON CONFLICT DO NOTHING")
    with psycopg.connect(arena.source.conninfo) as connection:
        connection.execute("TRUNCATE side")
        connection.execute(insert_rows("side", 0, 3))
    yield
    arena.leave("side")


@contextmanager
def _odd_changes(arena: Arena, draw: random.Random) -> Iterator[None]:
    """What a stream of upserts gets wrong: keys that change and swap, rows that come and go in one transaction."""
    with psycopg.connect(arena.source.conninfo, autocommit=True) as connection:
        connection.execute(insert_rows("odd", 0, 10))
        statements = (
            f"UPDATE {TABLE} SET id = 'odd:a' WHERE id = 'odd:0'",
            f"UPDATE {TABLE} SET id = 'odd:b', content = 'new' WHERE id = 'odd:1'",
            f"UPDATE {TABLE} SET id = 'odd:1' WHERE id = 'odd:a'",
            f"DELETE FROM {TABLE} WHERE id = 'odd:2'",
            insert_rows("odd", 2, 3),
            f"UPDATE {TABLE} SET version = 9 WHERE id = 'odd:3'",
            f"DELETE FROM {TABLE} WHERE id = 'odd:3'",
            insert_rows("odd", 3, 4),
            f"UPDATE {TABLE} SET version = version WHERE id = 'odd:4'",
            f"UPDATE {TABLE} SET metadata = '{{\"x\": 1}}', version = version + 1 WHERE id = 'odd:4'",
            f"DELETE FROM {TABLE} WHERE id = 'odd:5'",
            f"UPDATE {TABLE} SET id = 'odd:5' WHERE id = 'odd:6'",
        )
        if draw.random() < 0.5:
            with connection.transaction():
                for statement in statements:
                    connection.execute(statement)
        else:
            for statement in statements:
                connection.execute(statement)
    yield
    arena.leave("odd")


# --- the slot and the schema ------------------------------------------------------------------------------------------


def drop_slot(arena: Arena) -> None:
    """Drop the mover's slot, whoever reads it."""

    def dropped() -> bool:
        with suppress(psycopg.errors.ObjectInUse):
            arena.source.execute(
                "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = %s", SLOT
            )
        arena.source.execute(
            "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = %s", SLOT
        )
        return not arena.source.execute("SELECT 1 FROM pg_replication_slots WHERE slot_name = %s", SLOT)

    arena.until(dropped, "the slot is dropped")


@contextmanager
def _slot_dropped(arena: Arena, draw: random.Random) -> Iterator[None]:
    drop_slot(arena)
    arena.until(lambda: arena.mover.ended, "a mover without its slot ends")
    if not arena.mover.said.startswith("SlotLost") or SLOT not in arena.mover.said:
        raise NotSettled(f"a mover without its slot {SLOT} said {arena.mover.said!r}")
    yield


@contextmanager
def _slot_outgrown(arena: Arena, draw: random.Random) -> Iterator[None]:
    """The mover is away for so long that the source gives the slot's log up."""
    arena.mover.kill()
    arena.source.execute("ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'")
    arena.source.execute("SELECT pg_reload_conf()")

    def lost() -> bool:
        arena.source.execute(insert_rows("outgrown", 0, 50))
        arena.source.execute(f"DELETE FROM {TABLE} WHERE id LIKE 'outgrown:%'")
        arena.source.execute("SELECT pg_switch_wal()")
        arena.source.execute("CHECKPOINT")
        state = arena.source.execute("SELECT wal_status FROM pg_replication_slots WHERE slot_name = %s", SLOT)
        return state in ([("lost",)], [])

    arena.until(lost, "the slot is lost")
    yield
    arena.source.execute("ALTER SYSTEM RESET max_slot_wal_keep_size")
    arena.source.execute("SELECT pg_reload_conf()")


@contextmanager
def _column_added(arena: Arena, draw: random.Random) -> Iterator[None]:
    """The stream stops and names table and column. Started again it goes on without the column.

    If the column is dropped again first, what was logged meanwhile still has it: that takes a new copy.
    """
    arena.source.execute(f"ALTER TABLE {TABLE} ADD COLUMN added_later integer")
    arena.until(lambda: arena.mover.ended, "a mover whose source has another column ends")
    said = arena.mover.said
    if not said.startswith("SchemaChanged") or TABLE not in said or "added_later" not in said:
        raise NotSettled(f"a mover whose source has a column added_later said {said!r}")
    yield
    if goes_on := draw.random() < 0.5:
        arena.restart_mover()
        arena.until(lambda: arena.mover.state.get("status", {}).get("batches", 0) > 3, "it goes on without the column")
    arena.source.execute(f"ALTER TABLE {TABLE} DROP COLUMN added_later")
    if not goes_on:
        drop_slot(arena)


@contextmanager
def _two_movers(arena: Arena, draw: random.Random) -> Iterator[None]:
    """The second is refused, in words; the first does not notice."""
    impatient = replace(arena.spec, tuning=arena.spec.tuning | {"busy_seconds": 1.0})
    second = Mover(impatient, arena.directory, "second")
    try:
        arena.until(lambda: second.ended, "a second mover ends")
        if not second.said.startswith(("LockHeld", "SlotBusy", "Superseded")):
            raise NotSettled(f"a second mover said {second.said!r}")
        yield
    finally:
        second.kill()


@contextmanager
def _mover_superseded(arena: Arena, draw: random.Random) -> Iterator[None]:
    """A mover falls asleep with a batch on its way and is given up for dead; it wakes while another is at work."""
    first = arena.mover
    arena.target_network.change(latency_seconds=0.1)
    arena.until(lambda: first.state.get("status", {}).get("lag_rows", 0) > 10, "a batch is on its way")
    time.sleep(draw.uniform(0, 0.2))
    first.signal(signal.SIGSTOP)
    arena.target_network.heal()
    for side in (arena.source, arena.target):
        side.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'orchestra stream%'"
        )
    second = Mover(arena.spec, arena.directory, "second")
    try:
        arena.until(lambda: second.state.get("status", {}).get("batches", 0) > 3, "the second mover applies batches")
        first.signal(signal.SIGCONT)
        yield
    finally:
        second.kill()


@contextmanager
def _copying(inner: Injected, arena: Arena, draw: random.Random) -> Iterator[None]:
    """Another fault in the middle of a new copy, which goes slowly enough for that; up to three times."""
    arena.mover.kill()
    drop_slot(arena)
    for _ in range(draw.randint(1, 3)):
        arena.restart_mover(copy_rows_per_second=6_000)
        arena.until(lambda: "phase" in arena.mover.state, "the mover has begun")
        # A copy that goes on has only some of the rows to send; whether it is met before or after its end is chance.
        time.sleep(draw.uniform(0, 0.8))
        with inner(arena, draw):
            time.sleep(draw.uniform(0, 0.5))
    yield


def on_both(name: str, inject: Callable[..., object], *given: object, **about: object) -> tuple[Fault, Fault]:
    """The same fault of the server, or on the way to it, once for the source and once for the target."""
    ways = {"source": (_source, _to_source), "target": (_target, _to_target)}
    is_way = inject in (_cut, _away, _conditions, _answers_lost)
    return tuple(
        Fault(name.format(side), partial(inject, ways[side][is_way], *given), **about) for side in ("source", "target")
    )


_ENDS_A_COPY = ("TargetUnreachable", "StreamBroken", "SlotBusy", "LockHeld")

FAULTS: tuple[Fault, ...] = (
    Fault("mover killed", _mover_killed, (0, 0.5), rounds=4, mixes=True),
    Fault("mover suspended", _mover_suspended, (0.5, 7), mixes=True),
    Fault("mover superseded while it sleeps", _mover_superseded, (0.5, 2), ("LockHeld", "SlotBusy", "Superseded")),
    Fault("two movers at once", _two_movers),
    Fault("clock set by hours", _clock_set, (0.5, 1)),
    *on_both("{} killed", _server_killed, seconds=(0, 2), rounds=2, mixes=True),
    *on_both("{} restarted", _server_restarted, seconds=(0, 1)),
    *on_both("sessions on the {} ended", _sessions_ended, mixes=True, by_statement=True),
    *on_both("connections to the {} cut", _cut, mixes=True),
    *on_both("{} cannot be reached", _away, seconds=(0.5, 3), mixes=True),
    *on_both("connections to the {} half-open", _conditions, {"flow": Flow.SWALLOW}, seconds=(1, 5), mixes=True),
    *on_both("connections to the {} stalled, then delivered", _conditions, {"flow": Flow.HOLD}, seconds=(0.5, 4)),
    *on_both("latency of 50 ms to the {}", _conditions, {"latency_seconds": 0.05}, seconds=(1, 2), mixes=True),
    *on_both("1 MB/s to the {}", _conditions, {"bytes_per_second": 1e6}, seconds=(1, 2), mixes=True),
    *on_both("what is sent to the {} lost, then cut", _answers_lost, "to_server", seconds=(0.1, 1), rounds=2),
    *on_both("what the {} answers lost, then cut", _answers_lost, "to_client", seconds=(0.1, 1), rounds=2),
    Fault("target read-only", _read_only, (0.5, 2), mixes=True, by_statement=True),
    Fault("target's disk full", _disk_full, (1, 3)),
    Fault("target's table locked", _table_locked, (0.5, 5), mixes=True, by_statement=True),
    Fault("target's table missing", _table_missing, (0.5, 1), ("DataError",)),
    Fault("row that the target refuses", _poison, (0, 0.5)),
    Fault("long transaction", _long_transaction, (1, 3), mixes=True, by_statement=True),
    Fault("large transaction with savepoints", _large_transaction, (0, 1), rounds=2, mixes=True, by_statement=True),
    Fault("table truncated and filled again", _truncated, rounds=0.5),
    Fault("table beside it truncated", _side_table, mixes=True, by_statement=True),
    Fault("keys that change, rows that come and go", _odd_changes, rounds=2, mixes=True, by_statement=True),
    Fault("slot dropped", _slot_dropped, endings=("SlotLost",)),
    Fault("slot outgrown", _slot_outgrown, rounds=0.5),
    Fault("column added to the source", _column_added, endings=("SchemaChanged",), rounds=0.5),
    Fault("mover killed while it copies", partial(_copying, _mover_killed), endings=_ENDS_A_COPY),
    *(
        Fault(f"{side} killed while the mover copies", partial(_copying, partial(_server_killed, server)), (0, 1),
              _ENDS_A_COPY, rounds=0.5)
        for side, server in (("source", _source), ("target", _target))
    ),
    *(
        Fault(f"connections to the {side} cut while the mover copies", partial(_copying, partial(_cut, way)), (0, 1),
              _ENDS_A_COPY, rounds=0.5)
        for side, way in (("source", _to_source), ("target", _to_target))
    ),
)  # fmt: skip
"""Everything that is injected. Of the clocks only the mover's can be set: those of the servers are the machine's."""

BY_NAME = {fault.name: fault for fault in FAULTS}


@dataclass(frozen=True)
class Injection:
    """What a fault did: how long it was there, and what the mover said of it meanwhile."""

    seconds: float
    troubles: tuple[str, ...]


def inject(arena: Arena, faults: tuple[Fault, ...], draw: random.Random) -> Injection:
    """Have the faults there together, then heal them in the reverse order.

    What they have written stays until the next ones: it is evidence, and both sides are compared first.
    """
    arena.sweep()
    began, troubles = time.monotonic(), dict[str, None]()
    with ExitStack() as stack:
        for fault in sorted(faults, key=lambda fault: not fault.by_statement):
            stack.enter_context(fault.inject(arena, draw))
        until = time.monotonic() + max(draw.uniform(*fault.seconds) for fault in faults)
        while time.monotonic() < until:
            state = arena.mover.state
            if trouble := state.get("status", {}).get("trouble") or state.get("said"):
                troubles[trouble] = None
            time.sleep(0.05)
    return Injection(time.monotonic() - began, tuple(troubles))
