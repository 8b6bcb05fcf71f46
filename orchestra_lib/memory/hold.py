"""Holding a stream: of two movers only one gets its lock, and takes it again after a restart of the target.

The session that has the lock also notes what the source is about to be told, so that each note proves the lock.
"""

from __future__ import annotations

import os
import socket
import threading
from contextlib import ExitStack, suppress

import psycopg

from orchestra_lib.database import Address, connect
from orchestra_lib.errors import TargetUnreachable
from orchestra_lib.memory import state_tables
from orchestra_lib.memory.lsn import lsn_text
from orchestra_lib.memory.stream_errors import SlotLost

_SETTINGS = "SET lock_timeout = '10s'; SET statement_timeout = '10s'"


class Hold:
    """The lock of one stream, held by a session of its own. Any thread may call; a call waits for the one before it."""

    def __init__(self, address: Address, stream: str, application_name: str) -> None:
        self._address, self._stream, self._application = address, stream, application_name
        self._stack = ExitStack()
        self._session: psycopg.Connection | None = None
        self._one_at_a_time = threading.RLock()

    def take(self) -> psycopg.Connection:
        """Take the lock and return the session that has it. Raises LockHeld, TargetUnreachable."""
        with self._one_at_a_time, ExitStack() as stack:
            session = connect(self._address, role="target", application_name=self._application)
            stack.enter_context(session)
            stack.enter_context(state_tables.stream_lock(session, self._stream))
            session.execute(_SETTINGS)
            self._session, self._stack = session, stack.pop_all()
            return session

    def again(self) -> psycopg.Connection:
        """The session that has the lock, taken anew if it has ended meanwhile. Raises as :meth:`take`."""
        with self._one_at_a_time:
            try:
                if self._session is not None:
                    self._session.execute("SELECT 1")
                    return self._session
            except psycopg.OperationalError:
                self.release()
            return self.take()

    def confirmed(self) -> int:
        """What stands noted, under the lock; 0 for nothing. Raises as :meth:`again`."""
        with self._one_at_a_time:
            session = self.again()
            try:
                return state_tables.confirmed(session, self._stream) or 0
            except psycopg.OperationalError as error:
                raise TargetUnreachable(f"the target does not say what it has noted: {error}") from error

    def note_confirmed(self, noted: int, lsn: int) -> int:
        """Note that the source may be told ``lsn``, where ``noted`` stands; returns what stands then.

        Raises as :meth:`again`, psycopg.Error, and SlotLost where something earlier stands: the target was set back.
        """
        with self._one_at_a_time:
            session = self.again()
            if lsn > noted:
                stood = state_tables.note_confirmed(session, self._stream, noted, lsn)
            else:
                stood = (state_tables.confirmed(session, self._stream) or noted) >= noted
            if not stood:
                raise SlotLost(
                    f"the target no longer knows that the stream {self._stream} has come to {lsn_text(noted)}: it was "
                    "set back by a restore or a failover, and the source was told to forget what lies between: run the "
                    "copy again"
                )
            return max(noted, lsn)

    def cut(self) -> None:
        """Break the session off from another thread; a call that waits for the target raises."""
        session = self._session
        if session is not None:
            cut_off(session)

    def release(self) -> None:
        """Give the lock back; it went already if the session did."""
        with self._one_at_a_time:
            self._stack.close()
            self._session = None


def cut_off(connection: psycopg.Connection) -> None:
    """Break a session off while another thread uses it; that one gets an OperationalError."""
    with suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(connection.pgconn.socket)) as line:
        line.shutdown(socket.SHUT_RDWR)
