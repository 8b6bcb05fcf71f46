"""The local target as a program: ``local up | status | env | instance | down | reset``.

Only its command and its sockets are for others.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from orchestra_lib import settings
from orchestra_lib.errors import ParameterError, TargetUnreachable
from orchestra_lib.local import databases, gcloud
from orchestra_lib.local.alloydb import local_door
from orchestra_lib.local.alloydb import program as alloydb
from orchestra_lib.local.alloydb.program import DataPlane
from orchestra_lib.local.control import process
from orchestra_lib.local.control.operations import latency_of
from orchestra_lib.local.control.process import ControlProcess
from orchestra_lib.local.databases import LocalState
from orchestra_lib.paths import state_directory

PARTS = ("control", "databases")
_ENVIRONMENT = "local"


@dataclass(frozen=True)
class LocalTarget:
    """What runs: the control plane and AlloyDB's data plane (None when they do not), and the databases."""

    control: ControlProcess | None
    alloydb: DataPlane | None
    local: LocalState

    @property
    def databases(self) -> dict[str, databases.Database]:
        """The databases that are up, by name."""
        return self.local.databases

    @property
    def running(self) -> tuple[str, ...]:
        """The names of the parts that are up."""
        parts = {"control plane": self.control, "AlloyDB": self.alloydb}
        return (*(name for name, part in parts.items() if part), *self.local.databases)

    def as_dict(self) -> dict[str, Any]:
        """``{"url", "token_file", "port", "pid", "alloydb", "state_dir", "databases"}``; the last two always.

        ``alloydb`` is ``{"endpoint", "ca_file", "pid"}``: where the connector finds the admin service.
        """
        control = asdict(self.control) if self.control else {}
        control.pop("started", None)
        alloydb = {name: getattr(self.alloydb, name) for name in ("endpoint", "ca_file", "pid")} if self.alloydb else {}
        return {**control, **({"alloydb": alloydb} if alloydb else {}), **asdict(self.local)}

    def as_json(self) -> str:
        """The same as JSON."""
        return json.dumps(self.as_dict(), indent=1)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``local``."""
    parser.add_argument(
        "action",
        choices=("up", "status", "env", "instance", "down", "reset"),
        help="env prints what a shell has to export so that gcloud talks to the local Google Cloud; instance waits for "
        "an AlloyDB instance and prints where its server listens",
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help="of the instance: projects/…/instances/…")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--port", type=int, help="of the control plane (default: that of the last time, or a free one)")
    parser.add_argument(
        "--latency",
        default=process.DEFAULT_LATENCY,
        help="how long operations take: realistic, 0, or a factor of realistic (default: %(default)s)",
    )
    parser.add_argument("--only", choices=PARTS, help="start this part alone")
    parser.add_argument(
        "--open", action="store_true", help="for tests: no token is wanted, and projects exist when they are named"
    )
    parser.add_argument("--organization", metavar="ID", help="the organisation that exists (default: the strategy's)")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Carry out one action; with ``--json`` the state goes to standard output as one JSON object."""
    directory = state_directory()
    if (options.action == "instance") != (options.name is not None):
        raise ParameterError("`local instance` takes the full name of an AlloyDB instance, the other actions none")
    if options.action == "instance":
        found_at = local_door.ask(process.directory(directory), options.name)
        sys.stdout.write(json.dumps(found_at, indent=1) + "\n" if options.json else _told_instance(found_at))
        return 0
    if options.action in ("down", "reset"):
        stopped = (
            *alloydb.down(process.directory(directory)),
            *process.down(directory),
            *databases.down(directory),
        )
        if options.action == "reset":
            _remove(directory / "local")
        sys.stdout.write(f"stopped: {', '.join(stopped) or 'nothing was running'}\n")
        return 0
    if options.action == "env":
        variables = _gcloud_environment(directory)
        sys.stdout.write(json.dumps(variables, indent=1) + "\n" if options.json else gcloud.exports(variables))
        return 0
    latency_of(options.latency)  # a wrong one is refused here, not in the log of the background process
    if options.action == "up":
        _start(directory, options)
    found = state()
    sys.stdout.write(found.as_json() + "\n" if options.json else _told(found))
    return 0


def state() -> LocalTarget:
    """What runs now; starts nothing."""
    directory = state_directory()
    data_plane = alloydb.status(process.directory(directory))
    return LocalTarget(process.status(directory), data_plane, databases.status(directory))


def _gcloud_environment(directory: Path) -> dict[str, str]:
    control = process.status(directory)
    if control is None:
        raise TargetUnreachable("the local Google Cloud is not up; start it first: python -m orchestra_lib local up")
    project = settings.load(_ENVIRONMENT).project
    token = Path(control.token_file).read_text().strip()
    return gcloud.environment(control.url, token, directory / "local" / "gcloud", project.id if project else None)


def _start(directory: Path, options: argparse.Namespace) -> None:
    if options.only in (None, "databases"):
        databases.up(directory)
    if options.only in (None, "control"):
        control = process.up(
            directory,
            port=options.port,
            latency=options.latency,
            permissive=options.open,
            organization=options.organization,
        )
        if options.only is None and alloydb.installed():
            alloydb.up(
                process.directory(directory), control.url, Path(control.token_file), authority=directory / "authority"
            )


def _remove(directory: Path) -> None:
    if directory.exists():
        shutil.rmtree(directory)


def _told_instance(found: Mapping[str, Any]) -> str:
    where = f"pid {found['pid']}, host={found['socket_directory']} port={found['port']}"
    return f"{found['instance']}: {found['role']}, {where}\n"


def _told(found: LocalTarget) -> str:
    lines = [f"control: up, pid {found.control.pid}, {found.control.url}"] if found.control else []
    lines += [f"alloydb: up, pid {found.alloydb.pid}, {found.alloydb.endpoint}"] if found.alloydb else []
    lines += [
        f"{name}: up, pid {database.pid}, {database.data_directory}" for name, database in found.databases.items()
    ]
    return "\n".join(lines or [f"down; data in {found.local.state_dir}"]) + "\n"
