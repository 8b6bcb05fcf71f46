"""A change of model: each text paid for once, killed workers cost a request, changed texts are embedded again."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import pytest
from psycopg import sql
from stores import fill

from orchestra_lib import settings
from orchestra_lib.assistant.embeddings import space_of
from orchestra_lib.cloud.refusals import CloudRefused
from orchestra_lib.database import connect
from orchestra_lib.errors import DataError, ParameterError
from orchestra_lib.memory.ranges import KeyRange, key_ranges
from orchestra_lib.memory.source import source_table
from orchestra_lib.scale import fresh_embeddings
from orchestra_lib.scale.embedding import begin_embedding
from orchestra_lib.scale.fresh_embeddings import FreshTable, create, embed_range, left
from orchestra_lib.scale.spec import EmbeddingSpec

ALL = KeyRange(1, None, None)
TABLE = FreshTable(sql.Identifier("memories"), sql.Identifier("memories_next"), 8, "model-1")
# Different texts of 300 memories, of which every tenth has the text of memory 0.
TEXTS = 271


class Model:
    """A model whose vector follows from the text; it counts what it is paid for, and may fail."""

    def __init__(self, fails_at: int | None = None) -> None:
        self.asked: list[str] = []
        self._fails_at = fails_at

    def __call__(self, texts):
        if self._fails_at is not None and len(self.asked) >= self._fails_at:
            raise ConnectionError("the model is away")
        self.asked += texts
        return np.stack([vector(text) for text in texts])


def vector(text):
    draw = np.random.default_rng(int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]))
    found = draw.standard_normal(8)
    return (found / np.linalg.norm(found)).astype(np.float32)


@pytest.fixture
def store(pair, monkeypatch):
    monkeypatch.setattr(fresh_embeddings, "TEXTS_AT_ONCE", 50)
    fill(pair.target, 300)
    with connect(pair.target) as connection:
        connection.execute(
            "UPDATE memories SET content = (SELECT content FROM memories WHERE id = 'id-00000000') "
            "WHERE right(id, 1) = '0'"
        )
        create(connection, TABLE)
        yield connection


def embedded(store):
    rows = store.execute(
        "SELECT m.content, f.embedding FROM memories m JOIN memories_next f USING (id) "
        "WHERE f.text_sha256 = sha256(convert_to(m.content, 'UTF8'))"
    ).fetchall()
    for content, found in rows:
        np.testing.assert_allclose(found.to_numpy(), vector(content), rtol=1e-6)
    return len(rows)


def test_every_memory_has_the_vector_of_its_text_and_each_text_was_paid_for_once(store):
    model = Model()
    ranges = key_ranges(store, source_table(store, "memories", {}), 4)
    found = [embed_range(store, TABLE, one, model) for one in ranges]
    assert embedded(store) == sum(one.memories for one in found) == 300
    assert sorted(model.asked) == sorted(set(model.asked))
    assert len(model.asked) == sum(one.asked for one in found) == TEXTS
    assert left(store, TABLE) == 0


def test_a_second_time_nothing_is_asked_or_written(store):
    embed_range(store, TABLE, ALL, Model())
    again = Model()
    assert embed_range(store, TABLE, ALL, again).memories == 0
    assert again.asked == []


def test_what_was_embedded_before_a_failure_is_not_paid_for_again(store):
    failing = Model(fails_at=100)
    with pytest.raises(ConnectionError):
        embed_range(store, TABLE, ALL, failing)
    rest = Model()
    embed_range(store, TABLE, ALL, rest)
    assert embedded(store) == 300
    assert len(failing.asked) == 100
    assert not set(failing.asked) & set(rest.asked)


def test_a_text_that_has_changed_is_embedded_again_and_no_other(store):
    embed_range(store, TABLE, ALL, Model())
    store.execute("UPDATE memories SET content = 'changed' WHERE id IN ('id-00000003', 'id-00000004')")
    assert left(store, TABLE) == 2
    model = Model()
    found = embed_range(store, TABLE, ALL, model)
    assert (model.asked, found.memories) == (["changed"], 2)
    assert embedded(store) == 300


def test_an_answer_of_another_shape_is_refused(store):
    with pytest.raises(DataError, match=r"50 texts were embedded into an array of \(50, 4\)"):
        embed_range(store, TABLE, ALL, lambda texts: np.ones((len(texts), 4), dtype=np.float32))
    assert embedded(store) == 0


def test_a_table_of_another_dimension_is_not_used(store):
    with pytest.raises(DataError, match="holds vectors of 8 numbers, not 9"):
        create(store, replace(TABLE, dimension=9))


def test_two_models_are_not_mixed_in_a_table(store):
    other = replace(TABLE, model="model-2")
    create(store, other)  # while it is empty it is nobody's
    create(store, TABLE)
    embed_range(store, TABLE, ALL, Model())
    with pytest.raises(DataError, match="holds vectors of model-1, not of model-2"):
        create(store, other)
    create(store, TABLE)
    store.execute("COMMENT ON TABLE memories_next IS NULL")
    with pytest.raises(DataError, match="holds vectors of a model that it does not name, not of model-1"):
        create(store, TABLE)


def test_what_stands_in_front_of_a_text_belongs_to_the_model():
    assert space_of("gemini-embedding-001", "RETRIEVAL_DOCUMENT") == "gemini-embedding-001, task RETRIEVAL_DOCUMENT"
    assert "title: none" in space_of("gemini-embedding-2", "RETRIEVAL_DOCUMENT")


@pytest.mark.parametrize("blank", [" ", "", "\n\t", "\u00a0\u2003\u3000", "\x1c\x85"])
def test_a_blank_memory_has_no_vector_and_stops_nothing(store, blank):
    assert not blank.strip()
    store.execute("UPDATE memories SET content = %s WHERE id = 'id-00000003'", [blank])
    model = Model()
    found = embed_range(store, TABLE, ALL, model)
    assert (found.memories, found.blank) == (299, 1)
    assert all(text.strip() for text in model.asked)
    assert left(store, TABLE) == 0


@pytest.mark.parametrize(
    "refusal", [DataError("it has no direction"), CloudRefused("too long", status=400, reason="INVALID_ARGUMENT")]
)
def test_a_text_that_is_refused_is_told_by_its_memory(store, refusal):
    (text,) = store.execute("SELECT content FROM memories WHERE id = 'id-00000137'").fetchone()
    model = Model()

    def embed(texts):
        if text in texts:
            raise refusal
        return model(texts)

    with pytest.raises(DataError, match=f"the text of memory id-00000137 has no vector: {refusal}"):
        embed_range(store, TABLE, ALL, embed)
    assert 100 <= embedded(store) < 300


def test_a_service_that_is_busy_is_no_texts_fault(store):
    calls = []

    def embed(texts):
        calls.append(texts)
        raise CloudRefused("quota", status=429, reason="rateLimitExceeded", transient=True)

    with pytest.raises(CloudRefused, match="quota"):
        embed_range(store, TABLE, ALL, embed)
    assert len(calls) == 1


def test_workers_that_are_more_than_the_requests_a_minute_are_refused():
    requests = settings.load("production").assistant.embedding.requests_per_minute
    many = EmbeddingSpec("file:/a", "production", "memories", "memories_next", workers=requests + 1)
    with pytest.raises(ParameterError, match=rf"{requests + 1} workers cannot share {requests} requests a minute"):
        begin_embedding(many)
