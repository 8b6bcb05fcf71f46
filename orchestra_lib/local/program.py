"""The local target as a program: ``local up | status | down | reset``. Only its command and sockets are for others."""

from __future__ import annotations

import argparse
import sys

from orchestra_lib.local import databases
from orchestra_lib.local.databases import LocalState
from orchestra_lib.paths import state_directory


def run(options: argparse.Namespace) -> int:
    """Carry out one action; with ``--json`` the state goes to standard output as one JSON object."""
    if options.action in ("down", "reset"):
        stopped = getattr(databases, options.action)(state_directory())
        sys.stdout.write(f"stopped: {', '.join(stopped) or 'nothing was running'}\n")
        return 0
    found = databases.up(state_directory()) if options.action == "up" else state()
    sys.stdout.write(found.as_json() + "\n" if options.json else _told(found))
    return 0


def state() -> LocalState:
    """What runs now; starts nothing."""
    return databases.status(state_directory())


def _told(found: LocalState) -> str:
    lines = [f"{name}: up, pid {database.pid}, {database.data_directory}" for name, database in found.databases.items()]
    return "\n".join(lines or [f"down; data in {found.state_dir}"]) + "\n"
