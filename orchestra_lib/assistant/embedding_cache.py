"""Embeddings that were paid for once, on disk: by the hash of everything that they depend on."""

from __future__ import annotations

import hashlib
import sqlite3
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from orchestra_lib.errors import DataError

_BUSY_SECONDS = 30.0


@dataclass(frozen=True)
class Space:
    """What embeddings have to share to be comparable, and a task that the same text is embedded for differently."""

    model: str
    dimension: int
    task: str

    def key(self, text: str) -> bytes:
        """The cache's key of a text: 32 bytes."""
        parts = (self.model, str(self.dimension), self.task, text)
        return hashlib.sha256("\0".join(parts).encode()).digest()


class EmbeddingCache:
    """A file of embeddings, float32 as they are used. Any number of threads; each write is on disk when it returns."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(
                path, timeout=_BUSY_SECONDS, check_same_thread=False, isolation_level=None
            )
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute(
                "CREATE TABLE IF NOT EXISTS embeddings "
                "(key BLOB PRIMARY KEY, tokens INTEGER NOT NULL, vector BLOB NOT NULL)"
            )
        except (OSError, sqlite3.Error) as error:
            raise DataError(
                f"the cache of embeddings {path} cannot be used: {error}; remove it or make room"
            ) from error
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def find(self, space: Space, texts: Sequence[str]) -> dict[int, NDArray[np.float32]]:
        """The embeddings that are there, by the place of their text. Raises DataError for one of another length."""
        found: dict[int, NDArray[np.float32]] = {}
        with self._lock:
            for place, text in enumerate(texts):
                row = self._connection.execute(
                    "SELECT vector FROM embeddings WHERE key = ?", [space.key(text)]
                ).fetchone()
                if row is not None:
                    found[place] = np.frombuffer(row[0], dtype="<f4")
        wrong = next((place for place, vector in found.items() if vector.size != space.dimension), None)
        if wrong is not None:
            raise DataError(
                f"{self.path} holds an embedding of {found[wrong].size} numbers for {space}; remove the file"
            )
        return found

    def put(self, space: Space, entries: Mapping[str, tuple[NDArray[np.float32], int]]) -> None:
        """Keep embeddings of texts, each with the tokens that were paid for it."""
        rows = [(space.key(text), tokens, vector.astype("<f4").tobytes()) for text, (vector, tokens) in entries.items()]
        with self._lock:
            self._connection.execute("BEGIN")
            self._connection.executemany("INSERT OR REPLACE INTO embeddings VALUES (?, ?, ?)", rows)
            self._connection.execute("COMMIT")
