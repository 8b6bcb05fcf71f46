"""Applying batches in parallel: one session of the target for each partition of the keys, behind one breaker.

A batch is applied whole before the next begins. Every partition's share is one transaction with that partition's
checkpoint; a share that failed is tried again, alone, until the target takes it: the slot keeps what comes meanwhile.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import partial

import psycopg

from orchestra_lib.errors import DataError, OrchestraError, TargetUnreachable
from orchestra_lib.memory.apply import Applied, Applier, apply_alone
from orchestra_lib.memory.breaker import Breaker, BreakerOpen
from orchestra_lib.memory.coalesce import Net, Rekey
from orchestra_lib.memory.transactions import Truncated

_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.05, 2.0
# The statement, the table or the right is missing: trying again changes nothing.
_HOPELESS = "42"


class Stopped(Exception):
    """The stream was asked to stop while the target did not take a batch; nothing of it was confirmed."""


Barrier = Rekey | Truncated
"""What is applied alone, by one session, after everything before it."""


@dataclass(frozen=True)
class Batch:
    """Net changes by partition. ``end_lsn`` is the checkpoint that they lead to, None inside a first transaction;
    ``last_lsn`` is the commit of the last change, ``commit_times`` are those of the transactions that end in the batch.
    """

    shares: Mapping[int, Sequence[Net]]
    end_lsn: int | None
    last_lsn: int
    commit_times: tuple[float, ...] = ()
    changes: int = 0
    barrier: Barrier | None = None

    @classmethod
    def alone(cls, barrier: Barrier) -> Batch:
        """A batch of a barrier and nothing else."""
        return cls({}, None, barrier.commit_lsn, changes=1, barrier=barrier)

    def keys(self) -> list[bytes] | None:
        """The ids, as text, of the rows that it changes; None when that is every row."""
        match self.barrier:
            case Truncated():
                return None
            case Rekey(old=old, new=new):
                return [old.key, new.key]
        return [net.key for share in self.shares.values() for net in share]


@dataclass
class Partitions:
    """The sessions of the target. :meth:`apply` blocks; it is called by one thread, and :meth:`close` by the same."""

    appliers: Sequence[Applier]
    breaker: Breaker
    timeout_seconds: float
    stop: threading.Event
    told: Callable[[str], None] = lambda _trouble: None
    recover: Callable[[], object] = lambda: None
    """Called before an attempt that follows a failed one."""
    _pool: ThreadPoolExecutor = field(init=False)

    def __post_init__(self) -> None:
        self._pool = ThreadPoolExecutor(len(self.appliers), thread_name_prefix="apply")

    def open(self) -> None:
        """Open every session. Raises TargetUnreachable, or Superseded when another mover has the checkpoints."""
        for applier in self.appliers:
            applier.open()

    def close(self) -> None:
        """End the sessions; what is under way is rolled back by the server."""
        self._pool.shutdown(wait=True)
        for applier in self.appliers:
            applier.close()

    @property
    def checkpoints(self) -> list[int]:
        """How far each partition is; the stream has to be read from the least of them."""
        return [applier.checkpoint for applier in self.appliers]

    def expect_replay(self) -> None:
        """The source is about to be read from the checkpoints again: what was applied after them comes once more."""
        for applier in self.appliers:
            applier.expect_replay()

    def apply(self, batch: Batch) -> list[Applied]:
        """Apply a batch whole, however long the target is away.

        Raises Stopped, and at once what no repetition heals: Superseded, DataError for a table that is not as it was.
        """
        waiting = {number: share for number, share in batch.shares.items() if share}
        done: list[Applied] = []
        self._insist(lambda: self._attempt(waiting, done, batch.end_lsn))
        return done

    def apply_barrier(self, barrier: Barrier) -> list[Applied]:
        """Apply a barrier alone, however long the target is away; the checkpoints stay. Raises as :meth:`apply`."""
        done: list[Applied] = []

        def attempt() -> None:
            done.append(apply_alone(self.appliers, barrier, None))

        self._insist(attempt)
        return done

    def _insist(self, work: Callable[[], None]) -> None:
        """Call ``work``, which may be repeated, until it succeeds; leave the target alone while the breaker is open."""
        pause, attempt = _FIRST_PAUSE_SECONDS, work
        while True:
            try:
                self.breaker.call(attempt)
            except BreakerOpen as error:
                self._pause(error.seconds)
            except (psycopg.Error, TargetUnreachable) as error:
                raise_if_hopeless(error)
                self.told(f"the target does not take a batch: {_reason(error)}")
                attempt = partial(self._after_failure, work)
                self._pause(pause)
                pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
            else:
                self.told("")
                return

    def _after_failure(self, work: Callable[[], None]) -> None:
        self.recover()
        work()

    def _attempt(self, waiting: dict[int, Sequence[Net]], done: list[Applied], end_lsn: int | None) -> None:
        """Apply the shares that wait; what is done goes from ``waiting`` to ``done``. Raises the first error then."""
        futures = {
            self._pool.submit(self.appliers[number].apply, share, end_lsn): number for number, share in waiting.items()
        }
        _, stuck = wait(futures, timeout=self.timeout_seconds)
        for future in stuck:
            # Neither an answer nor an error: the other end has gone. Cutting the session makes its thread come back.
            self.appliers[futures[future]].cut()
        wait(stuck)
        failures = [error for future in futures if (error := future.exception()) is not None]
        for future, number in futures.items():
            if future.exception() is None:
                done.append(future.result())
                del waiting[number]
        if failures:
            raise failures[0]

    def _pause(self, seconds: float) -> None:
        if self.stop.wait(max(seconds, 0.01)):
            raise Stopped


def raise_if_hopeless(error: Exception) -> None:
    """Raise DataError for what no repetition heals: a table that is not as it was, a right that is gone."""
    if isinstance(error, psycopg.Error) and (error.sqlstate or "").startswith(_HOPELESS):
        raise DataError(
            f"the target refuses the stream for good: {_reason(error)}; restore its table or the right, then start the "
            "stream again: the slot keeps the changes"
        ) from error


def _reason(error: BaseException) -> str:
    text = str(error) if isinstance(error, OrchestraError) else str(error).strip().splitlines()[0] if str(error) else ""
    return text or type(error).__name__
