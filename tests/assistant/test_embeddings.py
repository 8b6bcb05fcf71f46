"""Embedding through google-genai: unit vectors, paid for once, gone on with after a break, refused when not vectors."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from control_plane import PROJECT, Server
from google import genai

from orchestra_lib.assistant import embeddings
from orchestra_lib.assistant.calls import genai_client
from orchestra_lib.assistant.embedding_cache import EmbeddingCache, Space
from orchestra_lib.assistant.embeddings import LONGEST_DEVIATION, Embedder
from orchestra_lib.assistant.pace import Pace
from orchestra_lib.cloud.refusals import CloudRefused
from orchestra_lib.cloud.target import Target
from orchestra_lib.errors import DataError

TEXTS = [f"memory number {number} about heaps and sockets" for number in range(30)]


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[EmbeddingCache]:
    opened = EmbeddingCache(tmp_path / "deep" / "embeddings.sqlite")
    yield opened
    opened.close()


@pytest.fixture
def client(target: Target) -> genai.Client:
    return genai_client(target, PROJECT, "us-central1")


def embedder(
    client: genai.Client, cache: EmbeddingCache, model: str = "gemini-embedding-001", d: int = 1536
) -> Embedder:
    return Embedder(client, model, d, cache, requests_per_minute=10_000, connections=4)


def test_every_vector_is_of_unit_length_although_the_service_shortens_them(
    client: genai.Client, cache: EmbeddingCache
) -> None:
    found = embedder(client, cache).embed(TEXTS, "RETRIEVAL_DOCUMENT")
    assert found.vectors.shape == (30, 1536)
    assert found.deviation <= LONGEST_DEVIATION
    assert found.lengths == pytest.approx(0.7, abs=1e-3), "the stand-in shortens as gemini-embedding-001 does"
    assert (found.requests, found.cached, found.truncated) == (30, 0, 0), "it takes one text a request"
    assert found.tokens > 30


def test_a_text_is_paid_for_once_and_keeps_its_place(client: genai.Client, cache: EmbeddingCache) -> None:
    first = embedder(client, cache).embed(TEXTS[:10], "RETRIEVAL_DOCUMENT")
    again = embedder(client, cache).embed([TEXTS[12], TEXTS[3], TEXTS[3], TEXTS[0]], "RETRIEVAL_DOCUMENT")
    assert (again.requests, again.cached) == (1, 3)
    assert np.array_equal(again.vectors[1:], first.vectors[[3, 3, 0]])
    query = embedder(client, cache).embed(TEXTS[:1], "RETRIEVAL_QUERY")
    assert query.requests == 1, "the same text for another task is another vector"


def test_a_model_that_takes_many_texts_gets_many_in_a_request(client: genai.Client, cache: EmbeddingCache) -> None:
    assert embedder(client, cache, "text-embedding-005", 768).embed(TEXTS, "RETRIEVAL_DOCUMENT").requests == 1
    long = [f"{text} " + "x" * 30_000 for text in TEXTS[:3]]
    assert embedder(client, cache, "text-embedding-005", 768).embed(long, "RETRIEVAL_DOCUMENT").requests == 3


def test_a_model_that_wants_its_task_in_the_text_gets_it_there(client: genai.Client, cache: EmbeddingCache) -> None:
    model = embedder(client, cache, "gemini-embedding-2")
    documents, queries = (model.embed(TEXTS[:1], task).vectors for task in ("RETRIEVAL_DOCUMENT", "RETRIEVAL_QUERY"))
    assert not np.array_equal(documents, queries)


def test_after_a_break_only_what_is_missing_is_embedded(
    client: genai.Client, cache: EmbeddingCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: int, __: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        embedder(client, cache).embed(TEXTS, "RETRIEVAL_DOCUMENT", broken)
    there = len(cache.find(Space("gemini-embedding-001", 1536, "RETRIEVAL_DOCUMENT"), TEXTS))
    assert 1 <= there < 30
    assert embedder(client, cache).embed(TEXTS, "RETRIEVAL_DOCUMENT").requests == 30 - there
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("embed")] == []


def test_a_busy_service_is_asked_again_and_a_refusal_is_told(
    server: Server, client: genai.Client, cache: EmbeddingCache
) -> None:
    method = "aiplatform.projects.locations.publishers.models.predict"
    server.inject(faults=[{"method": method, "answer": 429}, {"method": method, "answer": "drop_before"}])
    assert embedder(client, cache).embed(TEXTS[:1], "RETRIEVAL_DOCUMENT").requests == 1
    with pytest.raises(CloudRefused, match="not found"):
        embedder(client, cache, "gemini-embedding-9").embed(TEXTS[:1], "RETRIEVAL_DOCUMENT")


def test_what_is_no_text_and_what_is_no_vector_is_refused(
    client: genai.Client, cache: EmbeddingCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DataError, match="empty text"):
        embedder(client, cache).embed(["a", " "], "RETRIEVAL_DOCUMENT")
    with pytest.raises(DataError, match="no texts"):
        embedder(client, cache).embed([], "RETRIEVAL_DOCUMENT")
    with pytest.raises(DataError, match="length 0"):
        embedder(client, cache).embed(["!!!"], "RETRIEVAL_DOCUMENT")  # the stand-in knows no word in it
    assert embeddings._unit(np.asarray([3, 4], dtype=np.float32))[1] == 5.0


def test_a_cache_of_another_length_is_refused_with_what_to_do(cache: EmbeddingCache) -> None:
    space = Space("m", 4, "t")
    cache.put(space, {"text": (np.ones(3, dtype=np.float32), 1)})
    with pytest.raises(DataError, match="remove the file"):
        cache.find(space, ["text"])


def test_no_minute_has_more_requests_than_the_pace_allows() -> None:
    now, sent = [0.0], []

    def sleep(seconds: float) -> None:
        now[0] += seconds

    pace = Pace(5, clock=lambda: now[0], sleep=sleep)
    for _ in range(23):
        pace.wait()
        sent.append(now[0])
        now[0] += 0.5
    assert all(sum(start <= at < start + 60 for at in sent) <= 5 for start in sent)
    assert sent[4] < 3, "what is allowed at once is sent at once"
