"""A service that is computed instead of asked: so many at once, each for so long, the first come the first served.

What is decided from a load can then be tested without a machine's noise, and in no time.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from orchestra_lib.api_load.workload import Workload
from orchestra_lib.bench.load import Load
from orchestra_lib.bench.samples import LoadRun, Outcome, Sample, load_run, not_sent


@dataclass(frozen=True)
class Simulated(Workload):
    """``stalls``: how often it stands still for half a second, each time at the twentieth request of a load.

    ``quick``: numbers of loads, from 0 on, in which it is twice as fast.
    """

    at_once: int = 1
    service_seconds: float = 0.005
    stalls: int = 0
    quick: tuple[int, ...] = ()
    offered: list[Load] = field(default_factory=list)

    def offer(self, load: Load, intended: NDArray[np.float64] | None = None) -> LoadRun:
        """What would become of the load."""
        due = load.arrivals() if intended is None else intended
        stalled = len(self.offered) < self.stalls
        takes = self.service_seconds / (2 if len(self.offered) in self.quick else 1)
        self.offered.append(load)
        free, room = [0.0] * load.workers, [0.0] * self.at_once
        patience = (load.time_limit_ms or np.inf) / 1e3
        samples = []
        for number, moment in enumerate(due.tolist()):
            sent = max(moment, free[0])
            if sent > moment + patience:
                samples.append(not_sent(number, free[0]))
                continue
            begins = max(sent, room[0])
            done = begins + takes + 0.5 * (stalled and number == 20)
            samples.append(Sample(number, free[0], sent, done, Outcome()))
            heapq.heapreplace(free, done)
            heapq.heapreplace(room, done)
        return load_run(due, load.seconds, load.time_limit_ms, samples)
