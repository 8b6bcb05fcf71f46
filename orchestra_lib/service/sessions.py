"""Sessions with the store: a pool of them, each confined to one user for one transaction, behind a breaker.

What goes wrong becomes one of three errors, and never an empty answer: ``StoreBusy`` (all sessions are in use),
``StoreUnavailable`` (it cannot be reached, or not written to at present), ``StoreTimeout`` (it did not answer).
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeVar

import psycopg
from pgvector.psycopg import register_vector_async
from psycopg import sql
from psycopg_pool import AsyncConnectionPool, PoolTimeout, TooManyRequests

from orchestra_lib.errors import DataError, OrchestraError, ParameterError
from orchestra_lib.memory.breaker import BreakerOpen
from orchestra_lib.service.breaker import StoreBreaker
from orchestra_lib.service.index_form import NO_INDEX, IndexForm, read_form
from orchestra_lib.service.schema import USER_SETTING, confined
from orchestra_lib.service.settings import PREFIX, SHARE_OF_CONNECTIONS, ServiceSettings

Result = TypeVar("Result")
Row = TypeVar("Row")
Session = psycopg.AsyncConnection[Any]
Work = Callable[[Session], Awaitable[Result]]
"""What is done inside a transaction."""
Once = Callable[[], Coroutine[Any, Any, Result]]

_CONNECT_TIMEOUT_SECONDS = 5
_LIFETIME_SECONDS = 600.0
"""A session is replaced after this time: probes and an index that were changed reach the service within it."""
_GIVE_UP_SECONDS = 3.0
"""Attempts to connect come ever more rarely; after this time they end, and the next request starts anew at once."""
_MARGIN_SECONDS = 0.5  # the server's own time-out is to be heard before ours ends the wait
_SET_USER = sql.SQL("SELECT set_config({setting}, %s, true)").format(setting=sql.Literal(USER_SETTING))
SEARCHING: Mapping[str, str] = MappingProxyType(
    {
        # Decision 5, and what follows from it for a part of the rows: neither reading all rows nor sorting them all by
        # their distance looks expensive to the planner. Where there is no other way it still takes these.
        "enable_seqscan": "off",
        "enable_bitmapscan": "off",
        "enable_sort": "off",
        # By what these add to a plan's price each would be worth compiling, which takes longer than the search.
        "jit": "off",
        # What a user owns is a small part of what an index returns: it goes on until there are enough. Set for both
        # methods, because an index may be swapped for one of the other while the session is open.
        "ivfflat.iterative_scan": "relaxed_order",
        "hnsw.iterative_scan": "relaxed_order",
        # Where HNSW gives up, at the latest: behind as many rows as 100 hits take among ten million that a user's are
        # spread evenly over. A row took 50 to 140 bytes here, so one work_mem, which is 4 MB, might end it sooner.
        "hnsw.max_scan_tuples": "100000",
        "hnsw.scan_mem_multiplier": "8",
    }
)
"""What every session that searches is opened with.
https://github.com/pgvector/pgvector#iterative-index-scans"""
_ROWS_OF_INDEX_FOR_ONE = 8
"""So many rows are looked at in an index while one vector is fetched from TOAST: 1.5 and 11 microseconds, measured."""
_DIMENSION = "SELECT atttypmod FROM pg_attribute WHERE attrelid = %s::regclass AND attname = 'embedding'"
_FEWEST = 100
_ALL = (1 << 31) - 2
_KEEPALIVES = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3, "tcp_user_timeout": 10_000}


class StoreError(OrchestraError):
    """The store did not do what it was asked; nothing is known to be wrong with the request."""

    def __init__(self, message: str, retry_after_seconds: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class StoreBusy(StoreError):
    """Every session is in use and too many wait already."""


class StoreUnavailable(StoreError):
    """The store cannot be reached, or does not take what it is asked at present."""


class StoreTimeout(StoreError):
    """The store has not answered in time."""


class _SessionLost(Exception):
    """The session is gone, and not only its statement; the error that said so is the cause."""


@dataclass
class Spent:
    """How long a request has waited for a session and for the database, in seconds."""

    waiting: float = 0.0
    database: float = 0.0


class Sessions:
    """The pool and its breaker. Open it before use, close it after; one for a process."""

    def __init__(
        self,
        settings: ServiceSettings,
        connection_class: type[Session] = psycopg.AsyncConnection,
        breaker_changed: Callable[[str], None] = lambda _state: None,
    ) -> None:
        self._settings = settings
        self._lent = 0
        self._abandoned: set[asyncio.Task[Any]] = set()
        self._checking: asyncio.Task[None] | None = None
        self._refusal = ""
        self.form: IndexForm = NO_INDEX
        self.breaker = StoreBreaker(
            settings.breaker_failures, settings.breaker_recovery_seconds, _speaks_against_the_store, breaker_changed
        )
        self._pool: AsyncConnectionPool[Session] = AsyncConnectionPool(
            settings.dsn.reveal() if settings.dsn else "",
            connection_class=connection_class,
            kwargs=_parameters(settings),
            configure=self._configure,
            min_size=settings.pool_min,
            max_size=settings.pool_max,
            timeout=settings.pool_timeout_seconds,
            # Whoever is let in waits for a session only behind others who were let in.
            max_waiting=settings.max_in_flight,
            max_lifetime=_LIFETIME_SECONDS,
            reconnect_timeout=_GIVE_UP_SECONDS,
            open=False,
        )

    async def open(self) -> None:
        """Begin to connect, in the background: a store that is down now is found when it comes."""
        await self._pool.open(wait=False)

    async def close(self) -> None:
        """End every session."""
        if self._abandoned:
            await asyncio.wait(self._abandoned, timeout=1.0)
        await self._pool.close(timeout=1.0)

    def numbers(self) -> dict[str, int]:
        """The pool's figures as psycopg_pool names them."""
        return dict(self._pool.get_stats())

    async def check(self) -> None:
        """Make sure that the store answers. Raises StoreError; for the readiness of the service."""
        await self.run("", _answers, Spent(), repeatable=True)

    def few_rows(self, k: int) -> int:
        """Up to how many rows it is cheaper to compare each than to walk the index until ``k`` of them have come by.

        Of n rows in the table a user with m lets the index give up n·k/m; both ways cost the same where that is
        ``_ROWS_OF_INDEX_FOR_ONE``·m. Who has no more than ``k`` is given them all, for which no index is walked to its
        end. Without an index all rows are few.
        """
        if self.form.method is None:
            return _ALL
        return max(_FEWEST, k, math.isqrt(self.form.rows * k // _ROWS_OF_INDEX_FOR_ONE))

    async def run(self, user_id: str, work: Work[Result], spent: Spent, *, repeatable: bool) -> Result:
        """What ``work`` returns, done in one transaction that sees and writes the rows of one user only.

        ``repeatable`` work is done again, once, when its session turns out to be lost: then it must not matter whether
        it was done already. Raises StoreError.
        """

        async def done() -> Result:
            async with self._lent_session(spent) as session, _transaction(session, user_id):
                return await work(session)

        return await self._guarded(done, 2 if repeatable else 1)

    async def rows(self, user_id: str, statement: Work[psycopg.AsyncCursor[Row]], spent: Spent) -> list[Row]:
        """The rows of one statement that reads, which ``statement`` executes without fetching any.

        They are fetched when the transaction has ended: that is one way to the server and back, where ``run`` needs
        one more to hear what was found before the end is sent. Raises StoreError.
        """

        async def done() -> list[Row]:
            async with self._lent_session(spent) as session:
                async with _transaction(session, user_id):
                    cursor = await statement(session)
                return await cursor.fetchall()

        return await self._guarded(done, 2)

    async def _guarded(self, once: Once[Result], attempts: int) -> Result:
        try:
            return await self.breaker.call(lambda: self._attempts(once, attempts))
        except BreakerOpen as error:
            raise StoreUnavailable(
                "the store has failed several times in a row and is left alone for a moment", max(1.0, error.seconds)
            ) from error

    async def _attempts(self, once: Once[Result], attempts: int) -> Result:
        try:
            return await self._in_time(once)
        except _SessionLost as lost:
            await self._replace_lost_sessions()
            if attempts > 1:
                return await self._attempts(once, attempts - 1)
            raise StoreUnavailable("the connection to the store was lost") from lost.__cause__
        except psycopg.Error as error:
            told = _told(error)
            if told is None:
                raise
            raise told from error

    async def _in_time(self, once: Once[Result]) -> Result:
        """One attempt, given up when a server does not even say that it takes too long.

        The task that is given up ends by itself a few seconds later, and its session with it: waiting for that would
        keep the caller waiting too.
        """
        task = asyncio.create_task(once())
        seconds = self._settings.pool_timeout_seconds + self._settings.statement_timeout_seconds + _MARGIN_SECONDS
        try:
            done, _ = await asyncio.wait({task}, timeout=seconds)
        except asyncio.CancelledError:
            self._abandon(task)
            raise
        if done:
            return task.result()
        self._abandon(task)
        raise StoreTimeout(f"the store has not answered within {seconds:g} s")

    def _abandon(self, task: asyncio.Task[Any]) -> None:
        task.cancel()
        self._abandoned.add(task)
        task.add_done_callback(self._abandoned.discard)
        task.add_done_callback(_retrieve)

    @asynccontextmanager
    async def _lent_session(self, spent: Spent) -> AsyncIterator[Session]:
        started = time.perf_counter()
        try:
            async with self._pool.connection() as session:
                lent = time.perf_counter()
                spent.waiting += lent - started
                self._lent += 1
                try:
                    yield session
                except psycopg.Error as error:
                    if session.closed or (error.sqlstate or "").startswith(_ENDS_A_SESSION):
                        raise _SessionLost from error
                    raise
                finally:
                    self._lent -= 1
                    spent.database += time.perf_counter() - lent
        except TooManyRequests as error:
            raise StoreBusy("too many requests wait for the store already") from error
        except PoolTimeout as error:
            if self._lent >= self._settings.pool_max:
                raise StoreBusy("every session with the store is in use") from error
            raise StoreUnavailable(self._refusal or "the store cannot be reached") from error

    async def _replace_lost_sessions(self) -> None:
        """A session that is lost is seldom the only one: a restart ends all of them."""
        if self._checking is None or self._checking.done():
            self._checking = asyncio.create_task(self._pool.check())
            self._checking.add_done_callback(_retrieve)
        await asyncio.wait({self._checking}, timeout=self._settings.pool_timeout_seconds)

    async def _configure(self, session: Session) -> None:
        """Make a new session one that may be lent. What is refused here is not lent, and told to whoever waits."""
        await session.set_autocommit(True)
        await register_vector_async(session)
        try:
            await self._refuse_unless_confined(session)
            await self._refuse_too_many_connections(session)
            await self._refuse_another_dimension(session)
            self.form = await read_form(session, self._settings.table)
        except (OrchestraError, psycopg.ProgrammingError) as error:  # the latter: there is no such table
            self._refusal = str(error).partition("\n")[0]
            raise
        self._refusal = ""

    async def _refuse_unless_confined(self, session: Session) -> None:
        row = await (await session.execute(confined(self._settings.table))).fetchone()
        if row is None or not row[0]:
            raise DataError(
                f"role {self._settings.role} would see the rows of every user in {self._settings.table}; run "
                "`python -m orchestra_lib.service prepare` as the table's owner"
            )

    async def _refuse_too_many_connections(self, session: Session) -> None:
        row = await (await session.execute("SELECT current_setting('max_connections')::int")).fetchone()
        most = row[0] if row else 0
        wanted = self._settings.pool_max * self._settings.max_instances
        if wanted > SHARE_OF_CONNECTIONS * most:
            raise ParameterError(
                f"{self._settings.max_instances} instances with {self._settings.pool_max} sessions each are {wanted}; "
                f"of the server's {most} connections {SHARE_OF_CONNECTIONS:.0%} may be used"
            )

    async def _refuse_another_dimension(self, session: Session) -> None:
        row = await (await session.execute(_DIMENSION, [f'"{self._settings.table}"'])).fetchone()
        if row is None or row[0] != self._settings.dimension:
            raise DataError(
                f"the vectors of {self._settings.table} have {row[0] if row else 'no'} dimensions, the service is set "
                f"to {self._settings.dimension}; set {PREFIX}DIMENSION"
            )


@asynccontextmanager
async def _transaction(session: Session, user_id: str) -> AsyncIterator[None]:
    """One transaction of one user's, sent in one go with what is executed inside.

    psycopg's own ``transaction()`` waits for the server once at its start and three times at its end, in a pipeline
    too. What fails here is rolled back by whoever lent the session.
    """
    async with session.pipeline():
        await session.execute("BEGIN", prepare=False)
        await session.execute(_SET_USER, [user_id], prepare=True)
        yield
        await session.execute("COMMIT", prepare=False)


def _parameters(settings: ServiceSettings) -> dict[str, Any]:
    options = {
        "timezone": "UTC",
        "role": settings.role,
        "statement_timeout": f"{settings.statement_timeout_seconds * 1e3:.0f}",
        "idle_in_transaction_session_timeout": f"{settings.statement_timeout_seconds * 2e3:.0f}",
        # A plan that is kept was made for one user's share of the rows, and would serve all of them.
        "plan_cache_mode": "force_custom_plan",
        **SEARCHING,
    }
    return {
        "autocommit": True,
        "application_name": "orchestra-memory-api",
        "connect_timeout": _CONNECT_TIMEOUT_SECONDS,
        "options": " ".join(f"-c {name}={value}" for name, value in options.items()),
        **_KEEPALIVES,
    }


async def _answers(session: Session) -> None:
    await (await session.execute("SELECT 1", prepare=True)).fetchone()


_ENDS_A_SESSION = ("08", "57P")
"""How SQLSTATE begins where it is the session that ends: by the network, or by the server's will.
https://www.postgresql.org/docs/current/errcodes-appendix.html"""
_TOO_MUCH = "54"
"""How it begins where a row or a statement is more than the server takes: others are not, and it stays so."""
_NOT_NOW = (
    psycopg.errors.InsufficientPrivilege,  # a cutover shuts the writers out for a moment
    psycopg.errors.ReadOnlySqlTransaction,  # the server was the primary and is not any more
    psycopg.errors.LockNotAvailable,
    psycopg.errors.DeadlockDetected,
)


def _told(error: psycopg.Error) -> StoreError | None:
    """What a caller is told of a refusal by the database; None when it is a mistake of ours."""
    if isinstance(error, psycopg.errors.QueryCanceled):
        return StoreTimeout("the store has not answered in time")
    if isinstance(error, _NOT_NOW):
        return StoreUnavailable("the store does not take this at present")
    if isinstance(error, psycopg.OperationalError) and not (error.sqlstate or "").startswith(_TOO_MUCH):
        return StoreUnavailable("the store could not do this")
    return None


def _speaks_against_the_store(error: Exception) -> bool | None:
    if isinstance(error, StoreBusy):
        return None
    return isinstance(error, StoreUnavailable | StoreTimeout) and not isinstance(error.__cause__, _NOT_NOW)


def _retrieve(task: asyncio.Task[Any]) -> None:
    """Take the outcome of a task that nobody waits for, so that asyncio does not report it as forgotten."""
    if not task.cancelled():
        task.exception()
