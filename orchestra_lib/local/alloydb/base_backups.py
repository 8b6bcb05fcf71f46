"""Copies of a running server's data: base backups, and the beginning of a server that follows it."""

from __future__ import annotations

import os
import shutil
import time
from contextlib import suppress
from pathlib import Path

from orchestra_lib.errors import TargetUnreachable
from orchestra_lib.local import postgres
from orchestra_lib.local.alloydb import backups
from orchestra_lib.local.alloydb.backups import Note
from orchestra_lib.local.alloydb.roles import SUPERUSER

FREE_BYTES_NEEDED = 1 << 30
"""An empty server takes 40 MB, its first WAL segments and temporary files some more."""
# What is of the server that was copied, and of no other.
_ITS_OWN = ("log", ".s.PGSQL.*", "orchestra.*")


def take(source: Path, place: Path, name: str) -> None:
    """A base backup of the server of a data directory, in a new directory, which is there when it is whole.

    ``name`` is what messages call the server. Raises TargetUnreachable when there is no room, or when it stops.
    """
    part = place.with_name(f"{place.name}.part")
    if part.exists():
        shutil.rmtree(part)
    copy(source, backups.data_of(part), f"a backup of {name}")
    backups.write_note(part, Note(time.time(), bytes_in(part)))
    part.rename(place)


def copy(source: Path, target: Path, name: str, slot: str | None = None) -> None:
    """Copy the data of a running server into a new directory, with the log that makes it whole, and nothing of ours.

    ``name`` is what messages call the copy. With ``slot`` the server keeps its log from now on, for a follower, which
    writes what it starts with to the disk itself. Raises TargetUnreachable.
    """
    server = postgres.running(source)
    if server is None:
        raise TargetUnreachable(f"{name} needs its server, which does not run")
    check_room(target, name, bytes_in(source))
    postgres.make_directory(target)
    address = ("-d", server.conninfo(SUPERUSER))
    postgres.run(
        "pg_basebackup",
        "-D",
        str(target),
        *address,
        "-X",
        "stream",
        "-c",
        "fast",
        *(("-S", slot, "--no-sync") if slot else ()),
    )
    clear(target)


def clear(data: Path) -> None:
    """Remove what is not data but says whose data it is."""
    for pattern in _ITS_OWN:
        for file in data.glob(pattern):
            file.unlink()


def check_room(data: Path, name: str, size_bytes: int = 0) -> None:
    """Raise TargetUnreachable unless there is room for a server's data of that size, and for it to grow."""
    parent = data.parent
    parent.mkdir(parents=True, exist_ok=True)
    needed, free = size_bytes + FREE_BYTES_NEEDED, shutil.disk_usage(parent).free
    if free < needed:
        raise TargetUnreachable(
            f"{name} needs {needed / 2**20:,.0f} MiB of disk in {parent}, {free / 2**20:,.0f} MiB are free; "
            "free some or set ORCHESTRA_STATE_DIR to a larger disk"
        )


def bytes_in(directory: Path) -> int:
    """The size of everything below a directory in which files come and go."""
    total = 0
    for folder, _, files in os.walk(directory):
        for file in files:
            with suppress(FileNotFoundError):
                total += (Path(folder) / file).lstat().st_size
    return total
