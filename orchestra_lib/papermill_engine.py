"""The engine that makes the plain ``papermill`` command keep a truthful record of a runbook.

Papermill's own engine marks every cell "completed" when the kernel dies or runs out of time. This one, loaded through
papermill's entry point, takes over notebooks that say they are runbooks (metadata ``orchestra.runbook``): it claims the
output, opens the record before the kernel starts, watches each cell end, settles the record from both, and seals it.
Other notebooks run as papermill always ran them.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

import click
import nbformat
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine, NotebookExecutionManager, papermill_engines
from papermill.exceptions import PapermillExecutionError
from papermill.log import logger

from orchestra_lib import audit, errors, papermill_output, record, settings
from orchestra_lib.consistency import disbelieved
from orchestra_lib.errors import OrchestraError, ParameterError, RecordError, StopAfterPlan
from orchestra_lib.evidence import Verdict, with_digest
from orchestra_lib.lock import process_start
from orchestra_lib.record import Failure, Outcome, Record
from orchestra_lib.redaction import learn_environment, redact, redact_json, survivors
from orchestra_lib.secret import register
from orchestra_lib.settling import CellsEnd, Ending, settle

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class RunbookEnded(PapermillExecutionError, click.ClickException):  # type: ignore[misc]
    """A runbook that did not complete. The papermill command prints its message and ends with its exit code."""

    def __init__(self, message: str, exit_code: int, cell_index: int | None = None) -> None:
        click.ClickException.__init__(self, message)  # papermill's own wants other arguments
        self.cell_index, self.exec_count, self.source = cell_index, None, ""
        self.ename, self.evalue = type(self).__name__, message
        self.traceback: list[str] = []
        self.exit_code = exit_code  # type: ignore[misc]

    def __str__(self) -> str:
        return self.message


class TruthfulEngine(NBClientEngine):  # type: ignore[misc]
    """Papermill's engine for runbooks; see the module."""

    @classmethod
    def execute_notebook(
        cls, nb: nbformat.NotebookNode, kernel_name: str, output_path: str | None = None, **options: Any
    ) -> nbformat.NotebookNode:
        """Execute a runbook, keep its record, and return it.

        Raises RunbookEnded, with the exit code, for a run that neither completed nor stopped after its plan.
        """
        runbook = nb.metadata.get("orchestra", {}).get("runbook")
        if runbook is None:
            return NBClientEngine.execute_notebook(nb, kernel_name, output_path=output_path, **options)
        try:
            _learn_secrets(runbook, nb.metadata.papermill.get("parameters", {}))
            with papermill_output.claimed(output_path) as output, _signals_raise() as signals:
                return _run(cls, nb, kernel_name, runbook, output, signals, options)
        except OrchestraError as error:
            raise RunbookEnded(redact(str(error)), error.exit_code) from None

    @classmethod
    def execute_managed_notebook(cls, nb_man: Cells, kernel_name: str, **options: Any) -> None:
        """Run the cells in a kernel that knows where its record is."""
        timeout = options.get("execution_timeout")
        client = _Client(
            nb_man,
            kernel_name=kernel_name,
            timeout=timeout,
            startup_timeout=options.get("start_timeout", 60),
            log=logger,
            log_output=options.get("log_output", False),
            stdout_file=options.get("stdout_file"),
            stderr_file=options.get("stderr_file"),
            # IPython would keep every cell's text, parameters included, in a database in the home directory.
            extra_arguments=["--HistoryManager.enabled=False"],
        )
        client.execute(
            env={**os.environ, record.RUN_CONTEXT_VARIABLE: str(nb_man.record_path)},
            # What a cell writes to a file descriptor reaches the notebook through the redactor; ipykernel would also
            # echo it here as it is, past the redactor.
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )


class Cells(NotebookExecutionManager):  # type: ignore[misc]
    """Papermill's bookkeeping of cells, told the truth about the one that did not complete and those after it."""

    FAILED = "failed"
    INTERRUPTED = "interrupted"
    NOT_RUN = "not_run"

    def __init__(self, nb: nbformat.NotebookNode, output: Path, **options: Any) -> None:
        super().__init__(nb, output_path=str(output), **options)
        self.record_path = record.record_path(output)
        self.current: int | None = None

    def save(self, **_: Any) -> None:
        """Write what there is so far, without secrets."""
        papermill_output.write(nbformat.writes(nbformat.from_dict(redact_json(self.nb))), self.output_path)
        self.last_save_time = self.now()

    def cell_start(self, cell: nbformat.NotebookNode, cell_index: int, **_: Any) -> None:
        """Remember the cell: when the kernel dies nothing else says which one ran."""
        self.current = cell_index
        super().cell_start(cell, cell_index)

    def end(self, ending: Ending) -> None:
        """Mark the cells for good: the one that ended the run, and those that never ran."""
        planned = ending.error == StopAfterPlan.__name__
        bad = self.INTERRUPTED if ending.how is CellsEnd.STOPPED else self.COMPLETED if planned else self.FAILED
        now = self.now()
        for index, cell in enumerate(self.nb.cells):
            state = cell.metadata.papermill
            if index == ending.cell_index and ending.how is not CellsEnd.ALL_RAN:
                state.update(status=bad, exception=bad == self.FAILED, end_time=now.isoformat())
                started = datetime.fromisoformat(state.start_time) if state.start_time else now
                state.duration = (now - started).total_seconds()
            elif state.status == self.PENDING:
                state.status = self.NOT_RUN
        about = self.nb.metadata.papermill
        about.update(
            end_time=now.isoformat(),
            duration=(now - self.start_time).total_seconds(),
            exception=ending.how is not CellsEnd.ALL_RAN and not planned,
        )
        self.complete_pbar() if ending.how is CellsEnd.ALL_RAN else None
        self.cleanup_pbar()


class _Client(PapermillNotebookClient):  # type: ignore[misc]
    def create_kernel_manager(self) -> Any:
        manager = super().create_kernel_manager()
        manager.transport_encryption = "auto"  # else the kernel listens in the clear, and warns so in every record
        return manager

    def papermill_execute_cells(self) -> None:
        try:
            for index, cell in enumerate(self.nb.cells):
                self.nb_man.cell_start(cell, index)
                self.execute_cell(cell, index)
                self.nb_man.cell_complete(cell, index)
        except CellExecutionError:
            raise  # the kernel is well: it is asked to end, and gives its lock back
        except BaseException:
            self.shutdown_kernel = "immediate"  # it is stuck in a cell, and asking takes seconds
            raise


class _Stopped(BaseException):
    """A signal asked this process to end."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


class _Signals:
    """While ``deaf``, signals are only remembered: a record that is being settled is settled to its end."""

    deaf = False

    def __call__(self, number: int, _: FrameType | None) -> None:
        if not self.deaf:
            self.deaf = True  # one is enough: a second one must not break off the settling
            raise _Stopped(signal.Signals(number).name)


@contextlib.contextmanager
def _signals_raise() -> Iterator[_Signals]:
    handler = _Signals()
    if threading.current_thread() is not threading.main_thread():
        yield handler  # only the main thread can hear signals
        return
    before = {number: signal.signal(number, handler) for number in _SIGNALS}
    try:
        yield handler
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def _run(
    engine: type[TruthfulEngine],
    nb: nbformat.NotebookNode,
    kernel_name: str,
    runbook: str,
    output: Path,
    signals: _Signals,
    options: dict[str, Any],
) -> nbformat.NotebookNode:
    opened = _open_record(runbook, output, nb, options.pop("input_path", None))
    shown = {name: options.pop(name) for name in ("progress_bar", "autosave_cell_every") if name in options}
    cells = Cells(nb, output, log_output=options.get("log_output", False), **shown)
    try:
        cells.notebook_start()
        engine.execute_managed_notebook(cells, kernel_name, **options)
        ending = Ending(CellsEnd.ALL_RAN, cells.current)
    except BaseException as error:  # noqa: BLE001 - whatever ended the cells stands in the record
        ending = _ending(error, cells.current)
    signals.deaf = True
    settled = _settle(opened.run_id, cells, ending, output)
    if settled.exit_code:
        raise RunbookEnded(_last_words(settled), settled.exit_code, ending.cell_index)
    return _without_errors(nb)


def _open_record(runbook: str, output: Path, nb: nbformat.NotebookNode, source: str | None) -> Record:
    path = Path(source) if source else None
    digest = record.sha256_of(path) if path and path.is_file() else None
    opened = record.open_record(runbook, output, digest)
    opened.parameters = redact_json(dict(nb.metadata.papermill.get("parameters", {})))
    record.save(opened, record.record_path(output))
    audit.announce(record.record_path(output), opened.run_id, os.getpid(), process_start() or 0.0)
    return opened


def _ending(error: BaseException, cell_index: int | None) -> Ending:
    if isinstance(error, CellExecutionError):
        said = f"a cell called sys.exit({error.evalue})" if error.ename == "SystemExit" else str(error.evalue)
        return Ending(CellsEnd.RAISED, cell_index, str(error.ename), redact(said))
    if isinstance(error, _Stopped | KeyboardInterrupt):
        name = error.name if isinstance(error, _Stopped) else "SIGINT"
        return Ending(CellsEnd.STOPPED, cell_index, name, f"papermill was stopped by {name}")
    how = next((how for kind, how in _HOW.items() if isinstance(error, kind)), CellsEnd.NOT_STARTED)
    what = how.value if how in _HOW.values() else f"{type(error).__name__}: {error}"
    return Ending(how, cell_index, type(error).__name__, redact(what))


_HOW = {DeadKernelError: CellsEnd.KERNEL_DIED, CellTimeoutError: CellsEnd.TIMED_OUT}


def _settle(run_id: str, cells: Cells, ending: Ending, output: Path) -> Record:
    """Mark the cells, settle the record, write both, seal them. A secret that survived is cut out with the outputs."""
    path = record.record_path(output)
    settled = settle(record.load(path), ending, datetime.now(UTC))
    if settled.run_id != run_id:
        raise RecordError(f"the record {path} was replaced while run {run_id} was going on; this run is not recorded")
    settled = disbelieved(settled)
    cells.end(ending)
    settled = _redacted(settled)
    if survivors(nbformat.writes(nbformat.from_dict(redact_json(cells.nb)))) or survivors(settled.model_dump_json()):
        settled = _refused_for_a_secret(settled, cells.nb)
    cells.save()
    record.save(settled, path)
    papermill_output.seal(output)
    audit.seal(path, output)
    return settled


def _redacted(settled: Record) -> Record:
    """Without secrets that became known only later; a row that changes by it gets the digest of what it says now."""
    redacted = Record.model_validate(redact_json(settled.model_dump(mode="json")))
    redacted.evidence = [
        after if after == before else with_digest(after)
        for before, after in zip(settled.evidence, redacted.evidence, strict=True)
    ]
    return redacted


def _refused_for_a_secret(settled: Record, nb: nbformat.NotebookNode) -> Record:
    for cell in nb.cells:
        cell.source = redact(cell.source)
        if "outputs" in cell:
            cell.outputs = []
    settled.outcome, settled.verdict, settled.exit_code = Outcome.FAILED, Verdict.FAIL, 1
    settled.evidence, settled.notes, settled.end_marker = [], ["all outputs and evidence were withheld"], False
    settled.failure = Failure(error=RecordError.__name__, message="a secret survived the redaction of this record")
    return settled


def _last_words(settled: Record) -> str:
    failure = settled.failure or Failure(error="", message="no reason was recorded")
    # Our own messages stand by themselves; of a foreign one the class is half of what it says.
    kind = "" if not failure.error or hasattr(errors, failure.error) else f"{failure.error}: "
    return f"{settled.runbook} {settled.outcome.value}: {kind}{failure.message}"


def _without_errors(nb: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The notebook as papermill gets it back: it takes any error output for a failure, an expected one too.

    The file keeps them; it is sealed, and papermill's last write leaves it alone.
    """
    for cell in nb.cells:
        if "outputs" in cell:
            cell.outputs = [output for output in cell.outputs if output.output_type != "error"]
    return nb


def _learn_secrets(runbook: str, parameters: dict[str, Any]) -> None:
    """Know the secrets before the first save: those given as parameters, and those of the environment's file."""
    learn_environment()
    for name in settings.secret_parameters(runbook):
        if isinstance(parameters.get(name), str):
            register(parameters[name])
    # A wrong environment is for the notebook to refuse, where the record says so.
    with contextlib.suppress(ParameterError):
        settings.load(parameters.get("environment", "local"))


papermill_engines.register(None, TruthfulEngine)
