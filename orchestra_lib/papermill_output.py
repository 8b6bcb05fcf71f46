"""Where papermill's executed notebook goes: claimed by one run, not overwritten unasked, atomic, redacted.

Importing this module replaces the local writer that papermill has, so that its own last write goes the same way.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock
from papermill.iorw import papermill_io

from orchestra_lib import paths, record
from orchestra_lib.errors import ParameterError, RecordError
from orchestra_lib.redaction import redact

OVERWRITE_VARIABLE = "ORCHESTRA_OVERWRITE"

_sealed: set[Path] = set()
_local = papermill_io.get_handler("out.ipynb")


def write(text: str, path: str | Path) -> None:
    """Write an executed notebook, already redacted, atomically; a sealed one is left as it is.

    Raises RecordError when the disk refuses.
    """
    place = _absolute(path)
    if place not in _sealed:
        record.write_atomically(place, text.encode())


def seal(path: Path) -> None:
    """From now on ``write`` leaves this file alone: the ledger holds its digest."""
    _sealed.add(_absolute(path))


@contextmanager
def claimed(output: str | None) -> Iterator[Path]:
    """The output path for one run alone; nobody else writes there until the block ends.

    Raises ParameterError when there is no local path, its folder is missing, another run is writing there, or a
    notebook or record lies there already and ``ORCHESTRA_OVERWRITE=1`` is not set.
    """
    path = _local_path(output)
    lock = filelock.FileLock(_lock_path(path), fallback_to_soft=False)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise ParameterError(f"{path} is being written by another run; give this one an output of its own") from None
    except OSError as error:
        raise RecordError(f"{_lock_path(path)} cannot be locked: {error.strerror}; set ORCHESTRA_STATE_DIR") from error
    try:
        _refuse_overwriting(path)
        _sealed.discard(path)
        yield path
    finally:
        lock.release()


def _local_path(output: str | None) -> Path:
    if not output or output == "-" or "://" in output:
        raise ParameterError(
            f"a runbook needs an output file on this machine, not {output or '-'}: the executed notebook is the record"
        )
    path = _absolute(output)
    if not path.parent.is_dir():
        raise ParameterError(f"the folder {path.parent} does not exist: make it, or choose another output")
    return path


def _refuse_overwriting(path: Path) -> None:
    if os.environ.get(OVERWRITE_VARIABLE) == "1":
        return
    for there in (path, record.record_path(path)):
        if there.exists():
            raise ParameterError(
                f"{there} exists: it may be the record of an earlier run; choose another output, "
                f"or set {OVERWRITE_VARIABLE}=1 to replace it"
            )


def _lock_path(path: Path) -> Path:
    directory = paths.state_directory() / "locks"
    directory.mkdir(parents=True, exist_ok=True)
    return directory / f"output-{hashlib.sha256(str(path).encode()).hexdigest()[:16]}.lock"


def _absolute(path: str | Path) -> Path:
    # papermill resolves relative paths against the folder that it was started in, whatever --cwd says.
    return (Path(_local._cwd or "") / path).resolve()


def _write_as_papermill(text: str, path: str) -> None:
    if Path(path).suffix != ".ipynb":
        raise RecordError(f"{path} is no notebook: give the output a name that ends in .ipynb")
    write(redact(text), path)


_local.write = _write_as_papermill
