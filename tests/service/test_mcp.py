"""Coding assistants use the memory through the official client: over standard input and output, and over HTTP."""

from __future__ import annotations

import asyncio
import os
import sys

import google.oauth2.credentials
import httpx2
import numpy as np
import pytest
from control_plane import TOKEN, serving
from mcp import StdioServerParameters
from mcp.client import Client
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client
from service.serving import DIMENSION, Api, settings, token_of

from orchestra_lib.cloud.target import Target
from orchestra_lib.service.embedding import embedder
from orchestra_lib.service.mcp_server import Embedder, memory_server
from orchestra_lib.service.sessions import Sessions
from orchestra_lib.service.store import MemoryStore
from orchestra_lib.settings import load


def over_stdio(api: Api, user: str) -> Client:
    environment = {"ORCHESTRA_API_DSN": api.dsn, "ORCHESTRA_API_DIMENSION": str(DIMENSION)}
    arguments = ["-m", "orchestra_lib.service", "mcp", "--user", user]
    command = StdioServerParameters(command=sys.executable, args=arguments, env={**os.environ, **environment})
    return Client(stdio_client(command), raise_exceptions=False)


def text_of(result) -> str:
    return " ".join(part.text for part in result.content)


def test_an_assistant_searches_reads_and_follows_a_conversation_over_stdio(api: Api):
    first = api.store("ada", content="the breaker opens after five failures", session_id="talk")
    api.store("ada", content="the rain in Zürich", session_id="talk")
    others = api.store("grace", content="the breaker of another user", session_id="talk")

    async def use():
        async with over_stdio(api, "ada") as client:
            tools = {tool.name for tool in (await client.list_tools()).tools}
            found = await client.call_tool("search", {"query": "when does a breaker open?"})
            got = await client.call_tool("get", {"memory_id": first})
            history = await client.call_tool("history", {"session_id": "talk"})
            hidden = await client.call_tool("get", {"memory_id": others})
            wrong = await client.call_tool("search", {"query": "x", "k": 1_000})
            return tools, found, got, history, hidden, wrong

    tools, found, got, history, hidden, wrong = asyncio.run(use())
    assert tools == {"search", "get", "history"}, "without a model that embeds nothing is stored"
    assert [hit["memory"]["id"] for hit in found.structured_content["hits"]] == [first]
    assert got.structured_content["content"] == "the breaker opens after five failures"
    assert [one["content"] for one in history.structured_content["memories"]][-1] == "the rain in Zürich"
    assert hidden.is_error
    assert "there is no memory of this id" in text_of(hidden)
    assert wrong.is_error


def test_over_http_the_token_tells_whose_memory_it_is(api: Api):
    api.store("ada", content="hers", session_id="talk")
    api.store("grace", content="another's", session_id="talk")

    async def contents(user: str) -> list[str]:
        headers = {"Authorization": f"Bearer {token_of(user)}"}
        async with (
            httpx2.AsyncClient(headers=headers, trust_env=False) as http,
            Client(streamable_http_client(f"{api.url}/mcp", http_client=http)) as client,
        ):
            history = await client.call_tool("history", {"session_id": "talk"})
            return [one["content"] for one in history.structured_content["memories"]]

    assert asyncio.run(contents("ada")) == ["hers"]
    assert asyncio.run(contents("grace")) == ["another's"]
    assert api.as_user(None).post("/mcp", json={}).status_code == 401


@pytest.fixture
def letters() -> Embedder:
    async def embed(text: str, purpose: str) -> np.ndarray:
        return np.asarray([len(text), text.count("e") + 1, purpose == "document"], dtype=np.float32)

    return Embedder("letters/1", embed)


def test_with_a_model_that_embeds_an_assistant_also_stores(api: Api, letters: Embedder):
    async def use():
        server = memory_server(api.app.state.store, DIMENSION, lambda _: "ada", letters)
        async with Client(server) as client:
            return await client.call_tool("store", {"content": "we chose RLS", "session_id": "design"})

    stored = asyncio.run_coroutine_threadsafe(use(), api.loop).result(10)
    got = api.as_user("ada").get(f"/v1/memories/{stored.structured_content['id']}").json()
    assert (got["content"], got["embedding_model"], got["item_type"]) == ("we chose RLS", "letters/1", "note")


def test_a_store_that_is_away_is_told_and_not_taken_for_no_memory(tmp_path):
    async def use():
        sessions = Sessions(settings("host=/nowhere dbname=none", tmp_path, pool_timeout_seconds=0.2))
        await sessions.open()
        server = memory_server(MemoryStore(sessions, "memories", DIMENSION), DIMENSION, lambda _: "ada")
        async with Client(server) as client:
            result = await client.call_tool("search", {"query": "anything"})
        await sessions.close()
        return result

    result = asyncio.run(use())
    assert result.is_error
    assert "cannot be reached" in text_of(result)


def test_an_environments_own_model_embeds_what_assistants_say(tmp_path, monkeypatch):
    monkeypatch.setenv("ORCHESTRA_STATE_DIR", str(tmp_path / "state"))
    wanted = load("local")
    with serving(tmp_path) as plane:
        plane.new_project(wanted.project.id, "aiplatform")
        target = Target("local", plane.url, google.oauth2.credentials.Credentials(TOKEN))
        monkeypatch.setattr("orchestra_lib.cloud.target.connect", lambda _: target)
        model = embedder("local")

        async def embedded():
            return await model.embed("the breaker opens", "document"), await model.embed("the breaker opens", "query")

        document, query = asyncio.run(embedded())
    assert model.model == wanted.assistant.embedding_model
    for vector in (document, query):
        assert len(vector) == wanted.memory.dimension
        assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)
