"""Random histories of phases that are applied, changed, cut off and undone: what was there before is there again.

.venv/bin/python tests/faults/random_histories.py [--histories 20] [--memory 20] [--steps 6] [--seed 1]

A history of the cloud applies phases with settings that change, is cut off in the middle of some, takes back single
runs and single phases in any order, and ends with the complete rollback. After a run that is taken back the project is
what it was before that run; at the end it is what it was before the history.

A history of the memory goes through runbook 03 as far as chance lets it, with an application that writes, on the target
too after a cutover; then the phase is undone. The source is then what it was before with everything that the
application wrote, and nothing else.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import io
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "cloud"))

import memory_stores
import psycopg
import yaml
from planes import Plane, running_plane
from portrait import portrait
from state_portrait import database_portrait, state_hash
from stores import Pair, fill

from orchestra_lib import record, settings
from orchestra_lib.blueprint import infrastructure
from orchestra_lib.blueprint.memory import memory
from orchestra_lib.blueprint.workstations import workstations
from orchestra_lib.cloud import journal as journalling
from orchestra_lib.cloud.journal import Journal
from orchestra_lib.cloud.resource import Resource
from orchestra_lib.errors import OrchestraError
from orchestra_lib.evidence import Verdict
from orchestra_lib.local import databases
from orchestra_lib.paths import journal_path
from orchestra_lib.phases import cloud_work, rollback
from orchestra_lib.phases.cloud_work import CloudWork
from orchestra_lib.phases.memory import MemoryPhase
from orchestra_lib.phases.rollback import RollbackPhase
from orchestra_lib.runbook import Runbook
from orchestra_lib.settings import Settings

PROJECT = "cherry-ai-project"
ROWS = 300
_MOVED = ("ORCHESTRA_STATE_DIR", "ORCHESTRA_RUNS_DIR", record.RUN_CONTEXT_VARIABLE)
_LINES_SHOWN = 8
_RED = (Verdict.FAIL, Verdict.MISSING)

Wanted = tuple[Sequence[Resource], Sequence[Resource]]
PHASES: Mapping[str, tuple[str, Callable[[Settings], Wanted]]] = MappingProxyType(
    {
        "01": ("01_infrastructure", lambda found: (infrastructure(found), ())),
        "02": ("02_workstations", lambda found: (workstations(found).resources, workstations(found).foundation)),
        "03": ("03_memory", lambda found: (memory(found, OPERATOR).resources, memory(found, OPERATOR).foundation)),
    }
)
OPERATOR = "operator@example.com"
VARIANTS: Sequence[tuple[str, str, Sequence[Any]]] = (
    ("alerting", "api_error_ratio", (0.01, 0.02, 0.05)),
    ("logging", "audit_retention_days", (400, 500, 800)),
    ("workstations", "idle_timeout_seconds", (600, 1800, 3600)),
    ("workstations", "pool_size", (0, 1)),
)


class CutOff(Exception):
    """The run was broken off here."""


@dataclass
class Told:
    """What a history did, and what did not hold."""

    steps: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


@contextmanager
def at_home(home: Path) -> Iterator[None]:
    """Inside, the library takes ``home`` for the project, and nothing of it is left open."""
    shutil.copytree(settings.root() / "parameters", home / "parameters")
    kept = {name: value for name, value in os.environ.items() if name not in _MOVED}
    with mock.patch.dict(os.environ, {**kept, "ORCHESTRA_HOME": str(home)}, clear=True):
        yield


@contextmanager
def opened(name: str, **parameters: object) -> Iterator[Runbook]:
    """A run that is ended whatever comes of it."""
    run = Runbook.open(name, environment="local", **parameters)
    try:
        yield run
    finally:
        locks = [run._replaced(), *run._more_locks] if not run._ended else []
        for lock in locks:
            if lock is not None:
                lock.release()


# --- the cloud --------------------------------------------------------------------------------------------------------


class CloudHistory:
    """One history on a control plane. The runs are the real ones; only what starts the local target is left out."""

    def __init__(self, plane: Plane, home: Path, draw: random.Random) -> None:
        self._plane, self._home, self._draw = plane, home, draw
        self._base = yaml.safe_load((home / "parameters" / "local.yaml").read_text())
        self._production = yaml.safe_load((home / "parameters" / "production.yaml").read_text())
        self._last: tuple[str, str, list[str]] | None = None  # phase, run, the project before it
        self.told = Told()

    def run(self, steps: int) -> Told:
        """Go through the steps, then undo everything and compare."""
        before = self._portrait()
        for _ in range(steps):
            self._draw.choice((self._apply, self._apply, self._apply, self._take_back, self._undo_phase))()
        for _ in range(3):  # what somebody else still needed the first time
            if self._rolled_back("all"):
                break
        self._compare("the complete rollback", before)
        if not self._rolled_back("all"):
            self.told.problems.append("the complete rollback cannot be repeated")
        return self.told

    def _apply(self) -> None:
        phase = self._draw.choice(tuple(PHASES))
        name, wanted = PHASES[phase]
        self._vary()
        cut = self._draw.randint(1, 120) if self._draw.random() < 0.3 else None
        before = self._portrait()
        with opened(name) as run:
            try:
                with _cut_off(cut):
                    work = CloudWork(run, phase)
                    work.want(*wanted(run.settings), rehearses_foundation=True)
                    work.plan()
                    work.apply()
                how = "applied"
            except (CutOff, OrchestraError) as error:
                how = f"not applied ({type(error).__name__})"
            self._last = (phase, run.record.run_id, before)
        self._say(f"{phase} {how}")

    def _take_back(self) -> None:
        """Undo the last run; its project has to be what it was before."""
        if self._last is None:
            return
        phase, run_id, before = self._last
        self._last = None
        if not any(change.run_id == run_id for change in Journal(self._journal(phase)).changes):
            return
        founded = any(change.run_id == run_id for change in Journal(self._journal("01")).changes)
        if self._rolled_back(phase, since_run=run_id) and not (founded and phase != "01"):
            self._compare(f"taking run {run_id} of {phase} back", before)

    def _undo_phase(self) -> None:
        phase = self._draw.choice(tuple(PHASES))
        self._last = None
        if Journal(self._journal(phase)).changes:
            self._rolled_back(phase)

    def _rolled_back(self, phase: str, since_run: str | None = None) -> bool:
        what = f"rollback of {phase}{' since the last run' if since_run else ''}"
        with opened("99_rollback", phase=phase, since_run=since_run, may_destroy=self._everything()) as run:
            try:
                undoing = RollbackPhase(run)
                run.preflight(undoing.checks())
                undoing.plan()
                undoing.apply()
                undoing.verify()
            except OrchestraError as error:
                self._say(f"{what} refused: {str(error).splitlines()[0][:90]}")
                return False
            red = [str(row) for row in run.evidence if row.verdict in _RED]
        self._say(what)
        self.told.problems += [f"{what}: {row}" for row in red]
        return not red

    def _everything(self) -> list[str]:
        """The ids of all that was ever made: here the data in it may go."""
        return sorted({one.wanted.id for phase in PHASES for one in Journal(self._journal(phase)).changes}) or ["none"]

    def _vary(self) -> None:
        section, name, values = self._draw.choice(VARIANTS)
        own = self._base.setdefault(section, dict(self._production[section]))
        own[name] = self._draw.choice(values)
        (self._home / "parameters" / "local.yaml").write_text(yaml.safe_dump(self._base))

    def _compare(self, what: str, wanted: list[str]) -> None:
        there = self._portrait()
        if state_hash(there) != state_hash(wanted):
            lines = difflib.unified_diff(wanted, there, "before", "after", n=0, lineterm="")
            self.told.problems.append("\n".join([f"{what}: the project differs", *list(lines)[2 : 2 + _LINES_SHOWN]]))

    def _portrait(self) -> list[str]:
        # A developer's home outlives its workstation, whatever is undone: home_disk_reclaim is RETAIN.
        return [line for line in portrait(self._plane, PROJECT) if "/disks/workstations-" not in line]

    def _journal(self, phase: str) -> Path:
        return journal_path("local", phase, local=True)

    def _say(self, what: str) -> None:
        self.told.steps.append(what)


@contextmanager
def _cut_off(at: int | None) -> Iterator[None]:
    """Inside, the journal's write of that number does not come through, nor does anything after it."""
    write, written = journalling.append_line, 0

    def write_line(path: Path, line: str) -> None:
        nonlocal written
        written += 1
        if at is not None and written >= at:
            raise CutOff
        write(path, line)

    with mock.patch.object(journalling, "append_line", write_line):
        yield


@contextmanager
def on_the_plane(plane: Plane) -> Iterator[None]:
    """Inside, phases and rollbacks reach this plane instead of starting a local target."""
    with (
        mock.patch.object(cloud_work, "connect", return_value=plane.client().target),
        mock.patch.object(rollback, "connect", return_value=plane.client().target),
        mock.patch("orchestra_lib.cloud.client._SHORTEST_PAUSE_SECONDS", 0.001),
    ):
        yield


def cloud_history(plane: Plane, steps: int, draw: random.Random) -> Told:
    """One history in a home of its own."""
    with tempfile.TemporaryDirectory(prefix="orchestra-history-") as name:
        home = Path(name)
        # There is no store beside this plane that a rollback could look at.
        with at_home(home), on_the_plane(plane), mock.patch.object(rollback, "_BESIDE", {}), _quiet():
            return CloudHistory(plane, home, draw).run(steps)


# --- the memory -------------------------------------------------------------------------------------------------------


def memory_history(pair: Pair, plane: Plane, draw: random.Random) -> Told:
    """One history of the memory phase on two databases of its own."""
    told = Told()
    fill(pair.source, ROWS)
    role = memory_stores.make_writer(pair)
    before = database_portrait(pair.source)
    with tempfile.TemporaryDirectory(prefix="orchestra-history-") as name:
        home = Path(name)
        home.chmod(0o755)
        with at_home(home), on_the_plane(plane), _quiet():
            memory_stores.write_parameters(home / "parameters", pair)
            try:
                written = _through_the_memory(pair, role, draw, told)
                _undo_memory(told)
                expected = _with_writes(before, pair, written)
                there = database_portrait(pair.source)
                if state_hash(there) != state_hash(expected):
                    lines = difflib.unified_diff(expected, there, "wanted", "after", n=0, lineterm="")
                    told.problems.append("\n".join(["the source differs", *list(lines)[2 : 2 + _LINES_SHOWN]]))
            finally:
                memory_stores.clear(pair)
    return told


def _through_the_memory(pair: Pair, role: str, draw: random.Random, told: Told) -> list[str]:
    """Runbook 03 as far as chance lets it; returns the statements that the application ran, in their order."""
    written: list[str] = []

    def application(side: str) -> None:
        for _ in range(draw.randint(1, 5)):
            written.append(_statement(draw))
            with psycopg.connect(f"{getattr(pair, side)} user={role}", autocommit=True) as session:
                session.execute(written[-1])
        told.steps.append(f"the application wrote on the {side}")

    until = draw.randint(1, 5)
    with opened("03_memory", lists=8) as run:
        phase = MemoryPhase(run)
        phase.inventory()
        phase.copy()
        told.steps.append("copied")
        application("source")
        if until > 1:
            phase.stream.start()
            phase.stream.catch_up()
            told.steps.append("stream caught up")
        if until > 2:
            application("source")
            phase.cutover.there()
            told.steps.append("cut over")
            application("target")
        if until > 4:
            phase.cutover.back()
            told.steps.append("returned")
            application("source")
    return written


def _undo_memory(told: Told) -> None:
    with opened("99_rollback", phase="03") as run:
        undoing = RollbackPhase(run)
        run.preflight(undoing.checks())
        undoing.plan()
        undoing.apply()
        undoing.verify()
        told.problems += [str(row) for row in run.evidence if row.verdict in _RED]
    told.steps.append("rollback of 03")


def _statement(draw: random.Random) -> str:
    """A write as an application makes one."""
    key, moment = f"id-{draw.randrange(400):08}", datetime.now(UTC).isoformat()
    return draw.choice(
        (
            f"UPDATE memories SET content = 'changed {draw.random()}', version = version + 1, updated_at = '{moment}' "
            f"WHERE id = '{key}'",
            f"DELETE FROM memories WHERE id = '{key}'",
            "INSERT INTO memories SELECT 'new-' || md5(id || "
            f"'{draw.random()}'), agent_id, user_id, session_id, persona, item_type, content, metadata, embedding, "
            f"embedding_model, 1, '{moment}', '{moment}', NULL FROM memories ORDER BY id LIMIT 1",
        )
    )


def _with_writes(before: list[str], pair: Pair, written: Sequence[str]) -> list[str]:
    """What the source has to be: the portrait of before, its rows those that the application's writes make of them."""
    name = f"expected_{memory_stores.name_of(pair)}"
    with psycopg.connect(pair.source, autocommit=True) as session:
        session.execute(f"CREATE DATABASE {name}")
    clone = pair.source.rpartition("dbname=")[0] + f"dbname={name}"
    try:
        with psycopg.connect(clone, autocommit=True) as session:
            session.execute("CREATE EXTENSION vector")
        fill(clone, ROWS)
        with psycopg.connect(clone, autocommit=True) as session:
            for statement in written:
                session.execute(statement)
        rows = [line for line in database_portrait(clone) if line.startswith("rows ")]
    finally:
        with psycopg.connect(pair.source, autocommit=True) as session:
            session.execute(f"DROP DATABASE {name} WITH (FORCE)")
    return sorted([*(line for line in before if not line.startswith("rows ")), *rows])


@contextmanager
def _quiet() -> Iterator[None]:
    """Inside, what notebooks show is not shown."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


def _pair(servers: databases.LocalState, number: int) -> Pair:
    name, conninfos = f"history_{number}", {role: one.conninfo for role, one in servers.databases.items()}
    for conninfo in conninfos.values():
        with psycopg.connect(conninfo, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        with psycopg.connect(conninfo, dbname=name, autocommit=True) as connection:
            connection.execute("CREATE EXTENSION vector")
    return Pair(**{role: f"{conninfo} dbname={name}" for role, conninfo in conninfos.items()})


def main() -> int:
    """One line a history, and a summary; 1 when one did not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--histories", type=int, default=20, help="of the cloud's phases")
    parser.add_argument("--memory", type=int, default=20, help="of the memory phase")
    parser.add_argument("--steps", type=int, default=6, help="of a history of the cloud")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    failed, began = 0, time.perf_counter()

    def tell(kind: str, number: int, history: Callable[[random.Random], Told]) -> None:
        nonlocal failed
        started = time.perf_counter()
        told = history(random.Random(f"{options.seed} {kind} {number}"))
        failed += bool(told.problems)
        verdict = "FAILED" if told.problems else "holds"
        print(
            f"{kind} {number:3} {verdict} {time.perf_counter() - started:5.1f} s  {'; '.join(told.steps)}", flush=True
        )
        for problem in told.problems:
            print(f"    {problem}", flush=True)

    with running_plane("0") as plane:
        for number in range(1, options.histories + 1):
            tell("cloud", number, lambda draw: cloud_history(plane, options.steps, draw))
    if options.memory:
        with tempfile.TemporaryDirectory(prefix="orchestra-histories-") as name, running_plane("0") as plane:
            place = Path(name)
            place.chmod(0o755)
            servers = databases.up(place, names=("source", "target"))
            try:
                for number in range(1, options.memory + 1):
                    pair = _pair(servers, number)
                    tell("memory", number, lambda draw, pair=pair: memory_history(pair, plane, draw))
            finally:
                databases.down(place)
    total = options.histories + options.memory
    print(f"{total} histories, seed {options.seed}: {failed} failed; {time.perf_counter() - began:.0f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
