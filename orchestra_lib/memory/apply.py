"""Applying net changes to the target: one session for each partition of the keys.

A share of a batch is one transaction together with its checkpoint, which is moved only from where this mover left it:
who comes after another mover changes nothing. A replay is harmless: what lies before the checkpoint is dropped, and up
to the horizon, the last commit that may be here already, a row that is ahead is left as it is. Poison rows go to
quarantine; whatever else goes wrong is raised, with nothing of the share applied or all of it, and the share may be
given again.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence, Set
from contextlib import contextmanager
from dataclasses import replace

import psycopg
from psycopg import sql
from psycopg.pq.abc import PGconn
from psycopg.waiting import Ready, Wait

from orchestra_lib.database import Address, connect
from orchestra_lib.memory.coalesce import Net, Rekey, partition_of
from orchestra_lib.memory.hold import cut_off
from orchestra_lib.memory.layout import Layout
from orchestra_lib.memory.lsn import lsn_text
from orchestra_lib.memory.state_tables import Checkpoint, copied_until, read_checkpoint, swap_checkpoint
from orchestra_lib.memory.stream_errors import Superseded
from orchestra_lib.memory.transactions import Truncated
from orchestra_lib.memory.writing import NOT_THERE, POISON, Applied, Writer, key_text

__all__ = ["Applied", "Applier", "apply_alone"]

_APPLICATION = "orchestra stream"
# Plans are made once, while the table may be empty: they must be those for a full one, over the index of the ids.
_SETTINGS = """
SET lock_timeout = '10s'; SET statement_timeout = '50s'; SET idle_in_transaction_session_timeout = '50s';
SET synchronous_commit = on;
SET plan_cache_mode = force_generic_plan; SET jit = off;
SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off;
SET work_mem = '64MB';
"""
_KEYS_AT_ONCE = 5_000


class Applier:
    """One session of the target, which applies one partition of the keys. Each call but :meth:`cut` by one thread."""

    def __init__(
        self, address: Address, stream: str, partition: int, layout: Layout, target_table: sql.Identifier
    ) -> None:
        self._address, self._stream, self.partition = address, stream, partition
        self._layout, self.table = layout, target_table
        self._session: tuple[psycopg.Connection, Writer] | None = None
        self._at: Checkpoint | None = None
        self._attempted: Checkpoint | None = None
        self._copied_until = 0
        self.replay_until = 0

    @property
    def checkpoint(self) -> int:
        """Everything that commits before it is on the target. To be asked once the applier was open."""
        return self.at.lsn

    @property
    def at(self) -> Checkpoint:
        """Where this mover left the partition."""
        if self._at is None:
            raise RuntimeError("the applier was never open")
        return self._at

    @property
    def horizon(self) -> int:
        """The last commit of which something may be here already: what the copy has, and what is read again.

        The copy has what was committed before it, so not a commit that begins exactly where it was made.
        """
        return max(self._copied_until - 1, self.replay_until)

    def open(self) -> None:
        """Open the session, anew if need be, and read where the partition is.

        Raises TargetUnreachable, psycopg.Error, Superseded when another mover has moved the checkpoint, and DataError
        when there is none or the target cannot hold the source's types.
        """
        self.close()
        connection = connect(self._address, role="target", application_name=_APPLICATION)
        try:
            connection.execute(_SETTINGS)
            writer = Writer(connection, self._stream, self._layout, self.table)
            first = self._at is None
            self.read(connection)
            if first:
                self.expect_replay()
        except BaseException:
            connection.close()
            raise
        self._session = connection, writer

    def close(self) -> None:
        """End the session; the server rolls back what was not committed."""
        if self._session is not None:
            self._session[0].close()
            self._session = None

    def cut(self) -> None:
        """Break the session off from another thread; a call that waits for the target raises."""
        session = self._session
        if session is not None:
            cut_off(session[0])

    def expect_replay(self) -> None:
        """The source is read from the checkpoint again: what was applied of an unfinished transaction comes again."""
        self.replay_until = self.at.touched_until

    def apply(self, nets: Sequence[Net], new_lsn: int | None) -> Applied:
        """Apply net changes of this partition, and move its checkpoint to ``new_lsn`` (None: inside a transaction).

        What lies before the checkpoint is dropped. A session that broke is opened anew first; if the COMMIT that it
        broke in did go through, there is nothing left to do. Raises Superseded, TargetUnreachable and psycopg.Error.
        """
        started = time.monotonic()
        self.session()
        fresh = [net for net in nets if net.lsn >= self.checkpoint]
        new = self.after(max((net.lsn for net in fresh), default=0), new_lsn)
        if not fresh and new.lsn == self.checkpoint:
            return Applied(seconds=time.monotonic() - started)
        try:
            applied = self._at_once(fresh, new)
        except POISON:
            applied = self._carefully(fresh, new)
        self._at = new
        return replace(applied, seconds=time.monotonic() - started)

    def session(self) -> tuple[psycopg.Connection, Writer]:
        """The session and its writer, opened anew if it broke."""
        if self._session is None or self._session[0].closed:
            self.open()
        if self._session is None:
            raise RuntimeError("the session did not open")
        return self._session

    @contextmanager
    def transaction(self) -> Iterator[tuple[psycopg.Connection, Writer]]:
        """A transaction that the block has to BEGIN; it is committed behind it, or rolled back when anything fails."""
        connection, writer = self.session()
        try:
            yield connection, writer
            connection.execute("COMMIT")
        except BaseException:
            try:
                connection.rollback()
            except psycopg.Error:
                connection.close()  # it cannot even do that: the server rolls back
            raise

    def after(self, last_lsn: int, new_lsn: int | None) -> Checkpoint:
        """The checkpoint after changes until the commit at ``last_lsn``. It never goes back."""
        return Checkpoint(max(self.at.lsn, new_lsn or 0), max(self.at.touched_until, last_lsn))

    def swap(self, connection: psycopg.Connection, new: Checkpoint) -> psycopg.Cursor:
        """Move the checkpoint on, inside a transaction."""
        self._attempted = new
        return swap_checkpoint(connection, self._stream, self.partition, self.at, new)

    def require_swapped(self, swapped: psycopg.Cursor) -> None:
        """Raise Superseded if the checkpoint was not where this mover left it."""
        if swapped.rowcount != 1:
            raise self._superseded()

    def adopt(self, found: Checkpoint) -> None:
        """Go on from a checkpoint that was read. Raises Superseded unless this mover has put it there, or had tried."""
        ours = [one for one in (self._at, self._attempted) if one is not None]
        if ours and found not in ours:
            raise self._superseded()
        self._at = found

    def read(self, connection: psycopg.Connection) -> None:
        """Read the checkpoint and keep others from moving it until the transaction ends. Raises Superseded."""
        self.adopt(read_checkpoint(connection, self._stream, self.partition))
        self._copied_until = copied_until(connection, self._stream)

    def _at_once(self, nets: Sequence[Net], new: Checkpoint) -> Applied:
        """All in one trip to the server, and the COMMIT in another. Raises one of POISON if a row is at fault."""
        replay = any(net.lsn <= self.horizon for net in nets)
        with self.transaction() as (connection, writer):
            with connection.pipeline():
                connection.execute("BEGIN")
                sent = writer.send(nets, guarded=replay)
                swapped = self.swap(connection, new)
                # Without this psycopg waits for the answer to what still stands in the client's buffer, for ever.
                connection.wait(_flushed(connection.pgconn))
            self.require_swapped(swapped)
            return writer.outcome(sent, self.horizon)

    def _carefully(self, nets: Sequence[Net], new: Checkpoint) -> Applied:
        with self.transaction() as (connection, writer):
            connection.execute("BEGIN")
            applied = writer.write(nets, self.horizon)
            self.require_swapped(self.swap(connection, new))
            return applied

    def _superseded(self) -> Superseded:
        return Superseded(
            f"another mover has moved the checkpoint of the stream {self._stream}, partition {self.partition}, from "
            f"{lsn_text(self.checkpoint)}, or its rows were repaired meanwhile: this one has changed nothing and must "
            "end; look for the other one, then start the stream again"
        )


def apply_alone(appliers: Sequence[Applier], change: Rekey | Truncated, new_lsn: int | None) -> Applied:
    """Apply a barrier, in one transaction with the checkpoints of all partitions.

    ``appliers`` are all of them, in order, with nothing under way. A partition that is past the barrier keeps its rows:
    a crash may have left others behind. Raises as :meth:`Applier.apply` does.
    """
    started = time.monotonic()
    first = appliers[0]
    with first.transaction() as (connection, writer):
        connection.execute("BEGIN")
        for applier in appliers:
            applier.read(connection)
        behind = [applier for applier in appliers if change.commit_lsn >= applier.checkpoint]
        numbers = frozenset(applier.partition for applier in behind)
        if isinstance(change, Truncated):
            applied = _empty(connection, first.table, numbers, len(appliers))
        else:
            applied = _rekey(writer, change, numbers, len(appliers), max(applier.horizon for applier in appliers))
        moved = [(applier, applier.after(change.commit_lsn, new_lsn)) for applier in behind]
        for applier, new in moved:
            applier.require_swapped(applier.swap(connection, new))
    for applier, new in moved:
        applier.adopt(new)
    return replace(applied, seconds=time.monotonic() - started)


def _rekey(writer: Writer, change: Rekey, behind: Set[int], partitions: int, horizon: int) -> Applied:
    """Give a row its new id. Without a row to take what was not sent from, both ids go to quarantine.

    Where the target may be ahead, by a copy, a replay or a repair, the row of the old id can be another one that came
    later; and one of which a change lies in quarantine is not what the source's was: nothing is taken from either.
    """
    here = [net for net in (change.old, change.new) if partition_of(net.key, partitions) in behind]
    target_is_ahead = change.commit_lsn <= horizon or writer.brought_later(change.old)
    try:
        if len(here) == 2 and not target_is_ahead:
            if writer.is_aside(change.old):
                return _put_aside(writer, change)
            if writer.rekey(change):
                return Applied(updated=1)
    except POISON as error:
        for net in here:
            writer.quarantine(net, "rekey", str(error).strip())
        return Applied(quarantined=len(here))
    # The row has its new id already, or something came after it.
    applied = Applied()
    for net in here:
        done = writer.write([net], horizon)
        # Nothing tells a row that was deleted later from one whose large values a replay has lost.
        if net is change.new and done.stale and not writer.holds(net) and not writer.brought_later(net):
            writer.quarantine(net, "rekey", NOT_THERE)
            done = Applied(quarantined=1)
        applied += done
    return applied


def _put_aside(writer: Writer, change: Rekey) -> Applied:
    """Remove the row of the old id; the new one is as doubtful as that was."""
    gone = writer.write([change.old], 0)
    writer.quarantine(change.new, "rekey", f"the row to change, {key_text(change.old.key)}, is itself in quarantine")
    return gone + Applied(quarantined=1)


def _empty(connection: psycopg.Connection, table: sql.Identifier, behind: Set[int], partitions: int) -> Applied:
    """Remove every row of the partitions that are behind."""
    if len(behind) == partitions:
        connection.execute(sql.SQL("TRUNCATE {}").format(table))
        return Applied()
    keys = [row[0] for row in connection.execute(sql.SQL("SELECT id FROM {}").format(table))]
    gone = [key for key in keys if partition_of(key.encode(), partitions) in behind]
    statement = sql.SQL("DELETE FROM {} WHERE id = ANY(%s)").format(table)
    for start in range(0, len(gone), _KEYS_AT_ONCE):
        connection.execute(statement, [gone[start : start + _KEYS_AT_ONCE]])
    return Applied(deleted=len(gone))


def _flushed(connection: PGconn) -> Generator[Wait, Ready | int, None]:
    while connection.flush():
        if (yield Wait.RW) & Ready.R:
            connection.consume_input()
