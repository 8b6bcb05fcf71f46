"""The sealed runs of an environment, judged anew: what ledger and files prove, not what a record says of itself.

A run counts when its files are as they were sealed and contradict nothing, when it reached its end, when its rows are
enough for the environment that it is asked for, and when nothing has undone it since, or changed what it measured.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import MappingProxyType

from orchestra_lib import audit, paths, record, settings
from orchestra_lib.audit import Entry, Finding
from orchestra_lib.errors import RecordError
from orchestra_lib.evidence import Evidence, Verdict, evidence_of, roll_up
from orchestra_lib.ledger import head_path
from orchestra_lib.record import Outcome, Record
from orchestra_lib.settings.base import ALL_PHASES

ROLLBACK = "99_rollback"
MEASURED: Mapping[str, tuple[str, ...]] = MappingProxyType({"06_validation": ("02", "03", "04", "05", "08")})
"""Runbook -> the phases whose work it measures. Of what they do after it, it says nothing."""

_APPLYING = "apply"
"""How the steps begin by which a rollback undoes."""
_PLAN = "plan"
_GREEN = (Verdict.PASS, Verdict.REHEARSED)
_CHANGED_NOTHING = (Outcome.PLANNED, Outcome.REFUSED)


@dataclass(frozen=True)
class SealedRun:
    """The last run of a runbook that changed or measured something. ``rows`` are its evidence.

    ``reasons`` say why it does not count; none: it does, apart from its age.
    """

    entry: Entry
    record: Record | None
    rows: tuple[Evidence, ...]
    reasons: tuple[str, ...]

    @property
    def ended(self) -> datetime | None:
        """When it ended; None where its record cannot be read."""
        return self.record.ended if self.record else None

    def row(self, claim: str) -> Evidence | None:
        """The last row with this claim; None when the run does not count or has no such row."""
        found = [row for row in self.rows if row.claim == claim]
        return found[-1] if found and not self.reasons else None


def latest_runs(environment: str, *, rehearsal: bool) -> dict[str, SealedRun]:
    """Runbook -> its last sealed run in an environment that was neither refused nor planned only.

    ``rehearsal``: whether the environment is the local target. Raises RecordError when the ledger cannot be read.
    """
    findings = [finding for finding in audit.verify().findings if not finding.is_note]
    entries = [entry for entry in audit.entries() if entry.environment == environment]
    last = {entry.runbook: entry for entry in entries if _may_have_changed(entry)}
    undoing = [undone for entry in entries if (undone := _Undoing.of(entry)) is not None]
    return {
        name: _judged(entry, (*_not_as_sealed(entry, findings), *_overtaken(entry, entries, undoing)), rehearsal)
        for name, entry in last.items()
    }


@dataclass(frozen=True)
class _Undoing:
    """A rollback that had begun to undo, or has read back that all is undone.

    ``phase`` is which one; None for one whose record does not say.
    """

    entry: Entry
    phase: str | None

    @classmethod
    def of(cls, entry: Entry) -> _Undoing | None:
        if entry.runbook != ROLLBACK or entry.outcome in _CHANGED_NOTHING:
            return None
        found = _as_sealed(entry)
        if found is None:
            return cls(entry, None)
        if found.outcome is not Outcome.COMPLETED and not any(one.name.startswith(_APPLYING) for one in found.steps):
            return None
        stated = (found.settings or {}).get("rollback")
        return cls(entry, stated.get("phase") if isinstance(stated, dict) else None)

    def concerns(self, *phases: str) -> bool:
        """Whether it has undone one of these phases."""
        return self.phase in (None, ALL_PHASES, *phases)


def _overtaken(entry: Entry, entries: Iterable[Entry], undoing: Iterable[_Undoing]) -> Iterable[str]:
    """What has happened since that takes from a run what it says: it was undone, or what it measured was changed."""
    since = [one for one in undoing if one.entry.sequence > entry.sequence]
    undone = [one.entry for one in since if one.concerns(entry.runbook[:2])]
    if undone:
        yield f"undone by run {undone[-1].run_id}"
        return
    measured = MEASURED.get(entry.runbook, ())
    later = [one for one in entries if one.sequence > entry.sequence and one.runbook[:2] in measured]
    changing = [*filter(_may_have_changed, later), *(one.entry for one in since if one.concerns(*measured))]
    if changing:
        last = max(changing, key=lambda one: one.sequence)
        yield f"run {last.run_id} of {last.runbook} came after it and may have changed what it measured: run it again"


def _may_have_changed(entry: Entry) -> bool:
    """Whether a run was allowed to change or measure something; how far it came does not matter."""
    if entry.outcome in _CHANGED_NOTHING:
        return False
    if entry.outcome is Outcome.COMPLETED:
        return True  # a plan alone is never completed, but for a runbook that has nothing to apply
    found = _as_sealed(entry)
    return found is None or found.mode != _PLAN


def _as_sealed(entry: Entry) -> Record | None:
    """The record of a run; None for one that is not as it was sealed and therefore says nothing."""
    path = _path(entry.record)
    try:
        found = record.load(path)
        return found if record.sha256_of(path) == entry.record_sha256 else None
    except (RecordError, OSError):
        return None


def _judged(entry: Entry, against: Iterable[str], rehearsal: bool) -> SealedRun:
    reasons = [*against]
    if entry.outcome is not Outcome.COMPLETED:
        reasons.append(f"its last run {entry.run_id} ended {entry.outcome.value}")
    try:
        found = record.load(_path(entry.record))
        rows = tuple(map(evidence_of, found.evidence))
    except (RecordError, ValueError) as error:
        return SealedRun(entry, None, (), (*reasons, str(error)))
    if found.run_id != entry.run_id:
        return SealedRun(entry, None, (), (*reasons, f"its record is now that of run {found.run_id}"))
    return SealedRun(entry, found, rows, (*reasons, *_does_not_hold(found, rows, rehearsal)))


def _not_as_sealed(entry: Entry, findings: Iterable[Finding]) -> Iterable[str]:
    """What is wrong with the ledger as a whole, or with this run's own files."""
    ledger = paths.ledger_path()
    whole = {str(ledger), str(head_path(ledger))}
    own = {entry.record, entry.notebook}
    for finding in findings:
        if finding.path in own or finding.path in whole:
            yield f"{Path(finding.path).name} is not as it was sealed ({finding.what}: {finding.message})"


def _does_not_hold(found: Record, rows: Sequence[Evidence], rehearsal: bool) -> Iterable[str]:
    """Where what the rows come to is not enough here; that a record contradicts itself the ledger's check says."""
    verdict = roll_up(rows, rehearsal=rehearsal)
    if verdict not in _GREEN:
        yield f"its evidence comes to {verdict.value}"
    if not found.end_marker and found.outcome is Outcome.COMPLETED:
        yield "it has no end marker"


def _path(stated: str) -> Path:
    return settings.root() / stated  # an absolute name stays as it is
