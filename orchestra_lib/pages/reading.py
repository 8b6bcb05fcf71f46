"""What there is to show: every run of the ledger with its files as far as they can be believed, and what was found."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from orchestra_lib import audit, record, settings
from orchestra_lib.audit import Entry, Finding, Verification
from orchestra_lib.errors import RecordError
from orchestra_lib.record import Record


@dataclass(frozen=True)
class Run:
    """One run. ``record`` and ``notebook`` are there only if they are as they were sealed.

    ``harm`` is what verification found wrong with it, ``remarks`` what is not wrong but has to be said. ``previous`` is
    the record of the run of the same runbook and environment before it.
    """

    run_id: str
    runbook: str
    at: str
    entry: Entry | None
    record: Record | None
    notebook: Path | None
    harm: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    previous: Record | None = None

    @property
    def is_sound(self) -> bool:
        """Whether it is in the ledger and nothing was found wrong with it."""
        return self.entry is not None and not self.harm

    @property
    def page(self) -> str:
        """The name of its page."""
        return f"{self.run_id}-{self.runbook}.html"

    @property
    def notebook_page(self) -> str:
        """The name of the page with its executed notebook."""
        return f"{self.run_id}-{self.runbook}.notebook.html"


def read() -> tuple[list[Run], Verification]:
    """The runs, newest first, and what holding the ledger against the files has shown. Raises RecordError."""
    found = audit.verify()
    entries = audit.entries()
    runs = [_sealed(entry, found.findings) for entry in entries]
    runs += _not_sealed(found.findings, {entry.run_id for entry in entries})
    return sorted(_with_previous(runs), key=lambda run: run.at, reverse=True), found


def _sealed(entry: Entry, findings: Iterable[Finding]) -> Run:
    about = [one for one in findings if _is_about(one, entry)]
    harm = tuple(f"{one.what}: {one.message}" for one in about if not one.is_note)
    remarks = [one.message for one in about if one.is_note]
    if entry.notebook is None or entry.notebook_sha256 is None:
        remarks.append(entry.notebook_missing or "the run has no notebook")
    path = _as_sealed(entry.record, entry.record_sha256)
    notebook = _as_sealed(entry.notebook, entry.notebook_sha256)
    kept = record.load(path) if path and not harm else None
    return Run(entry.run_id, entry.runbook, entry.at, entry, kept, None if harm else notebook, harm, tuple(remarks))


def _is_about(finding: Finding, entry: Entry) -> bool:
    if finding.run_id is not None:
        return finding.run_id == entry.run_id
    return finding.sequence == entry.sequence or finding.path in (entry.record, entry.notebook)


def _as_sealed(name: str | None, digest: str | None) -> Path | None:
    path = settings.root() / name if name else None
    if path is None or not path.is_file() or record.sha256_of(path) != digest:
        return None
    return path


def _not_sealed(findings: Iterable[Finding], sealed: set[str]) -> list[Run]:
    """Records beside the ledger that have no entry in it: a run that goes on, was killed, or was never sealed."""
    runs = []
    for finding in findings:
        path = Path(finding.path)
        if finding.run_id in sealed or not path.name.endswith(".record.json"):
            continue
        try:
            claimed = record.load(path)
        except RecordError:
            continue  # the finding itself is shown above all runs
        told = (f"{finding.what}: {finding.message}",)
        harm, remarks = ((), told) if finding.is_note else (told, ())
        at = claimed.started.isoformat(timespec="milliseconds")
        runs.append(Run(claimed.run_id, claimed.runbook, at, None, None, None, harm, remarks))
    return runs


def _with_previous(runs: Sequence[Run]) -> list[Run]:
    latest: dict[tuple[str, str | None], Record] = {}
    result = []
    for run in sorted(runs, key=lambda one: one.at):
        if run.record is None:
            result.append(run)
            continue
        key = (run.runbook, run.record.environment)
        result.append(replace(run, previous=latest.get(key)))
        latest[key] = run.record
    return result
