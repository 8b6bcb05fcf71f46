"""The ledger's file format: one JSON line a run, each holding the digest of the line before it.

Three files lie side by side. ``ledger.jsonl`` is only ever appended to. ``ledger.head`` names its last entry, so that a
ledger cut short does not look complete; around each append it also names the entry about to be written, so that a write
cut off by a crash can be told from tampering. ``ledger.lock`` lets one writer in at a time.

A damaged ledger still takes new entries, but never heals: the next entry continues from what the head remembers and
states in ``repair`` what it found, and the bytes it found stay where they are.

What this cannot do: whoever can write all of these files can also rewrite history consistently. Copy ``ledger.head``
to where they cannot write (a bucket with a retention lock) and compare.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock
from pydantic import BaseModel, ConfigDict, ValidationError

from orchestra_lib.errors import RecordError
from orchestra_lib.evidence import Verdict, canonical_json
from orchestra_lib.record import Outcome, sync_folder, write_atomically

GENESIS = "0" * 64
"""What the first entry names as the digest of the entry before it."""

_LOCK_TIMEOUT_SECONDS = 60  # an append takes milliseconds; a minute means a stuck disk, and saying so beats waiting


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Repair(_Frozen):
    """What an entry found wrong with the tail of the ledger when it was appended.

    ``size`` and ``sha256`` are of the bytes that stand between the last sound entry and this one.
    """

    reason: str
    by_crash: bool
    size: int
    sha256: str


class Entry(_Frozen):
    """One sealed run. Paths are relative to the project's root when they lie inside it; digests are SHA-256 hex."""

    sequence: int
    at: str
    run_id: str
    runbook: str
    environment: str | None
    operator: str
    outcome: Outcome
    verdict: Verdict | None
    exit_code: int | None
    record: str
    record_sha256: str
    notebook: str | None
    notebook_sha256: str | None
    notebook_missing: str | None
    supersedes: tuple[str, ...]
    repair: Repair | None
    previous_sha256: str
    entry_sha256: str


@dataclass(frozen=True)
class Line:
    """One line of a ledger file: where it stands, its bytes, and its entry, or why it is none."""

    number: int
    offset: int
    raw: bytes
    entry: Entry | None
    problem: str = ""

    @property
    def is_torn(self) -> bool:
        """Whether the newline at the end is missing."""
        return not self.raw.endswith(b"\n")


@dataclass(frozen=True)
class Position:
    """A place in the chain: the sequence number and digest of an entry, or 0 and GENESIS before the first."""

    sequence: int = 0
    entry_sha256: str = GENESIS


@dataclass(frozen=True)
class Head:
    """What ``ledger.head`` says: the last entry, and during an append the one being written."""

    last: Position
    pending: Position | None = None


def head_path(ledger: Path) -> Path:
    """The head that belongs to a ledger."""
    return ledger.with_suffix(".head")


def lock_path(ledger: Path) -> Path:
    """The lock that belongs to a ledger."""
    return ledger.with_suffix(".lock")


@contextmanager
def locked(ledger: Path) -> Iterator[None]:
    """Keep every other writer out. Raises RecordError when the lock cannot be had."""
    try:
        ledger.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(lock_path(ledger), timeout=_LOCK_TIMEOUT_SECONDS, fallback_to_soft=False):
            yield
    except filelock.Timeout as error:
        raise RecordError(
            f"another process has been writing to {ledger} for {_LOCK_TIMEOUT_SECONDS} s: look at that disk"
        ) from error


def read_lines(ledger: Path) -> list[Line]:
    """The lines of a ledger as they stand, sound or not; none when there is no file. Raises RecordError."""
    try:
        data = ledger.read_bytes()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise RecordError(f"the ledger {ledger} cannot be read: {error.strerror}") from error
    lines, offset = [], 0
    for number, raw in enumerate(data.split(b"\n"), 1):
        whole = data[offset : offset + len(raw) + 1]
        if whole:
            lines.append(_line(number, offset, whole))
        offset += len(whole)
    return lines


def read_head(ledger: Path) -> Head | None:
    """The head of a ledger; None when there is no head file. Raises RecordError when it has been altered."""
    path = head_path(ledger)
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RecordError(f"{path} cannot be read: {error.strerror}") from error
    try:
        stated = json.loads(raw)
        last = Position(stated["sequence"], stated["entry_sha256"])
        pending = Position(**stated["pending"]) if stated["pending"] else None
    except (ValueError, TypeError, KeyError) as error:
        raise RecordError(f"{path} has been altered: it is not the head of a ledger") from error
    head = Head(last, pending)
    if raw != _head_bytes(head):
        raise RecordError(f"{path} has been altered: its digest does not match what it says")
    return head


def append(ledger: Path, lines: list[Line], stated: dict[str, Any]) -> Entry:
    """Append an entry durably and return it. The caller holds the lock and has read ``lines`` under it.

    Raises RecordError when the disk refuses; the ledger is then as it was.
    """
    position, repair = _continue_from(ledger, lines)
    content = {
        **stated,
        "sequence": position.sequence + 1,
        "previous_sha256": position.entry_sha256,
        "repair": repair.model_dump() if repair else None,
    }
    content["entry_sha256"] = digest_of(content)
    text = canonical_json(content)
    entry = Entry.model_validate_json(text)
    write_atomically(head_path(ledger), _head_bytes(Head(position, Position(entry.sequence, entry.entry_sha256))))
    glue = b"\n" if lines and lines[-1].is_torn else b""
    _append_bytes(ledger, glue + text.encode() + b"\n")
    write_atomically(head_path(ledger), _head_bytes(Head(Position(entry.sequence, entry.entry_sha256))))
    return entry


def digest_of(content: dict[str, Any]) -> str:
    """SHA-256 over the canonical JSON of an entry without its own digest."""
    stated = {name: value for name, value in content.items() if name != "entry_sha256"}
    return hashlib.sha256(canonical_json(stated).encode()).hexdigest()


def _line(number: int, offset: int, raw: bytes) -> Line:
    try:
        content = json.loads(raw)
        entry = Entry.model_validate_json(raw)
        if raw.removesuffix(b"\n") != canonical_json(content).encode():
            return Line(number, offset, raw, None, "is not written the way entries are written")
    except (ValidationError, ValueError, RecursionError):
        return Line(number, offset, raw, None, "is not an entry")
    if digest_of(content) != entry.entry_sha256:
        return Line(number, offset, raw, None, f"no longer matches its own digest (it says run {entry.run_id})")
    return Line(number, offset, raw, entry)


def _continue_from(ledger: Path, lines: list[Line]) -> tuple[Position, Repair | None]:
    """Where the next entry goes on, and what it has to say about the state of the tail."""
    sound = [number for number, line in enumerate(lines) if line.entry and not line.is_torn]
    last_line = lines[sound[-1]].entry if sound else None
    last = Position(last_line.sequence, last_line.entry_sha256) if last_line else Position()
    junk = b"".join(line.raw for line in lines[sound[-1] + 1 if sound else 0 :])
    try:
        head = read_head(ledger)
    except RecordError as error:
        return last, _repair(f"found when this entry was appended: {error}", junk)
    if head is None:
        if not lines:
            return last, None
        return last, _repair(f"found when this entry was appended: {head_path(ledger).name} was missing", junk)
    if head.pending and last in (head.last, head.pending):
        if not junk:
            return last, None
        return last, _repair("a crash cut off the write of an entry before this one", junk, by_crash=True)
    if last == head.last and not junk:
        return last, None
    if last != head.last:
        reason = f"the ledger ended with entry {last.sequence}, its head said {head.last.sequence}"
    else:
        reason = "bytes that no run wrote stood at the end of the ledger"
    return head.last, _repair(f"found when this entry was appended: {reason}", junk)


def _repair(reason: str, junk: bytes, *, by_crash: bool = False) -> Repair:
    return Repair(reason=reason, by_crash=by_crash, size=len(junk), sha256=hashlib.sha256(junk).hexdigest())


def _head_bytes(head: Head) -> bytes:
    pending = head.pending
    content: dict[str, Any] = {
        "sequence": head.last.sequence,
        "entry_sha256": head.last.entry_sha256,
        "pending": {"sequence": pending.sequence, "entry_sha256": pending.entry_sha256} if pending else None,
    }
    content["head_sha256"] = hashlib.sha256(canonical_json(content).encode()).hexdigest()
    return (canonical_json(content) + "\n").encode()


def _append_bytes(ledger: Path, content: bytes) -> None:
    try:
        descriptor = os.open(ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            _write_whole(descriptor, content)
        finally:
            os.close(descriptor)
        sync_folder(ledger.parent)
    except OSError as error:
        raise RecordError(
            f"nothing could be appended to {ledger}: {error.strerror}; free space and seal again"
        ) from error


def _write_whole(descriptor: int, content: bytes) -> None:
    """Write all of it in one call, or leave the file as it was: a crash cuts a line, it never mixes two."""
    size = os.fstat(descriptor).st_size
    written = -1
    try:
        written = os.write(descriptor, content)
        os.fsync(descriptor)
    finally:
        if written != len(content):
            os.ftruncate(descriptor, size)
    if written != len(content):
        raise OSError(errno.ENOSPC, f"only {written} of {len(content)} bytes fitted")
