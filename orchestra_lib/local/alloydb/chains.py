"""The continuous backup of a cluster on disk: chains, each a base backup and the log that was archived from then on.

A chain is of the data of one server, whatever its role: a follower archives what it receives, so the log goes on
through changes of places. New data begins a new chain, and so does turning continuous backup on again: in a chain
there is no gap, and no log of two histories.
"""

from __future__ import annotations

import shlex
import uuid
from collections.abc import Iterator
from pathlib import Path

from orchestra_lib.local.alloydb import backups

_CHAINS = "chains"


def new_id() -> str:
    """The name of a new chain."""
    return uuid.uuid4().hex[:12]


def chain_of(storage: Path, identifier: str) -> Path:
    """Where a chain of a cluster lies, given the cluster's storage."""
    return storage / _CHAINS / identifier


def log_of(chain: Path) -> Path:
    """The archived log."""
    return chain / "log"


def earliest(storage: Path) -> float | None:
    """The earliest point in time, in seconds since 1970, that can be restored; None without a chain."""
    return min((since for since, _ in _restorable(storage)), default=None)


def reaching(storage: Path, point_in_time: float) -> Path | None:
    """The chain with the latest base backup that is no later than the point in time; None if there is none."""
    fitting = [found for found in _restorable(storage) if found[0] <= point_in_time]
    return max(fitting)[1] if fitting else None


def archive_command(chain: Path | None) -> str:
    """What the server runs for each file of its log: a copy that is there whole or not at all. None keeps nothing."""
    if chain is None:
        return "/bin/true"
    # The copy of a file that was archived before, just before a crash, is the same; anything else must not be lost.
    kept, part = f"{_quoted(log_of(chain))}/%f", f"{_quoted(log_of(chain))}/.%f.part"
    return f"cmp -s %p {kept} || {{ test ! -e {kept} && cp %p {part} && sync {part} && mv {part} {kept}; }}"


def restore_command(chain: Path) -> str:
    """What a recovering server runs for each file that it needs."""
    return f"cp {_quoted(log_of(chain))}/%f %p"


def _restorable(storage: Path) -> Iterator[tuple[float, Path]]:
    for chain in (storage / _CHAINS).glob("*"):
        note = backups.note_of(backups.base_of(chain))
        if note is not None:
            yield note.consistent_at, chain


def _quoted(path: Path) -> str:
    """For a shell, inside a command in which the server replaces %f and %p."""
    return shlex.quote(str(path)).replace("%", "%%")
