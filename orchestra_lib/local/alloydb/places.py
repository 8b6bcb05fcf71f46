"""Where things of the local AlloyDB lie, and which loopback address an instance gets.

``directory`` is the control plane's own, here and in the other modules.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from pathlib import Path

from orchestra_lib.errors import TargetUnreachable

FIRST_HOST, LAST_HOST = 10, 254
# Loopback networks that other programs listen in: 127.0.0.1 itself, the resolver at 127.0.0.53, Debian's 127.0.1.1.
_NETWORKS_OF_OTHERS = 2


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

    All of 127.0.0.0/8 belongs to the machine itself. A control plane has its own network in it, so that two of them
    on one machine do not meet. Raises TargetUnreachable when the network is full.
    """
    network = _network(directory)
    for host in range(FIRST_HOST, LAST_HOST + 1):
        if (address := f"{network}.{host}") not in taken:
            return address
    raise TargetUnreachable(
        f"every address from {network}.{FIRST_HOST} to {network}.{LAST_HOST} has an AlloyDB instance; delete one"
    )


def _network(directory: Path) -> str:
    digest = hashlib.sha256(str(directory.absolute()).encode()).digest()
    number = _NETWORKS_OF_OTHERS + int.from_bytes(digest[:4]) % (2**16 - _NETWORKS_OF_OTHERS)
    return f"127.{number >> 8}.{number & 0xFF}"
