"""One run of the engine in a process of its own, which kills itself at a chosen event: SIGKILL, nothing is tidied up.

Events are counted from the beginning of a stage of the run. Each write of the journal is three: before it, in the
middle of its line, after it. Each HTTP request is two: before it is sent, after it is answered.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from planes import Plane
from stacks import HOLDING_DATA, stack

from orchestra_lib import settings
from orchestra_lib.blueprint import infrastructure
from orchestra_lib.cloud import apply as applying
from orchestra_lib.cloud import client as calling
from orchestra_lib.cloud import journal as journalling
from orchestra_lib.cloud import recovery
from orchestra_lib.cloud.apply import apply
from orchestra_lib.cloud.kinds import KINDS
from orchestra_lib.cloud.plan import CloudPlan, make_plan
from orchestra_lib.cloud.recovery import recover
from orchestra_lib.cloud.resource import Resource
from orchestra_lib.cloud.rollback import rollback_plan

Stage = Literal["recover", "apply"]
_RUN_SECONDS = 120
_LAST_EVENT_BYTES = 200
# A server of processes that has loaded the library once: what it starts shares nothing with us, or with one another.
_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(
    [
        "orchestra_lib.blueprint",
        "orchestra_lib.cloud.rollback",
        "orchestra_lib.cloud.apply",
        "orchestra_lib.local.control",
    ]
)


@dataclass(frozen=True)
class Run:
    """What one process is to do. ``kill_at`` is an event of ``stage``, from 1; None lets it come to its end."""

    plane: Plane
    project: str
    blueprint: str
    journal: Path
    run_id: str
    undoing: bool = False
    stage: Stage = "apply"
    kill_at: int | None = None


@dataclass(frozen=True)
class Ended:
    """How the process ended, how many events the stage had until then, and which was the last."""

    killed: bool
    events: int
    last_event: str


def resources(blueprint: str, project: str) -> list[Resource]:
    """The wanted resources of a blueprint, in a project of that id: the engine's test stack, or the real phase 1."""
    if blueprint == "stack":
        return stack(project)
    loaded = settings.load("local")
    assert loaded.project is not None
    return infrastructure(loaded.model_copy(update={"project": loaded.project.model_copy(update={"id": project})}))


def holding_data(blueprint: str, project: str) -> list[str]:
    """The ids that a rollback has to name, because what they hold is destroyed."""
    held = [one.id for one in resources(blueprint, project) if KINDS[one.kind].holds_data]
    return [*held, *HOLDING_DATA]


def carry_out(run: Run) -> Ended:
    """Do it in a process of its own and wait for its end. Raises RuntimeError when it fails by itself."""
    events, last = _processes.RawValue("i", 0), _processes.RawArray("c", _LAST_EVENT_BYTES)
    process = _processes.Process(target=_run, args=(run, events, last))
    process.start()
    process.join(_RUN_SECONDS)
    if process.is_alive():
        process.kill()
        raise RuntimeError(f"{run.run_id} did not end within {_RUN_SECONDS} s")
    killed = process.exitcode == -signal.SIGKILL
    if not killed and process.exitcode:
        raise RuntimeError(f"{run.run_id} failed with exit code {process.exitcode}: its trace stands above")
    return Ended(killed, events.value, last.value.decode())


def plan_of(run: Run, journal: journalling.Journal) -> CloudPlan:
    """The plan of a run, made now."""
    client, held = run.plane.client(), holding_data(run.blueprint, run.project)
    if run.undoing:
        return rollback_plan(client, journal, may_destroy=held)
    return make_plan(client, resources(run.blueprint, run.project), journal.applied())


def _run(run: Run, events: Any, last: Any) -> None:
    _shorten_pauses()
    counted = _Counted(run, events, last)
    counted.watch()
    client, journal = run.plane.client(), journalling.Journal(run.journal)
    counted.stage = "recover"
    recover(client, journal)
    counted.stage = None
    plan = plan_of(run, journal)
    counted.stage = "apply"
    apply(client, plan, journal, run.run_id, undoing=run.undoing)


def _shorten_pauses() -> None:
    """Operations take hundredths of their time here, and so do the pauses."""
    applying._FIRST_PAUSE_SECONDS, applying._LONGEST_PAUSE_SECONDS, applying._JITTER_SECONDS = 0.02, 0.2, 0.02
    recovery._ARRIVES_WITHIN_SECONDS, recovery._LOOK_AGAIN_SECONDS = 1.0, 0.05


class _Counted:
    """Counts the events of a stage and kills the process at the wanted one."""

    def __init__(self, run: Run, events: Any, last: Any) -> None:
        self.stage: Stage | None = None
        self._run, self._events, self._last = run, events, last
        self._lock = threading.Lock()

    def watch(self) -> None:
        """Put itself around the engine's two doors to the world."""
        write, request = journalling.append_line, calling._Http.request

        def write_line(path: Path, line: str) -> None:
            what = f"writing {json.loads(line)['event']}"
            self._event(f"before {what}")
            self._event(f"in the middle of {what}", lambda: _tear(path, line))
            write(path, line)
            self._event(f"after {what}")

        def send(http: Any, uri: str, method: str = "GET", **named: Any) -> Any:
            what = f"{method} {urlsplit(uri).path}"
            self._event(f"before {what}")
            answer = request(http, uri, method, **named)
            self._event(f"after {what}")
            return answer

        journalling.append_line = write_line
        calling._Http.request = send  # type: ignore[method-assign]

    def _event(self, what: str, last_words: Callable[[], None] = lambda: None) -> None:
        if self.stage != self._run.stage:
            return
        with self._lock:
            self._events.value += 1
            if self._events.value == self._run.kill_at:
                self._last.value = what.encode()[: _LAST_EVENT_BYTES - 1]
                last_words()
                os.kill(os.getpid(), signal.SIGKILL)


def _tear(path: Path, line: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        file.write(line.encode()[: len(line) // 2])
