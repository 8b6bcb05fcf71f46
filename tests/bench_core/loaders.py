"""Workers for the tests: importable, so that they can be handed to other processes."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from orchestra_lib.bench.load import Load, run_load
from orchestra_lib.bench.samples import Outcome, Worker


@dataclass(frozen=True)
class Sleeping:
    """Every request takes so long; one whose number is in ``failing`` fails."""

    seconds: float = 0.0
    failing: frozenset[int] = frozenset()

    @contextmanager
    def __call__(self) -> Iterator[Worker]:
        def ask(number: int) -> Outcome:
            time.sleep(self.seconds)
            return Outcome("Refused" if number in self.failing else None, short=number % 10 == 1, server_ms=0.0)

        yield ask


@dataclass(frozen=True)
class Misbehaving:
    """Request 3 kills its process, or raises what is no failure of a request."""

    how: str

    @contextmanager
    def __call__(self) -> Iterator[Worker]:
        def ask(number: int) -> Outcome:
            if number == 3 and self.how == "dies":
                os.kill(os.getpid(), signal.SIGKILL)
            if number == 3:
                raise KeyError(self.how)
            return Outcome()

        if self.how == "dies at once":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.how == "does not start":
            raise ConnectionRefusedError("nobody is there")
        yield ask


if __name__ == "__main__":
    # A shell's background jobs inherit an interrupt that is ignored, and Python then leaves it so.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # Runs that last until somebody ends them, one after the other; the arguments are the seconds that requests take.
    for seconds in sys.argv[1:]:
        print("started", flush=True)
        try:
            run_load(Load(20, 600, 1, 2), Sleeping(float(seconds)))
        except KeyboardInterrupt:
            print("interrupted", flush=True)
