"""The life of one executed notebook: open, check, plan, approve, apply, verify, close.

Headless, the papermill engine has opened the record before this kernel started and seals it after the kernel has ended.
In JupyterLab, or in a plain Python program, this module does both itself.
"""

from __future__ import annotations

import atexit
import json
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from IPython.core.getipython import get_ipython
from IPython.display import display

from orchestra_lib import audit, guard, kernel_channel, paths, record, settings, windows
from orchestra_lib.consistency import unfinished_steps
from orchestra_lib.display import (
    approval_button,
    evidence_table,
    fold_tracebacks,
    header_box,
    message_box,
    plan_table,
    verdict_box,
)
from orchestra_lib.errors import GateFailed, ParameterError, RecordError, StopAfterPlan
from orchestra_lib.evidence import Evidence, Source, Verdict, failing, roll_up, with_digest
from orchestra_lib.lock import Holder, PhaseLock, process_start
from orchestra_lib.open_runs import pointer_path
from orchestra_lib.plan import Plan
from orchestra_lib.record import Failure, Outcome, Record, Step
from orchestra_lib.redaction import redact, redact_json
from orchestra_lib.session import Session
from orchestra_lib.settings import Settings
from orchestra_lib.settling import INTERRUPTED_EXIT_CODE

_GREEN = (Verdict.PASS, Verdict.REHEARSED)
_MEANINGS = {
    Verdict.PASS: "every claim was measured or read back on the environment that it is about",
    Verdict.REHEARSED: "true of this machine with its hardware, not of Google Cloud",
}

_open_here: dict[str, Runbook] = {}  # by name; also keeps a run alive when its notebook drops the variable


class Runbook:
    """One run of one notebook. Made by :meth:`open`, ended by :meth:`close`, by a stop after the plan, or refused."""

    settings: Settings

    def __init__(self, name: str, record_path: Path, opened: Record, *, headless: bool) -> None:
        self.name = name
        self.record_path = record_path
        self.record = opened
        self.interactive = not headless
        self.rehearsal = True
        self._shell: Any = get_ipython()
        self._rows: list[Evidence] = []
        self._lock: PhaseLock | None = None
        self._more_locks: list[PhaseLock] = []
        self._session: Session | None = None
        self._shown_plan: str | None = None
        self._approved: str | None = None
        self._verified = False
        self._ended = False
        self._overridden: set[str] = set()
        self._open_things = ExitStack()

    @classmethod
    def open(cls, name: str, **parameters: object) -> Runbook:
        """Open a run: check the parameters, read the settings, take the phase lock, show who runs what where.

        ``name`` is the notebook's, such as ``03_memory``; ``parameters`` are its parameters, None meaning "as in the
        environment file". Whatever refuses the run stands in its record. Raises ParameterError, LockHeld, RecordError.
        """
        fold_tracebacks(get_ipython())
        context = os.environ.get(record.RUN_CONTEXT_VARIABLE)
        earlier = _open_here.get(name)
        if earlier and context:
            raise RecordError(f"run {earlier.record.run_id} of {name} is already open in this kernel: open it once")
        lock = earlier._replaced() if earlier else None
        path = Path(context) if context else _new_record(name)
        run = cls(name, path, record.load(path), headless=bool(context))
        try:
            if earlier:
                run.note(f"opened again in the same kernel: run {earlier.record.run_id} ended there as interrupted")
            run._begin(parameters, lock)
        except BaseException as error:
            if lock is not None:
                lock.release()
            run._refused(error)
            raise
        _open_here[name] = run
        return run

    @property
    def evidence(self) -> tuple[Evidence, ...]:
        """Every row so far, in the order in which it was added."""
        return tuple(self._rows)

    def add(self, *rows: Evidence) -> None:
        """Add evidence; it stands in the record at once. Raises RecordError when the run has ended."""
        self._require_open()
        self._rows += rows
        self.record.evidence += [with_digest(redact_json(row.as_json())) for row in rows]
        self._save()

    def also_lock(self, phase: str) -> None:
        """Take the lock of another phase too, until this run ends. Raises LockHeld while somebody runs that phase."""
        self._require_open()
        lock = PhaseLock(self.settings.environment.name, phase, self._holder())
        taken_over = lock.acquire()
        self._more_locks.append(lock)
        if taken_over:
            self._say(taken_over, "warning")

    def at_end(self, close: Callable[[], None]) -> None:
        """Have something closed that this run holds open, before its record is settled, however the run ends."""
        self._open_things.callback(close)

    def note(self, text: str) -> None:
        """Add a sentence to the record."""
        self.record.notes.append(redact(text))
        self._save()

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time a step; the record says when it began, how long it took and how it ended."""
        self._require_open()
        step = Step(name=redact(name), started=datetime.now(UTC))
        self.record.steps.append(step)
        self._save()
        began = time.perf_counter()
        step_outcome = "failed"
        try:
            yield
            step_outcome = "completed"
        except KeyboardInterrupt:
            step_outcome = "interrupted"
            raise
        finally:
            step.duration_seconds = round(time.perf_counter() - began, 6)
            step.outcome = step_outcome
            self._save()

    def preflight(self, rows: Sequence[Evidence]) -> None:
        """Add and show the checks made before anything is planned. Raises GateFailed when one of them is red."""
        self.add(*rows)
        display(evidence_table(rows, "Checks before the start"))
        red = failing(rows, rehearsal=self.rehearsal)
        if red:
            raise self._gate("the checks before the start failed", red)

    def plan(self, plan: Plan) -> Plan:
        """Record and show a plan, and return it. A plan that differs from the approved one undoes the approval."""
        self._require_open()
        self.record.plan_sha256 = self._shown_plan = plan.digest
        self.record.plan = redact_json(plan.as_json())
        if self._approved != plan.digest:
            self._approved = None
        self._save()
        display(plan_table(plan, f"Plan {plan.digest}"))
        return plan

    def approve(self, plan: Plan) -> None:
        """Ask for the approval of the plan that was shown; headless, the parameters have given it or not.

        Raises StopAfterPlan in mode ``plan``, the run being recorded as planned; GateFailed when the plan was not shown
        or is not the one that ``approved_plan`` names.
        """
        self._require_open()
        digest, wanted = plan.digest, self.settings.run.approved_plan
        if digest != self._shown_plan:
            raise GateFailed(f"plan {digest} was not shown: call run.plan(plan) before run.approve(plan)")
        if self.settings.run.mode == "plan":
            self._stop_after_plan(digest)
        if wanted and wanted != digest:
            raise GateFailed(
                f"the approved plan is {wanted}, but the plan is now {digest}: "
                "what it was computed from has changed; read the new plan and approve that one"
            )
        if wanted or not self.interactive:
            self._approve(digest, "approved_plan" if wanted else "mode apply")
        elif self._has_browser():
            display(approval_button(digest, lambda: self._approve(digest, "button")))
        else:
            raise GateFailed(f"plan {digest} is not approved: give it as approved_plan together with mode apply")

    def apply(self, plan: Plan) -> None:
        """Let the run pass to its changes.

        Raises GateFailed unless exactly this plan was approved, and when the window has closed since the run began.
        """
        self._require_open()
        self._require_window()
        if self._approved is None:
            raise GateFailed("the plan is not approved: press the button under the plan, then run this cell again")
        if plan.digest != self._approved:
            raise GateFailed(
                f"plan {self._approved} was approved, but the plan is now {plan.digest}: show and approve it again"
            )

    def verify(self) -> None:
        """Show all evidence and roll it up. Raises GateFailed, naming what is red, unless the verdict is green."""
        self._require_open()
        display(evidence_table(self._rows, "Evidence"))
        self._rolled_up()
        self._verified = True

    def close(self) -> Verdict:
        """End the run as completed and return its verdict.

        Raises GateFailed without a green ``verify`` before it, and for a step that failed and was not done again.
        """
        self._require_open()
        verdict = self._rolled_up()
        if not self._verified:
            raise GateFailed("the run was not verified: call run.verify() before run.close()")
        if broken := unfinished_steps(self.record):
            raise GateFailed(f"what failed was not done again: {', '.join(broken)}; run those cells again, then close")
        self.record.end_marker = True
        self.record.failure = None  # a cell that failed and was run again: the note about it stays
        display(verdict_box(verdict, (), _MEANINGS[verdict]))
        marker = json.dumps({"run_id": self.record.run_id, "verdict": verdict.value})
        print(f"orchestra-end-marker {marker}", flush=True)
        self._end(Outcome.COMPLETED, verdict, 0)
        return verdict

    # --- opening and ending ---------------------------------------------------------------------------------------

    def _begin(self, parameters: dict[str, object], inherited: PhaseLock | None) -> None:
        if not re.match(r"\d\d_", self.name):
            raise ParameterError(f"a runbook's name begins with its phase, such as 03_memory, not {self.name!r}")
        if self.interactive:
            audit.announce(self.record_path, self.record.run_id, os.getpid(), process_start() or 0.0)
        elif not pointer_path(self.record.run_id).exists():
            # The process that opened the record seals it; this kernel ends before that.
            started = process_start(self.record.pid)
            audit.announce(self.record_path, self.record.run_id, self.record.pid, started or 0.0)
        kernel_channel.install()
        given = guard.overrides(self.name, settings.parameter_names(self.name), parameters)
        environment = str(given.pop("environment", "local"))
        self.settings = settings.load(environment, self.name, given)
        self._describe({"environment": environment, **given})
        for sentence in audit.sweep():
            self._say(sentence)
        self._require_window()
        self._take_lock(inherited)
        if self.interactive and self._shell is not None:
            self._session = Session(self._shell, self._cell_failed)
        where = _MEANINGS[Verdict.REHEARSED] if self.rehearsal else f"Google Cloud, environment {environment}"
        display(header_box(self.record, f"rehearsal: {where}" if self.rehearsal else where))

    def _describe(self, parameters: dict[str, object]) -> None:
        self.rehearsal = self.settings.environment.kind == "local"
        self.record.environment = self.settings.environment.name
        self.record.rehearsal = self.rehearsal
        self.record.mode = self.settings.run.mode
        self.record.parameters = redact_json(parameters)
        self.record.settings = redact_json(self.settings.public())
        self.record.settings_sha256 = self.settings.digest()
        self._save()

    def _require_window(self) -> None:
        """Outside the windows of its phase a run only plans; a window that was overridden stands in the record."""
        if self.settings.run.mode == "plan":
            return
        override = self.settings.run.override_window
        overridden = windows.admit(self.settings.windows, self.name[:2], override, datetime.now(UTC)).overridden
        if overridden is None or overridden.name in self._overridden:
            return
        self._overridden.add(overridden.name)
        self._say(f"window {overridden.name} was overridden by {self.record.operator}: {overridden}", "warning")
        self.add(Evidence("window that was overridden", Source.OBSERVED, overridden.name, note=str(overridden)))

    def _holder(self) -> Holder:
        started_by = "papermill" if not self.interactive else "JupyterLab" if self._has_browser() else "Python"
        return Holder.of_this_process(self.record.operator, self.record.run_id, started_by)

    def _take_lock(self, inherited: PhaseLock | None) -> None:
        holder = self._holder()
        environment, phase = self.settings.environment.name, self.name[:2]
        if inherited and inherited.environment == environment:
            inherited.hand_over(holder)
            self._lock = inherited
            return
        lock = PhaseLock(environment, phase, holder)
        taken_over = lock.acquire()
        self._lock = lock
        if inherited:
            inherited.release()
        if taken_over:
            self._say(taken_over, "warning")

    def _refused(self, error: BaseException) -> None:
        interrupted = isinstance(error, KeyboardInterrupt)
        self.record.failure = Failure(error=type(error).__name__, message=redact(str(error)))
        outcome = Outcome.INTERRUPTED if interrupted else Outcome.REFUSED
        code = INTERRUPTED_EXIT_CODE if interrupted else getattr(error, "exit_code", 1)
        self._end(outcome, Verdict.INTERRUPTED if interrupted else Verdict.FAIL, code)

    def _replaced(self) -> PhaseLock | None:
        """End this run for a new one of the same kernel, which gets its lock."""
        lock, self._lock = self._lock, None
        self.note("the runbook was opened again in the same kernel before this run was closed")
        self._end(Outcome.INTERRUPTED, Verdict.INTERRUPTED, INTERRUPTED_EXIT_CODE)
        return lock

    def _stop_after_plan(self, digest: str) -> None:
        message = f"{self.name} planned, nothing was changed; to apply: -p mode apply -p approved_plan {digest}"
        display(message_box(message))
        self._end(Outcome.PLANNED, Verdict.PLANNED, 0)
        raise StopAfterPlan(message)

    def _end(self, outcome: Outcome, verdict: Verdict, exit_code: int) -> None:
        """Settle the record. Headless, the engine adds the end time and seals; here it is done at once."""
        self._open_things.close()
        self._ended = True
        if _open_here.get(self.name) is self:
            del _open_here[self.name]
        self.record.outcome, self.record.verdict, self.record.exit_code = outcome, verdict, exit_code
        try:
            if self.interactive:
                self._settle()
            else:
                self._save()
        finally:
            for lock in (self._lock, *self._more_locks):
                if lock is not None:
                    lock.release()

    def _settle(self) -> None:
        self.record.ended = datetime.now(UTC)
        self.record.duration_seconds = round((self.record.ended - self.record.started).total_seconds(), 3)
        if self._session is None:
            self.record.output_notebook = None
            self._save()
            audit.seal(
                self.record_path, None, no_notebook="the run was not made in a notebook, or refused at its start"
            )
            return
        notebook = self.record_path.with_name(f"{self.name}.ipynb")
        facts: dict[str, object] = {
            "run_id": self.record.run_id,
            "runbook": self.name,
            "outcome": self.record.outcome.value,
        }
        content = redact_json(self._session.notebook(facts))
        self._session.stop()
        if not self._session.captures_outputs:
            self.record.notes.append("the cells' outputs were not captured: they are in the operator's saved file")
        self._save()
        record.write_atomically(notebook, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())
        audit.seal(self.record_path, notebook)

    # --- the small parts ------------------------------------------------------------------------------------------

    def _rolled_up(self) -> Verdict:
        verdict = roll_up(self._rows, rehearsal=self.rehearsal)
        if verdict not in _GREEN:
            self._verified = False
            self.record.verdict = verdict
            self._save()
            red = failing(self._rows, rehearsal=self.rehearsal)
            raise self._gate(f"the verdict is {verdict.value}" + ("" if red else ": no evidence was judged"), red)
        return verdict

    def _gate(self, what: str, red: Sequence[Evidence]) -> GateFailed:
        lines = [redact(str(row)) for row in red]
        more = [f"and {len(lines) - 3} more"] if len(lines) > 3 else []
        again = ["put it right, then run the notebook again from its opening cell"] if self.interactive else []
        return GateFailed("\n".join([what, *lines[:3], *more, *again]), tuple(lines))

    def _approve(self, digest: str, how: str) -> None:
        if self._ended:
            return  # a button of a run that is over
        self._approved = digest
        self.note(f"plan {digest} approved by {self.record.operator} ({how}) at {datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}")

    def _cell_failed(self, number: int, error: BaseException) -> None:
        message = redact(str(error))
        self.record.failure = Failure(error=type(error).__name__, message=message, cell_index=number - 1)
        self.note(f"cell [{number}] failed: {type(error).__name__}: {message}; the run stays open")

    def _has_browser(self) -> bool:
        return getattr(self._shell, "kernel", None) is not None

    def _say(self, sentence: str, level: str = "note") -> None:
        self.note(sentence)
        display(message_box(sentence, level))

    def _require_open(self) -> None:
        if self._ended:
            raise RecordError(f"run {self.record.run_id} has ended: run the notebook again from its opening cell")

    def _save(self) -> None:
        record.save(self.record, self.record_path)


def _new_record(name: str) -> Path:
    """A run directory with a fresh record in it, for a run that no engine has opened."""
    run_id = record.new_run_id()
    notebook = paths.runs_directory() / run_id / f"{name}.ipynb"
    notebook.parent.mkdir(parents=True)
    path = record.record_path(notebook)
    record.save(record.open_record(name, notebook, None, run_id), path)
    return path


@atexit.register
def _release_locks() -> None:
    # A kernel that is shut down in good order gives its locks back; only a killed one leaves them to be taken over.
    for run in _open_here.values():
        for lock in (run._lock, *run._more_locks):
            if lock is not None:
                lock.release()
