"""What the memory API bears on the local Cloud Run: every measurement of ``orchestra_lib.api_load``, as tables.

The memory has vectors of 1,536 numbers, a conversation is asked for as often as a search. Everything is on this
machine: the one who asks, the front, the service, the database.

    python tests/bench/api_load.py [--rows 8000] [--long]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from common import servers
from google.oauth2.credentials import Credentials

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.api_search import CLUSTERS, USER, K, make_store
from run_planes import PROJECT, REGION, RunPlanes, running
from service.serving import token_of, tokens_file
from stores import unit_vectors

from orchestra_lib.api_load.cold_start import LocalFront, first_requests
from orchestra_lib.api_load.forms import LONG, SHORT, Form
from orchestra_lib.api_load.in_flight import sweep
from orchestra_lib.api_load.overload import overload
from orchestra_lib.api_load.rates import measure_rates
from orchestra_lib.api_load.report import (
    cold_start_evidence,
    overload_evidence,
    rates_evidence,
    saturation_evidence,
    sweep_evidence,
)
from orchestra_lib.api_load.saturation import find_saturation
from orchestra_lib.api_load.tables import (
    cold_start_table,
    overload_table,
    rates_table,
    saturation_table,
    sweep_table,
)
from orchestra_lib.api_load.trial import tagged_revision, with_room_for, with_scaling
from orchestra_lib.api_load.workload import Kind, Workload
from orchestra_lib.cloud.client import Client
from orchestra_lib.cloud.target import Target
from orchestra_lib.evidence import Source
from orchestra_lib.local.run import program
from orchestra_lib.rollout.image import Repository, build, source_of
from orchestra_lib.rollout.service import RunService
from orchestra_lib.settings import root

CONCURRENCY = 80
PROBE = {"periodSeconds": 1, "timeoutSeconds": 1, "failureThreshold": 60, "httpGet": {"path": "/readyz"}}
SESSIONS = 11
"""The rows' sessions: ``session0`` and on."""


@dataclass(frozen=True)
class Deployed:
    """The service, what is asked of it, and how it was made."""

    service: RunService
    workload: Workload
    template: dict[str, Any]
    front: LocalFront


def workload(uri: str, rows: int) -> Workload:
    """Searches that are held out, and the latest of conversations."""
    queries = unit_vectors(200, seed=7, clusters=CLUSTERS)
    searches = [
        {"method": "POST", "url": "/v1/search", "json": {"embedding": query.tolist(), "k": K}} for query in queries
    ]
    histories = [{"method": "GET", "url": f"/v1/sessions/session{number}/history"} for number in range(SESSIONS)]
    kinds = (Kind("search", tuple(searches), 100.0), Kind("memory retrieval", tuple(histories), 50.0))
    return Workload(uri, kinds, lambda: {"Authorization": f"Bearer {token_of(USER)}"})


def template(planes: RunPlanes, image: str, dsn: str, tokens: Path) -> dict[str, Any]:
    """The service as phase 5 deploys it, as far as it bears on load."""
    settings = {"HOST": "127.0.0.1", "DSN": dsn, "TOKENS_FILE": tokens, "MAX_INSTANCES": 2}
    env = {f"ORCHESTRA_API_{name}": str(value) for name, value in settings.items()}
    container = {"command": [sys.executable, "-m", "orchestra_lib.service"], "startupProbe": PROBE}
    plain = planes.template(image, env=env, container=container)
    return with_scaling(plain, concurrency=CONCURRENCY, least=1, most=1)


@contextmanager
def deployed(rows: int) -> Iterator[Deployed]:
    """The memory API on the local Cloud Run, as long as the block lasts."""
    with servers() as (_, dsn, directory), running() as planes:
        make_store(dsn, rows, unit_vectors(200, seed=7, clusters=CLUSTERS))
        client = Client(Target("local", planes.url, Credentials(planes.token)))
        image = build(client, Repository(PROJECT, REGION, "images"), "memory-api", source_of(root()))
        wanted = template(planes, image, dsn, tokens_file(directory))
        made = planes.service("memory-api", template=wanted, invokerIamDisabled=True)
        plane = program.status(planes.directory)
        assert plane is not None
        front = LocalFront(plane.endpoint, planes.token)
        yield Deployed(RunService(client, made.name), workload(made.uri, rows).learnt(), wanted, front)


def measure(api: Deployed, form: Form) -> None:
    """Everything, printed as it comes."""
    source = Source.REHEARSED
    rates = measure_rates(api.workload, form)
    show(rates_table(rates), rates_evidence(rates, source))
    saturation = find_saturation(api.workload, form)
    show(saturation_table(saturation), saturation_evidence(saturation, source))
    loaded = overload(api.workload, saturation, form)
    show(overload_table(loaded), overload_evidence(loaded, source))
    with tagged_revision(api.service, with_room_for(api.template, max(form.levels)), "sweep") as (uri, _):
        swept = sweep(api.workload.at(uri), form)
    show(sweep_table(swept), sweep_evidence(swept, CONCURRENCY, source))
    firsts = []
    for least in (0, 1):
        changed = with_scaling(api.template, concurrency=CONCURRENCY, least=least, most=1)
        with tagged_revision(api.service, changed, "cold") as (uri, revision):

            def end_idle(revision: str = revision) -> int:
                return api.front.end_idle(api.service.name, revision)

            firsts.append(first_requests(api.workload.at(uri), least, form.cold_starts, end_idle))
    show(cold_start_table(firsts), cold_start_evidence(firsts, source))


def show(table: object, rows: object) -> None:
    """A table and its evidence."""
    print(table, end="\n\n")
    for row in rows:
        print(f"  {row.verdict:9} {row}")
    print(flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=8_000)
    parser.add_argument("--long", action="store_true", help="about twenty minutes instead of one")
    given = parser.parse_args()
    with deployed(given.rows) as api:
        measure(api, LONG if given.long else SHORT)


if __name__ == "__main__":
    try:
        main()
    except httpx.HTTPError as error:
        sys.exit(f"{type(error).__name__}: {error}")
