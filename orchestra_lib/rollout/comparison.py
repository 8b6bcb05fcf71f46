"""The same requests to two revisions, one right after the other: do they answer alike, and how fast is each?"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
import numpy as np

from orchestra_lib.bench.statistics import Estimate, quantile

Request = Mapping[str, Any]
"""What ``httpx.Client.request`` takes, with a path as its ``url``."""

_TIMEOUT_SECONDS = 30.0
_SHOWN = 3


@dataclass(frozen=True)
class Requests:
    """What is asked, and as whom: ``headers`` gives those of the moment, because tokens expire.

    ``explained`` names fields, anywhere in an answer, in which two revisions may differ, each with the reason.
    """

    requests: Sequence[Request]
    headers: Callable[[], Mapping[str, str]]
    explained: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Answer:
    """One answer: its status (0 when none came) and JSON body, and how long it took."""

    status: int
    body: Any
    ms: float
    failure: str = ""

    @property
    def is_good(self) -> bool:
        """Whether it was answered 2xx."""
        return httpx.codes.is_success(self.status)


@dataclass(frozen=True)
class Comparison:
    """Pairs of answers, in the order in which they were asked."""

    pairs: tuple[tuple[Answer, Answer], ...]
    differences: tuple[str, ...]

    @property
    def failed_by_green_alone(self) -> int:
        """Requests that blue answered and green did not."""
        return sum(blue.is_good and not green.is_good for blue, green in self.pairs)

    @property
    def answered_by_both(self) -> int:
        """Pairs that say something about latency and answers."""
        return sum(blue.is_good and green.is_good for blue, green in self.pairs)

    def ratio(self) -> Estimate:
        """Green's latency divided by blue's, the median over the pairs. Raises ValueError without a good pair."""
        good = [(blue.ms, green.ms) for blue, green in self.pairs if blue.is_good and green.is_good]
        return quantile(np.array([green / blue for blue, green in good]), 0.5)

    def told(self) -> str:
        """The first differences, for a person."""
        rest = len(self.differences) - _SHOWN
        return "; ".join(self.differences[:_SHOWN]) + (f"; and {rest} more" if rest > 0 else "")


def compare(blue_uri: str, green_uri: str, asked: Requests, count: int) -> Comparison:
    """Ask both ``count`` of the requests. Who is asked first alternates: neither always finds what the other warmed.

    An answer that differs in what is not explained is a difference: another status, other rows, the same rows in
    another order, other values.
    """
    pairs, differences = [], []
    with _client(blue_uri) as blue, _client(green_uri) as green:
        for number in range(count):
            request = asked.requests[number % len(asked.requests)]
            headers = asked.headers()
            clients = (blue, green) if number % 2 == 0 else (green, blue)
            answers = {client: answer(client, request, headers) for client in clients}
            pair = answers[blue], answers[green]
            pairs.append(pair)
            difference = _difference(*pair, frozenset(asked.explained))
            if difference:
                differences.append(f"{request['method']} {request['url']}: {difference}")
    return Comparison(tuple(pairs), tuple(differences))


def ask(uri: str, asked: Requests, count: int) -> tuple[Answer, ...]:
    """Ask one address, one request after the other."""
    with _client(uri) as client:
        return tuple(
            answer(client, asked.requests[number % len(asked.requests)], asked.headers()) for number in range(count)
        )


def answer(client: httpx.Client, request: Request, headers: Mapping[str, str]) -> Answer:
    """One request; what goes wrong on the way is an answer without a status."""
    began = time.perf_counter()
    try:
        got = client.request(**request, headers=dict(headers))
    except httpx.HTTPError as error:
        return Answer(0, None, (time.perf_counter() - began) * 1_000, type(error).__name__)
    milliseconds = (time.perf_counter() - began) * 1_000
    try:
        body = got.json()
    except ValueError:
        body = got.text
    return Answer(got.status_code, body, milliseconds)


def _client(uri: str) -> httpx.Client:
    return httpx.Client(base_url=uri, timeout=_TIMEOUT_SECONDS, trust_env=False)


def _difference(blue: Answer, green: Answer, explained: frozenset[str]) -> str:
    if blue.status != green.status:
        told = [f"{one.status}" if one.status else f"no answer ({one.failure})" for one in (blue, green)]
        return f"blue answers {told[0]}, green {told[1]}"
    if not blue.is_good:
        return ""  # both refuse it alike; failures are counted by themselves
    before, after = _without(blue.body, explained), _without(green.body, explained)
    if before == after:
        return ""
    ids = [_ids(one) for one in (before, after)]
    if ids[0] == ids[1]:
        return "the same rows with other values"
    if sorted(ids[0]) == sorted(ids[1]):
        return "the same rows in another order"
    return f"{len(set(ids[0]) ^ set(ids[1]))} rows that only one of them has"


def _without(value: Any, names: frozenset[str]) -> Any:
    if isinstance(value, Mapping):
        return {name: _without(item, names) for name, item in value.items() if name not in names}
    if isinstance(value, list):
        return [_without(item, names) for item in value]
    return value


def _ids(value: Any) -> list[str]:
    """The ids of an answer's rows, in their order."""
    if isinstance(value, Mapping):
        own = [str(value["id"])] if "id" in value else []
        return own + [id_ for item in value.values() for id_ in _ids(item)]
    return [id_ for item in value for id_ in _ids(item)] if isinstance(value, list) else []
