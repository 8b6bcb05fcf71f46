"""Where things of the local AlloyDB lie, and which loopback address an instance gets.

``directory`` is the control plane's own, here and in the other modules.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from orchestra_lib.errors import TargetUnreachable
from orchestra_lib.local import loopback
from orchestra_lib.local.loopback import FIRST_HOST, LAST_HOST


def home(directory: Path) -> Path:
    """Everything of the local AlloyDB."""
    return directory / "alloydb"


def data_directory(directory: Path, instance: str) -> Path:
    """The PostgreSQL data of one instance, given its full name: ``<project>.<location>.<cluster>.<instance>``."""
    return home(directory) / ".".join(instance.split("/")[1::2])


def cluster_directory(directory: Path, cluster: str) -> Path:
    """What the instances of one cluster share, given its full name: its authority and its users' passwords."""
    return home(directory) / ".".join(cluster.split("/")[1::2])


def storage(directory: Path, uid: str) -> Path:
    """What the cluster of that uid has beside its servers' data: continuous backups, a restored state."""
    return home(directory) / "storage" / uid


def backup(directory: Path, uid: str) -> Path:
    """What the backup of that uid holds."""
    return home(directory) / "backups" / uid


def cluster_of(instance: str) -> str:
    """The full name of an instance's cluster."""
    return instance.rpartition("/instances/")[0]


def free_address(directory: Path, taken: Collection[str]) -> str:
    """A loopback address for a new instance: connectors always call port 5433, so each instance has its own.

    Raises TargetUnreachable when the network is full.
    """
    address = loopback.free_address(directory, taken)
    if address is None:
        first, last = (f"{loopback.network(directory)}.{host}" for host in (FIRST_HOST, LAST_HOST))
        raise TargetUnreachable(f"every address from {first} to {last} has an AlloyDB instance; delete one")
    return address
