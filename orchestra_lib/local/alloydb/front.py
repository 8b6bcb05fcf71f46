"""The listener of one instance: mTLS 1.3 on its own loopback address, in front of its server's Unix socket.

TLS itself holds a client's certificate against the cluster's authority. Then come the metadata exchange, if the
certificate says that its holder speaks it, the startup packet, and from there on bytes in both directions.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from orchestra_lib.local.alloydb import exchange, pipe, startup
from orchestra_lib.local.alloydb.authority import ServerCertificate, speaks_metadata_exchange
from orchestra_lib.local.alloydb.control_client import database_user
from orchestra_lib.local.alloydb.exchange import ExchangeError, Introduction
from orchestra_lib.local.alloydb.roles import SUPERUSER
from orchestra_lib.local.alloydb.startup import StartupError
from orchestra_lib.local.postgres import Running

PORT = 5433
"""Connectors call this port and no other."""
_OPENING_SECONDS = 30
"""What a client may take for its part of the opening, as long as a connector waits for ours."""

_CLOSED = "the instance stopped taking connections at this moment; connect again"

_log = logging.getLogger(__name__)


class Refused(Exception):
    """The client may not come in; the message is for it. ``sqlstate`` is how PostgreSQL classes the reason."""

    def __init__(self, message: str, sqlstate: str = startup.INVALID_AUTHORIZATION) -> None:
        super().__init__(message)
        self.sqlstate = sqlstate


@dataclass(frozen=True)
class Entry:
    """What a client finds behind the door: the server, and what is known of its users at this moment."""

    server: Running
    iam_users: frozenset[str]
    iam_authentication: bool
    unusable: Mapping[str, str]
    """Users that could not be made, with the reason."""
    principal: str | None
    """The e-mail address of the holder of the token that was shown in the metadata exchange."""


class Doorkeeper(Protocol):
    """Who may come in to one instance, asked anew for each connection. Both raise Refused."""

    async def admit(self, token: str | None) -> Entry:
        """Open to the holder of a token; None where the client speaks no metadata exchange and has shown none yet."""

    async def principal(self, token: str) -> str:
        """The e-mail address of the holder of a token that came as a password."""


class Front:
    """The listener of one instance. :meth:`open` binds it; :meth:`close` also ends the sessions."""

    def __init__(self, address: str, certificate: ServerCertificate, doorkeeper: Doorkeeper) -> None:
        self.address = address
        self._doorkeeper = doorkeeper
        self._context = _context(certificate)
        self._listener: asyncio.Server | None = None
        self._sessions: set[asyncio.Task[Any]] = set()

    async def open(self) -> None:
        """Listen. Raises OSError when the address is taken."""
        self._listener = await asyncio.start_server(
            self._serve,
            self.address,
            PORT,
            ssl=self._context,
            ssl_handshake_timeout=_OPENING_SECONDS,
            limit=pipe.CHUNK_BYTES,
        )

    async def close(self) -> None:
        """Stop listening and end every session."""
        if self._listener:
            self._listener.close()
        for session in tuple(self._sessions):
            session.cancel()
        await asyncio.gather(*self._sessions, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        session = asyncio.current_task()
        assert session is not None  # noqa: S101 - a coroutine that runs is a task
        self._sessions.add(session)
        try:
            await self._session(reader, writer)
        except (OSError, EOFError, TimeoutError, StartupError) as error:
            _log.info("%s: a connection ended: %s", self.address, error or type(error).__name__)
        finally:
            self._sessions.discard(session)
            writer.close()

    async def _session(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        exchanges = speaks_metadata_exchange(writer.get_extra_info("peercert")["subject"])
        try:
            introduction = await _introduction(reader) if exchanges else None
            entry = await self._doorkeeper.admit(introduction.token if introduction else None)
        except Refused as refusal:
            _log.info("%s: refused: %s", self.address, refusal)
            await _say(writer, _refusal(refusal, exchanges))
            return
        except asyncio.CancelledError:
            writer.write(_refusal(Refused(_CLOSED, startup.CANNOT_CONNECT_NOW), exchanges))
            raise
        if introduction:
            await _say(writer, exchange.accepted())
        try:
            async with asyncio.timeout(_OPENING_SECONDS):
                first = await startup.read(reader, writer)
                if first.user is not None:
                    await self._check_user(first.user, entry, introduction, reader, writer)
        except Refused as refusal:
            _log.info("%s: refused: %s", self.address, refusal)
            await _say(writer, startup.refused(refusal.sqlstate, str(refusal)))
            return
        server = await asyncio.open_unix_connection(entry.server.socket, limit=pipe.CHUNK_BYTES)
        server[1].write(first.packet)
        await pipe.both_ways((reader, writer), server)

    async def _check_user(
        self,
        user: str,
        entry: Entry,
        introduction: Introduction | None,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        """Raise Refused unless this user may log in, or the server itself will ask it for a password."""
        wants_iam = introduction is not None and introduction.wants_iam
        if user == SUPERUSER:
            raise Refused(f'role "{SUPERUSER}" is AlloyDB\'s own; log in as another user')
        if user in entry.unusable:
            raise Refused(f'user "{user}" of the control plane could not be made: {entry.unusable[user]}')
        if user not in entry.iam_users:
            if wants_iam:
                raise Refused(f'user "{user}" is no IAM user of this cluster; create it with userType ALLOYDB_IAM_USER')
            return
        if not entry.iam_authentication:
            raise Refused(
                f'user "{user}" logs in by IAM, which this instance does not do; set its database flag '
                "alloydb.iam_authentication to on"
            )
        # Automatic IAM authentication showed its token in the exchange; the manual one gives it as the password.
        principal = entry.principal
        if not wants_iam:
            principal = await self._doorkeeper.principal(await startup.ask_password(reader, writer))
        if database_user(principal or "") != user:
            raise Refused(f'the token is that of "{principal}", who cannot log in as "{user}"')


def _context(certificate: ServerCertificate) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(certificate.certificate, certificate.key)
    context.load_verify_locations(certificate.authority)
    return context


async def _introduction(reader: asyncio.StreamReader) -> Introduction:
    try:
        async with asyncio.timeout(_OPENING_SECONDS):
            return await exchange.read(reader)
    except ExchangeError as error:
        raise Refused(str(error)) from error


def _refusal(refusal: Refused, exchanges: bool) -> bytes:
    """A refusal in the protocol that the client speaks at first."""
    return exchange.refused(str(refusal)) if exchanges else startup.refused(refusal.sqlstate, str(refusal))


async def _say(writer: asyncio.StreamWriter, answer: bytes) -> None:
    writer.write(answer)
    await writer.drain()
