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
    directory, began = Path(tempfile.mkdtemp(prefix="orchestra-faults-")), time.monotonic()
    chosen = [BY_NAME[name] for name in options.only] if options.only else None
    seconds, problem = defaultdict[str, list[float]](list), ""
    with arena(directory, options.rows, options.per_second, options.seed) as place:
        draw = random.Random(options.seed)
        drawn = _in_turn(chosen) if chosen else _drawn(draw)
        for number in range(1, options.faults + 1):
            faults = next(drawn)
            name = " + ".join(fault.name for fault in faults)
            try:
                injection, settled = _one(place, faults, draw)
            except NotSettled as error:
                problem = f"{number} {name}: {error}"
                break
            except KeyboardInterrupt:
                break
            print(_line(number, name, injection, settled), flush=True)
            if settled.problems:
                problem = "\n".join([f"{number} {name}:", *settled.problems])
                break
            for fault in faults:
                seconds[fault.name].append(settled.seconds)
            if number % _FAULTS_A_LEDGER == 0:
                place.begin_ledger()
        writes, problem = _judged(place, problem)
    print(_table(seconds))
    done = sum(len(healed) for healed in seconds.values())
    verdict = "VIOLATED" if problem else "holds"
    print(f"{done} faults, seed {options.seed}, {writes:,} writes, {time.monotonic() - began:.0f} s: {verdict}")
    if problem:
        print(f"{problem}\nkept: {directory}")
        return 1
    shutil.rmtree(directory)
    return 0


def _one(place: Arena, faults: tuple[Fault, ...], draw: random.Random) -> tuple[Injection, Settled]:
    injection = inject(place, faults, draw)
    return injection, place.settle(tuple(ending for fault in faults for ending in fault.endings))


def _judged(place: Arena, problem: str) -> tuple[int, str]:
    """How many writes all ledgers have, and what does not hold of them, unless something did not before."""
    if not problem:
        place.writer.stop()
        problem = "\n".join(place.settle(writing=False).problems)
    verdicts = [place.judge(ledger) for ledger in place.ledgers]
    broken = [str(verdict) for verdict in verdicts if not verdict.holds]
    return sum(verdict.writes for verdict in verdicts), problem or "\n".join(broken)


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


def _table(seconds: dict[str, list[float]]) -> str:
    lines = [f"{'fault':58} {'times':>5} {'median':>8} {'longest':>8}   s until the target had everything"]
    for fault in FAULTS:
        if healed := seconds.get(fault.name):
            lines.append(f"{fault.name:58} {len(healed):5} {statistics.median(healed):8.2f} {max(healed):8.2f}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
