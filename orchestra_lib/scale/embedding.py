"""A change of model as a worker does it: the model of an environment, at this worker's share of its pace."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import psycopg
from numpy.typing import NDArray
from psycopg import sql

from orchestra_lib.assistant.calls import genai_client
from orchestra_lib.assistant.embedding_cache import EmbeddingCache
from orchestra_lib.assistant.embeddings import Embedder, Task, space_of
from orchestra_lib.cloud.target import connect as cloud
from orchestra_lib.database import connect
from orchestra_lib.errors import ParameterError
from orchestra_lib.memory.ranges import KeyRange
from orchestra_lib.memory.source import source_table
from orchestra_lib.scale.endpoint import address_of
from orchestra_lib.scale.fresh_embeddings import EmbeddedRange, FreshTable, create, embed_range, left
from orchestra_lib.scale.size_ranges import ranges_by_size
from orchestra_lib.scale.spec import EmbeddingSpec
from orchestra_lib.settings import Settings, load
from orchestra_lib.settings.assistant import Assistant

_TASK: Task = "RETRIEVAL_DOCUMENT"


class Reembedder:
    """A worker's session with the memories, and its model. Closes with the ``with`` block, or by ``close``."""

    def __init__(self, spec: EmbeddingSpec) -> None:
        """Connect to both.

        Raises ParameterError where the environment has no model, or too few requests for so many workers;
        TargetUnreachable.
        """
        settings, wanted, project = _model_of(spec)
        self._table = fresh_table(spec, wanted)
        self._stack = ExitStack()
        self._connection = self._stack.enter_context(connect(address_of(spec.target), role="target"))
        folder = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="orchestra-embed-"))
        cache = EmbeddingCache(Path(folder) / "cache.sqlite")
        self._stack.callback(cache.close)
        self._embedder = Embedder(
            genai_client(cloud(settings), project, wanted.embedding.location),
            wanted.embedding_model,
            wanted.embedding_dimension,
            cache,
            requests_per_minute=_requests_of_a_worker(spec, wanted),
            connections=wanted.embedding.connections,
        )

    def __enter__(self) -> Reembedder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the session and the model's cache."""
        self._stack.close()

    def embed(self, key_range: KeyRange) -> EmbeddedRange:
        """Give every memory of the range its vector. Raises CloudRefused, TargetUnreachable, DataError."""
        return embed_range(self._connection, self._table, key_range, self._vectors)

    def _vectors(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return self._embedder.embed(texts, _TASK).vectors


def fresh_table(spec: EmbeddingSpec, wanted: Assistant) -> FreshTable:
    """The tables of a change of model."""
    memories, fresh = (sql.Identifier(*name.split(".")) for name in (spec.memories, spec.fresh))
    return FreshTable(memories, fresh, wanted.embedding_dimension, space_of(wanted.embedding_model, _TASK))


def begin_embedding(spec: EmbeddingSpec) -> tuple[KeyRange, ...]:
    """Make the table beside unless it is there; returns the ranges to go through. Raises DataError, ParameterError."""
    _, wanted, _ = _model_of(spec)
    _requests_of_a_worker(spec, wanted)
    with _memories(spec) as connection:
        create(connection, fresh_table(spec, wanted))
        return ranges_by_size(connection, source_table(connection, spec.memories, {}), spec.range_bytes)


def memories_left(spec: EmbeddingSpec) -> int:
    """How many memories have no current vector. Reads every text."""
    _, wanted, _ = _model_of(spec)
    with _memories(spec) as connection:
        return left(connection, fresh_table(spec, wanted))


def _requests_of_a_worker(spec: EmbeddingSpec, wanted: Assistant) -> int:
    """A worker's share of the requests a minute. Raises ParameterError where it would be less than one."""
    of_all = wanted.embedding.requests_per_minute
    if of_all < spec.workers:
        raise ParameterError(
            f"{spec.workers} workers cannot share {of_all} requests a minute: take fewer workers, or allow more "
            "(assistant.embedding.requests_per_minute)"
        )
    return of_all // spec.workers


def _memories(spec: EmbeddingSpec) -> psycopg.Connection:
    return connect(address_of(spec.target), role="target")


def _model_of(spec: EmbeddingSpec) -> tuple[Settings, Assistant, str]:
    settings = load(spec.environment)
    if settings.assistant is None or settings.project is None:
        raise ParameterError(f"environment {spec.environment} has no section assistant, and so no model that embeds")
    return settings, settings.assistant, settings.project.id
