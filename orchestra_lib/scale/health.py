"""Not faster than the target bears: a rate that is halved when the target suffers and grows slowly when it does not.

Each worker has a governor of its own and asks the target itself, so nothing has to be agreed between machines: as with
congestion on a network, additive growth and halving bring many of them to equal shares (Chiu and Jain, 1989).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import psycopg

from orchestra_lib.scale.spec import Pace

_FIRST_SHARE = 1.0
_LEAST_SHARE = 1 / 64
_GROWTH = 1 / 16
_MEASURED_BEFORE_LIMIT = 4


@dataclass(frozen=True)
class Health:
    """How the target is: how long a commit takes there, and how far its furthest replica is behind."""

    commit_ms: float
    replica_lag_bytes: int

    def suffers(self, pace: Pace) -> bool:
        """Whether it is worse than the pace allows."""
        return self.commit_ms > pace.commit_ms or self.replica_lag_bytes > pace.replica_lag_bytes


def health(target: psycopg.Connection, clock: Callable[[], float] = time.monotonic) -> Health:
    """Ask the target, by a commit of a few bytes that changes no row. Replicas show only to a user who may see them."""
    began = clock()
    target.execute("SELECT pg_logical_emit_message(true, 'orchestra', 'health')")
    milliseconds = (clock() - began) * 1e3
    row = target.execute(
        "SELECT coalesce(max(pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn)), 0)::bigint FROM pg_stat_replication"
    ).fetchone()
    return Health(milliseconds, max(0, row[0]) if row else 0)


class Governor:
    """The rate of one worker of several, in rows a second.

    Without a limit of its own it is free until the target first suffers: then it takes what it had as its limit.
    """

    def __init__(self, pace: Pace, workers: int) -> None:
        self._pace = pace
        self._most = pace.rows_per_second / workers if pace.rows_per_second else None
        self._share = _FIRST_SHARE
        self._seen: list[float] = []

    @property
    def rows_per_second(self) -> int | None:
        """The rate to keep now; None: as fast as it goes."""
        if self._most is None:
            return None
        return max(1, int(self._most * self._share))

    @property
    def slowed(self) -> bool:
        """Whether it is below its limit because the target suffered."""
        return self._share < _FIRST_SHARE

    def learn(self, found: Health, rows_per_second: float | None = None) -> None:
        """Take in how the target is after a range, and how fast that range went."""
        if rows_per_second:
            self._seen = [*self._seen, rows_per_second][-_MEASURED_BEFORE_LIMIT:]
        if not found.suffers(self._pace):
            self._share = min(_FIRST_SHARE, self._share + _GROWTH)
            return
        if self._most is None and self._seen:
            self._most = max(self._seen)
        self._share = max(_LEAST_SHARE, self._share / 2)
