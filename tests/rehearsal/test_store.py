"""Seeding a real server: all rows or grown ones that say so, made once, and never half."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import psycopg
import pytest
from pgvector.psycopg import register_vector
from psycopg import sql
from stores import Pair

from orchestra_lib.errors import DataError
from orchestra_lib.rehearsal import Corpus, Seeded, build, seed_store
from orchestra_lib.rehearsal.docstrings import standard_library
from orchestra_lib.vectors.forms import ivfflat
from orchestra_lib.vectors.index import IndexSpec, serving_index

pytestmark = pytest.mark.slow

LISTS = 5
QUERIES = 20


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    cache = tmp_path_factory.mktemp("corpora")
    return build(3, QUERIES, cache, dimension=64, folder=standard_library() / "asyncio")


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCHESTRA_STATE_DIR", str(tmp_path / "state"))


class Progress(list[tuple[int, int]]):
    """What the load said of its rows."""

    def __call__(self, done: int, total: int) -> None:
        self.append((done, total))


def seeded(pair: Pair, corpus: Corpus, rows: int | None = None, lists: int = LISTS) -> tuple[Seeded, Progress]:
    progress = Progress()
    return seed_store(pair.source, corpus, rows, lists, progress, lambda words: None), progress


def fetched(pair: Pair, what: str, where: str = "true") -> list[tuple]:
    with psycopg.connect(pair.source) as connection:
        register_vector(connection)
        return connection.execute(f"SELECT {what} FROM memories WHERE {where} ORDER BY created_at").fetchall()


def indexes(pair: Pair) -> list[str]:
    with psycopg.connect(pair.source) as connection:
        rows = connection.execute("SELECT indexname FROM pg_indexes WHERE indexname LIKE '%ivfflat%'").fetchall()
    return [name for (name,) in rows]


def test_every_item_is_a_row_with_its_content_and_embedding(pair: Pair, corpus: Corpus) -> None:
    told, progress = seeded(pair, corpus)
    count = len(corpus.items)
    assert told == Seeded(count, 0, corpus.embedding_model, LISTS, was_there=False)
    assert progress[-1] == (count, count)
    rows = fetched(pair, "id, content, agent_id, user_id, session_id, persona, item_type, embedding_model")
    assert rows == [
        (item.id, content, item.agent_id, item.user_id, item.session_id, item.persona, item.item_type,
         corpus.embedding_model)
        for item, content in zip(corpus.items, corpus.contents, strict=True)
    ]  # fmt: skip
    vectors = np.stack([vector.to_numpy() for (vector,) in fetched(pair, "embedding")])
    np.testing.assert_array_equal(vectors.astype(np.float32), corpus.embeddings)
    about = [about for (about,) in fetched(pair, "metadata")]
    assert [(row["signature"], row["line"], row["synthetic"]) for row in about] == [
        (item.signature, item.line, False) for item in corpus.items
    ]
    spec = IndexSpec("memories", ivfflat(LISTS), "vector_cosine_ops", 64)
    with psycopg.connect(pair.source) as connection:
        assert serving_index(connection, sql.Identifier("memories")).name == spec.name


def test_the_second_time_the_store_is_found_and_nothing_is_written(pair: Pair, corpus: Corpus) -> None:
    first, _ = seeded(pair, corpus)
    before = fetched(pair, "id, xmin::text, ctid::text")
    second, progress = seeded(pair, corpus)
    assert (first.was_there, second.was_there) == (False, True)
    assert (second.rows, second.synthetic, second.lists) == (first.rows, first.synthetic, first.lists)
    assert progress == []
    assert fetched(pair, "id, xmin::text, ctid::text") == before
    assert str(first).startswith("the rehearsal's store was made: ")
    assert str(second) == str(first).replace("was made", "was found")


def test_more_rows_are_grown_and_every_one_says_that_it_is_synthetic(pair: Pair, corpus: Corpus) -> None:
    real = len(corpus.items)
    told, _ = seeded(pair, corpus, rows=real + 150)
    assert (told.rows, told.synthetic) == (real + 150, 150)
    assert "150 of them synthetic" in str(told)
    rows = fetched(pair, "id, content, metadata, embedding_model, embedding", "id LIKE 'synthetic:%'")
    assert len(rows) == 150
    place = {item.id: number for number, item in enumerate(corpus.items)}
    near = []
    for id_, content, about, model, vector in rows:
        assert about["synthetic"] is True, id_
        assert model == f"{corpus.embedding_model} synthetic"
        number = place[about["drawn_near"]]
        assert content == f"[synthetic, drawn near {about['drawn_near']}]\n{corpus.contents[number]}"
        assert abs(np.linalg.norm(vector.to_numpy()) - 1) < 1e-4
        near.append(vector.to_numpy() @ corpus.embeddings[number])
    assert min(near) < 0.999
    assert np.mean(near) > 0.6
    others = fetched(pair, "id, embedding_model, metadata -> 'synthetic'", "id NOT LIKE 'synthetic:%'")
    assert others == [(item.id, corpus.embedding_model, False) for item in corpus.items]


def test_growing_again_from_nothing_gives_the_same_rows(pair: Pair, corpus: Corpus) -> None:
    what = "id, content, metadata::text, embedding::text, created_at"
    seeded(pair, corpus, rows=len(corpus.items) + 20)
    first = fetched(pair, what)
    seeded(pair, corpus, rows=100)
    assert len(fetched(pair, "id")) == 100
    seeded(pair, corpus, rows=len(corpus.items) + 20)
    assert fetched(pair, what) == first


@pytest.mark.parametrize("rows", [QUERIES, 100])
def test_fewer_rows_keep_every_answer(pair: Pair, corpus: Corpus, rows: int) -> None:
    told, _ = seeded(pair, corpus, rows=rows)
    assert (told.rows, told.synthetic) == (rows, 0)
    ids = [id_ for (id_,) in fetched(pair, "id")]
    assert len(ids) == rows
    assert {query.answer_id for query in corpus.queries} <= set(ids)


def test_other_rows_or_lists_make_the_store_anew_with_one_index(pair: Pair, corpus: Corpus) -> None:
    seeded(pair, corpus, rows=120)
    more, _ = seeded(pair, corpus, rows=130)
    assert (more.was_there, len(fetched(pair, "id"))) == (False, 130)
    other, _ = seeded(pair, corpus, rows=130, lists=7)
    assert other.was_there is False
    assert indexes(pair) == ["memories_embedding_ivfflat_7"]
    assert seeded(pair, corpus, rows=130, lists=7)[0].was_there


def test_a_load_that_breaks_off_leaves_what_was_there(pair: Pair, corpus: Corpus) -> None:
    seeded(pair, corpus, rows=100)

    def broken(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        seed_store(pair.source, corpus, 110, LISTS, broken, lambda words: None)
    assert len(fetched(pair, "id")) == 100
    assert seeded(pair, corpus, rows=100)[0].was_there


def test_a_store_without_its_index_is_made_anew(pair: Pair, corpus: Corpus) -> None:
    seeded(pair, corpus, rows=100)
    with psycopg.connect(pair.source) as connection:
        connection.execute("DELETE FROM orchestra_rehearsal")  # as after a crash between the load and the index
        connection.execute("DROP INDEX memories_embedding_ivfflat_5")
    assert seeded(pair, corpus, rows=100)[0].was_there is False
    assert indexes(pair) == ["memories_embedding_ivfflat_5"]
    assert seeded(pair, corpus, rows=100)[0].was_there


def test_without_room_nothing_is_touched_and_the_numbers_are_said(pair: Pair, corpus: Corpus, tmp_path: Path) -> None:
    seeded(pair, corpus, rows=100)
    with pytest.raises(DataError, match=r"1,000,000,000,000 rows need about [\d,.]+ GiB .* ORCHESTRA_STATE_DIR") as no:
        seeded(pair, corpus, rows=10**12)
    assert str(tmp_path / "state") in str(no.value)
    assert len(fetched(pair, "id")) == 100
    assert seeded(pair, corpus, rows=100)[0].was_there
