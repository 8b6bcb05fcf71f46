"""The local target as a program: ``local up | status | env | instance | services | down | reset``.

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
from orchestra_lib.local.run import asking, places
from orchestra_lib.local.run import presence as cloud_run_presence
from orchestra_lib.local.run import program as cloud_run
from orchestra_lib.paths import state_directory

PARTS = ("control", "databases")
_ENVIRONMENT = "local"


@dataclass(frozen=True)
class LocalTarget:
    """What runs: the control plane, the data planes of AlloyDB and Cloud Run (None when not), and the databases."""

    control: ControlProcess | None
    alloydb: DataPlane | None
    run: cloud_run_presence.DataPlane | None
    local: LocalState

    @property
    def databases(self) -> dict[str, databases.Database]:
        """The databases that are up, by name."""
        return self.local.databases

    @property
    def running(self) -> tuple[str, ...]:
        """The names of the parts that are up."""
        parts = {"control plane": self.control, "AlloyDB": self.alloydb, "Cloud Run": self.run}
        return (*(name for name, part in parts.items() if part), *self.local.databases)

    def as_dict(self) -> dict[str, Any]:
        """``{"url", "token_file", "port", "pid", "alloydb", "run", "state_dir", "databases"}``; the last two always.

        ``alloydb`` is ``{"endpoint", "ca_file", "pid"}``: where the connector finds the admin service. ``run`` is
        ``{"endpoint", "pid"}``: where Cloud Run's data plane tells what it serves.
        """
        control = asdict(self.control) if self.control else {}
        control.pop("started", None)
        alloydb = {name: getattr(self.alloydb, name) for name in ("endpoint", "ca_file", "pid")} if self.alloydb else {}
        run = {name: getattr(self.run, name) for name in ("endpoint", "pid")} if self.run else {}
        parts = {name: part for name, part in (("alloydb", alloydb), ("run", run)) if part}
        return {**control, **parts, **asdict(self.local)}

    def as_json(self) -> str:
        """The same as JSON."""
        return json.dumps(self.as_dict(), indent=1)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``local``."""
    parser.add_argument(
        "action",
        choices=("up", "status", "env", "instance", "services", "down", "reset"),
        help="env prints what a shell has to export so that gcloud talks to the local Google Cloud; instance waits for "
        "an AlloyDB instance and prints where its server listens; services counts what Cloud Run's revisions do",
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
    if options.action == "services":
        served = _served(directory)
        sys.stdout.write(json.dumps(served, indent=1) + "\n" if options.json else _told_services(served))
        return 0
    if options.action in ("down", "reset"):
        stopped = (
            *cloud_run.down(process.directory(directory)),
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
    home = process.directory(directory)
    return LocalTarget(
        process.status(directory), alloydb.status(home), cloud_run.status(home), databases.status(directory)
    )


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
        if options.only is None:
            wanted = cloud_run_presence.Wanted(control.url, control.token_file)
            cloud_run.want(process.directory(directory), wanted)
        if options.only is None and alloydb.installed():
            alloydb.up(
                process.directory(directory), control.url, Path(control.token_file), authority=directory / "authority"
            )


def _served(directory: Path) -> dict[str, Any]:
    """What Cloud Run's data plane serves; nothing if it does not run."""
    control, plane = process.status(directory), cloud_run.status(process.directory(directory))
    if control is None or plane is None:
        return {"services": [], "gateways": []}
    return asking.ask(plane, Path(control.token_file))


def _told_services(served: Mapping[str, Any]) -> str:
    lines = []
    for service in served["services"]:
        lines.append(f"{service['name']}: {places.url(service['addresses'].get('', '-'))}")
        for name, one in service["revisions"].items():
            percent = service["shares"].get(name, 0)
            lines.append(
                f"  {name}: {percent} %, {len(one['instances'])} instances, {one['requests']} requests, "
                f"{one['cold_starts']} cold starts, {one['rejected']} rejected, {one['failed']} failed"
            )
    lines += [f"{gateway['name']}: {', '.join(gateway['paths'])}" for gateway in served["gateways"]]
    return "\n".join(lines or ["nothing is served"]) + "\n"


def _remove(directory: Path) -> None:
    if directory.exists():
        shutil.rmtree(directory)


def _told_instance(found: Mapping[str, Any]) -> str:
    where = f"pid {found['pid']}, host={found['socket_directory']} port={found['port']}"
    return f"{found['instance']}: {found['role']}, {where}\n"


def _told(found: LocalTarget) -> str:
    lines = [f"control: up, pid {found.control.pid}, {found.control.url}"] if found.control else []
    lines += [f"alloydb: up, pid {found.alloydb.pid}, {found.alloydb.endpoint}"] if found.alloydb else []
    lines += [f"run: up, pid {found.run.pid}, {found.run.endpoint}"] if found.run else []
    lines += [
        f"{name}: up, pid {database.pid}, {database.data_directory}" for name, database in found.databases.items()
    ]
    return "\n".join(lines or [f"down; data in {found.local.state_dir}"]) + "\n"
