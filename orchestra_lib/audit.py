"""Sealing runs into the ledger, and settling the runs that nobody sealed.

The papermill engine seals a headless run, ``Runbook.close`` one made in JupyterLab; :func:`sweep` does it for a run
whose process was killed. :func:`verify` holds the whole ledger against the files on disk.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from orchestra_lib import ledger, paths, record, settings
from orchestra_lib.errors import RecordError
from orchestra_lib.evidence import Verdict
from orchestra_lib.ledger import Entry
from orchestra_lib.open_runs import OpenRun, announce, open_runs, pointer_path
from orchestra_lib.record import Outcome, Record
from orchestra_lib.verification import Finding, Verification, verify

__all__ = [
    "Entry",
    "Finding",
    "OpenRun",
    "Verification",
    "announce",
    "entries",
    "open_runs",
    "seal",
    "sweep",
    "verify",
]

_EXIT_CODE_OF_SIGKILL = 137


def seal(record_path: Path, notebook_path: Path | None, *, no_notebook: str = "") -> Entry:
    """Append the digests of a settled run's record and notebook to the ledger, durably, and return the entry.

    ``no_notebook`` says why there is none. Sealing the same files of the same run twice gives the first entry again.
    Raises RecordError when the record is not settled or cannot be read, when the run was sealed with other contents, or
    when the ledger cannot be written.
    """
    with ledger.locked(paths.ledger_path()):
        return _seal(record_path, notebook_path, no_notebook)


def entries() -> list[Entry]:
    """The sealed runs, oldest first. Lines that are no entries are left out: :func:`verify` reports them."""
    return [line.entry for line in ledger.read_lines(paths.ledger_path()) if line.entry and not line.is_torn]


def sweep() -> tuple[str, ...]:
    """Settle and seal the open runs whose process is gone; one sentence for each.

    Such a run is recorded as interrupted with exit code 137, and sealed with its notebook as it lies on disk. Runs of
    other hosts are left to them. Raises RecordError when a record or the ledger cannot be written.
    """
    return tuple(sentence for run in open_runs() if not run.is_alive for sentence in _settle(run))


def _seal(record_path: Path, notebook_path: Path | None, no_notebook: str) -> Entry:
    run = record.load(record_path)
    if run.outcome is Outcome.RUNNING:
        raise RecordError(f"run {run.run_id} is still running by its record {record_path}: settle it before sealing it")
    path = paths.ledger_path()
    lines = ledger.read_lines(path)
    stated = _statement(run, record_path, notebook_path, no_notebook)
    earlier = [line.entry for line in lines if line.entry and not line.is_torn]
    again = next((entry for entry in reversed(earlier) if entry.record == stated["record"]), None)
    same = again and (again.run_id, again.record_sha256, again.notebook, again.notebook_sha256)
    if again and same == (run.run_id, stated["record_sha256"], stated["notebook"], stated["notebook_sha256"]):
        entry = again
    elif twice := next((entry for entry in earlier if entry.run_id == run.run_id), None):
        raise RecordError(
            f"run {run.run_id} was sealed already, as entry {twice.sequence} at {twice.at}, and its files have changed "
            "since: what was sealed stays as it was"
        )
    else:
        entry = ledger.append(path, lines, {**stated, "supersedes": _superseded(earlier, stated)})
    pointer_path(run.run_id).unlink(missing_ok=True)
    return entry


def _statement(run: Record, record_path: Path, notebook_path: Path | None, no_notebook: str) -> dict[str, object]:
    notebook_sha256, missing = None, None
    if notebook_path is None:
        missing = no_notebook or "the run has no notebook"
    elif not notebook_path.exists():
        missing = no_notebook or "the notebook was not there when the run was sealed"
    else:
        notebook_sha256 = record.sha256_of(notebook_path)
    return {
        "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "run_id": run.run_id,
        "runbook": run.runbook,
        "environment": run.environment,
        "operator": run.operator,
        "outcome": run.outcome.value,
        "verdict": run.verdict.value if run.verdict else None,
        "exit_code": run.exit_code,
        "record": _stated_path(record_path),
        "record_sha256": record.sha256_of(record_path),
        "notebook": _stated_path(notebook_path) if notebook_path else None,
        "notebook_sha256": notebook_sha256,
        "notebook_missing": missing,
    }


def _superseded(earlier: list[Entry], stated: dict[str, object]) -> list[str]:
    """The runs whose record or notebook lay, until now, where this run's lies."""
    latest: dict[str, str] = {}
    for entry in earlier:
        latest[entry.record] = entry.run_id
        if entry.notebook:
            latest[entry.notebook] = entry.run_id
    found = (latest.get(str(stated[name])) for name in ("record", "notebook"))
    return list(dict.fromkeys(run_id for run_id in found if run_id))


def _stated_path(path: Path) -> str:
    whole, root = path.resolve(), settings.root().resolve()
    return str(whole.relative_to(root)) if whole.is_relative_to(root) else str(whole)


def _settle(run: OpenRun) -> list[str]:
    # Under the ledger's lock from start to end: two sweeps at once would otherwise settle the same record twice, and
    # the second would alter what the first has sealed.
    with ledger.locked(paths.ledger_path()):
        pointer = pointer_path(run.run_id)
        if not pointer.exists():
            return []
        try:
            found = record.load(run.record)
        except RecordError as error:
            return [f"run {run.run_id} was killed and cannot be sealed: {error}; once looked into, remove {pointer}"]
        if found.run_id != run.run_id:
            pointer.unlink()
            return [f"run {run.run_id} was killed; its record {run.record} has been replaced by run {found.run_id}"]
        if found.ended is None:
            record.save(_interrupted(found, run.pid), run.record)
        notebook = Path(found.output_notebook) if found.output_notebook else None
        entry = _seal(run.record, notebook, "the process was killed before it wrote a notebook")
        return [
            f"run {run.run_id} of {found.runbook} by {found.operator} had lost its process {run.pid}; "
            f"it was sealed as {entry.outcome.value} (ledger entry {entry.sequence})"
        ]


def _interrupted(found: Record, pid: int) -> Record:
    now = datetime.now(UTC)
    reached = f" after it had reached {found.outcome.value}" if found.outcome is not Outcome.RUNNING else ""
    found.notes.append(f"found at {now:%Y-%m-%dT%H:%M:%SZ}: process {pid} ended without settling this run{reached}")
    for step in found.steps:
        if step.outcome == "running":
            step.outcome = "interrupted"
    found.outcome = Outcome.INTERRUPTED
    found.verdict = Verdict.INTERRUPTED
    found.exit_code = _EXIT_CODE_OF_SIGKILL
    found.ended = now
    found.duration_seconds = round((now - found.started).total_seconds(), 3)
    return found
