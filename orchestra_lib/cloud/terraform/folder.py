"""The folder that an export is written to: whole, and never over something that is not an earlier export."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from orchestra_lib.errors import ParameterError, RecordError
from orchestra_lib.record import sync_folder, write_atomically

MANIFEST = "orchestra-export.json"
"""The SHA-256 of each file of an export. What it does not name (state, locks, a team's own files) is left alone."""


def write(directory: Path, files: Mapping[str, str]) -> None:
    """Write the files and their manifest, and remove files of an earlier export that are no more.

    Raises ParameterError when the folder holds something else than an earlier export, or an export that was edited;
    RecordError when it cannot be written.
    """
    earlier = _earlier(directory)
    contents = {name: text.encode() for name, text in files.items()}
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in sorted(contents.items())}
    contents[MANIFEST] = (json.dumps(digests, indent=2) + "\n").encode()
    try:
        if earlier is None:
            _place(directory, contents)
        else:
            _replace(directory, contents, earlier)
    except OSError as error:
        raise RecordError(f"{directory} cannot be written: {error.strerror}; choose another folder") from error


def _place(directory: Path, contents: Mapping[str, bytes]) -> None:
    """A new folder appears with everything in it."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent))
    try:
        for name, content in contents.items():
            write_atomically(made / name, content)
        made.chmod(0o755)
        made.replace(directory)  # an empty folder gives way
        sync_folder(directory.parent)
    except OSError:
        shutil.rmtree(made, ignore_errors=True)
        raise


def _replace(directory: Path, contents: Mapping[str, bytes], earlier: Mapping[str, str]) -> None:
    """File by file, the manifest last: cut off before it, the folder counts as edited and is not written over."""
    for name, content in contents.items():
        write_atomically(directory / name, content)
    for name in set(earlier) - set(contents):
        (directory / name).unlink(missing_ok=True)


def _earlier(directory: Path) -> dict[str, str] | None:
    """The manifest of the export that the folder holds; None where there is nothing yet."""
    if not directory.exists() or (directory.is_dir() and not any(directory.iterdir())):
        return None
    if not (directory / MANIFEST).is_file():
        raise ParameterError(
            f"{directory} is not empty and holds no earlier export (it has no {MANIFEST}): name a new or empty folder"
        )
    try:
        manifest = dict(json.loads((directory / MANIFEST).read_text()))
    except ValueError as error:
        raise ParameterError(f"{directory / MANIFEST} cannot be read: {error}; name a new or empty folder") from error
    edited = [name for name, digest in sorted(manifest.items()) if not _is_as_written(directory / name, digest)]
    if edited:
        raise ParameterError(
            f"{directory} holds an earlier export of which {', '.join(edited)} is no longer as it was written: name a "
            "new folder and compare, so that nobody's work is lost"
        )
    return manifest


def _is_as_written(path: Path, digest: str) -> bool:
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == digest
