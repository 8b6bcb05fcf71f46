"""Holding a stream: of two movers only one gets its lock, and takes it again after a restart of the target."""

from __future__ import annotations

from contextlib import ExitStack

import psycopg

from orchestra_lib.database import Address, connect
from orchestra_lib.memory import state_tables


class Hold:
    """The lock of one stream, held by a session of its own. Used by one thread at a time."""

    def __init__(self, address: Address, stream: str, application_name: str) -> None:
        self._address, self._stream, self._application = address, stream, application_name
        self._stack = ExitStack()
        self._session: psycopg.Connection | None = None

    def take(self) -> psycopg.Connection:
        """Take the lock and return the session that has it. Raises LockHeld, TargetUnreachable."""
        with ExitStack() as stack:
            session = connect(self._address, role="target", application_name=self._application)
            stack.enter_context(session)
            stack.enter_context(state_tables.stream_lock(session, self._stream))
            self._session, self._stack = session, stack.pop_all()
            return session

    def again(self) -> psycopg.Connection:
        """The session that has the lock, taken anew if it has ended meanwhile. Raises as :meth:`take`."""
        try:
            if self._session is not None:
                self._session.execute("SELECT 1")
                return self._session
        except psycopg.OperationalError:
            self.release()
        return self.take()

    def release(self) -> None:
        """Give the lock back; it went already if the session did."""
        self._stack.close()
        self._session = None
