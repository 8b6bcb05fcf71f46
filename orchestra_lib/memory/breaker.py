"""The circuit breaker in front of the target: after enough failures in a row the target is left alone for a while.

The states and their changes are pybreaker's. Ours are the failure of being slow, and a clock that nobody can set.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import pybreaker

Result = TypeVar("Result")


class BreakerOpen(Exception):
    """The target is being left alone: nothing was attempted. ``seconds`` says for how long yet."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"the circuit breaker is open for {seconds:.1f} s more")
        self.seconds = seconds


class _Slow(Exception):
    """The work was done and took too long: a failure for the breaker, none for the caller."""


class Breaker:
    """Closed, open or half-open. It opens after ``failure_threshold`` failures in a row, a call that took longer than
    ``slow_seconds`` among them; after ``recovery_seconds`` one trial decides whether it closes or stays open.

    Whatever the trial raises decides: there is no way to stay half-open.
    """

    def __init__(
        self,
        failure_threshold: int,
        recovery_seconds: float,
        slow_seconds: float,
        changed: Callable[[str], None] = lambda _state: None,
    ) -> None:
        self._recovery_seconds, self._slow_seconds = recovery_seconds, slow_seconds
        self._storage = _Storage(pybreaker.STATE_CLOSED)
        self._breaker = pybreaker.CircuitBreaker(
            fail_max=failure_threshold,
            reset_timeout=recovery_seconds,
            state_storage=self._storage,
            listeners=[_Listener(changed)],
            throw_new_error_on_trip=False,
        )
        self.times_opened = 0

    @property
    def state(self) -> str:
        """``closed``, ``open`` or ``half-open``."""
        return str(self._breaker.current_state)

    @property
    def seconds_until_trial(self) -> float:
        """How long the target is still left alone; 0 when it is not, or when the next call is the trial."""
        if self.state != pybreaker.STATE_OPEN:
            return 0.0
        return max(0.0, self._recovery_seconds - self._storage.seconds_open())

    def call(self, work: Callable[[], Result]) -> Result:
        """The result of ``work``, called at most once; what it raises is raised and counts as a failure.

        Raises BreakerOpen, without calling it, while the breaker is open.
        """
        result: list[Result] = []

        def timed() -> None:
            started = time.monotonic()
            result.append(work())
            if time.monotonic() - started > self._slow_seconds:
                raise _Slow

        try:
            self._breaker.call(timed)
        except _Slow:
            pass
        except pybreaker.CircuitBreakerError as error:
            raise BreakerOpen(self.seconds_until_trial) from error
        return result[0]


class _Storage(pybreaker.CircuitMemoryStorage):
    """Remembers by the monotonic clock when the breaker opened: one set back must not keep it open for hours."""

    def __init__(self, state: str) -> None:
        super().__init__(state)
        self._opened_monotonic: float | None = None

    @property
    def opened_at(self) -> datetime | None:
        """When it opened, by the wall clock of this moment."""
        if self._opened_monotonic is None:
            return None
        return datetime.now(UTC) - timedelta(seconds=self.seconds_open())

    @opened_at.setter
    def opened_at(self, _moment: datetime) -> None:
        self._opened_monotonic = time.monotonic()

    def seconds_open(self) -> float:
        """How long ago it opened; 0 if it never did."""
        return time.monotonic() - self._opened_monotonic if self._opened_monotonic is not None else 0.0


class _Listener(pybreaker.CircuitBreakerListener):
    def __init__(self, changed: Callable[[str], None]) -> None:
        self._changed = changed

    def state_change(self, _breaker: Any, _old: Any, new: Any) -> None:
        """Pass the new state on."""
        self._changed(str(new.name))
