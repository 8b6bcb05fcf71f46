"""Wall time of an apply of the real phase 1 against its critical path, in the time that the operations themselves take.

.venv/bin/python tests/bench/parallel_apply.py [--latency realistic] [--repetitions 3]

What an operation takes is what the control plane says (due less started), not what the engine measured: the engine's
own part is what is looked for. Calls that start no operation take no time by that count.
"""

from __future__ import annotations

import argparse
import json
import sqlite3
import statistics
import sys
import tempfile
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "cloud"))

from common import hardware, timed, told
from killed_run import resources
from planes import Plane, running_plane

from orchestra_lib.cloud.apply import Done, Node, _graph, apply
from orchestra_lib.cloud.journal import Journal
from orchestra_lib.cloud.plan import CloudPlan, make_plan

GOAL = 1.15


@dataclass(frozen=True)
class Link:
    """A change of the critical path, in seconds: its operation, all that it took, its wait after what it needs."""

    key: str
    operation_seconds: float
    seconds: float
    waited_seconds: float


@dataclass(frozen=True)
class Measured:
    """One apply, in seconds."""

    wall: float
    critical: float
    one_by_one: float
    path: tuple[Link, ...]
    changes: int

    @property
    def ratio(self) -> float:
        """Wall time against the critical path."""
        return self.wall / self.critical


def main() -> None:
    """Print the medians, where the time beyond the critical path goes, and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--latency", default="realistic", help="of the control plane: realistic, or a factor of it")
    parser.add_argument("--repetitions", type=int, default=3)
    options = parser.parse_args()
    with running_plane(options.latency) as plane, tempfile.TemporaryDirectory() as directory:
        runs = [measured(plane, f"bench-apply-{number}", Path(directory)) for number in range(options.repetitions)]
    middle = sorted(runs, key=lambda run: run.ratio)[len(runs) // 2]
    print(f"{hardware()}; {middle.changes} changes, latency {options.latency}")
    print(told("wall time of the apply", [run.wall for run in runs], "s"))
    print(told("critical path of its operations", [run.critical for run in runs], "s"))
    print(told("its operations one after another", [run.one_by_one for run in runs], "s"))
    print(
        "the critical path of the middle run: operation, more than that (calls, looks, reading back), wait for a worker"
    )
    for link in middle.path:
        more = link.seconds - link.operation_seconds
        print(f"{link.operation_seconds:8.2f} {more:+7.2f} {link.waited_seconds:+7.2f} s  {link.key}")
    left = middle.wall - sum(link.seconds + link.waited_seconds for link in middle.path)
    print(f"{left:+25.2f} s  after its end, and before its beginning")
    ratio = statistics.median(run.ratio for run in runs)
    print(f"one after another / wall: {statistics.median(run.one_by_one / run.wall for run in runs):.1f}")
    print(f"ratio wall / critical path: {ratio:.3f} (goal <= {GOAL}): {'reached' if ratio <= GOAL else 'missed'}")


def measured(plane: Plane, project: str, directory: Path) -> Measured:
    """One apply of phase 1 in a project of its own."""
    client, journal = plane.client(), Journal(directory / f"{project}.jsonl")
    plan = make_plan(client, resources("phase-1", project))
    done: list[Done] = []
    wall = timed(lambda: done.extend(apply(client, plan, journal, "bench")))
    took = operation_seconds(plane, journal)
    path = critical_path(plan, took)
    return Measured(
        wall, sum(took.get(key, 0.0) for key, _ in path), sum(took.values()), _links(plan, path, done, took), len(done)
    )


def operation_seconds(plane: Plane, journal: Journal) -> dict[str, float]:
    """How long each change's operation took by the control plane's own account, by the key of its resource."""
    with closing(sqlite3.connect(f"file:{plane.directory / 'control.sqlite'}?mode=ro", uri=True)) as store:
        records = [json.loads(text) for (text,) in store.execute("select record from operations")]
    took = {_last(record["name"]): record["due"] - record["started"] for record in records}
    return {one.wanted.key: took[_last(one.operation["name"])] for one in journal.changes if one.operation}


def critical_path(plan: CloudPlan, took: Mapping[str, float]) -> list[Node]:
    """The chain of changes, each needing the one before, whose operations take longest."""
    graph = _graph(plan.steps, undoing=False)
    ends: dict[Node, float] = {}
    before: dict[Node, Node | None] = {}
    for node in TopologicalSorter(graph).static_order():
        before[node] = max(graph[node], key=lambda need: ends[need], default=None)
        ends[node] = took.get(node[0], 0.0) + (ends[before[node]] if before[node] else 0.0)
    path: list[Node] = []
    node: Node | None = max(ends, key=lambda one: ends[one])
    while node:
        path.insert(0, node)
        node = before[node]
    return path


def _links(plan: CloudPlan, path: list[Node], done: list[Done], took: Mapping[str, float]) -> tuple[Link, ...]:
    graph, by_key = _graph(plan.steps, undoing=False), {one.key: one for one in done}
    links = []
    for node in path:
        one = by_key[node[0]]
        ready = max((_end(by_key[need[0]]) for need in graph[node]), default=one.started_seconds)
        links.append(Link(one.key, took.get(one.key, 0.0), one.seconds, one.started_seconds - ready))
    return tuple(links)


def _end(one: Done) -> float:
    return one.started_seconds + one.seconds


def _last(name: str) -> str:
    """Compute tells an operation's last part alone."""
    return name.rsplit("/", 1)[-1]


if __name__ == "__main__":
    main()
