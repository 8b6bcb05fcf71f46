"""kill -9 at random points of an apply and of a rollback, then again: it converges, nothing is left over or made twice.

.venv/bin/python tests/faults/killed_apply.py [--points 50] [--seed 1] [--blueprint stack|phase-1] [--latency 0.02]

Each point builds a project of its own. The apply is killed at an event drawn uniformly over all events of an
undisturbed one (see tests/cloud/killed_run.py); two of three are killed a second time, while they recover or carry on.
Then it is run to its end and compared with the undisturbed one, and the same is done with the rollback. Exits with 1
when a point does not hold.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "cloud"))

from killing import Trial
from planes import running_plane


def main() -> int:
    """One line a point, and a summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--blueprint", choices=("stack", "phase-1"), default="stack")
    parser.add_argument("--latency", default="0.02", help="of the control plane, as a factor of realistic")
    options = parser.parse_args()
    failed, kills, began = 0, 0, time.perf_counter()
    with running_plane(options.latency) as plane, tempfile.TemporaryDirectory() as directory:
        trial = Trial(plane, options.blueprint, Path(directory), options.seed)
        print(f"undisturbed: {trial.events} events")
        for number in range(1, options.points + 1):
            started = time.perf_counter()
            point = trial.point(number)
            verdict = "FAILED" if point.problems else "holds"
            seconds = time.perf_counter() - started
            print(f"{number:3} {verdict} {seconds:5.1f} s  {point}", flush=True)
            failed += bool(point.problems)
            kills += len(point.kills)
    print(
        f"{options.points} points of {options.blueprint}, seed {options.seed}, latency {options.latency}: "
        f"{failed} failed; {kills} processes killed; {time.perf_counter() - began:.0f} s"
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
