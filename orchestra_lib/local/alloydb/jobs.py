"""What there is to do so that the servers become what the control plane wants, as of one look at it.

An operation that waits for the data plane is a job, and so is every server that is not in its role. Each job may be
done again after it was interrupted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from orchestra_lib.local.alloydb.control_client import Operation, Snapshot
from orchestra_lib.local.alloydb.servers import SERVED_VERSION, Servers
from orchestra_lib.local.alloydb.wanted import SECONDARY, Wanted

Work = Callable[[], object]


@dataclass(frozen=True)
class Job:
    """A piece of work that may take long. ``key`` names it: it is not begun again while it is being done."""

    key: str
    about: str
    """The full name of what it is done to."""
    work: Work
    operation: str = ""
    """The operation that is to be told how it ended."""


def jobs_of(snapshot: Snapshot, servers: Servers) -> Iterator[Job]:
    """Everything that there is to do now."""
    for operation in snapshot.operations:
        if operation.awaits:
            yield Job(operation.key, operation.target, _work_of(operation, snapshot, servers), operation.key)
    for name, wanted in servers.wanted.items():
        if not wanted.instance.is_serving or wanted.instance.version != SERVED_VERSION:
            continue
        if _has_to_run(wanted, servers) and not servers.is_settled(name):
            yield Job(f"settle {name}", name, partial(servers.serve, name))
        if servers.needs_base_backup(name):
            yield Job(f"base backup of {name}", name, partial(servers.take_base_backup, name))


def _has_to_run(wanted: Wanted, servers: Servers) -> bool:
    """Whether a server runs, or changes its role, without anybody who connects: a follower has to receive the log."""
    return wanted.role == SECONDARY or servers.backend(wanted.name).exists


def _work_of(operation: Operation, snapshot: Snapshot, servers: Servers) -> Work:
    target = operation.target
    works: dict[str, Work] = {
        "backups.create": lambda: servers.back_up(snapshot.backups[target]),
        "clusters.promote": lambda: servers.change_roles(target),
        "clusters.restore": lambda: servers.restore(snapshot.clusters[target]),
        "clusters.switchover": lambda: servers.change_roles(target),
        "instances.createsecondary": lambda: servers.serve(target),
        "instances.failover": lambda: servers.restart(target, crash=False),
        "instances.injectFault": lambda: servers.restart(target, crash=True),
        "instances.restart": lambda: servers.restart(target, crash=False),
    }
    return works[operation.method]
