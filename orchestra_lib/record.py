"""The record of one executed runbook: what `record.json` holds, and reading and writing it.

The kernel fills it in while the notebook runs; whoever ends the run (the papermill engine, or
``Runbook.close`` in JupyterLab) writes the outcome. Writes are atomic: a reader sees the old file or the new.
"""

from __future__ import annotations

import getpass
import hashlib
import os
import platform
import secrets
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from importlib import metadata
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from orchestra_lib.errors import RecordError
from orchestra_lib.evidence import Verdict

RUN_CONTEXT_VARIABLE = "ORCHESTRA_RUN_CONTEXT"
"""Environment variable of a headless kernel: the path of the record that the engine has opened for it."""

_VERSIONS_OF = ("orchestra-lib", "papermill", "psycopg", "pgvector", "numpy", "scikit-learn")


class Outcome(StrEnum):
    """How a run ended. Only COMPLETED and PLANNED are ends that the notebook itself reached."""

    RUNNING = "running"
    COMPLETED = "completed"
    PLANNED = "planned"
    REFUSED = "refused"  # a parameter or the target was refused before anything was done
    FAILED = "failed"
    INTERRUPTED = "interrupted"


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", validate_assignment=True)


class Step(_Model):
    """One step of a run and how long it took."""

    name: str
    started: datetime
    duration_seconds: float | None = None
    outcome: str = "running"


class Failure(_Model):
    """Why a run did not complete: the error's class, one line, and the cell (counted from 0) where it happened."""

    error: str
    message: str
    cell_index: int | None = None


class Git(_Model):
    """The commit of the code that ran, and whether the working tree differed from it."""

    commit: str | None
    dirty: bool | None


class Record(_Model):
    """Everything an auditor needs to judge one run. Times are UTC, durations seconds, digests SHA-256 hex."""

    schema_version: int = 1
    run_id: str
    runbook: str
    output_notebook: str | None
    environment: str | None = None
    rehearsal: bool | None = None
    mode: str | None = None
    operator: str
    host: dict[str, str | int]
    pid: int
    git: Git
    source_sha256: str | None = None
    versions: dict[str, str]
    parameters: dict[str, object] = Field(default_factory=dict)
    settings: dict[str, object] | None = None
    settings_sha256: str | None = None
    started: datetime
    ended: datetime | None = None
    duration_seconds: float | None = None
    steps: list[Step] = Field(default_factory=list)
    evidence: list[dict[str, object]] = Field(default_factory=list)
    plan_sha256: str | None = None
    plan: list[dict[str, str]] = Field(default_factory=list)
    notes: list[str] = Field(default_factory=list)
    end_marker: bool = False
    outcome: Outcome = Outcome.RUNNING
    verdict: Verdict | None = None
    failure: Failure | None = None
    exit_code: int | None = None


def new_run_id(now: datetime | None = None) -> str:
    """A run id that sorts by time and does not repeat: ``20261123T221530Z-1f9a3c``."""
    moment = now or datetime.now(UTC)
    return f"{moment:%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"


def open_record(
    runbook: str, output_notebook: Path | None, source_sha256: str | None, run_id: str | None = None
) -> Record:
    """A fresh record with the header filled in: who, where, when, which code and versions."""
    return Record(
        run_id=run_id or new_run_id(),
        runbook=runbook,
        output_notebook=str(output_notebook) if output_notebook else None,
        operator=_operator(),
        host=_host(),
        pid=os.getpid(),
        git=git_state(Path(__file__).resolve().parent),
        source_sha256=source_sha256,
        versions=_versions(),
        started=datetime.now(UTC),
    )


def record_path(output_notebook: Path) -> Path:
    """Where the record of an executed notebook lies: ``out.ipynb`` -> ``out.record.json``, beside it."""
    return output_notebook.with_name(f"{output_notebook.stem}.record.json")


def save(record: Record, path: Path) -> None:
    """Write the record atomically and durably. Raises RecordError when the disk refuses."""
    write_atomically(path, (record.model_dump_json(indent=1) + "\n").encode())


def load(path: Path) -> Record:
    """Read a record. Raises RecordError when it is missing, cut off or holds unknown keys."""
    try:
        return Record.model_validate_json(path.read_bytes())
    except OSError as error:
        raise RecordError(f"the record {path} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise RecordError(f"the record {path} is not a record of this library: {where}: {first['msg']}") from error


def write_atomically(path: Path, content: bytes) -> None:
    """Write bytes under a temporary name in the same folder, fsync, rename, fsync the folder."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(3)}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise RecordError(f"{path} cannot be written: {error.strerror}; free space or choose another folder") from error


def sync_folder(folder: Path) -> None:
    """Make a file's new name durable: fsync on the file itself does not. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def git_state(directory: Path) -> Git:
    """The commit checked out in a directory, and whether tracked files differ from it; None where git cannot tell."""
    commit = _git(directory, "rev-parse", "HEAD")
    changes = _git(directory, "status", "--porcelain", "--untracked-files=no")
    return Git(commit=commit, dirty=None if changes is None else bool(changes))


def _git(directory: Path, *arguments: str) -> str | None:
    command = ["git", "-C", str(directory), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None  # no git, or no checkout: the record then says null, which is the truth
    return done.stdout.strip()


def _operator() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return f"uid {os.getuid()}"


def _host() -> dict[str, str | int]:
    cpu = next((line.split(":", 1)[1].strip() for line in _cpu_lines() if line.startswith("model name")), "unknown")
    return {
        "name": platform.node(),
        "system": platform.platform(),
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "python": platform.python_version(),
    }


def _cpu_lines() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


def _versions() -> dict[str, str]:
    found: Mapping[str, str | None] = {name: _version(name) for name in _VERSIONS_OF}
    return {name: version for name, version in found.items() if version is not None}


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
