"""Texts into vectors for coding assistants: by the model of an environment, which the memory was embedded with too."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from orchestra_lib.errors import ParameterError
from orchestra_lib.service.mcp_server import Embedder, Purpose
from orchestra_lib.service.store import Embedding
from orchestra_lib.settings import load


def embedder(environment: str) -> Embedder:
    """What embeds in an environment. Raises ParameterError where its settings name no model, TargetUnreachable."""
    from orchestra_lib.assistant import embeddings
    from orchestra_lib.assistant.calls import genai_client
    from orchestra_lib.assistant.embedding_cache import EmbeddingCache
    from orchestra_lib.cloud.target import connect
    from orchestra_lib.paths import state_directory

    settings = load(environment)
    wanted, project = settings.assistant, settings.project
    if wanted is None or project is None:
        raise ParameterError(f"environment {environment} has no section assistant, and so no model that embeds")
    target = connect(settings)

    def made() -> embeddings.Embedder:
        return embeddings.Embedder(
            genai_client(target, project.id, wanted.embedding.location),
            wanted.embedding_model,
            wanted.embedding_dimension,
            EmbeddingCache(state_directory() / f"mcp.{environment}.sqlite"),
            requests_per_minute=wanted.embedding.requests_per_minute,
            connections=1,
        )

    # SQLite's connection, which the cache is, belongs to the thread that opened it.
    thread = ThreadPoolExecutor(1, "embedding")
    model = thread.submit(made).result()

    async def embed(text: str, purpose: Purpose) -> Embedding:
        task: embeddings.Task = "RETRIEVAL_DOCUMENT" if purpose == "document" else "RETRIEVAL_QUERY"
        embedded = await asyncio.get_running_loop().run_in_executor(thread, model.embed, [text], task)
        vector: Embedding = embedded.vectors[0]
        return vector

    return Embedder(wanted.embedding_model, embed)
