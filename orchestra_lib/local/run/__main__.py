"""The data plane's process: ``python -m orchestra_lib.local.run``, started by ``program``."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
from pathlib import Path

from filelock import FileLock, Timeout

from orchestra_lib.local.run import leftovers, places, presence
from orchestra_lib.local.run.control_client import ControlClient
from orchestra_lib.local.run.door import Door
from orchestra_lib.local.run.plane import Plane


def main() -> int:
    """Serve until told to stop; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m orchestra_lib.local.run")
    parser.add_argument("--directory", type=Path, required=True)
    parser.add_argument("--control-url", required=True)
    parser.add_argument("--token-file", type=Path, required=True)
    parser.add_argument("--idle-seconds", type=float, required=True)
    options = parser.parse_args()
    os.chdir(options.directory)  # not where the command was given: that folder may be moved or unmounted
    os.umask(0o077)  # what a container is told and writes is its owner's alone
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    try:
        # Held until the process ends, however it ends.
        with FileLock(places.home(options.directory) / "plane.lock", timeout=0):
            if ended := leftovers.end_all(options.directory):
                logging.getLogger(__name__).info("%d instances of a plane that was killed were ended", ended)
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
    plane = Plane(directory, control, options.idle_seconds)
    await plane.open()
    door = Door(plane, control)
    endpoint = await door.open(presence.last_port(directory))
    following = asyncio.create_task(plane.follow())
    await asyncio.wait((following, asyncio.create_task(plane.looked.wait())), return_when=asyncio.FIRST_COMPLETED)
    following.add_done_callback(lambda _: stop.set())  # it never returns: if it broke, the process must not seem alive
    presence.write_state(directory, endpoint, options.control_url)
    await stop.wait()
    following.cancel()
    await door.close()
    await plane.close()
    if not following.cancelled() and following.done():
        following.result()


if __name__ == "__main__":
    sys.exit(main())
