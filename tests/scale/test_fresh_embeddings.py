"""A change of model: each text paid for once, killed workers cost a request, changed texts are embedded again."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from psycopg import sql
from stores import fill

from orchestra_lib.database import connect
from orchestra_lib.errors import DataError
from orchestra_lib.memory.ranges import KeyRange, key_ranges
from orchestra_lib.memory.source import source_table
from orchestra_lib.scale import fresh_embeddings
from orchestra_lib.scale.fresh_embeddings import FreshTable, create, embed_range, left

ALL = KeyRange(1, None, None)
TABLE = FreshTable(sql.Identifier("memories"), sql.Identifier("memories_next"), 8)
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
        create(store, FreshTable(TABLE.memories, TABLE.fresh, 9))
