"""The memory API under 50 users at once for ten minutes: its memory stays flat, and nothing is left open.

Each user stores, searches by vector and by text, lists and deletes, as fast as the answers come. Every answer is
checked against what the user has done; the process, its file descriptors and the server's sessions are looked at all
the while.
Ends with 1 and the reason if one of the claims does not hold.

    python tests/faults/api_soak.py [--seconds 600] [--users 50]
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
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil
import psycopg

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from service.serving import DIMENSION, memory, prepared, process, token_of, wait_for

from orchestra_lib.local import databases

PORT, POOL_MAX = 18_432, 8
WARM_UP_SHARE = 0.2
LARGEST_GROWTH = 0.05
"""Of the memory between the end of the warm-up and the end, as medians of a fifth of the time each."""
SECONDS_BETWEEN_LOOKS = 0.5
SESSIONS = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'orchestra-memory-api'"


@dataclass
class Watched:
    """What was seen while it ran."""

    resident_mib: list[float] = field(default_factory=list)
    descriptors: list[int] = field(default_factory=list)
    sessions: list[int] = field(default_factory=list)
    answers: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


async def user(client: httpx.AsyncClient, name: str, number: int, until: float, seen: Watched) -> None:
    """One user's day. A token is shared by several users, so each has a session of its own in the memory."""
    rng, session, kept = random.Random(number), f"session-{number}", []
    headers = {"Authorization": f"Bearer {token_of(name)}"}

    async def ask(method: str, url: str, **given: object) -> httpx.Response:
        answer = await client.request(method, url, headers=headers, **given)
        seen.answers[f"{method} {answer.status_code}"] += 1
        return answer

    while time.monotonic() < until:
        embedding = [rng.gauss(0, 1) for _ in range(DIMENSION)]
        body = memory(session_id=session, content=f"breaker {rng.random()}", embedding=embedding)
        stored = await ask("POST", "/v1/memories", json=body)
        if stored.status_code == 201:
            kept.append(stored.json()["id"])
        for query in ({"embedding": embedding}, {"text": "breaker"}):
            found = await ask("POST", "/v1/search", json={**query, "k": 100, "filters": {"session_id": session}})
            ids = {hit["memory"]["id"] for hit in found.json().get("hits", ())} if found.is_success else set()
            if found.is_success and ids != set(kept):
                seen.wrong.append(f"{name} {session}: a search found {len(ids)}, kept are {len(kept)}")
        listed = await ask("GET", "/v1/memories", params={"session_id": session, "limit": 100})
        if listed.is_success and [one["id"] for one in listed.json()["memories"]] != kept[::-1]:
            seen.wrong.append(f"{name} {session}: a listing differs")
        while len(kept) > rng.randrange(1, 20):
            if (await ask("DELETE", f"/v1/memories/{kept.pop(0)}")).status_code != 204:
                seen.wrong.append(f"{name} {session}: a memory was not there to delete")


async def watch(service: psutil.Process, dsn: str, until: float, seen: Watched) -> None:
    with psycopg.connect(dsn, autocommit=True) as looking:
        while time.monotonic() < until:
            seen.resident_mib.append(service.memory_info().rss / 2**20)
            seen.descriptors.append(service.num_fds())
            row = looking.execute(SESSIONS).fetchone()
            seen.sessions.append(row[0] if row else 0)
            await asyncio.sleep(SECONDS_BETWEEN_LOOKS)


async def soak(url: str, service: psutil.Process, dsn: str, users: int, seconds: float) -> Watched:
    seen, until = Watched(), time.monotonic() + seconds
    limits = httpx.Limits(max_connections=users, max_keepalive_connections=users)
    async with (
        httpx.AsyncClient(base_url=url, limits=limits, timeout=30, trust_env=False) as client,
        asyncio.TaskGroup() as group,
    ):
        group.create_task(watch(service, dsn, until, seen))
        for number in range(users):
            group.create_task(user(client, ("ada", "grace", "linus")[number % 3], number, until, seen))
    return seen


def judged(seen: Watched, idle: int, after: int) -> list[str]:
    """What does not hold; empty when everything does."""
    fifth = max(1, round(len(seen.resident_mib) * WARM_UP_SHARE))
    start, end = (
        sorted(part)[len(part) // 2] for part in (seen.resident_mib[fifth : 2 * fifth], seen.resident_mib[-fifth:])
    )
    failed = sum(count for kind, count in seen.answers.items() if kind.split()[1][0] != "2")
    total = seen.answers.total()
    print(f"{total:,} answers, {failed} not 2xx: {dict(seen.answers)}")
    print(f"memory {start:.1f} MiB after the warm-up, {end:.1f} MiB at the end, at most {max(seen.resident_mib):.1f}")
    print(f"file descriptors {idle} before, at most {max(seen.descriptors)}, {after} after")
    print(f"sessions with the store: at most {max(seen.sessions)}, the pool has {POOL_MAX}")
    claims = {
        f"memory grew by {end / start - 1:.1%}": end <= start * (1 + LARGEST_GROWTH),
        f"{max(seen.sessions)} sessions, the pool has {POOL_MAX}": max(seen.sessions) <= POOL_MAX,
        f"{after} file descriptors are open, {idle} were before": after <= idle + POOL_MAX,
        f"{failed} of {total} answers are no success": failed == 0,
        f"answers were wrong: {seen.wrong[:3]}": not seen.wrong,
    }
    return [claim for claim, holds in claims.items() if not holds]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--users", type=int, default=50)
    given = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="orchestra-soak-"))
    directory.chmod(0o755)
    try:
        dsn = databases.up(directory, names=("store",)).databases["store"].conninfo
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute("CREATE EXTENSION vector")
        prepared(dsn, DIMENSION)
        with process(dsn, directory, PORT, pool_max=POOL_MAX) as (running, api):
            wait_for(api, "/readyz", 200)
            api.close()
            service = psutil.Process(running.pid)
            idle = service.num_fds()
            seen = asyncio.run(soak(api.url, service, dsn, given.users, given.seconds))
            time.sleep(1)
            failures = judged(seen, idle, service.num_fds())
    finally:
        databases.down(directory)
        shutil.rmtree(directory)
    for failure in failures:
        print(f"FAILED: {failure}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
