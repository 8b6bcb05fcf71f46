"""The circuit breaker in front of the store, for work that is awaited: the states are those of ``memory.breaker``.

Calls run side by side here, so what is admitted and what is learnt from it are two steps: while the breaker is not
closed, one trial at a time goes through, and everybody else is told when to come again.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import NoReturn, TypeVar

from orchestra_lib.memory.breaker import Breaker, BreakerOpen

Result = TypeVar("Result")


class StoreBreaker:
    """Opens after ``failures`` in a row and lets one trial through every ``recovery_seconds``.

    ``against`` says of an error whether it speaks against the store. False: the store has answered; None: nothing was
    asked of it, so that nothing is learnt, and a trial that ends so is followed by another.
    """

    def __init__(
        self,
        failures: int,
        recovery_seconds: float,
        against: Callable[[Exception], bool | None],
        changed: Callable[[str], None] = lambda _state: None,
    ) -> None:
        # Slowness ends in a time-out here, which is a failure already.
        self._breaker = Breaker(failures, recovery_seconds, slow_seconds=math.inf, changed=changed)
        self._against = against
        self._on_trial = False

    @property
    def state(self) -> str:
        """``closed``, ``open`` or ``half-open``."""
        return self._breaker.state

    async def call(self, work: Callable[[], Awaitable[Result]]) -> Result:
        """The result of ``work``, awaited at most once.

        Raises BreakerOpen, without calling it, while the store is left alone.
        """
        if self._breaker.state == "closed":
            return await self._observed(work)
        seconds = self._breaker.seconds_until_trial
        if seconds > 0 or self._on_trial:
            raise BreakerOpen(seconds)
        self._on_trial = True
        try:
            return await self._observed(work)
        finally:
            self._on_trial = False

    async def _observed(self, work: Callable[[], Awaitable[Result]]) -> Result:
        try:
            result = await work()
        except Exception as error:
            against = self._against(error)
            if against is not None:
                self._learn(error if against else None)
            raise
        self._learn(None)
        return result

    def _learn(self, failure: Exception | None) -> None:
        def fail() -> NoReturn:
            assert failure is not None  # noqa: S101 - only called with one
            raise failure

        # It may have opened while the work went on: then what comes late changes nothing.
        with suppress(BreakerOpen, *([type(failure)] if failure else [])):
            self._breaker.call(fail if failure else _nothing)


def _nothing() -> None:
    """The work was done elsewhere."""
