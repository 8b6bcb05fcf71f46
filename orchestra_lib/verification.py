"""Holding the ledger against itself and against the files on disk: what was altered, removed, inserted or reordered."""

from __future__ import annotations

import contextlib
import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from orchestra_lib import paths, record, settings
from orchestra_lib.consistency import contradictions
from orchestra_lib.errors import RecordError
from orchestra_lib.ledger import GENESIS, Entry, Head, Line, Position, Repair, head_path, locked, read_head, read_lines
from orchestra_lib.lock import process_start
from orchestra_lib.open_runs import OpenRun, open_runs
from orchestra_lib.record import Outcome
from orchestra_lib.sources import edited_cells

_CLOCK_STEP = timedelta(seconds=5)  # by so much a clock may be corrected without anybody meaning anything by it


@dataclass(frozen=True)
class Finding:
    """One thing that verification has to say. ``what`` is one word; a note says something that is not wrong.

    ``what`` is altered, removed, inserted, reordered, torn, unsealed or interrupted; forged when a record contradicts
    itself, edited when other cells ran than those of the commit, backdated when the clock was set back; for a note it
    is superseded, repaired or running.
    """

    path: str
    what: str
    message: str
    sequence: int | None = None
    run_id: str | None = None
    is_note: bool = False

    def __str__(self) -> str:
        return f"{self.path}: {self.what}: {self.message}"


@dataclass(frozen=True)
class Verification:
    """The result: ``ok`` when nothing was found but notes. Errors come first, each group in chain order.

    What is wrong with the ledger itself precedes what is wrong with the files it names: a lost line makes files look
    altered that are not.
    """

    entries: int
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether every finding is a note."""
        return all(finding.is_note for finding in self.findings)


def verify(ledger: Path | None = None) -> Verification:
    """Check every line of the ledger, every file that it names, and that no record stands outside it.

    Raises RecordError when the ledger cannot be read at all.
    """
    path = ledger or paths.ledger_path()
    with _undisturbed(path):
        lines = read_lines(path)
        chain = _Chain(path, lines)
        findings = chain.findings
        findings += _backdated(path, chain.entries)
        findings += _files(chain.entries)
        findings += _unsealed(path.parent, chain.entries)
    ordered = sorted(findings, key=lambda finding: finding.is_note)  # stable: the chain order stays within each group
    return Verification(len(chain.entries), tuple(ordered))


class _Chain:
    """One walk along the lines: the entries that are sound, and what is wrong with the rest and with the head."""

    def __init__(self, path: Path, lines: Sequence[Line]) -> None:
        self.findings: list[Finding] = []
        self.entries: list[Entry] = [line.entry for line in lines if line.entry and not line.is_torn]
        self._path = path
        self._copies = Counter(entry.entry_sha256 for entry in self.entries)
        self._expected = 1
        self._previous: str | None = GENESIS  # None after an altered line: its digest is not known any more
        self._out_of_place: dict[int, Entry] = {}
        self._seen: set[str] = set()
        head = self._head()
        repaired = self._repaired(lines)
        for number, line in enumerate(lines):
            if line.offset not in repaired:
                self._take(line, [later.entry for later in lines[number + 1 :] if later.entry], head)
        self._compare(head, bool(lines))
        self.entries.sort(key=lambda entry: entry.sequence)

    def _head(self) -> Head | RecordError | None:
        try:
            return read_head(self._path)
        except RecordError as error:
            return error

    def _repaired(self, lines: Sequence[Line]) -> set[int]:
        """Offsets of the lines whose bytes a later entry has stated as found damage."""
        data = b"".join(line.raw for line in lines)
        offsets: set[int] = set()
        for line in lines:
            entry = line.entry
            if entry is None or entry.repair is None:
                continue
            start = self._start_of(entry.repair, data, line.offset)
            if start is None:
                self._find("altered", f"the bytes that entry {entry.sequence} found damaged are not there", entry)
                continue
            offsets |= {other.offset for other in lines if start <= other.offset < line.offset}
            self._find("repaired" if entry.repair.by_crash else "altered", entry.repair.reason, entry)
        return offsets

    @staticmethod
    def _start_of(repair: Repair, data: bytes, end: int) -> int | None:
        # The bytes stand right before the entry, or before the newline that kept the two apart.
        for stop in (end, end - 1):
            start = stop - repair.size
            if start >= 0 and hashlib.sha256(data[start:stop]).hexdigest() == repair.sha256:
                return start
        return None

    def _take(self, line: Line, later: list[Entry], head: Head | RecordError | None) -> None:
        entry = line.entry
        comes_later = any(self._fits(other) for other in later)
        if line.is_torn:
            cut_by_crash = isinstance(head, Head) and head.pending is not None
            cause = (
                "a crash cut off its write; the next sealing goes on after it" if cut_by_crash else "its end is missing"
            )
            self._find("torn", f"line {line.number}, the last, is incomplete: {cause}")
            if not cut_by_crash:
                self._advance(self._expected, None)
        elif entry is None:
            if comes_later:
                self._find("inserted", f"line {line.number} {line.problem}, and no entry is missing")
            else:
                self._find("altered", f"line {line.number}, entry {self._expected}, {line.problem}", self._expected)
                self._advance(self._expected, None)
        elif self._fits(entry):
            self._advance(entry.sequence, entry.entry_sha256)
        else:
            self._misfit(line, entry, comes_later)
        if entry:
            self._seen.add(entry.entry_sha256)

    def _misfit(self, line: Line, entry: Entry, comes_later: bool) -> None:
        where = f"line {line.number} is entry {entry.sequence} (run {entry.run_id})"
        copied = self._copies[entry.entry_sha256] > 1
        if entry.entry_sha256 in self._seen or (comes_later and copied) or entry.sequence < self._expected:
            self._find("inserted", f"{where}, which does not belong there", entry)
        elif comes_later and entry.sequence > self._expected:
            self._find("reordered", f"{where}, but entry {self._expected} comes only later", entry)
            self._out_of_place[entry.sequence] = entry
        elif comes_later:
            self._find("inserted", f"{where}, but does not follow the entry before it", entry)
        elif entry.sequence > self._expected:
            gone = _span(self._expected, entry.sequence - 1)
            self._find("removed", f"{gone} missing before line {line.number} (run {entry.run_id})", self._expected)
            self._advance(entry.sequence, entry.entry_sha256)
        else:
            self._find("altered", f"{where}, but does not follow the entry before it", entry)
            self._advance(entry.sequence, entry.entry_sha256)

    def _fits(self, entry: Entry) -> bool:
        return entry.sequence == self._expected and self._previous in (None, entry.previous_sha256)

    def _advance(self, sequence: int, entry_sha256: str | None) -> None:
        self._expected, self._previous = sequence + 1, entry_sha256
        waiting = self._out_of_place.pop(self._expected, None)
        if waiting and self._fits(waiting):
            self._advance(waiting.sequence, waiting.entry_sha256)

    def _compare(self, head: Head | RecordError | None, has_lines: bool) -> None:
        name = str(head_path(self._path))
        if isinstance(head, RecordError):
            self.findings.append(Finding(name, "altered", str(head)))
            return
        if head is None:
            if has_lines:
                self.findings.append(Finding(name, "removed", "the ledger has entries but no head"))
            return
        reached = self._expected - 1
        expected = [position for position in (head.last, head.pending) if position]
        if any(self._reached(position) for position in expected):
            return
        if head.last.sequence > reached:
            gone = _span(reached + 1, head.last.sequence)
            self._find("removed", f"{gone} missing at the end, which the head says were written", reached + 1)
        elif head.last.sequence == reached:
            self._find("altered", f"entry {reached} is not the one that the head names: the end was rewritten", reached)
        else:
            self._find("inserted", f"entries after {head.last.sequence} were not written by a sealing", reached)

    def _reached(self, position: Position) -> bool:
        return position.sequence == self._expected - 1 and self._previous in (None, position.entry_sha256)

    def _find(self, what: str, message: str, about: Entry | int | None = None) -> None:
        sequence = about.sequence if isinstance(about, Entry) else about
        run_id = about.run_id if isinstance(about, Entry) else None
        self.findings.append(Finding(str(self._path), what, message, sequence, run_id, what == "repaired"))


def _backdated(path: Path, entries: Sequence[Entry]) -> Iterator[Finding]:
    """Entries that say they were written before the one before them."""
    latest: Entry | None = None
    for entry in entries:
        if latest and datetime.fromisoformat(entry.at) < datetime.fromisoformat(latest.at) - _CLOCK_STEP:
            message = (
                f"entry {entry.sequence} (run {entry.run_id}) says {entry.at}, entry {latest.sequence} before it "
                f"{latest.at}: the clock was set back, and how old evidence is cannot be told"
            )
            yield Finding(str(path), "backdated", message, entry.sequence, entry.run_id)
        else:
            latest = entry


def _resealed(entry: Entry, earlier: Mapping[str, Entry]) -> Finding | None:
    first = earlier.get(entry.run_id)
    if first is None:
        return None
    message = f"run {entry.run_id} was sealed twice, as entry {first.sequence} and {entry.sequence}: a run ends once"
    return Finding(entry.record, "forged", message, entry.sequence, entry.run_id)


def _contents(entry: Entry, root: Path) -> Iterator[Finding]:
    """What is wrong with files that are as they were sealed."""
    try:
        found = record.load(root / entry.record)
    except RecordError:
        return  # a format of another time: as it was sealed, and nothing more can be said
    for sentence in contradictions(found):
        yield Finding(entry.record, "forged", f"run {entry.run_id}: {sentence}", entry.sequence, entry.run_id)
    if entry.notebook and entry.notebook_sha256 and (told := edited_cells(root / entry.notebook, found)):
        yield Finding(entry.notebook, "edited", f"run {entry.run_id}: {told}", entry.sequence, entry.run_id)


def _files(entries: Sequence[Entry]) -> list[Finding]:
    """Each record and notebook that the ledger names, held against its digest; whole ones against what they say."""
    latest = {path: entry for entry in entries for path in (entry.record, entry.notebook) if path}
    being_replaced = {
        str(path): run for run in open_runs() for path in (run.record, _notebook_of(run.record)) if path is not None
    }
    findings = []
    first: dict[str, Entry] = {}
    for entry in entries:
        resealed = _resealed(entry, first)
        findings += [resealed] if resealed else []
        first.setdefault(entry.run_id, entry)
        is_whole = latest[entry.record] is entry
        for name, digest in ((entry.record, entry.record_sha256), (entry.notebook, entry.notebook_sha256)):
            if name is None:
                continue
            after = latest[name]
            if after is not entry:
                message = f"the file of run {entry.run_id} was replaced by run {after.run_id} (entry {after.sequence})"
                findings.append(Finding(name, "superseded", message, entry.sequence, entry.run_id, is_note=True))
                continue
            finding = _file(entry, name, digest, being_replaced)
            if finding:
                is_whole = False
                findings.append(finding)
        if is_whole:
            findings += _contents(entry, settings.root())
    return findings


def _file(entry: Entry, name: str, digest: str | None, being_replaced: dict[str, OpenRun]) -> Finding | None:
    path = settings.root() / name  # an absolute name stays as it is
    of_run = f"of run {entry.run_id} (entry {entry.sequence}, {entry.at})"
    try:
        found = record.sha256_of(path) if path.exists() else None
    except OSError as error:
        return Finding(name, "altered", f"the file {of_run} cannot be read: {error.strerror}", entry.sequence)
    if found == digest:
        return None
    run = being_replaced.get(str(path.resolve()))
    if run:
        message = f"the file {of_run} is being replaced by run {run.run_id}, which is not sealed yet"
        return Finding(name, "superseded", message, entry.sequence, entry.run_id, is_note=True)
    if digest is None:
        what, message = "inserted", f"the run {entry.run_id} was sealed without this file, now it is there"
    elif found is None:
        what, message = "removed", f"the file {of_run} is missing"
    else:
        what, message = "altered", f"the file {of_run} is not the one that was sealed"
    return Finding(name, what, message, entry.sequence, entry.run_id)


def _unsealed(runs: Path, entries: Sequence[Entry]) -> Iterator[Finding]:
    """Records that no entry names: in the runs directory, beside sealed records, and of announced runs."""
    root = settings.root().resolve()
    sealed = {(root / entry.record).resolve() for entry in entries}
    announced = {run.record: run for run in open_runs()}
    beside = {path.parent for path in sealed if path.is_relative_to(root)}
    found = {path.resolve() for path in runs.rglob("*.record.json")}
    found |= {path.resolve() for folder in beside for path in folder.glob("*.record.json")}
    for path in sorted((found - sealed) | set(announced)):
        finding = _open_record(path, announced.get(path))
        if finding:
            yield finding


def _open_record(path: Path, announced: OpenRun | None) -> Finding | None:
    try:
        run = record.load(path)
    except RecordError as error:
        if announced and announced.is_alive:
            return None  # its process has not written it yet
        what = "unsealed" if path.exists() else "removed"
        return Finding(str(path), what, f"{error}; the ledger has no entry for it")
    alive = announced.is_alive if announced else _may_be_alive(run)
    at_work = alive and (announced is not None or run.outcome is Outcome.RUNNING)
    if at_work:
        return Finding(str(path), "running", f"run {run.run_id} is not sealed yet", None, run.run_id, is_note=True)
    if run.outcome is Outcome.RUNNING or announced:
        message = f"run {run.run_id} was interrupted, not sealed: its process {run.pid} is gone"
        return Finding(str(path), "interrupted", message, None, run.run_id)
    message = f"run {run.run_id} says {run.outcome.value}, but the ledger has no entry for it"
    return Finding(str(path), "unsealed", message, None, run.run_id)


def _may_be_alive(run: record.Record) -> bool:
    """Whether the process that wrote a record may still run: one that started after the record cannot have."""
    started = process_start(run.pid)
    return started is not None and started <= run.started.timestamp() + 1


def _notebook_of(record_path: Path) -> Path | None:
    try:
        notebook = record.load(record_path).output_notebook
    except RecordError:
        return None
    return Path(notebook).resolve() if notebook else None


@contextlib.contextmanager
def _undisturbed(ledger: Path) -> Iterator[None]:
    """Keep writers out while reading; a ledger in a folder that we cannot write to is read without."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            stack.enter_context(locked(ledger))
        yield


def _span(first: int, last: int) -> str:
    return f"entry {first} is" if first == last else f"entries {first} to {last} are"
