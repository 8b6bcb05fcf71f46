"""A replication session: makes a slot with an exported snapshot, and reads the slot's changes as they come.

psycopg's own libpq is enough: https://www.postgresql.org/docs/16/protocol-replication.html
"""

from __future__ import annotations

import re
import select
import time
from contextlib import suppress
from dataclasses import dataclass
from struct import Struct
from types import TracebackType

import psycopg
from psycopg import pq, sql

from orchestra_lib.database import Address, connect_replication
from orchestra_lib.errors import OrchestraError, ParameterError
from orchestra_lib.memory.lsn import lsn_number, lsn_text
from orchestra_lib.memory.pgoutput import MICROSECONDS_1970_TO_2000, seconds_since_1970
from orchestra_lib.memory.stream_errors import SlotBusy, SlotLost, StreamBroken, StreamError

_APPLICATION = "orchestra stream"
_SLOT_NAME = re.compile("[a-z0-9_]{1,63}")
_NEW_COPY = "the changes since then are gone; drop it if it is still there and run the copy again"
# Of a record that came through TLS a part may lie decrypted in libpq's own buffers, where no poll sees it.
_TLS_WAIT_SECONDS = 0.05

_WAL_DATA, _KEEPALIVE = Struct(">xQQq"), Struct(">xQqB")
_STATUS = Struct(">cQQQqB")
_IS_WAL_DATA, _IS_KEEPALIVE = b"wk"


@dataclass(frozen=True, slots=True)
class CreatedSlot:
    """A new slot: the snapshot holds what was committed before ``consistent_lsn``, the stream brings the rest."""

    name: str
    consistent_lsn: int
    snapshot: str


@dataclass(frozen=True, slots=True)
class WalData:
    """One message of the plugin. ``sent_at`` is in seconds since 1970 by the source's clock."""

    start_lsn: int
    end_lsn: int
    sent_at: float
    payload: memoryview


@dataclass(frozen=True, slots=True)
class Keepalive:
    """The source has sent all there is up to ``end_lsn``; it ends the stream if a wanted reply does not come."""

    end_lsn: int
    sent_at: float
    reply_wanted: bool


class ReplicationSession:
    """One session of the replication protocol. Every call may raise StreamBroken: open another one then."""

    def __init__(self, connection: psycopg.Connection) -> None:
        self._connection = connection
        self._pgconn = connection.pgconn
        self._poll = select.poll()
        self._poll.register(self.fileno(), select.POLLIN)

    @classmethod
    def open(cls, address: Address, role: str = "source") -> ReplicationSession:
        """Connect. Raises TargetUnreachable, also when the user may not replicate."""
        connection = connect_replication(address, role=role, application_name=_APPLICATION)
        try:
            # The server's own encoding otherwise: names and texts would have to be translated here.
            connection.execute("SET client_encoding = 'UTF8'")
        except psycopg.Error as error:
            connection.close()
            raise _broken(error) from error
        return cls(connection)

    def __enter__(self) -> ReplicationSession:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the session; the source then gives the slot free, and forgets a snapshot."""
        self._connection.close()

    def fileno(self) -> int:
        """The socket, for those who wait on several things."""
        return self._pgconn.socket

    def create_slot(self, name: str) -> CreatedSlot:
        """Make a logical slot and export the snapshot that its changes follow on.

        The snapshot can be imported for as long as this session stays open and does nothing else. Waits for the
        transactions that are open now. Raises StreamError when the source does not make it.
        """
        command = f"CREATE_REPLICATION_SLOT {_slot(name)} LOGICAL pgoutput (SNAPSHOT 'export')"
        try:
            row = self._connection.execute(command.encode()).fetchone()
        except psycopg.Error as error:
            raise _not_created(name, error) from error
        if row is None:
            raise StreamError(f"the source made replication slot {name} and does not say where it begins")
        slot, consistent_point, snapshot, _plugin = row
        return CreatedSlot(slot, lsn_number(consistent_point), snapshot)

    def confirmed_lsn(self, slot: str) -> int:
        """Before which position the slot has let go of everything; 0 when there is no slot. Before :meth:`start`."""
        # Without parameters: a replication session knows the simple query protocol alone.
        statement = sql.SQL("SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE slot_name = {}")
        try:
            row = self._connection.execute(statement.format(sql.Literal(slot))).fetchone()
        except psycopg.Error as error:
            raise _broken(error) from error
        return lsn_number(row[0]) if row and row[0] else 0

    def start(self, slot: str, publication: str, lsn: int, streaming: bool = True) -> None:
        """Have the slot's changes sent from ``lsn`` on, or from what was confirmed when that is later.

        ``streaming``: large transactions come in blocks before they are committed. Raises SlotLost, SlotBusy, and
        StreamError for any other refusal.
        """
        options = {
            "proto_version": "2",
            "publication_names": _quoted(publication),
            "binary": "true",
            "messages": "true",
            "streaming": "on" if streaming else "off",
        }
        told = ", ".join(f"{option} {_literal(value)}" for option, value in options.items())
        command = f"START_REPLICATION SLOT {_slot(slot)} LOGICAL {lsn_text(lsn)} ({told})"
        try:
            result = self._pgconn.exec_(command.encode())
        except psycopg.Error as error:
            raise _broken(error) from error
        if result.status != pq.ExecStatus.COPY_BOTH:
            raise self._not_started(slot, result)
        self._pgconn.nonblocking = 1

    def receive(self) -> WalData | Keepalive | None:
        """What has come next; None when there is nothing now. Never waits.

        Raises StreamBroken, SlotLost when the source has removed what the slot needs, and StreamError for any other
        end that the source gives a reason for.
        """
        try:
            size, message = self._pgconn.get_copy_data(1)
            if not size:
                self._pgconn.consume_input()
                size, message = self._pgconn.get_copy_data(1)
        except psycopg.Error as error:
            raise _broken(error) from error
        if size > 0:
            return _received(message)
        if size == 0:
            return None
        raise self._ended()

    def wait(self, timeout_seconds: float, *fds: int) -> None:
        """Sleep until something may have come here or on the other descriptors; call it after a receive of None."""
        poll = self._poll
        try:
            mine = self.fileno()
            unsent = self._pgconn.flush()
        except psycopg.Error as error:
            raise _broken(error) from error
        poll.modify(mine, select.POLLIN | select.POLLOUT if unsent else select.POLLIN)
        for fd in fds:
            poll.register(fd, select.POLLIN)
        if self._pgconn.ssl_in_use:
            timeout_seconds = min(timeout_seconds, _TLS_WAIT_SECONDS)
        poll.poll(max(0.0, timeout_seconds) * 1000)
        for fd in fds:
            poll.unregister(fd)

    def confirm(self, flushed_lsn: int, want_reply: bool = False) -> None:
        """Tell the source that everything before ``flushed_lsn`` is safe: it need not keep it. Answers keepalives."""
        now = time.time_ns() // 1000 - MICROSECONDS_1970_TO_2000
        status = _STATUS.pack(b"r", flushed_lsn, flushed_lsn, flushed_lsn, now, want_reply)
        try:
            self._pgconn.put_copy_data(status)
            self._pgconn.flush()
        except psycopg.Error as error:
            raise _broken(error) from error

    def _not_started(self, slot: str, result: pq.abc.PGresult) -> OrchestraError:
        reason, state = _primary(result), _sqlstate(result)
        if state == "42704":
            return SlotLost(f"replication slot {slot} does not exist on the source: {_NEW_COPY}")
        if state == "55006":
            return SlotBusy(f"{reason}; one stream at a time reads a slot: stop the other, or wait until it is gone")
        if state == "55000" and self._is_lost(slot):
            return SlotLost(
                f"replication slot {slot} was invalidated: it needed more of the source's log than "
                f"max_slot_wal_keep_size lets it keep ({reason}): {_NEW_COPY}"
            )
        if _passes(state):
            return StreamBroken(f"the source does not start the stream now: {reason}")
        return StreamError(f"the source does not start the stream of replication slot {slot}: {reason}; see its log")

    def _is_lost(self, slot: str) -> bool:
        # Without parameters: a replication session knows the simple query protocol alone.
        statement = sql.SQL("SELECT wal_status = 'lost' FROM pg_replication_slots WHERE slot_name = {}")
        try:
            row = self._connection.execute(statement.format(sql.Literal(slot))).fetchone()
        except psycopg.Error as error:
            raise _broken(error) from error
        return row == (True,)

    def _ended(self) -> OrchestraError:
        result = None
        with suppress(psycopg.Error):
            result = self._pgconn.get_result()
        if result is None or result.status != pq.ExecStatus.FATAL_ERROR:
            return StreamBroken("the source ended the stream: it is being shut down; start again once it is back")
        reason, state = _primary(result), _sqlstate(result)
        if state == "58P01":
            return SlotLost(f"the source has removed a part of its log that the slot needs ({reason}): {_NEW_COPY}")
        if state == "42704":
            return StreamError(
                f"the source cannot read its log for us: {reason}; a publication has to exist before the slot is made: "
                "make it, then a new slot, and run the copy again"
            )
        if _passes(state):
            return StreamBroken(f"the source ended the stream: {reason}")
        return StreamError(
            f"the source ended the stream: {reason}; see its log. If it does so again at the same place, start without "
            "streaming of open transactions, or make a new slot and run the copy again"
        )


def _received(message: memoryview) -> WalData | Keepalive:
    kind = message[0]
    if kind == _IS_WAL_DATA and len(message) >= _WAL_DATA.size:
        start_lsn, end_lsn, moment = _WAL_DATA.unpack_from(message)
        return WalData(start_lsn, end_lsn, seconds_since_1970(moment), message[_WAL_DATA.size :])
    if kind == _IS_KEEPALIVE and len(message) == _KEEPALIVE.size:
        end_lsn, moment, wanted = _KEEPALIVE.unpack_from(message)
        return Keepalive(end_lsn, seconds_since_1970(moment), bool(wanted))
    raise StreamError(
        f"the source sent {bytes(message[:40])!r} ({len(message)} bytes); w (changes) or k (keepalive) was expected"
    )


_REMEDIES = {
    "42710": "drop it if no stream needs it, or go on with it",
    "53400": "raise max_replication_slots on the source and restart it, or drop slots that nobody reads",
    "55000": "set wal_level = logical on the source and restart it",
    "42501": "give the user the right to replicate: ALTER ROLE … REPLICATION",
}


def _not_created(slot: str, error: psycopg.Error) -> OrchestraError:
    remedy = _REMEDIES.get(error.sqlstate or "")
    if remedy is None and _passes(error.sqlstate):
        return _broken(error)
    return StreamError(
        f"the source does not make replication slot {slot}: {error.diag.message_primary}; {remedy or 'see its log'}"
    )


def _passes(sqlstate: str | None) -> bool:
    """Whether the same may work later: no answer, a lost connection, no resources, an administrator's interruption."""
    return sqlstate is None or sqlstate.startswith(("08", "53", "57"))


def _broken(error: psycopg.Error) -> StreamBroken:
    reason = "; ".join(line.strip() for line in str(error).splitlines() if line.strip())
    return StreamBroken(f"the connection to the source is lost: {reason}")


def _primary(result: pq.abc.PGresult) -> str:
    text = result.error_field(pq.DiagnosticField.MESSAGE_PRIMARY) or result.error_message
    return text.decode(errors="replace").strip()


def _sqlstate(result: pq.abc.PGresult) -> str | None:
    state = result.error_field(pq.DiagnosticField.SQLSTATE)
    return state.decode() if state else None


def _slot(name: str) -> str:
    if not _SLOT_NAME.fullmatch(name):
        raise ParameterError(
            f"{name!r} is no name for a replication slot: it has 1 to 63 lower-case letters, digits and underscores"
        )
    return name


def _quoted(publication: str) -> str:
    """As publication_names, a list, reads it."""
    if not publication or "\0" in publication:
        raise ParameterError(f"{publication!r} is no name for a publication")
    return '"' + publication.replace('"', '""') + '"'


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
