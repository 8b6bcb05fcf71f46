"""What the API is asked under load, and what is right: each request's answer as it was given in peace.

Nobody may write to these users' rows between the two. An answer 2xx that differs is wrong, however fast it came.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray

from orchestra_lib.bench.http_load import Answer, HttpRequests, by_status
from orchestra_lib.bench.load import Load, run_load_async
from orchestra_lib.bench.samples import LoadRun
from orchestra_lib.errors import GateFailed

Request = Mapping[str, Any]
"""What ``httpx.Client.request`` takes, with a path as its ``url``."""

WRONG_ANSWER = "wrong answer"
SILENT = " without Retry-After"
SHED = frozenset({"HTTP 429", "HTTP 503"})
"""Failures of requests that were refused and told when to come again; without that they end in ``SILENT``."""

_REFUSALS = frozenset({429, 503})
_TIMEOUT_SECONDS = 30.0


@dataclass(frozen=True)
class Kind:
    """One kind of request, such as "search", and what its p95 has to stay below."""

    name: str
    requests: tuple[Request, ...]
    goal_p95_ms: float


@dataclass(frozen=True)
class Workload:
    """The kinds in turn, at one address. ``headers`` gives those of the moment, because tokens expire.

    ``answers`` are those of ``learnt``; without them answers 2xx are not looked at.
    """

    base_url: str
    kinds: tuple[Kind, ...]
    headers: Callable[[], Mapping[str, str]]
    http2: bool = False
    answers: tuple[bytes, ...] = ()

    @cached_property
    def requests(self) -> tuple[Request, ...]:
        """Every request, one of each kind after the other; a kind with fewer begins again."""
        longest = max(len(kind.requests) for kind in self.kinds)
        return tuple(kind.requests[n % len(kind.requests)] for n in range(longest) for kind in self.kinds)

    def at(self, base_url: str) -> Workload:
        """The same at another address, such as that of a tag."""
        return replace(self, base_url=base_url)

    def learnt(self) -> Workload:
        """The same, knowing what is right: asks everything once, one after the other.

        Raises GateFailed for a request that is not answered 2xx, and when different requests all get the same answer:
        what agrees to everything would be right whatever it was asked.
        """
        with self._client() as client:
            answers = tuple(_answered(client, request).content for request in self.requests)
        asked = {repr(request) for request in self.requests}
        if len(asked) > 1 and len(set(answers)) == 1:
            raise GateFailed(
                f"{len(asked)} different requests got the same answer in peace, {answers[0][:80]!r}: "
                "that is no answer to any of them; look at what listens there"
            )
        return replace(self, answers=answers)

    def first(self) -> float:
        """Milliseconds of one request over a connection of its own. Raises GateFailed unless it is answered 2xx."""
        with self._client() as client:
            return _answered(client, self.requests[0]).elapsed.total_seconds() * 1e3

    def offer(self, load: Load, intended: NDArray[np.float64] | None = None) -> LoadRun:
        """Offer a load and return what became of it; an interrupt cancels what is under way.

        The event loop is in a thread of its own: a notebook's kernel has one already in its main thread.
        """
        requests = HttpRequests(
            self.base_url,
            self.requests,
            self.http2,
            connections=load.workers,
            timeout_seconds=_TIMEOUT_SECONDS,
            headers=self.headers(),
            failure=self._failure,
        )
        loop = asyncio.new_event_loop()
        task = loop.create_task(run_load_async(load, requests, intended=intended))
        with ThreadPoolExecutor(1, "api-load") as thread:
            running = thread.submit(loop.run_until_complete, task)
            try:
                return running.result()
            except BaseException:
                if not running.done():
                    loop.call_soon_threadsafe(task.cancel)
                raise
            finally:
                thread.submit(loop.close)

    def kind_of(self, run: LoadRun) -> NDArray[np.int_]:
        """The number of each request's kind in a whole run."""
        return np.arange(run.requests) % len(self.kinds)

    def of_kind(self, run: LoadRun, kind: int) -> LoadRun:
        """The part of a whole run that asked the kind of this number."""
        return run.part(self.kind_of(run) == kind)

    def _failure(self, number: int, answer: Answer) -> str | None:
        failed = by_status(number, answer)
        if failed:
            silent = answer.status in _REFUSALS and "retry-after" not in answer.headers
            return failed + SILENT if silent else failed
        if self.answers and answer.body != self.answers[number % len(self.answers)]:
            return WRONG_ANSWER
        return None

    def _client(self) -> httpx.Client:
        return httpx.Client(
            base_url=self.base_url, headers=dict(self.headers()), timeout=_TIMEOUT_SECONDS, trust_env=False
        )


def _answered(client: httpx.Client, request: Request) -> httpx.Response:
    what = f"{request['method']} {request['url']}"
    try:
        answer = client.request(**request)
    except httpx.HTTPError as error:
        raise GateFailed(f"{what} was not answered in peace ({type(error).__name__}); see the service's log") from error
    if not answer.is_success:
        raise GateFailed(f"{what} was answered {answer.status_code} in peace: {answer.text[:200]}")
    return answer
