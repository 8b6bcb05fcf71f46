"""Removing what belonged to instances, clusters and backups that do not exist any more."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Collection
from pathlib import Path

from orchestra_lib.local import postgres
from orchestra_lib.local.alloydb import places
from orchestra_lib.local.alloydb.backend import Backend
from orchestra_lib.local.alloydb.control_client import Snapshot

_PART = ".part"
_log = logging.getLogger(__name__)


def present(directory: Path) -> frozenset[Path]:
    """The data of instances, the storages of clusters and the backups that are there."""
    home = places.home(directory)
    data = (file.parent for file in home.glob("*/PG_VERSION"))
    others = (places.storage(directory, "*"), places.backup(directory, "*"))
    return frozenset((*data, *(found for pattern in others for found in home.glob(str(pattern.relative_to(home))))))


def remove(found: Collection[Path], snapshot: Snapshot, directory: Path) -> None:
    """Remove those of them that belong to nothing in the snapshot, which is newer."""
    data = {places.data_directory(directory, name) for name in snapshot.instances}
    data |= {place.with_name(f"{place.name}{_PART}") for place in data}
    storages = {places.storage(directory, cluster.uid) for cluster in snapshot.clusters.values()}
    backups = {places.backup(directory, backup.uid) for backup in snapshot.backups.values()}
    for place in sorted(set(found) - data - storages - backups):
        _log.info("removing what is not needed any more: %s", place)
        if (place / "PG_VERSION").exists():
            Backend(place, place.name).remove()
            continue
        for inner in place.glob("*/PG_VERSION"):  # a restore may be at it
            postgres.discard(inner.parent, f"the data in {inner.parent}")
        shutil.rmtree(place, ignore_errors=True)  # what a job still writes is removed at the next look
