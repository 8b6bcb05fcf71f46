"""The memory API under 50 users at once for ten minutes: its memory stays flat, and nothing is left open.

Each user stores, searches by vector and by text, lists and deletes, as fast as the answers come. Every answer is
checked against what the user has done. The memory of the service's processes, its file descriptors and its sessions
with the store are looked at all the while; flat is told from the slope over all looks after the warm-up, with its
interval. At the end the service is asked to stop, and no session of it may be left.
Ends with 1 and the reason if one of the claims does not hold.

    python tests/faults/api_soak.py [--seconds 600 | --short] [--users 50]
"""

from __future__ import annotations

import argparse
import asyncio
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import psycopg

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from service.serving import DIMENSION, memory, prepared, process, token_of, wait_for

from orchestra_lib.bench.statistics import Estimate, slope
from orchestra_lib.local import databases

PORT, POOL_MAX = 18_432, 8
LONG_SECONDS, SHORT_SECONDS = 600.0, 60.0
WARM_UP_SECONDS = 20.0
"""Until every session has its statements prepared and the allocator has what it needs for 50 requests at once."""
LARGEST_GROWTH = 0.05
"""Of the memory, from the end of the warm-up to the end."""
SECONDS_BETWEEN_LOOKS = 0.25
OF_THE_SERVICE = "application_name = 'orchestra-memory-api'"
SESSIONS = (
    f"SELECT count(*), count(*) FILTER (WHERE state LIKE 'idle in%') FROM pg_stat_activity WHERE {OF_THE_SERVICE}"
)


@dataclass(frozen=True)
class Look:
    """What was there at one moment, seconds from the start: the service's memory, descriptors and sessions."""

    at: float
    resident_mib: float
    descriptors: int
    sessions: int


@dataclass
class Watched:
    """What was seen while it ran, before it and after."""

    looks: list[Look] = field(default_factory=list)
    answers: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    descriptors_before: int = 0
    descriptors_after: int = 0
    sessions_before: int = 0
    in_transaction_after: int = 0
    sessions_left: int = 0

    @property
    def warm(self) -> list[Look]:
        """The looks after the warm-up."""
        return [look for look in self.looks if look.at >= WARM_UP_SECONDS]

    @property
    def memory_slope(self) -> Estimate:
        """MiB a minute, after the warm-up."""
        return _memory_slope(self.warm)

    def broken(self) -> list[str]:
        """The claims that do not hold."""
        failed = sum(count for kind, count in self.answers.items() if kind.split()[1][0] != "2")
        most = max(look.sessions for look in self.looks)
        first, last = self.warm[0], self.warm[-1]
        # The upper end: what the slope may be. A time too short to tell is not one in which memory was flat.
        grown = self.memory_slope.high * (last.at - first.at) / 60
        claims = (
            (grown <= LARGEST_GROWTH * first.resident_mib, f"memory may have grown by {grown:.1f} MiB"),
            (most <= POOL_MAX, f"{most} sessions, the pool has {POOL_MAX}"),
            (self.in_transaction_after == 0, f"{self.in_transaction_after} sessions are in a transaction"),
            (
                self.sessions_left == self.sessions_before,
                f"{self.sessions_left} sessions of a stopped service",
            ),
            (
                self.descriptors_after <= self.descriptors_before + POOL_MAX,
                f"{self.descriptors_after} file descriptors are open, {self.descriptors_before} were before",
            ),
            (failed == 0, f"{failed} of {self.answers.total():,} answers are no success: {dict(self.answers)}"),
            (not self.wrong, f"{len(self.wrong)} answers were wrong: {self.wrong[:3]}"),
            (self.answers.total() > 0, "nothing was asked"),
        )
        return [words for holds, words in claims if not holds]

    def __str__(self) -> str:
        first, last = self.warm[0], self.warm[-1]
        half = len(self.warm) // 2
        most_open = max(look.descriptors for look in self.looks)
        most_sessions = max(look.sessions for look in self.looks)
        return (
            f"{self.answers.total():,} answers in {last.at:.0f} s: {dict(self.answers)}\n"
            f"memory {first.resident_mib:.1f} MiB after the warm-up, {last.resident_mib:.1f} at the end, "
            f"at most {max(look.resident_mib for look in self.looks):.1f}; slope {self.memory_slope} MiB a minute, "
            f"of the first half {_memory_slope(self.warm[:half])}, of the second {_memory_slope(self.warm[half:])}\n"
            f"file descriptors {self.descriptors_before} before, at most {most_open}, "
            f"{self.descriptors_after} after\n"
            f"sessions {self.sessions_before} before, at most {most_sessions} of a pool of "
            f"{POOL_MAX}, {self.in_transaction_after} in a transaction after, {self.sessions_left} left at the end"
        )


def _memory_slope(looks: Sequence[Look]) -> Estimate:
    return slope([look.at / 60 for look in looks], [look.resident_mib for look in looks])


async def user(client: aiohttp.ClientSession, name: str, number: int, until: float, seen: Watched) -> None:
    """One user's day. A token is shared by several users, so each has a session of its own in the memory."""
    rng, session, kept = random.Random(number), f"session-{number}", []
    headers = {"Authorization": f"Bearer {token_of(name)}"}

    async def ask(method: str, url: str, **given: Any) -> tuple[int, Any]:
        async with client.request(method, url, headers=headers, **given) as answer:
            seen.answers[f"{method} {answer.status}"] += 1
            return answer.status, await answer.json(content_type=None)

    while time.monotonic() < until:
        embedding = [rng.gauss(0, 1) for _ in range(DIMENSION)]
        body = memory(session_id=session, content=f"breaker {rng.random()}", embedding=embedding)
        status, stored = await ask("POST", "/v1/memories", json=body)
        if status == 201:
            kept.append(stored["id"])
        for query in ({"embedding": embedding}, {"text": "breaker"}):
            asked = {**query, "k": 100, "filters": {"session_id": session}}
            status, found = await ask("POST", "/v1/search", json=asked)
            if status == 200 and {hit["memory"]["id"] for hit in found["hits"]} != set(kept):
                seen.wrong.append(f"{name} {session}: a search found {len(found['hits'])}, kept are {len(kept)}")
        status, listed = await ask("GET", "/v1/memories", params={"session_id": session, "limit": 100})
        if status == 200 and [one["id"] for one in listed["memories"]] != kept[::-1]:
            seen.wrong.append(f"{name} {session}: a listing differs")
        while len(kept) > rng.randrange(1, 20):
            status, _ = await ask("DELETE", f"/v1/memories/{kept.pop(0)}")
            if status != 204:
                seen.wrong.append(f"{name} {session}: a memory was not there to delete")


async def watch(service: psutil.Process, store: psycopg.Connection, until: float, seen: Watched) -> None:
    """Look at the service, its children and its sessions again and again."""
    began = time.monotonic()
    while time.monotonic() < until:
        processes = [service, *service.children(recursive=True)]
        seen.looks.append(
            Look(
                time.monotonic() - began,
                sum(one.memory_info().rss for one in processes) / 2**20,
                sum(one.num_fds() for one in processes),
                sessions(store)[0],
            )
        )
        await asyncio.sleep(SECONDS_BETWEEN_LOOKS)


def sessions(store: psycopg.Connection) -> tuple[int, int]:
    """The service's sessions, and how many of them are in a transaction and do nothing."""
    row = store.execute(SESSIONS).fetchone()
    assert row is not None
    return int(row[0]), int(row[1])


async def soak(
    url: str, service: psutil.Process, store: psycopg.Connection, users: int, until: float, seen: Watched
) -> None:
    """All users at once, and who watches."""
    timeout = aiohttp.ClientTimeout(total=30)
    async with (
        aiohttp.ClientSession(url, connector=aiohttp.TCPConnector(limit=users), timeout=timeout) as client,
        asyncio.TaskGroup() as group,
    ):
        group.create_task(watch(service, store, until, seen))
        for number in range(users):
            group.create_task(user(client, ("ada", "grace", "linus")[number % 3], number, until, seen))


def run(seconds: float, users: int) -> Watched:
    """Everything, in a directory of its own."""
    seen = Watched()
    directory = Path(tempfile.mkdtemp(prefix="orchestra-soak-"))
    directory.chmod(0o755)
    try:
        dsn = databases.up(directory, names=("store",)).databases["store"].conninfo
        with psycopg.connect(dsn, autocommit=True) as store:
            store.execute("CREATE EXTENSION vector")
            prepared(dsn, DIMENSION)
            seen.sessions_before, _ = sessions(store)
            with process(dsn, directory, PORT, pool_max=POOL_MAX) as (running, api):
                wait_for(api, "/readyz", 200)
                api.close()
                service = psutil.Process(running.pid)
                seen.descriptors_before = service.num_fds()
                asyncio.run(soak(api.url, service, store, users, time.monotonic() + seconds, seen))
                time.sleep(1)
                seen.descriptors_after = service.num_fds()
                _, seen.in_transaction_after = sessions(store)
                running.terminate()
                running.wait(timeout=20)
            seen.sessions_left = _left(store, seen.sessions_before)
    finally:
        databases.down(directory)
        shutil.rmtree(directory)
    return seen


def _left(store: psycopg.Connection, wanted: int) -> int:
    """How many sessions are left once the server has noticed that the service is gone."""
    deadline = time.monotonic() + 5
    while (left := sessions(store)[0]) > wanted and time.monotonic() < deadline:
        time.sleep(0.1)
    return left


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--seconds", type=float, default=LONG_SECONDS)
    length.add_argument("--short", action="store_const", dest="seconds", const=SHORT_SECONDS, help="a minute")
    parser.add_argument("--users", type=int, default=50)
    given = parser.parse_args()
    seen = run(given.seconds, given.users)
    print(seen)
    for words in seen.broken():
        print(f"does not hold: {words}")
    return 1 if seen.broken() else 0


if __name__ == "__main__":
    sys.exit(main())
