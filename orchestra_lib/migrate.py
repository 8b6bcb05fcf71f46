"""Running the runbooks in order through the plain papermill command, and telling how each went from its record."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from orchestra_lib import audit, paths, record, run_summary
from orchestra_lib.errors import ParameterError, RecordError
from orchestra_lib.record import Outcome, Record
from orchestra_lib.redaction import redact
from orchestra_lib.run_summary import REACHED_ITS_END, Ended
from orchestra_lib.settings import parameter_names, root, secret_parameters
from orchestra_lib.settling import INTERRUPTED_EXIT_CODE

_LAST_OF_THE_CHAIN = 7  # 08 is an optimisation for later, 99 undoes
_MEASURE_WHAT_WAS_APPLIED = ("06", "07")
_SECONDS_BETWEEN_READINGS = 0.5
_PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def runbooks() -> tuple[Path, ...]:
    """The notebooks of the migration that there are, in order."""
    found = sorted((root() / "notebooks").glob("[0-9][0-9]_*.ipynb"))
    return tuple(path for path in found if int(path.name[:2]) <= _LAST_OF_THE_CHAIN)


def chosen(first: str | None, last: str | None) -> tuple[Path, ...]:
    """The notebooks from one phase to another, both included. Raises ParameterError for a phase that is not there."""
    there = {path.name[:2]: path for path in runbooks()}
    for phase in (first, last):
        if phase is not None and phase not in there:
            raise ParameterError(f"there is no phase {phase!r}; there are {', '.join(there)}")
    picked = tuple(p for n, p in there.items() if (first is None or n >= first) and (last is None or n <= last))
    if not picked:
        raise ParameterError(f"no phase lies between {first} and {last}; --from must not come after --until")
    return picked


def migrate(notebooks: Sequence[Path], parameters: Sequence[tuple[str, str]], out: TextIO) -> int:
    """Run the notebooks in order, stop at the first that does not pass; returns the exit code of the whole.

    In mode plan nothing is changed, so nothing stands in the way of the next one: all are planned, each against what is
    there now, and the first exit code that is not 0 is returned. Those that measure what was applied are left out then.
    Raises ParameterError when no notebook of the chain knows a parameter.
    """
    _check_names(notebooks, parameters)
    directory = paths.runs_directory() / record.new_run_id()
    directory.mkdir(parents=True)
    ended: list[Ended] = []
    for notebook in notebooks:
        if notebook.name[:2] in _MEASURE_WHAT_WAS_APPLIED and any(map(_is_plan, ended)):
            out.write(f"{notebook.stem}  left out: what it measures is only planned\n")
            continue
        ended.append(_run(notebook, directory / notebook.name, parameters, out))
        if ended[-1].exit_code and not _only_planned(ended[-1]):
            break
    _summary(ended, out)
    failed = next((run for run in ended if run.exit_code), None)
    if failed is None:
        return 0
    out.write(f"resume with: {_resuming(failed.runbook, notebooks, parameters)}\n")
    return failed.exit_code


def _is_plan(run: Ended) -> bool:
    return run.record is not None and run.record.outcome is Outcome.PLANNED


def _only_planned(run: Ended) -> bool:
    """Whether a runbook came to its end, good or bad, without being allowed to change anything."""
    found = run.record
    return found is not None and found.mode == "plan" and found.outcome is not Outcome.INTERRUPTED


def rollback(parameters: Sequence[tuple[str, str]], out: TextIO) -> int:
    """Run the rollback's notebook, as :func:`migrate` runs the phases; returns its exit code."""
    notebook = root() / "notebooks" / "99_rollback.ipynb"
    directory = paths.runs_directory() / record.new_run_id()
    directory.mkdir(parents=True)
    ended = _run(notebook, directory / notebook.name, parameters, out)
    _summary([ended], out)
    return ended.exit_code


def _resuming(runbook: str, notebooks: Sequence[Path], parameters: Sequence[tuple[str, str]]) -> str:
    """The command that goes on from a runbook with the parameters that it and those after it know; a secret one has to
    be given again."""
    words = ["./run_migration.sh", "--from", runbook[:2]]
    if notebooks[-1] != runbooks()[-1]:
        words += ["--until", notebooks[-1].name[:2]]
    known = _known([path for path in notebooks if path.stem >= runbook])
    for name, value in parameters:
        if name not in known:
            continue
        if name in ("environment", "mode"):
            words += [] if value == "local" else [f"--{name}", value]
        else:
            words += ["-p", name, "..." if name in secret_parameters(runbook) else redact(value)]
    return shlex.join(words)


def _known(notebooks: Sequence[Path]) -> set[str]:
    return {"environment"}.union(*(parameter_names(path.stem) for path in notebooks))


def _check_names(notebooks: Sequence[Path], parameters: Sequence[tuple[str, str]]) -> None:
    known = _known(notebooks)
    for name, _ in parameters:
        if name not in known:
            raise ParameterError(
                f"{name} is a parameter of none of these notebooks; they have {', '.join(sorted(known))}"
            )


def _run(notebook: Path, output: Path, parameters: Sequence[tuple[str, str]], out: TextIO) -> Ended:
    known = {"environment", *parameter_names(notebook.stem)}
    command = [sys.executable, "-m", "papermill", str(notebook), str(output), "--no-progress-bar"]
    for name, value in parameters:
        if name in known:
            command += ["-p", name, value]
    started = time.monotonic()
    # Its own session: a terminal's signals reach this process alone, which passes each on once.
    process = subprocess.Popen(
        command,
        cwd=notebook.parent,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    path = record.record_path(output)
    with _signals_passed_on(process) as passed_on:
        words = _follow(process, notebook.stem, path, started, out)
    if process.returncode < 0:
        audit.sweep()  # killed, it could not settle its record; the next run would do it, but we speak of it now
    found = _record(path)
    code = _exit_code(process.returncode, found, bool(passed_on))
    return Ended(notebook.stem, found, code, words, time.monotonic() - started)


@contextmanager
def _signals_passed_on(process: subprocess.Popen[str]) -> Iterator[list[int]]:
    """Hand the signals that ask this process to end to the runbook, which settles its record; yields those so far."""
    passed_on: list[int] = []

    def pass_on(number: int, _: object) -> None:
        passed_on.append(number)
        process.send_signal(number)

    before = {number: signal.signal(number, pass_on) for number in _PASSED_ON}
    try:
        yield passed_on
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def _exit_code(papermill: int, found: Record | None, was_signalled: bool) -> int:
    """0 only when papermill and the record both say that the runbook reached its end."""
    if found is None and was_signalled:
        return INTERRUPTED_EXIT_CODE
    if papermill < 0:
        return 128 - papermill  # as a shell tells a signal
    reached_its_end = found is not None and found.outcome in REACHED_ITS_END
    return papermill or (0 if reached_its_end else 1)


def _follow(process: subprocess.Popen[str], name: str, path: Path, started: float, out: TextIO) -> str:
    shown = ""
    while True:
        try:
            _, words = process.communicate(timeout=_SECONDS_BETWEEN_READINGS)
        except subprocess.TimeoutExpired:
            shown = _show_line(name, _record(path), time.monotonic() - started, shown, out)
        else:
            if out.isatty():
                out.write("\r\x1b[K")
            return words


def _show_line(name: str, found: Record | None, seconds: float, shown: str, out: TextIO) -> str:
    steps = found.steps if found else []
    doing = steps[-1].name if steps else "starting"
    if out.isatty():
        out.write(f"\r\x1b[K{name}  {doing}, {seconds:.0f} s")
        out.flush()
    elif doing != shown:
        out.write(f"{name}  {doing}, {seconds:.0f} s\n")
        out.flush()
    return doing


def _record(path: Path) -> Record | None:
    if not path.exists():
        return None
    try:
        return record.load(path)
    except RecordError:
        return None


def _summary(ended: Sequence[Ended], out: TextIO) -> None:
    out.writelines(f"{line}\n" for line in run_summary.lines(ended))
