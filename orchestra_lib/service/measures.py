"""What the service says of itself: Prometheus metrics, and to each caller how long its request took inside.

``Server-Timing`` is in milliseconds: https://www.w3.org/TR/server-timing/
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from orchestra_lib.service.sessions import Sessions, Spent

_BUCKETS = (0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_BREAKER_STATES = ("closed", "half-open", "open")
# What a client makes up must not become a label: each new one is kept for good.
_UNKNOWN = "none"
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Metrics:
    """The service's own metrics, in a registry of their own. No label tells of a user."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Histogram(
            "orchestra_api_request_seconds",
            "From the request's arrival to the start of its answer.",
            ("route", "method", "status"),
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self.store = Histogram(
            "orchestra_api_store_seconds",
            "Spent with the database by a request.",
            ("route",),
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self.shed = Counter(
            "orchestra_api_shed_requests", "Refused because too many were in flight.", registry=self.registry
        )
        self.opened = Counter(
            "orchestra_api_breaker_changes", "Changes of the breaker's state.", ("state",), registry=self.registry
        )
        self.in_flight = Gauge("orchestra_api_requests_in_flight", "Being answered now.", registry=self.registry)

    def watch(self, sessions: Sessions) -> None:
        """Report the pool and the breaker too."""
        self.registry.register(_PoolCollector(sessions))


class _PoolCollector(Collector):
    """Reads the pool when it is asked, so that nothing has to be kept up to date."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    def collect(self) -> Iterator[Metric]:
        """The pool's figures and the breaker's state."""
        pool = GaugeMetricFamily("orchestra_api_pool", "Figures of the pool of sessions.", labels=("figure",))
        for name, value in self._sessions.numbers().items():
            pool.add_metric((name,), value)
        yield pool
        breaker = GaugeMetricFamily("orchestra_api_breaker", "1 for the state that it is in.", labels=("state",))
        for state in _BREAKER_STATES:
            breaker.add_metric((state,), float(self._sessions.breaker.state == state))
        yield breaker


class Measured:
    """ASGI middleware around everything else: times a request, and says so in its answer."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand the request on and time its answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        spent = Spent()
        scope.setdefault("state", {})["spent"] = spent

        async def timed(message: Message) -> None:
            if message["type"] == "http.response.start":
                total = time.perf_counter() - started
                MutableHeaders(scope=message)["Server-Timing"] = (
                    f"total;dur={total * 1e3:.3f}, wait;dur={spent.waiting * 1e3:.3f}, "
                    f"db;dur={spent.database * 1e3:.3f}"
                )
                self._note(scope, message["status"], total, spent)
            await send(message)

        self._metrics.in_flight.inc()
        try:
            await self._app(scope, receive, timed)
        finally:
            self._metrics.in_flight.dec()

    def _note(self, scope: Scope, status: int, total: float, spent: Spent) -> None:
        found: Any = scope.get("route")
        route = getattr(found, "path", _UNKNOWN)
        method = scope["method"] if scope["method"] in _METHODS else _UNKNOWN
        self._metrics.requests.labels(route, method, status).observe(total)
        if spent.database:
            self._metrics.store.labels(route).observe(spent.database)
