"""The chain of runbooks killed at random moments and resumed: it ends in the same evidence as one that nobody killed.

.venv/bin/python tests/faults/killed_chain.py [--kills 20] [--seed 1] [--until 07] [--rows 3000]

First the chain runs undisturbed, in a home of its own. Then, in another, it is killed by SIGKILL with everything that
it has started (papermill, kernels, the rehearsal's writer, the stream's process), after a time drawn from what the
undisturbed one took for the phases that are left; the local target's servers live on, as Google Cloud does. It is
resumed at the phase that was cut off and killed again, until it comes to its end; then it begins anew in a fresh home,
until there have been as many kills as were asked for. Compared are, phase by phase, the claims, their bounds and their
verdicts, and the values of those that have to be exactly something; not the checks of what a plan needs, which are
fewer where less is left to do. A phase's evidence is that of its last run and, of what that one had no occasion to do
again (a revision serves already), that of the runs before it that were cut off: a record holds what its own run has
found out, and theirs are sealed as well. Exits with 1 when an end differs or ``audit verify`` finds something.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain as chained
from pathlib import Path

import psutil

_HOME = "orchestra-killed-chain-"
_FRACTION_LEFT_ALONE = 0.02  # of the chain's time: interpreters are still starting
_LINES_SHOWN = 12
_START_SECONDS = 2.0  # of a phase: papermill and its kernel
_OF_THE_PLAN = ("permissions that the plan needs", "quota ", "organisation policies that forbid", "the organisation ")
"""Claims of checks before the start: what is asked depends on what is left to do, and is less after a kill."""

_BY_CHANCE = ("ivfflat.probes that a new session has", "memory that this machine has available")
"""Claims whose bound is another each time: what k-means draws anew, and what a build of the rows takes that are there,
of which a killed run may have left its writer's."""
_HOW_QUICK = ("p95 of ", "until requests are answered within their goals again")
"""Gates that a slow minute of the machine may close, killed or not: the chain is then resumed once, as it says."""
_LAST_WITH_PARAMETERS = "03"

Evidence = Mapping[str, tuple[str, ...]]
"""Runbook -> its judged rows, as lines."""


@dataclass(frozen=True)
class Chain:
    """How the chain is run: in which home, up to which phase, with which parameters."""

    home: Path
    until: str
    parameters: Sequence[str]

    @property
    def variables(self) -> dict[str, str]:
        """The environment of a command that runs in this home."""
        dropped = ("ORCHESTRA_HOME", "ORCHESTRA_OVERWRITE")
        kept = {name: value for name, value in os.environ.items() if name not in dropped}
        moved = {"ORCHESTRA_STATE_DIR": self.home / "state", "ORCHESTRA_RUNS_DIR": self.home / "runs"}
        return {**kept, **{name: str(path) for name, path in moved.items()}}

    def library(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """One command of the library, to its end."""
        command = [sys.executable, "-m", "orchestra_lib", *arguments]
        return subprocess.run(command, env=self.variables, capture_output=True, text=True, check=False)

    def start(self, first: str) -> subprocess.Popen[bytes]:
        """The chain from a phase on, in a session of its own."""
        command = [sys.executable, "-m", "orchestra_lib", "migrate", "--from", first, "--until", self.until]
        parameters = self.parameters if first <= _LAST_WITH_PARAMETERS else ()  # no later phase has them
        log = (self.home / "chain.log").open("ab")
        return subprocess.Popen(
            [*command, *parameters], env=self.variables, stdout=log, stderr=log, start_new_session=True
        )

    def _entries(self) -> list[dict[str, object]]:
        """The ledger, in its order."""
        path = self.home / "runs" / "ledger.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def reached(self) -> dict[str, dict[str, object]]:
        """Runbook -> its last settled entry of the ledger."""
        return {str(entry["runbook"]): entry for entry in self._entries()}

    def evidence(self) -> Evidence:
        """What each runbook's last run has shown, and what only those before it that were cut off."""
        found: dict[str, dict[str, list[str]]] = {}
        for entry in reversed(self._entries()):
            rows = json.loads(Path(str(entry["record"])).read_text())["evidence"]
            judged = [row for row in rows if row["verdict"] != "NOTED" and not row["claim"].startswith(_OF_THE_PLAN)]
            told = found.setdefault(str(entry["runbook"]), {})
            new = {str(row["claim"]) for row in judged} - told.keys()
            for row in judged:
                if row["claim"] in new:
                    told.setdefault(str(row["claim"]), []).append(_line(row))
        return {runbook: tuple(sorted({*chained.from_iterable(told.values())})) for runbook, told in found.items()}

    def was_only_slow(self) -> bool:
        """Whether the last run was stopped by nothing but how quick something was."""
        entries = self._entries()
        rows = json.loads(Path(str(entries[-1]["record"])).read_text())["evidence"] if entries else []
        red = [str(row["claim"]) for row in rows if row["verdict"] in ("FAIL", "MISSING")]
        return bool(red) and all(claim.startswith(_HOW_QUICK) for claim in red)

    def seconds(self) -> dict[str, float]:
        """Runbook -> how long its last run took."""
        records = {name: json.loads(Path(str(entry["record"])).read_text()) for name, entry in self.reached().items()}
        begun_ended = {name: (record["started"], record["ended"]) for name, record in records.items()}
        return {name: (_moment(ended) - _moment(begun)).total_seconds() for name, (begun, ended) in begun_ended.items()}


def _moment(told: str) -> datetime:
    return datetime.fromisoformat(told)


def _line(row: Mapping[str, object]) -> str:
    """A judged row without what chance decides: the value counts where it has to be exactly something."""
    claim, target = str(row["claim"]), str(row["target"])
    if claim.startswith(_BY_CHANCE):
        return f"{row['verdict']} {claim}"
    value = f" {row['value']}" if target.startswith("==") else ""
    return f"{row['verdict']} {claim}{value}, {target}"


def undisturbed(chain: Chain) -> tuple[dict[str, float], Evidence]:
    """Run it to its end; how many seconds each phase took, and what it has shown. Raises RuntimeError when it fails."""
    if chain.start("00").wait():
        raise RuntimeError("the chain fails by itself:\n" + "\n".join(_last_lines(chain)))
    return chain.seconds(), chain.evidence()


def killed(chain: Chain, seconds: Mapping[str, float], kills: int, draw: random.Random) -> tuple[int, list[str]]:
    """Kill it up to ``kills`` times and let it come to its end; how often it was killed, and where."""
    first, where, done, resumed = "00", list[str](), 0, False
    while True:
        process = chain.start(first)
        left = sum(taken + _START_SECONDS for name, taken in seconds.items() if name[:2] >= first)
        wait = draw.uniform(_FRACTION_LEFT_ALONE, 1.0) * left if len(where) < kills else None
        try:
            code = process.wait(wait)
        except subprocess.TimeoutExpired:
            _kill(process.pid, chain.home)
            process.wait()
            chain.library("runs")  # a later command finds out what was cut off
            first = _first_open(chain)
            where.append(f"{wait:.0f} s, in {first}")
            continue
        done = done or len(where)
        if code and not resumed and chain.was_only_slow():
            first, kills, resumed = _first_open(chain), 0, True
            where.append(f"then stopped in {first} by how quick it was, and resumed")
            continue
        if code:
            told = " / ".join(_last_lines(chain)[-2:])
            where.append(f"then FAILED by itself with {code} in {_first_open(chain)}: {told}")
        return done, where


def _last_lines(chain: Chain) -> list[str]:
    return [line for line in (chain.home / "chain.log").read_text().splitlines() if line.strip()][-_LINES_SHOWN:]


def _first_open(chain: Chain) -> str:
    """The phase to go on with: the first that has not completed."""
    notebooks = sorted((Path(__file__).resolve().parents[2] / "notebooks").glob("0[0-7]_*.ipynb"))
    done = {name for name, entry in chain.reached().items() if entry["outcome"] == "completed"}
    return next((path.name[:2] for path in notebooks if path.stem not in done), chain.until)


def _kill(pid: int, home: Path) -> None:
    """SIGKILL for the chain and everything of it, but for the local target's servers."""
    found = {one.pid: one for one in _of(pid, home)}
    for one in found.values():
        with contextlib.suppress(psutil.NoSuchProcess):
            one.kill()
    psutil.wait_procs(found.values(), timeout=20)


def _of(pid: int, home: Path) -> list[psutil.Process]:
    chain = psutil.Process(pid)
    own = [chain, *chain.children(recursive=True)]
    loose = [one for one in psutil.process_iter(["cmdline"]) if _is_loose(one.info["cmdline"] or (), home)]
    return [one for one in (*own, *loose) if not _is_server(one)]


def _is_loose(command: Sequence[str], home: Path) -> bool:
    """Whether it is a process that the chain has started and that has outlived its parent: its stream, its writer."""
    words = " ".join(command)
    return str(home) in words and ("rehearsal.writer" in words or "orchestra_lib stream" in words)


def _is_server(one: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        words = " ".join(one.cmdline())
        return any(name in words for name in ("orchestra_lib.local", "postgres", "local.alloydb", "local.run"))
    return False


def compare(wanted: Evidence, found: Evidence) -> list[str]:
    """In which phases the evidence differs, each with its lines."""
    problems = []
    for runbook in sorted(wanted):
        there, here = set(wanted[runbook]), set(found.get(runbook, ()))
        lines = [*(f"- {line}" for line in sorted(there - here)), *(f"+ {line}" for line in sorted(here - there))]
        if lines:
            problems.append("\n      ".join([f"{runbook} differs:", *lines[:_LINES_SHOWN]]))
    return problems


@contextlib.contextmanager
def _home(until: str, parameters: Sequence[str]):
    directory = Path(tempfile.mkdtemp(prefix=_HOME))
    directory.chmod(0o755)  # the servers' own user must be able to enter
    chain = Chain(directory, until, parameters)
    try:
        yield chain
    finally:
        chain.library("stream", "stop")
        chain.library("local", "down")
        shutil.rmtree(directory, ignore_errors=True)


def main() -> int:
    """One line a chain, and a summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--each", type=int, default=5, help="kills of one chain before it may come to its end")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--until", default="07")
    parser.add_argument("--rows", default="3000")
    options = parser.parse_args()
    parameters = ["-p", "rows", options.rows]
    if options.until >= "03":
        parameters += ["-p", "lists", "100", "-p", "budget_seconds", "10"]
    else:
        parameters = []
    with _home(options.until, parameters) as chain:
        seconds, wanted = undisturbed(chain)
    print(
        f"undisturbed: {sum(seconds.values()):.0f} s, "
        f"{sum(map(len, wanted.values()))} judged rows in {len(wanted)} runbooks",
        flush=True,
    )
    failed, total, number, began = 0, 0, 0, time.monotonic()
    while total < options.kills and number < options.kills:
        number += 1
        with _home(options.until, parameters) as chain:
            kills, where = killed(
                chain, seconds, min(options.each, options.kills - total), random.Random(f"{options.seed} {number}")
            )
            problems = compare(wanted, chain.evidence())
            audited = chain.library("audit", "verify")
            problems += [f"audit verify: {audited.stdout.strip()[-300:]}"] if audited.returncode else []
        total += kills
        failed += bool(problems)
        print(
            f"chain {number} {'FAILED' if problems else 'same evidence'}, killed after {'; '.join(where)}", flush=True
        )
        for problem in problems:
            print(f"    {problem}", flush=True)
    print(
        f"{number} chains until {options.until}, {total} kills, seed {options.seed}: {failed} failed; "
        f"{time.monotonic() - began:.0f} s"
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
