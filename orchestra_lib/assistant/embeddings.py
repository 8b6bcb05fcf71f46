"""Texts into vectors by Google's models: batched, at a pace, each text paid for once, every vector of length one.

Killed in the middle, the next call goes on: what was embedded is in the cache.
https://cloud.google.com/vertex-ai/generative-ai/docs/embeddings/get-text-embeddings
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Literal

import numpy as np
from google import genai
from google.genai import types
from numpy.typing import NDArray

from orchestra_lib.assistant.calls import ask
from orchestra_lib.assistant.embedding_cache import EmbeddingCache, Space
from orchestra_lib.assistant.pace import Pace
from orchestra_lib.errors import DataError

Vectors = NDArray[np.float32]
Task = Literal["RETRIEVAL_DOCUMENT", "RETRIEVAL_QUERY"]

LONGEST_DEVIATION = 1e-5
"""How far the length of a vector may be from one."""

_TEXTS_PER_REQUEST = {"text-embedding-005": 250, "text-multilingual-embedding-002": 250}
# gemini-embedding-2 takes no task beside the text, it wants it in front: https://ai.google.dev/gemini-api/docs/embeddings
_TASKS_IN_FRONT: Mapping[str, Mapping[Task, str]] = {
    "gemini-embedding-2": {
        "RETRIEVAL_DOCUMENT": "title: none | text: ",
        "RETRIEVAL_QUERY": "task: search result | query: ",
    }
}
_ONE = 1  # the Gemini models: https://docs.cloud.google.com/gemini-enterprise-agent-platform/models/embeddings
_LONGEST_BATCH_CHARACTERS = 40_000  # 20,000 tokens a request, and a token of code can have two characters


def space_of(model: str, task: Task) -> str:
    """What texts of a task are embedded by, in words: vectors of two that differ here compare nothing."""
    in_front = _TASKS_IN_FRONT.get(model)
    return f"{model}, texts after {in_front[task]!r}" if in_front else f"{model}, task {task}"


@dataclass(frozen=True)
class Embedded:
    """Vectors in the order of the texts, float32 (n, dimension), unit rows; and what it took.

    ``lengths`` are the raw lengths of the vectors that the service gave now, before they were made unit length;
    ``truncated`` how many of those texts it read in part only; ``cached`` how many cost nothing.
    """

    vectors: Vectors
    lengths: NDArray[np.float64]
    cached: int
    requests: int
    tokens: int
    truncated: int
    seconds: float

    @property
    def deviation(self) -> float:
        """The largest distance of a vector's length from one."""
        return float(np.abs(np.linalg.norm(self.vectors.astype(np.float64), axis=1) - 1.0).max())


@dataclass(frozen=True)
class _Answer:
    """One request's: a raw vector, the tokens and whether it was cut, for each of its texts."""

    texts: tuple[str, ...]
    vectors: tuple[Vectors, ...]
    tokens: tuple[int, ...]
    truncated: int


class Embedder:
    """Embeds for one model and dimension. ``connections`` requests at once at most, at a pace."""

    def __init__(
        self,
        client: genai.Client,
        model: str,
        dimension: int,
        cache: EmbeddingCache,
        *,
        requests_per_minute: int,
        connections: int,
    ) -> None:
        self._client, self._cache, self._connections = client, cache, connections
        self.model, self.dimension = model, dimension
        self._pace = Pace(requests_per_minute)

    def embed(self, texts: Sequence[str], task: Task, progress: Callable[[int, int], None] | None = None) -> Embedded:
        """The vectors of texts. Raises DataError for an empty text or an answer that is no vector, CloudRefused."""
        empty = next((place for place, text in enumerate(texts) if not text.strip()), None)
        if empty is not None or not texts:
            raise DataError("an empty text has no embedding" if texts else "no texts to embed")
        began = time.monotonic()
        space = Space(self.model, self.dimension, task)
        found = self._cache.find(space, texts)
        missing = list(dict.fromkeys(text for place, text in enumerate(texts) if place not in found))
        vectors: dict[str, Vectors] = {texts[place]: vector for place, vector in found.items()}
        lengths: list[float] = []
        requests = tokens = truncated = 0
        for answer in self._answers(missing, task):
            units = [_unit(vector) for vector in answer.vectors]
            lengths += [length for _, length in units]
            entries = {text: (unit, n) for text, (unit, _), n in zip(answer.texts, units, answer.tokens, strict=True)}
            self._cache.put(space, entries)
            vectors |= {text: unit for text, (unit, _) in entries.items()}
            requests, tokens, truncated = requests + 1, tokens + sum(answer.tokens), truncated + answer.truncated
            if progress:
                progress(len(lengths), len(missing))
        return Embedded(
            np.stack([vectors[text] for text in texts]),
            np.asarray(lengths),
            len(found),
            requests,
            tokens,
            truncated,
            time.monotonic() - began,
        )

    def _answers(self, texts: Sequence[str], task: Task) -> Iterator[_Answer]:
        """As they come. Only a few requests are begun ahead: an interrupt costs no more than those."""
        batches = iter(_batches(texts, _TEXTS_PER_REQUEST.get(self.model, _ONE)))
        with ThreadPoolExecutor(self._connections, thread_name_prefix="embed") as pool:
            running: set[Future[_Answer]] = set()
            try:
                while True:
                    for batch in batches:
                        running.add(pool.submit(self._request, batch, task))
                        if len(running) >= self._connections:
                            break
                    if not running:
                        return
                    done, running = wait(running, return_when=FIRST_COMPLETED)
                    for future in done:
                        yield future.result()
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def _request(self, texts: tuple[str, ...], task: Task) -> _Answer:
        self._pace.wait()
        in_front = _TASKS_IN_FRONT.get(self.model)
        contents = [in_front[task] + text for text in texts] if in_front else list(texts)
        config = types.EmbedContentConfig(output_dimensionality=self.dimension, task_type=None if in_front else task)
        answer = ask(
            f"embed with {self.model}",
            lambda: self._client.models.embed_content(model=self.model, contents=contents, config=config),
        )
        given = answer.embeddings or []
        if len(given) != len(texts):
            raise DataError(f"{self.model} was given {len(texts)} texts and answered with {len(given)} embeddings")
        vectors = tuple(np.asarray(one.values or (), dtype=np.float32) for one in given)
        wrong = next((vector.size for vector in vectors if vector.size != self.dimension), None)
        if wrong is not None:
            raise DataError(f"{self.model} was asked for {self.dimension} numbers and gave {wrong}")
        statistics = [one.statistics for one in given]
        return _Answer(
            texts,
            vectors,
            tuple(int(one.token_count or 0) if one else 0 for one in statistics),
            sum(bool(one and one.truncated) for one in statistics),
        )


def _batches(texts: Sequence[str], most: int) -> Iterator[tuple[str, ...]]:
    """The texts in groups that one request may hold, by their number and their characters."""
    batch: list[str] = []
    for text in texts:
        if batch and (len(batch) == most or sum(map(len, batch)) + len(text) > _LONGEST_BATCH_CHARACTERS):
            yield tuple(batch)
            batch = []
        batch.append(text)
    if batch:
        yield tuple(batch)


def _unit(vector: Vectors) -> tuple[Vectors, float]:
    """A vector of length one, and the length that it had. Raises DataError for one that has no direction."""
    length = float(np.linalg.norm(vector.astype(np.float64)))
    if not np.isfinite(length) or length == 0.0:
        raise DataError(f"an embedding has the length {length}: it cannot be compared with any other")
    return (vector.astype(np.float64) / length).astype(np.float32), length
