"""Files that are only ever appended to, a line at a time, each line on the disk before the call returns."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from orchestra_lib.errors import RecordError


def append_line(path: Path, line: str) -> None:
    """Append a line and see it on the disk; the file and its folder are made if need be."""
    is_new = not path.exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        file.write(f"{line}\n".encode())
        file.flush()
        os.fsync(file.fileno())
    if is_new:
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def whole_lines(path: Path) -> list[bytes]:
    """The lines of the file; none where there is no file.

    A last line without its end is cut off: it was being written when its process died, and nobody had acted on it.
    """
    if not path.exists():
        return []
    content = path.read_bytes()
    *whole, torn = content.split(b"\n")
    if torn:
        with path.open("r+b") as file:
            file.truncate(len(content) - len(torn))
    return whole


def take_entries(path: Path, take: Callable[[Mapping[str, Any]], None]) -> None:
    """Hand every line of a journal, a JSON object each, to ``take``, in their order.

    Raises RecordError with the line's number for one that is no JSON, or that ``take`` refuses by a ValueError,
    KeyError or TypeError.
    """
    for number, line in enumerate(whole_lines(path), start=1):
        try:
            take(json.loads(line))
        except (ValueError, KeyError, TypeError) as error:
            raise RecordError(f"{path}, line {number} cannot be believed: {error}; restore it from a copy") from error
