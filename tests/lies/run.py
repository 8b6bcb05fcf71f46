"""Plants every lie and prints what became of it; exits with 1 when one is not caught.

.venv/bin/python tests/lies/run.py [WORD]    # those alone whose name has the word in it
"""

from __future__ import annotations

import contextlib
import io
import re
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import psycopg
from catalogue import LIES
from lie import NOT_CAUGHT, Lie, World, at_home
from stores import Pair

from orchestra_lib.local import databases


def main(word: str = "") -> int:
    """One line a lie, and a summary."""
    chosen = [one for one in LIES if word in one.name]
    escaped = 0
    with tempfile.TemporaryDirectory(prefix="orchestra-lies-") as name:
        place = Path(name)
        place.chmod(0o755)  # the server's own user must be able to enter
        needs_stores = any(one.needs_stores for one in chosen)
        servers = databases.up(place, names=("source", "target")) if needs_stores else None
        try:
            for number, one in enumerate(chosen, start=1):
                began = time.perf_counter()
                with tempfile.TemporaryDirectory(prefix="orchestra-lie-") as home:
                    pair = _pair(servers, number) if servers and one.needs_stores else None
                    said = _planted(one, World(Path(home), pair))
                verdict = _verdict(one, said)
                escaped += verdict != "caught"
                print(f"{number:3} {verdict:13} {time.perf_counter() - began:5.1f} s  {one.name}")
                print(f"{'':30}{' '.join(said.split())[:150]}", flush=True)
        finally:
            if servers:
                databases.down(place)
    print(f"{len(chosen)} lies, {escaped} not caught")
    return 1 if escaped else 0


def _planted(one: Lie, world: World) -> str:
    with at_home(world.home), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        return one.plant(world)


def _verdict(one: Lie, said: str) -> str:
    if said == NOT_CAUGHT:
        return "NOT CAUGHT"
    return "caught" if re.search(one.reason, said, re.DOTALL) else "OTHER REASON"


def _pair(servers: databases.LocalState, number: int) -> Pair:
    name, conninfos = f"lie_{number}", {role: one.conninfo for role, one in servers.databases.items()}
    for conninfo in conninfos.values():
        with psycopg.connect(conninfo, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        with psycopg.connect(conninfo, dbname=name, autocommit=True) as connection:
            connection.execute("CREATE EXTENSION vector")
    return Pair(**{role: f"{conninfo} dbname={name}" for role, conninfo in conninfos.items()})


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]))
