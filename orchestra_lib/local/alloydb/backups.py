"""What a base backup is on disk: a copied data directory, and a note that is written when the copy is whole."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

_BASE, _NOTE, _DATA = "base", "backup.json", "data"


@dataclass(frozen=True)
class Note:
    """What is known of a base backup."""

    consistent_at: float
    """From when on (seconds since 1970) the log may be replayed to: when the copy was finished."""
    size_bytes: int


def note_of(place: Path) -> Note | None:
    """The note of the backup in a directory; None while there is no whole one."""
    file = place / _NOTE
    return Note(**json.loads(file.read_text())) if file.exists() else None


def write_note(place: Path, note: Note) -> None:
    """The copy is whole."""
    part = place / f"{_NOTE}.part"
    part.write_text(json.dumps(asdict(note)))
    part.replace(place / _NOTE)


def base_of(place: Path) -> Path:
    """The base backup within what a backup or a chain holds."""
    return place / _BASE


def data_of(place: Path) -> Path:
    """The copied data directory."""
    return place / _DATA


def size_bytes(place: Path) -> int:
    """The size of what a backup holds; nothing where no data plane took one."""
    note = note_of(base_of(place))
    return note.size_bytes if note else 0
