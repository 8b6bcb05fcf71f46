"""The memory API on the local Cloud Run under constant load, while everything that phase 5 does to it is done to it.

A green revision takes over gate by gate, all traffic is redirected back, the instance that serves is killed, the
database is restarted; then again, as often as asked. Load is open loop: searches of one user, whose answers are known,
and writes of another. No answer 2xx may be wrong and no stored memory lost; outside the injected faults less than a
thousandth may fail; a redirect takes less than a second. Ends with 1 and the reason if one of the claims does not hold.

    python tests/faults/api_rollout.py [--rounds 10] [--rate 50] [--calm-seconds 5]
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psycopg
from google.oauth2.credentials import Credentials

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from run_planes import PROJECT, REGION, RunPlanes, running
from service.serving import DIMENSION, memory, prepared, token_of, tokens_file
from stores import unit_vectors

from orchestra_lib.bench.load import AsyncWorker, Load, run_load_async
from orchestra_lib.bench.samples import Outcome
from orchestra_lib.cloud.client import Client
from orchestra_lib.cloud.target import Target
from orchestra_lib.evidence import Source
from orchestra_lib.local import databases
from orchestra_lib.rollout.blue_green import Gate, redirect, roll_out
from orchestra_lib.rollout.comparison import Requests
from orchestra_lib.rollout.image import Repository, build, source_of
from orchestra_lib.rollout.journal import RolloutJournal
from orchestra_lib.rollout.service import RunService
from orchestra_lib.settings import root

READER, WRITER = "ada", "grace"
MEMORIES, QUERIES, K = 60, 40, 5
LONGEST_SECONDS = 3_600.0
LARGEST_FAILED_SHARE, LONGEST_REDIRECT_SECONDS = 0.001, 1.0
# Both revisions share two cores with the load and the database: this finds what is wrong, not what is a little slow.
GATE = Gate(percents=(5, 25, 100), warm_requests=10, requests=30, latency_ratio=4.0)
PROBE = {"periodSeconds": 1, "timeoutSeconds": 1, "failureThreshold": 60, "httpGet": {"path": "/readyz"}}


@dataclass(frozen=True)
class Told:
    """One request: when it was sent and answered, what was wrong with an answer 2xx, or how it failed."""

    sent: float
    answered: float
    wrong: str = ""
    failure: str = ""


@dataclass
class Report:
    """What became of all requests."""

    told: list[Told] = field(default_factory=list)
    stored: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    faults: list[tuple[float, float]] = field(default_factory=list)
    redirect_seconds: list[float] = field(default_factory=list)
    late: int = 0

    @property
    def outside(self) -> list[Told]:
        """The requests that no injected fault can have touched."""
        return [one for one in self.told if not any(one.sent < end and one.answered > at for at, end in self.faults)]

    def broken(self) -> list[str]:
        """The claims that do not hold."""
        wrong = [one.wrong for one in self.told if one.wrong]
        failed = [one.failure for one in self.outside if one.failure]
        share = len(failed) / max(1, len(self.outside))
        slowest = max(self.redirect_seconds)
        claims = (
            (not wrong, f"{len(wrong)} answers 2xx are wrong: {wrong[:3]}"),
            (not self.lost, f"{len(self.lost)} of {len(self.stored)} stored memories are lost: {self.lost[:3]}"),
            (share < LARGEST_FAILED_SHARE, f"{len(failed)} of {len(self.outside)} failed outside faults: {failed[:3]}"),
            (slowest < LONGEST_REDIRECT_SECONDS, f"a redirect took {slowest:.2f} s"),
            (self.late == 0, f"{self.late} requests went to the old revision after a redirect"),
            (bool(self.stored) and len(self.outside) > len(self.told) / 2, "too little was asked to say anything"),
        )
        return [words for holds, words in claims if not holds]

    def __str__(self) -> str:
        failed = sum(bool(one.failure) for one in self.told)
        took = ", ".join(f"{seconds:.3f}" for seconds in self.redirect_seconds)
        return (
            f"{len(self.told)} requests, {len(self.outside)} of them outside {len(self.faults)} faults; "
            f"{failed} failed in all; {len(self.stored)} stored; redirects took {took} s"
        )


class Store:
    """A database of the test's own with memories of one user, and what each query has to find."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        state = databases.up(directory, names=("target",))
        conninfo = state.databases["target"].conninfo
        with psycopg.connect(conninfo, autocommit=True) as connection:
            connection.execute("CREATE DATABASE rollout")
        self.dsn = f"{conninfo} dbname=rollout"
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            connection.execute("CREATE EXTENSION vector")
        prepared(self.dsn, DIMENSION)
        vectors = unit_vectors(MEMORIES + QUERIES, dimension=DIMENSION)
        self.vectors, self.queries = vectors[:MEMORIES], vectors[MEMORIES:]

    def restart(self) -> None:
        """Stop the server, as a maintenance does, and start it again."""
        databases.down(self._directory)
        databases.up(self._directory, names=("target",))

    def close(self) -> None:
        """Stop the server for good."""
        databases.down(self._directory)

    def ids(self) -> set[str]:
        """The ids of every memory that is there."""
        with psycopg.connect(self.dsn) as connection:
            return {str(row[0]) for row in connection.execute("SELECT id FROM memories")}


class Trial:
    """The service, the load on it, and what is done to it."""

    def __init__(self, planes: RunPlanes, store: Store, directory: Path) -> None:
        self._planes, self._store = planes, store
        self._journal = RolloutJournal(directory / "rollouts.jsonl")
        self._tokens = tokens_file(directory)
        client = Client(Target("local", planes.url, Credentials(planes.token)))
        self._image = build(client, Repository(PROJECT, REGION, "images"), "memory-api", source_of(root()))
        made = planes.service("memory-api", template=self._template("blue"), invokerIamDisabled=True)
        self.service = RunService(client, made.name)
        self._uri = made.uri
        self.report = Report()
        self._expected = self._filled()

    def round(self, colour: str, calm_seconds: float) -> None:
        """Roll out, go back, kill, restart; calm in between."""
        done = roll_out(self.service, self._template(colour), self._asked(), GATE, self._journal, Source.REHEARSED)
        time.sleep(calm_seconds)
        self.report.redirect_seconds.append(redirect(self.service, done.blue))
        before = self._counted(done.green)["requests"]
        time.sleep(calm_seconds)
        self.report.late += self._counted(done.green)["requests"] - before
        with self._fault():
            for instance in self._counted(done.blue)["instances"]:
                os.kill(instance["pid"], signal.SIGKILL)
        time.sleep(calm_seconds)
        with self._fault():
            self._store.restart()
        time.sleep(calm_seconds)

    def verify(self) -> Report:
        """What was answered, once the load has ended."""
        there = self._store.ids()
        self.report.lost = [id_ for id_ in self.report.stored if id_ not in there]
        return self.report

    @contextmanager
    def load(self, rate: float) -> Iterator[None]:
        """Constant load as long as the block lasts."""
        loop = asyncio.new_event_loop()
        load = Load(offered_per_second=rate, seconds=LONGEST_SECONDS, seed=1, workers=64)
        task = loop.create_task(run_load_async(load, self._worker))
        thread = threading.Thread(target=_until_cancelled, args=(loop, task))
        thread.start()
        try:
            yield
            assert thread.is_alive(), f"the load has ended by itself: {task}"
        finally:
            loop.call_soon_threadsafe(task.cancel)
            thread.join()
            loop.close()

    @asynccontextmanager
    async def _worker(self) -> AsyncIterator[AsyncWorker]:
        limits = httpx.Limits(max_connections=64, max_keepalive_connections=64)
        async with httpx.AsyncClient(base_url=self._uri, timeout=30, trust_env=False, limits=limits) as client:

            async def ask(number: int) -> Outcome:
                sent = time.monotonic()
                wrong = failure = ""
                try:
                    wrong, failure = await self._one(client, number)
                except httpx.HTTPError as error:
                    failure = type(error).__name__
                self.report.told.append(Told(sent, time.monotonic(), wrong, failure))
                return Outcome(failure or None)

            yield ask

    async def _one(self, client: httpx.AsyncClient, number: int) -> tuple[str, str]:
        """Ask once: what is wrong with a good answer, and how it failed."""
        if number % 10 == 0:
            got = await client.post("/v1/memories", json=memory(content=f"write {number}"), headers=_as(WRITER))
            if got.is_success:
                self.report.stored.append(str(got.json()["id"]))
            return "", "" if got.is_success else f"store: HTTP {got.status_code} {got.text[:120]}"
        query = number % QUERIES
        got = await client.post("/v1/search", json=self._search(query), headers=_as(READER))
        if not got.is_success:
            return "", f"search: HTTP {got.status_code} {got.text[:120]}"
        found = [hit["memory"]["id"] for hit in got.json()["hits"]]
        return ("" if found == self._expected[query] else f"query {query}: {found}"), ""

    @contextmanager
    def _fault(self) -> Iterator[None]:
        """A fault lasts until a search is answered again."""
        began = time.monotonic()
        yield
        deadline = began + 60
        with httpx.Client(base_url=self._uri, timeout=30, trust_env=False) as client:
            good = 0
            while good < 3:
                assert time.monotonic() < deadline, "the service has not come back within a minute"
                got = client.post("/v1/search", json=self._search(0), headers=_as(READER))
                good = good + 1 if got.is_success else 0
                time.sleep(0.05)
        self.report.faults.append((began, time.monotonic()))

    def _asked(self) -> Requests:
        bodies = [{"method": "POST", "url": "/v1/search", "json": self._search(query)} for query in range(QUERIES)]
        return Requests(bodies, lambda: _as(READER))

    def _search(self, query: int) -> dict[str, Any]:
        return {"embedding": self._store.queries[query].tolist(), "k": K}

    def _filled(self) -> list[list[str]]:
        """Store the memories through the service; the ids that each query has to find, computed here."""
        ids = []
        with httpx.Client(base_url=self._uri, timeout=30, trust_env=False, headers=_as(READER)) as client:
            for vector in self._store.vectors:
                got = client.post("/v1/memories", json=memory(embedding=vector.tolist()))
                assert got.status_code == 201, got.text
                ids.append(str(got.json()["id"]))
        similar = self._store.queries.astype(np.float64) @ self._store.vectors.astype(np.float64).T
        return [[ids[row] for row in order[:K]] for order in np.argsort(-similar, axis=1)]

    def _counted(self, revision: str) -> dict[str, Any]:
        told = next(one for one in self._planes.told()["services"] if one["name"] == self.service.name)
        return dict(told["revisions"][revision])

    def _template(self, colour: str) -> dict[str, Any]:
        settings = {
            "HOST": "127.0.0.1",
            "DSN": self._store.dsn,
            "DIMENSION": DIMENSION,
            "TOKENS_FILE": self._tokens,
            "MAX_INSTANCES": 2,
            "BREAKER_RECOVERY_SECONDS": 0.5,
        }
        env = {f"ORCHESTRA_API_{name}": str(value) for name, value in settings.items()} | {"COLOUR": colour}
        container = {"command": [sys.executable, "-m", "orchestra_lib.service"], "startupProbe": PROBE}
        scaling = {"minInstanceCount": 1, "maxInstanceCount": 1}
        return self._planes.template(self._image, env=env, container=container, scaling=scaling)


def run(rounds: int, rate: float, calm_seconds: float) -> Report:
    """Everything, in a directory of its own."""
    directory = Path(tempfile.mkdtemp(prefix="orchestra-rollout-"))
    directory.chmod(0o755)
    try:
        store = Store(directory / "store")
        try:
            with running() as planes:
                trial = Trial(planes, store, directory)
                with trial.load(rate):
                    for number in range(rounds):
                        trial.round(f"green-{number}", calm_seconds)
                return trial.verify()
        finally:
            store.close()
    finally:
        shutil.rmtree(directory)


def _as(user: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token_of(user)}"}


def _until_cancelled(loop: asyncio.AbstractEventLoop, task: asyncio.Task[Any]) -> None:
    try:
        loop.run_until_complete(task)
    except asyncio.CancelledError:
        return


def main() -> None:
    """Run the long form and say what became of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--rate", type=float, default=50.0)
    parser.add_argument("--calm-seconds", type=float, default=5.0)
    given = parser.parse_args()
    report = run(given.rounds, given.rate, given.calm_seconds)
    print(report)
    for words in report.broken():
        print(f"does not hold: {words}")
    sys.exit(bool(report.broken()))


if __name__ == "__main__":
    main()
