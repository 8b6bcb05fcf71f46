"""The load on the memory API from many machines: open loop, as orchestra_lib.bench.load has it on one.

    locust -f tests/load/locustfile.py --headless -H https://API -u 200 -r 200 -t 60s --rate-per-caller 0.5 \
        --requests requests.json [--master | --worker --master-host M] [--samples FILE]

Each caller has a Poisson process of its own, so all of them together are one of callers times rate, on however many
workers they are. A request has an intended start and its latency counts from there: a caller that is still waiting
for its last answer sends late, and the wait is part of the latency. Locust's own waiting times count from the answer
before, which hides that a server stood still. Take so many callers that one has hardly ever two requests due at once.

``requests.json`` is a list of {"name", "method", "url", "json"}; callers take them in turn. The token comes from
``ORCHESTRA_API_TOKEN``. ``--samples`` writes every latency of this process in milliseconds, a line each: Locust's own
percentiles are rounded. Needs the package locust in an environment of its own; on Google Cloud its workers are a Cloud
Run job or a GKE deployment with this file in the image (docs/scale.md).
"""

import json
import os
import random
import time
from itertools import count
from pathlib import Path

import gevent
from locust import FastHttpUser, events, task

_numbers = count()
_latencies_ms: list[float] = []


@events.init_command_line_parser.add_listener
def _arguments(parser):
    parser.add_argument("--rate-per-caller", type=float, default=1.0, help="requests a second of one caller")
    parser.add_argument("--requests", default="", help="JSON file; without it GET /")
    parser.add_argument("--samples", default="", help="file for every latency of this process")


@events.init.add_listener
def _read_requests(environment, **_):
    path = environment.parsed_options.requests if environment.parsed_options else ""
    environment.requests = (
        json.loads(Path(path).read_text()) if path else [{"name": "GET /", "method": "GET", "url": "/"}]
    )


@events.quitting.add_listener
def _write_samples(environment, **_):
    if environment.parsed_options.samples:
        lines = "".join(f"{value:.4f}\n" for value in _latencies_ms)
        Path(environment.parsed_options.samples).write_text(lines)


class Caller(FastHttpUser):
    """One of many callers."""

    def on_start(self):
        """Begin at a moment that is as random as the ones after it."""
        self._number = next(_numbers)
        self._draw = random.Random(f"{os.getpid()} {self._number}")
        self._rate = self.environment.parsed_options.rate_per_caller
        self._due = time.monotonic()
        token = os.environ.get("ORCHESTRA_API_TOKEN")
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}

    @task
    def ask(self):
        """The request that is due next, at its intended start or as soon after it as this caller is free."""
        self._due += self._draw.expovariate(self._rate)
        gevent.sleep(max(0.0, self._due - time.monotonic()))
        wanted = self.environment.requests[self._number % len(self.environment.requests)]
        self._number += 1
        with self.client.request(
            wanted["method"], wanted["url"], name=wanted.get("name"), json=wanted.get("json"),
            headers=self._headers, catch_response=True,
        ) as answer:  # fmt: skip
            latency_ms = (time.monotonic() - self._due) * 1e3
            answer.request_meta["response_time"] = latency_ms
            if answer.status_code and answer.status_code < 400:
                _latencies_ms.append(latency_ms)
