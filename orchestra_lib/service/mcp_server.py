"""The face for coding assistants: the same memory as tools of the Model Context Protocol.

Over HTTP it is a part of the service, at ``/mcp``, and the token tells whose memory it is. Over standard input and
output it is a process of one user's. Assistants have texts and no vectors: without something that embeds, a search is
by words and nothing can be stored, so that tool is then not offered. https://modelcontextprotocol.io/specification
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Literal

from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from pydantic import Field

from orchestra_lib import __version__
from orchestra_lib.service.connection import session_class
from orchestra_lib.service.models import Content, Found, Listed, Name, Stored, Text, vector
from orchestra_lib.service.problems import Problem
from orchestra_lib.service.sessions import Sessions, Spent, StoreError
from orchestra_lib.service.settings import ServiceSettings
from orchestra_lib.service.store import Embedding, Filters, Memory, MemoryStore, NewMemory

Purpose = Literal["document", "query"]
_MOST = 50
Limit = Annotated[int, Field(ge=1, le=_MOST)]
_INSTRUCTIONS = (
    "The memory of AI Orchestra: what its user's agents and assistants have kept. Search it before asking the user for "
    "something that may have been said already."
)


class Embedder:
    """What turns a text into a vector: ``embed``, and the ``model`` that its vectors are of."""

    def __init__(self, model: str, embed: Callable[[str, Purpose], Awaitable[Embedding]]) -> None:
        self.model, self.embed = model, embed


def memory_server(
    store: MemoryStore, dimension: int, user_of: Callable[[Context], str], embedder: Embedder | None = None
) -> MCPServer:
    """The tools over a store. ``user_of`` tells of a call whose memory it is about."""
    server = MCPServer("orchestra-memory", version=__version__, instructions=_INSTRUCTIONS, log_level="WARNING")

    @server.tool()
    async def search(
        context: Context,
        query: Text,
        k: Limit = 5,
        session_id: Name | None = None,
        persona: Name | None = None,
        item_type: Name | None = None,
    ) -> Found:
        """Find memories about something, the best first."""
        with _told():
            asked = await embedder.embed(query, "query") if embedder else None
            filters = Filters(session_id=session_id, persona=persona, item_type=item_type)
            return Found(await store.search(user_of(context), filters, k, asked, query, Spent()))

    @server.tool()
    async def get(context: Context, memory_id: Name) -> Memory:
        """Read one memory by its id."""
        with _told():
            found = await store.get(user_of(context), memory_id, Spent())
            if found is None:
                raise ToolError("there is no memory of this id")
            return found

    @server.tool()
    async def history(context: Context, session_id: Name, limit: Limit = 20) -> Listed:
        """Read the latest memories of a conversation, in the order in which they were made."""
        with _told():
            page = await store.page(user_of(context), Filters(session_id=session_id), limit, None, Spent())
            return Listed(page.memories[::-1], None)

    if embedder is not None:
        _add_store(server, store, dimension, user_of, embedder)
    return server


def _add_store(
    server: MCPServer, store: MemoryStore, dimension: int, user_of: Callable[[Context], str], embedder: Embedder
) -> None:
    @server.tool(name="store")
    async def store_memory(
        context: Context,
        content: Content,
        session_id: Name,
        item_type: Name = "note",
        persona: Name = "Cherry",
        agent_id: Name = "coding-assistant",
    ) -> Stored:
        """Keep something for later: a decision, a fact, what was tried. Write it so that it can be read alone."""
        with _told():
            embedding = vector((await embedder.embed(content, "document")).tolist(), dimension)
            new = NewMemory(agent_id, session_id, persona, item_type, content, embedding, embedder.model, {}, None)
            receipt = await store.store(user_of(context), new, None, Spent())
            return Stored(receipt.id, receipt.created_at)


def serve_stdio(settings: ServiceSettings, user: str, embedder: Embedder | None) -> None:
    """Offer one user's memory over standard input and output, until the input ends."""
    asyncio.run(_serve_stdio(settings, user, embedder))


async def _serve_stdio(settings: ServiceSettings, user: str, embedder: Embedder | None) -> None:
    sessions = Sessions(settings, session_class(settings))
    await sessions.open()
    try:
        store = MemoryStore(sessions, settings.table, settings.dimension)
        await memory_server(store, settings.dimension, lambda _: user, embedder).run_stdio_async()
    finally:
        await sessions.close()


@contextmanager
def _told() -> Iterator[None]:
    """Failures that were foreseen reach the assistant in words; others are logged and are not for it."""
    try:
        yield
    except (StoreError, Problem) as error:
        raise ToolError(str(error)) from error
