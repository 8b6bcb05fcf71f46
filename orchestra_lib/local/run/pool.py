"""The instances of one revision: as many as its requests need, within its limits, and who waits for one.

https://cloud.google.com/run/docs/about-instance-autoscaling
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from typing import Any

from orchestra_lib.local.run.control_client import Revision
from orchestra_lib.local.run.instance import Instance, StartFailed

_QUEUE_SECONDS = 10.0
_QUEUE_STARTUPS = 3.5
"""A request waits for an instance as long as the greater: ten seconds, or so many average startups."""
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.5, 30.0
"""After an instance that did not start, before the next one; twice as long each time."""
_log = logging.getLogger(__name__)
Launch = Callable[[Callable[[Instance], None]], Awaitable[Instance]]
"""Starts an instance and returns it when it is ready. Raises StartFailed."""


class NoInstance(Exception):
    """No instance could take the request in time; ``status`` is what the client is answered."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass
class Counts:
    """What a revision did since the data plane started."""

    requests: int = 0
    """That an instance has had."""
    failed: int = 0
    """Answered 503 because the instance was lost, 504 because it took too long."""
    rejected: int = 0
    """Answered 429: no instance in time."""
    started: int = 0
    """Instances that became ready."""
    cold_starts: int = 0
    """Those that a waiting request had started."""
    lost: int = 0
    """Instances that ended by themselves."""


class Pool:
    """The instances of a revision. Used in one event loop; :meth:`tend` has to be called again and again."""

    def __init__(self, revision: Revision, launch: Launch, idle_seconds: float) -> None:
        self.revision, self._launch, self._idle_seconds = revision, launch, idle_seconds
        self.least = 0
        """Instances that are kept warm now."""
        self.counts = Counts()
        self.startups: list[float] = []
        """Seconds of every startup."""
        self.instances: list[Instance] = []
        self.problem = ""
        """Why the last start failed; empty when it did not."""
        self._waiting: deque[asyncio.Future[Instance]] = deque()
        self._starts: set[asyncio.Task[Instance]] = set()
        self._stops: set[asyncio.Task[None]] = set()
        self._pause_seconds, self._not_before = _FIRST_PAUSE_SECONDS, 0.0
        self._closed = False

    # --- requests -------------------------------------------------------------------------------------------------

    async def acquire(self) -> Instance:
        """An instance with room for one more request, which is counted. Raises NoInstance."""
        free = self._free()
        if free is not None and not self._waiting:
            return self._taken(free)
        if not self.instances and not self._starts and time.monotonic() < self._not_before:
            self.counts.failed += 1
            raise NoInstance(503, f"The instance could not start successfully. {self.problem}")
        waiter: asyncio.Future[Instance] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        self._scale_out()
        try:
            return await asyncio.wait_for(waiter, self._patience_seconds)
        except TimeoutError:
            if waiter.done() and not waiter.cancelled():
                return waiter.result()  # it came in the last moment
            self.counts.rejected += 1
            words = "The request was aborted because there was no available instance."
            raise NoInstance(429, words) from None
        except StartFailed as failed:
            self.counts.failed += 1
            raise NoInstance(503, f"The instance could not start successfully. {failed}") from failed
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self.release(waiter.result())
            raise

    def release(self, instance: Instance) -> None:
        """The request that was counted has ended."""
        instance.in_flight -= 1
        instance.served += 1
        instance.idle_since = time.monotonic()
        self._hand_out()

    def _free(self) -> Instance | None:
        """The instance with the fewest requests, if it has room."""
        chosen = None
        for instance in self.instances:
            fits = instance.ready and instance.in_flight < self.revision.concurrency
            if fits and (chosen is None or instance.in_flight < chosen.in_flight):
                chosen = instance
        return chosen

    def _taken(self, instance: Instance) -> Instance:
        instance.in_flight += 1
        return instance

    def _hand_out(self) -> None:
        """Give room to those who wait, the first first."""
        while self._waiting:
            if self._waiting[0].done():
                self._waiting.popleft()
                continue
            free = self._free()
            if free is None:
                return
            self._waiting.popleft().set_result(self._taken(free))

    @property
    def _patience_seconds(self) -> float:
        average = sum(self.startups) / len(self.startups) if self.startups else 0.0
        return max(_QUEUE_SECONDS, _QUEUE_STARTUPS * average)

    # --- instances ------------------------------------------------------------------------------------------------

    async def ensure_one(self) -> None:
        """Return when an instance is ready, as a deployment asks. Raises StartFailed."""
        if any(instance.ready for instance in self.instances):
            return
        start = next(iter(self._starts), None) or self._start(cold=False)
        await asyncio.shield(start)

    def tend(self) -> None:
        """Start what is missing to the minimum, and end what has been idle for too long above it."""
        if self._closed:
            return
        now = time.monotonic()
        missing = min(self.least, self.revision.most) - len(self.instances) - len(self._starts)
        if missing > 0 and now >= self._not_before:
            for _ in range(missing):
                self._start(cold=False)
        self._scale_out()
        self.scale_in(self._idle_seconds)

    def scale_in(self, idle_seconds: float) -> int:
        """End the instances above the minimum that have had no request for so long; returns how many."""
        now = time.monotonic()
        idle = [one for one in self.instances if one.in_flight == 0 and now - one.idle_since >= idle_seconds]
        surplus = max(0, len(self.instances) - self.least)
        for instance in idle[:surplus]:
            self._stop(instance)
        return len(idle[:surplus])

    async def close(self) -> None:
        """End everything; requests in flight are waited for by those who sent them."""
        self._closed = True
        for start in tuple(self._starts):
            start.cancel()
        await asyncio.gather(*self._starts, return_exceptions=True)
        for instance in tuple(self.instances):
            self._stop(instance)
        self._give_up(StartFailed("The revision is gone."))
        await asyncio.gather(*self._stops, return_exceptions=True)

    def _scale_out(self) -> None:
        """Start as many instances as those who wait need, beside those that are starting; not while starts fail."""
        if time.monotonic() < self._not_before:
            return
        waiting = sum(not waiter.done() for waiter in self._waiting)
        wanted = math.ceil(waiting / self.revision.concurrency) - len(self._starts)
        room = self.revision.most - len(self.instances) - len(self._starts)
        for _ in range(min(wanted, room)):
            self._start(cold=True)

    def _start(self, *, cold: bool) -> asyncio.Task[Instance]:
        start = asyncio.create_task(self._started(cold=cold))
        self._starts.add(start)
        start.add_done_callback(self._starting_ended)
        return start

    async def _started(self, *, cold: bool) -> Instance:
        instance = await self._launch(self._ended)
        if instance.startup_seconds is not None:
            self.startups.append(instance.startup_seconds)
        self.counts.started += 1
        self.counts.cold_starts += cold
        self.instances.append(instance)
        return instance

    def _starting_ended(self, start: asyncio.Task[Instance]) -> None:
        self._starts.discard(start)
        if start.cancelled():
            return
        error = start.exception()
        if error is None:
            self.problem, self._pause_seconds = "", _FIRST_PAUSE_SECONDS
            instance = start.result()
            if instance.gone.done():  # it has ended between its probe and now
                self._ended(instance)
            self._hand_out()
            return
        self.problem = str(error)
        self._not_before = time.monotonic() + self._pause_seconds
        self._pause_seconds = min(2 * self._pause_seconds, _LONGEST_PAUSE_SECONDS)
        if not isinstance(error, StartFailed):
            _log.error("revision %s: a start failed", self.revision.name, exc_info=error)
        else:
            _log.info("revision %s: an instance did not start: %s", self.revision.name, error)
        if not self.instances and not self._starts:
            self._give_up(StartFailed(str(error)))

    def _give_up(self, error: StartFailed) -> None:
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_exception(error)
        self._waiting.clear()

    def _stop(self, instance: Instance) -> None:
        self.instances.remove(instance)
        stop = asyncio.create_task(instance.stop())
        self._stops.add(stop)
        stop.add_done_callback(self._stops.discard)

    def _ended(self, instance: Instance) -> None:
        """An instance is gone; one that nobody stopped is replaced when it is needed."""
        if instance not in self.instances:
            return
        self.instances.remove(instance)
        self.counts.lost += 1
        _log.info("revision %s: instance %d has ended by itself", self.revision.name, instance.pid)
        self.tend()

    # --- what it tells --------------------------------------------------------------------------------------------

    def told(self) -> dict[str, Any]:
        """What there is and what was done, for a person or a measurement."""
        limits = self.revision.container.get("resources", {}).get("limits", {})
        return {
            **asdict(self.counts),
            "in_flight": sum(instance.in_flight for instance in self.instances),
            "waiting": sum(not waiter.done() for waiter in self._waiting),
            "starting": len(self._starts),
            "stopping": len(self._stops),
            "least": self.least,
            "most": self.revision.most,
            "concurrency": self.revision.concurrency,
            "limits": dict(limits),
            "image": self.revision.digest,
            "startup_seconds": [round(seconds, 4) for seconds in self.startups],
            "problem": self.problem,
            "instances": [
                {
                    "pid": instance.pid,
                    "port": instance.port,
                    "started": instance.started,
                    "startup_seconds": instance.startup_seconds,
                    "in_flight": instance.in_flight,
                    "served": instance.served,
                    "memory_bytes": instance.memory_bytes,
                }
                for instance in self.instances
            ],
        }
