"""How long nobody can write in a cutover: 10 there and 10 back, under load, by the cutover's clock and by the writer's.

.venv/bin/python tests/bench/cutover_pause.py [--cutovers 20] [--per-second 1000] [--rows 20000]

The cutover's pause runs from the revoke to the grant. The writer's runs from its last acknowledged write on one side to
its first on the other: it has to notice, ask where to write now, and connect. Every acknowledged write is judged on
both sides in the end: a pause that loses a row is worth nothing.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "memory"))

import numpy as np
from common import hardware
from stage import Stage

from orchestra_lib.local import postgres
from orchestra_lib.memory.cutover import CutoverResult, Rules
from orchestra_lib.memory.stream import Tuning

GOAL_SECONDS = 1.0
SIDES = ("source", "target")


def main() -> int:
    """Print the quantiles of both pauses, what the time went into, and whether the goal is reached."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cutovers", type=int, default=20, help="there and back in turn")
    parser.add_argument("--per-second", type=float, default=1_000, help="writes that the writer intends")
    parser.add_argument("--rows", type=int, default=20_000, help="that are there before it writes")
    options = parser.parse_args()
    results: list[CutoverResult] = []
    with servers() as stage:
        stage.prepare(options.rows)
        with stage.writer(options.per_second) as writer:
            for number in range(1, options.cutovers + 1):
                result = stage.cut_over(Rules())
                results.append(result)
                compared = f"{result.rows_compared_in_pause} rows compared in it"
                print(f"{number:2} to the {result.there}: {result.pause_seconds * 1e3:4.0f} ms, {compared}")
            told = writer.stop()
        verdicts = stage.judged()
    print(f"\n{hardware()}; {told.per_second:,.0f} of {options.per_second:,.0f} intended writes a second acknowledged")
    reached = quantiles("pause, by the cutover", [result.pause_seconds for result in results]) < GOAL_SECONDS
    quantiles("pause, by the writer's ledger", [pause.seconds for pause in told.pauses])
    steps = defaultdict(list)
    for result in results:
        for step, seconds in result.step_seconds.items():
            steps[step].append(seconds)
    for step, seconds in steps.items():
        quantiles(f"  {step}", seconds)
    print(f"{len(told.pauses)} pauses in the ledger; {told.refused:,} writes refused, {told.lost:,} connections lost")
    for side, verdict in verdicts.items():
        print(f"{side}: {verdict}")
    print(f"p95 of the pause below {GOAL_SECONDS:g} s: {'reached' if reached else 'missed'}")
    return 0 if reached and all(verdict.holds for verdict in verdicts.values()) else 1


def quantiles(name: str, seconds: list[float]) -> float:
    """Print p50, p95 and the longest, in milliseconds; returns the p95 in seconds."""
    p50, p95 = (float(np.quantile(seconds, share)) for share in (0.5, 0.95))
    print(f"{name:44} p50 {p50 * 1e3:6.0f}  p95 {p95 * 1e3:6.0f}  max {max(seconds) * 1e3:6.0f} ms")
    return p95


@contextmanager
def servers() -> Iterator[Stage]:
    """Two servers whose logs can be streamed."""
    directory = Path(tempfile.mkdtemp(prefix="orchestra-bench-"))
    directory.chmod(0o755)
    settings = {**postgres.SETTINGS, "wal_level": "logical", "max_replication_slots": "20"}
    try:
        conninfos = {side: postgres.start(directory / side, f"the {side}", settings).conninfo() for side in SIDES}
        for conninfo in conninfos.values():
            Stage.run(conninfo, "CREATE EXTENSION vector")
        yield Stage(**conninfos, folder=directory, writer_role="bench_app", tuning=Tuning())
    finally:
        for side in SIDES:
            postgres.stop(directory / side, f"the {side}")
        shutil.rmtree(directory)


if __name__ == "__main__":
    sys.exit(main())
