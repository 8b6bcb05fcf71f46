"""Starting a workstation and timing it: from the request to RUNNING, and to its host answering."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import requests

from orchestra_lib.cloud.client import Client
from orchestra_lib.cloud.kinds import KINDS
from orchestra_lib.cloud.refusals import CloudRefused

STOPPED, RUNNING = "STATE_STOPPED", "STATE_RUNNING"
_ON_ITS_WAY = ("STATE_STARTING", "STATE_STOPPING")

_API = "workstations.v1"
_COLLECTION = KINDS["workstation"].collection
_MOVE_TIMEOUT_SECONDS = 1_200.0
_ANSWER_TIMEOUT_SECONDS = 300.0
_PAUSE_SECONDS, _REQUEST_TIMEOUT_SECONDS = 0.5, 10.0

Probe = Callable[[str, str], bool]
"""Waits until a workstation (path, host) answers; False when it does not, or is not to be reached from here."""


@dataclass(frozen=True)
class Start:
    """One timed start, in seconds from the request. ``reachable_seconds`` is None when no answer came."""

    running_seconds: float
    reachable_seconds: float | None


@dataclass(frozen=True)
class Starts:
    """The timed starts of one workstation on one machine, and why the others failed."""

    workstation: str
    starts: tuple[Start, ...]
    failures: tuple[str, ...]

    @property
    def running_seconds(self) -> list[float]:
        """From the request to RUNNING."""
        return [start.running_seconds for start in self.starts]

    @property
    def reachable_seconds(self) -> list[float]:
        """From the request to an answer, of those that answered."""
        return [start.reachable_seconds for start in self.starts if start.reachable_seconds is not None]


def time_starts(
    client: Client, path: str, boost: str | None, count: int, probe: Probe, progress: Callable[[int], None]
) -> Starts:
    """Start and stop a workstation ``count`` times; ``boost`` names a boost configuration, None the ordinary machine.

    A start that Google Cloud refuses, as for lack of machines in its zones, is counted and the next one tried. The
    workstation is stopped at the end, also when it is interrupted. It has to be stopped when this is called.
    """
    starts: list[Start] = []
    failures: list[str] = []
    for number in range(count):
        try:
            starts.append(_timed(client, path, boost, probe))
        except CloudRefused as error:
            failures.append(str(error))
        progress(number + 1)
    return Starts(path, tuple(starts), tuple(failures))


def state_of(client: Client, path: str) -> str:
    """The state of a workstation."""
    return str(client.call(_API, f"{_COLLECTION}.get", path)["state"])


def stop(client: Client, path: str) -> None:
    """Stop a workstation and wait for it; nothing happens to one that is stopped. One on its way arrives first."""
    deadline = time.monotonic() + _MOVE_TIMEOUT_SECONDS
    while (state := state_of(client, path)) in _ON_ITS_WAY and time.monotonic() < deadline:
        time.sleep(_PAUSE_SECONDS)
    if state != STOPPED:
        _move(client, path, "stop", {})


def answers_by_https(client: Client) -> Probe:
    """A probe that asks the host itself, with a token for this one workstation.

    https://cloud.google.com/workstations/docs/reference/rest/v1/projects.locations.workstationClusters.workstationConfigs.workstations/generateAccessToken
    """

    def probe(path: str, host: str) -> bool:
        if not _resolves(host):
            return False  # a private endpoint's name is known in its own network only
        answer = client.call(_API, f"{_COLLECTION}.generateAccessToken", f"{path}:generateAccessToken", body={})
        headers = {"Authorization": f"Bearer {answer['accessToken']}"}
        deadline = time.monotonic() + _ANSWER_TIMEOUT_SECONDS
        while time.monotonic() < deadline:
            if _answers(f"https://{host}/", headers):
                return True
            time.sleep(_PAUSE_SECONDS)
        return False

    return probe


def _timed(client: Client, path: str, boost: str | None, probe: Probe) -> Start:
    with _stopped_afterwards(client, path):
        began = time.perf_counter()
        _move(client, path, "start", {"boostConfig": boost} if boost else {})
        body = client.call(_API, f"{_COLLECTION}.get", path)
        if body["state"] != RUNNING:
            words = f"start {path}: the operation succeeded and the workstation is in {body['state']}"
            raise CloudRefused(words, status=409, reason="notRunning")
        running = time.perf_counter() - began
        reachable = time.perf_counter() - began if probe(path, str(body["host"])) else None
        return Start(running, reachable)


@contextmanager
def _stopped_afterwards(client: Client, path: str) -> Iterator[None]:
    try:
        yield
    finally:
        stop(client, path)


def _move(client: Client, path: str, verb: str, body: dict[str, Any]) -> None:
    operation = client.call(_API, f"{_COLLECTION}.{verb}", f"{path}:{verb}", body=body)
    client.finish(_API, f"{verb} {path}", operation, _MOVE_TIMEOUT_SECONDS)


def _resolves(host: str) -> bool:
    try:
        socket.getaddrinfo(host, 443)
    except socket.gaierror:
        return False
    return True


def _answers(url: str, headers: dict[str, str]) -> bool:
    try:
        answer = requests.get(url, headers=headers, timeout=_REQUEST_TIMEOUT_SECONDS, allow_redirects=False)
    except requests.RequestException:
        return False
    return answer.ok  # anything below 400
