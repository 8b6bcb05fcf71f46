"""How a cluster came to be, where that decides about its data: restored from a backup, or following another cluster.

The API does not say it of every cluster, so the control plane leaves a note for the data plane.
"""

from __future__ import annotations

from pathlib import Path

from orchestra_lib.local.alloydb.places import cluster_directory

_FILE = "made_by"
_EMPTY = "create"


def note(directory: Path, cluster: str, method: str) -> None:
    """Write by which method the cluster (full name) was made: ``create``, ``restore``, ``createsecondary``."""
    place = cluster_directory(directory, cluster)
    place.mkdir(parents=True, exist_ok=True)
    (place / _FILE).write_text(method)


def made_by(directory: Path, cluster: str) -> str | None:
    """The method by which a cluster was made that does not begin empty; None for one that does."""
    file = cluster_directory(directory, cluster) / _FILE
    method = file.read_text() if file.exists() else _EMPTY
    return None if method == _EMPTY else method
