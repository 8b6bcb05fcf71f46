"""The passwords of a cluster's built-in users, as PostgreSQL keeps them: SCRAM verifiers, never the passwords.

The control plane writes them when a user or cluster is made; a server takes them over when somebody connects.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from filelock import FileLock
from psycopg import pq

from orchestra_lib.local.alloydb.places import cluster_directory

_FILE = "passwords.json"


def verifier(user: str, password: str) -> str:
    """The SCRAM verifier of a password, with a new salt."""
    # libpq hashes without a server, but wants a connection to put error messages into: one that was never made will do.
    never_made = pq.PGconn.connect_start(b"host=/nonexistent")
    return never_made.encrypt_password(password.encode(), user.encode(), b"scram-sha-256").decode()


def keep(directory: Path, cluster: str, user: str, verifier: str) -> None:
    """Remember the verifier of a user of the cluster (full name), instead of the one before."""
    _change(directory, cluster, lambda kept: {**kept, user: verifier})


def forget(directory: Path, cluster: str, user: str) -> None:
    """The user has no password any more."""
    _change(directory, cluster, lambda kept: {name: value for name, value in kept.items() if name != user})


def forget_all(directory: Path, cluster: str) -> None:
    """No user of the cluster has a password."""
    if (cluster_directory(directory, cluster) / _FILE).exists():
        _change(directory, cluster, lambda _: {})


def verifiers(directory: Path, cluster: str) -> Mapping[str, str]:
    """The verifier of each user that has a password."""
    file = cluster_directory(directory, cluster) / _FILE
    found: dict[str, str] = json.loads(file.read_text()) if file.exists() else {}
    return found


def copy(source: Path, target: Path) -> None:
    """Give one directory (a cluster's, a backup's) the verifiers of another."""
    if (source / _FILE).exists():
        _write(target, json.loads((source / _FILE).read_text()))


def _change(directory: Path, cluster: str, change: Callable[[Mapping[str, str]], Mapping[str, str]]) -> None:
    place = cluster_directory(directory, cluster)
    place.mkdir(parents=True, exist_ok=True)
    with FileLock(place / f"{_FILE}.lock", timeout=30):
        _write(place, change(verifiers(directory, cluster)))


def _write(place: Path, wanted: Mapping[str, str]) -> None:
    place.mkdir(parents=True, exist_ok=True)
    part = place / f"{_FILE}.part"
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        json.dump(wanted, file)
    part.replace(place / _FILE)
