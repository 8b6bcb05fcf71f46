"""The HTTP face: routes, and what errors look like. Everything that a route does is in ``store``."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import Annotated, Any

from fastapi import FastAPI, Header, Path, Query, Request, Security
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi.security import HTTPBearer
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic_core import to_json
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.responses import Response

from orchestra_lib import __version__
from orchestra_lib.service import cursors
from orchestra_lib.service.connection import session_class
from orchestra_lib.service.identity import Identities, identities
from orchestra_lib.service.json_route import JsonRoute
from orchestra_lib.service.limits import Authentication, Limits
from orchestra_lib.service.measures import Measured, Metrics
from orchestra_lib.service.models import (
    Found,
    HistoryQuery,
    Listed,
    ListQuery,
    Name,
    SearchBody,
    StoreBody,
    Stored,
    position,
    vector,
)
from orchestra_lib.service.problems import KINDS, MEDIA_TYPE, Problem, ProblemBody, of_validation, response
from orchestra_lib.service.sessions import Sessions, Spent, StoreBusy, StoreError, StoreTimeout, StoreUnavailable
from orchestra_lib.service.settings import ServiceSettings
from orchestra_lib.service.store import Filters, Memory, MemoryStore

_BY_ERROR: dict[type[StoreError], str] = {
    StoreBusy: "busy",
    StoreUnavailable: "store-unavailable",
    StoreTimeout: "store-timeout",
}
_BY_STATUS = {404: "not-found", 405: "method-not-allowed", 415: "unsupported-media-type"}

_LOG = logging.getLogger(__name__)
_KEY = r"^[\x21-\x7e]{1,200}$"
IdempotencyKey = Annotated[str | None, Header(alias="Idempotency-Key", pattern=_KEY)]
MemoryId = Annotated[Name, Path()]
SessionId = Annotated[Name, Path()]


def _documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The problems that a route may answer with, for the interface's document."""
    titles = {status: sorted({kind.title for kind in KINDS.values() if kind.status == status}) for status in statuses}
    schema = {"schema": {"$ref": f"#/components/schemas/{ProblemBody.__name__}"}}
    return {
        status: {"description": "; ".join(told), "content": {MEDIA_TYPE: schema}} for status, told in titles.items()
    }


_ALWAYS = (400, 401, 413, 422, 503)


def create_app(settings: ServiceSettings, known: Identities | None = None) -> FastAPI:
    """The service, not yet connected: its lifespan opens and closes the sessions."""
    metrics = Metrics()
    sessions = Sessions(settings, session_class(settings), lambda state: metrics.opened.labels(state).inc())
    metrics.watch(sessions)
    store = MemoryStore(sessions, settings.table, settings.dimension)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        await sessions.open()
        try:
            async with tools() if tools else nullcontext():
                yield
        finally:
            await sessions.close()

    app = FastAPI(
        title="AI Orchestra memory",
        version=__version__,
        description="The memory of AI Orchestra: each caller sees its own, and nothing else.",
        lifespan=lifespan,
        docs_url=None,  # its page loads scripts from elsewhere
        redoc_url=None,
        middleware=[
            Middleware(Measured, metrics=metrics),
            Middleware(
                Limits,
                most=settings.max_in_flight,
                body_bytes=settings.max_body_bytes,
                retry_after_seconds=settings.retry_after_seconds,
                shed=metrics.shed.inc,
            ),
            Middleware(Authentication, identities=known or identities(settings)),
        ],
    )
    app.router.route_class = JsonRoute
    app.state.sessions, app.state.store, app.state.metrics = sessions, store, metrics
    _add_errors(app)
    _add_probes(app, sessions, metrics)
    _add_memories(app, store, settings.dimension)
    tools = _add_tools(app, store, settings) if settings.tools else None
    app.openapi = lambda: _document(app, settings.dimension)  # type: ignore[method-assign]
    return app


def _add_memories(app: FastAPI, store: MemoryStore, dimension: int) -> None:
    bearer = [Security(HTTPBearer(auto_error=False, description="Whose memories these are."))]

    @app.post(
        "/v1/memories",
        status_code=201,
        response_model=Stored,
        responses=_documented(*_ALWAYS, 409),
        dependencies=bearer,
        operation_id="store",
    )
    async def store_memory(request: Request, body: StoreBody, key: IdempotencyKey = None) -> Response:
        """Store a memory. With an Idempotency-Key it is stored once, however often the request comes."""
        receipt = await store.store(_user(request), body.memory(dimension), key, _spent(request))
        headers = {"Location": f"/v1/memories/{receipt.id}"}
        if receipt.replayed:
            headers["Idempotent-Replayed"] = "true"
        return _json(Stored(receipt.id, receipt.created_at), 201, headers)

    @app.get(
        "/v1/memories",
        response_model=Listed,
        responses=_documented(*_ALWAYS),
        dependencies=bearer,
        operation_id="list",
    )
    async def list_memories(request: Request, query: Annotated[ListQuery, Query()]) -> Response:
        """The caller's memories, newest first, a page at a time."""
        return await _page(request, query.filters(), query.limit, query.cursor)

    @app.get(
        "/v1/sessions/{session_id:path}/history",
        response_model=Listed,
        responses=_documented(*_ALWAYS),
        dependencies=bearer,
        operation_id="history",
    )
    async def history(request: Request, session_id: SessionId, query: Annotated[HistoryQuery, Query()]) -> Response:
        """A conversation: its latest memories in the order in which they were made; further pages go back in time."""
        return await _page(request, Filters(session_id=session_id), query.limit, query.cursor, oldest_first=True)

    async def _page(
        request: Request, filters: Filters, limit: int, cursor: str | None, *, oldest_first: bool = False
    ) -> Response:
        stated = filters.stated()
        page = await store.page(_user(request), filters, limit, position(cursor, stated), _spent(request))
        memories = page.memories[::-1] if oldest_first else page.memories
        return _json(Listed(memories, cursors.write(page.next, stated) if page.next else None))

    @app.get(
        "/v1/memories/{memory_id:path}",
        response_model=Memory,
        responses=_documented(*_ALWAYS, 404),
        dependencies=bearer,
        operation_id="get",
    )
    async def get_memory(request: Request, memory_id: MemoryId) -> Response:
        """One memory, without its vector."""
        found = await store.get(_user(request), memory_id, _spent(request))
        if found is None:
            raise Problem("not-found", "the caller has no memory of this id")
        return _json(found)

    @app.delete(
        "/v1/memories/{memory_id:path}",
        status_code=204,
        responses=_documented(*_ALWAYS, 404),
        dependencies=bearer,
        operation_id="delete",
    )
    async def delete_memory(request: Request, memory_id: MemoryId) -> Response:
        """Delete one memory."""
        if not await store.delete(_user(request), memory_id, _spent(request)):
            raise Problem("not-found", "the caller has no memory of this id")
        return Response(status_code=204)

    @app.post(
        "/v1/search",
        response_model=Found,
        responses=_documented(*_ALWAYS),
        dependencies=bearer,
        operation_id="search",
    )
    async def search(request: Request, body: SearchBody) -> Response:
        """The memories that are nearest to a vector, or fit a text, or both: then the two rankings are fused."""
        embedding = vector(body.embedding, dimension) if body.embedding is not None else None
        filters = body.filters.filters()
        return _json(Found(await store.search(_user(request), filters, body.k, embedding, body.text, _spent(request))))


def _add_tools(
    app: FastAPI, store: MemoryStore, settings: ServiceSettings
) -> Callable[[], AbstractAsyncContextManager[None]]:
    """Offer the tools for coding assistants too; returns what has to run meanwhile."""
    from mcp.server.transport_security import TransportSecuritySettings

    from orchestra_lib.service.mcp_server import memory_server

    tools = memory_server(store, settings.dimension, lambda context: _user(context.request_context.request))
    offered = tools.streamable_http_app(
        streamable_http_path="/mcp",
        json_response=True,
        stateless_http=True,  # any instance may be asked next
        max_request_body_size=settings.max_body_bytes,
        # Against pages that a browser shows beside: they have no token.
        transport_security=TransportSecuritySettings(enable_dns_rebinding_protection=False),
    )
    app.router.routes.extend(offered.routes)
    return tools.session_manager.run


def _add_probes(app: FastAPI, sessions: Sessions, metrics: Metrics) -> None:
    # Google's front end keeps paths that end in z to itself: from outside the others are asked.
    # https://cloud.google.com/run/docs/known-issues#ah
    @app.get("/healthz", operation_id="healthz")
    @app.get("/health", include_in_schema=False)
    async def healthz() -> dict[str, str]:
        """Whether the process answers."""
        return {"status": "alive"}

    @app.get("/readyz", operation_id="readyz", responses=_documented(503))
    @app.get("/ready", include_in_schema=False)
    async def readyz() -> dict[str, str]:
        """Whether the store answers too: through the breaker, so that it notices when the store is back."""
        try:
            await sessions.check()
        except StoreError as error:
            raise Problem("not-ready", str(error), headers=_retry_after(error)) from error
        return {"status": "ready"}

    @app.get("/metrics", include_in_schema=False)
    async def prometheus() -> Response:
        """Metrics in Prometheus' text format."""
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(Problem)
    async def problem(_request: Request, error: Problem) -> Response:
        return response(error)

    @app.exception_handler(StoreError)
    async def store(_request: Request, error: StoreError) -> Response:
        _LOG.warning("%s: %s", error, error.__cause__)
        return response(Problem(_BY_ERROR[type(error)], str(error), headers=_retry_after(error)))

    @app.exception_handler(RequestValidationError)
    async def invalid(_request: Request, error: RequestValidationError) -> Response:
        return response(of_validation(error.errors()))

    @app.exception_handler(HTTPException)
    async def http(_request: Request, error: HTTPException) -> Response:
        kind = _BY_STATUS.get(error.status_code, "malformed")
        return response(Problem(kind, str(error.detail), headers=dict(error.headers or {})))

    @app.exception_handler(Exception)
    async def internal(_request: Request, _error: Exception) -> Response:
        # What went wrong stands in the log, with its traceback, and is not for the caller.
        return response(Problem("internal", "the service has failed; it is logged"))


def _document(app: FastAPI, dimension: int) -> dict[str, Any]:
    """The interface's OpenAPI document, with the store's dimension and what a problem is."""
    if app.openapi_schema is None:
        document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        schemas = document["components"]["schemas"]
        schemas[ProblemBody.__name__] = ProblemBody.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas.update(schemas[ProblemBody.__name__].pop("$defs"))
        schemas["Numbers"].update(minItems=dimension, maxItems=dimension)
        app.openapi_schema = document
    return app.openapi_schema


def _user(request: Any) -> str:
    return str(request.scope["state"]["user"])


def _spent(request: Request) -> Spent:
    spent: Spent = request.scope["state"]["spent"]
    return spent


def _retry_after(error: StoreError) -> dict[str, str]:
    return {"Retry-After": f"{max(1, round(error.retry_after_seconds))}"}


def _json(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    # Straight to bytes: what came from the store is not checked again. A distance that is no number becomes null.
    return Response(to_json(content, inf_nan_mode="null"), status, headers, "application/json")
