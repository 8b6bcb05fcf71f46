"""Faults, one after another, while a store is written to and moved: after each, every acknowledged write is there.

.venv/bin/python tests/faults/moving.py [--faults 500] [--seed 1] [--rows 3000] [--per-second 300] [--only NAME ...]

Source, target, writer and mover run all the time (see arena.py). Faults are drawn from store_faults.FAULTS, at times
two at a time. When one has been healed the target catches up; then the writer is held for a moment, its ledger is
judged on the target row by row, and the checksums of both tables are compared. Every 40 faults a ledger is closed; at
the end all of them are judged. Ends with 1 at the first violation, and keeps the directory.
"""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from arena import Arena, NotSettled, Settled, arena
from store_faults import BY_NAME, FAULTS, Fault, Injection, inject

from orchestra_lib.rehearsal.ledger import standing

_TWO_AT_A_TIME = 0.2
_FAULTS_A_LEDGER = 40


def main() -> int:
    """One line a fault, and a table of them all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rows", type=int, default=3_000, help="in the store before it begins")
    parser.add_argument("--per-second", type=float, default=300, help="writes meanwhile")
    parser.add_argument("--only", nargs="+", choices=sorted(BY_NAME), metavar="NAME", help="these faults, in turn")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # asked to stop, it tells how far it came, as at Ctrl-C
    directory, began = Path(tempfile.mkdtemp(prefix="orchestra-faults-")), time.monotonic()
    trial = Trial(options.seed, [BY_NAME[name] for name in options.only or ()])
    with arena(directory, options.rows, options.per_second, options.seed) as place:
        try:
            trial.run(place, options.faults)
        except KeyboardInterrupt:
            trial.interrupted = True
        writes = sum(standing(ledger).writes for ledger in place.ledgers)
    print(trial.table())
    verdict = "VIOLATED" if trial.problem else "interrupted" if trial.interrupted else "holds"
    print(f"{trial.done} faults, seed {options.seed}, {writes:,} writes, {time.monotonic() - began:.0f} s: {verdict}")
    if trial.problem:
        print(f"{trial.problem}\nkept: {directory}")
        return 1
    shutil.rmtree(directory)
    return 130 if trial.interrupted else 0


class Trial:
    """Faults in an arena, until one of them breaks what has to hold: then ``problem`` says what."""

    def __init__(self, seed: int, chosen: list[Fault]) -> None:
        self._draw = random.Random(seed)
        self._faults = _in_turn(chosen) if chosen else _drawn(self._draw)
        self._seconds = defaultdict[str, list[float]](list)
        self.done, self.problem, self.interrupted = 0, "", False

    def run(self, place: Arena, faults: int) -> None:
        """Inject that many, or two in the place of one, and judge after each and at the end."""
        for number in range(1, faults + 1):
            together = next(self._faults)
            name = " + ".join(fault.name for fault in together)
            try:
                injection = inject(place, together, self._draw)
                settled = place.settle(tuple(ending for fault in together for ending in fault.endings))
            except NotSettled as error:
                self.problem = f"{number} {name}: {error}"
                return
            print(_line(number, name, injection, settled), flush=True)
            self.done += 1
            if settled.problems:
                self.problem = "\n".join([f"{number} {name}:", *settled.problems])
                return
            for fault in together:
                self._seconds[fault.name].append(settled.seconds)
            if number % _FAULTS_A_LEDGER == 0:
                place.begin_ledger()
        place.writer.stop()
        last = place.settle(writing=False).problems
        verdicts = [place.judge(ledger) for ledger in place.ledgers]
        self.problem = "\n".join([*last, *(str(verdict) for verdict in verdicts if not verdict.holds)])

    def table(self) -> str:
        """How often each fault came, and how long it took to heal."""
        lines = [f"{'fault':58} {'times':>5} {'median':>8} {'longest':>8}   s until the target had everything"]
        for fault in FAULTS:
            if healed := self._seconds.get(fault.name):
                lines.append(f"{fault.name:58} {len(healed):5} {statistics.median(healed):8.2f} {max(healed):8.2f}")
        return "\n".join(lines)


def _drawn(draw: random.Random) -> Iterator[tuple[Fault, ...]]:
    weights = [fault.rounds for fault in FAULTS]
    while True:
        (fault,) = draw.choices(FAULTS, weights)
        others = [other for other in FAULTS if other.mixes and other is not fault]
        yield (fault, draw.choice(others)) if fault.mixes and draw.random() < _TWO_AT_A_TIME else (fault,)


def _in_turn(faults: list[Fault]) -> Iterator[tuple[Fault, ...]]:
    while True:
        yield from ((fault,) for fault in faults)


def _line(number: int, name: str, injection: Injection, settled: Settled) -> str:
    said = injection.troubles[-1][:100] if injection.troubles else "-"
    return (
        f"{number:4} {'FAILED' if settled.problems else 'holds '} {name}: {injection.seconds:.1f} s, healed in "
        f"{settled.seconds:.1f} s, {settled.restarts} restarts, {settled.verdict.writes:,} writes, "
        f"{settled.target.rows:,} rows; said: {said}"
    )


if __name__ == "__main__":
    sys.exit(main())
