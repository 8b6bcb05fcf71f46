"""The corpus: questions with known answers, held out of what is stored; made once and then read from the cache."""

from __future__ import annotations

import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from orchestra_lib.errors import DataError
from orchestra_lib.rehearsal import corpus as corpus_module
from orchestra_lib.rehearsal.corpus import Corpus, build
from orchestra_lib.rehearsal.docstrings import collect, standard_library

pytestmark = pytest.mark.slow

FOLDER = standard_library() / "asyncio"
DIMENSION = 64


def made(cache: Path, seed: int = 3, queries: int = 20, dimension: int = DIMENSION) -> Corpus:
    return build(seed, queries, cache, dimension=dimension, folder=FOLDER)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("corpora")


@pytest.fixture(scope="module")
def corpus(cache: Path) -> Corpus:
    return made(cache)


def kept(cache: Path) -> Path:
    (place,) = (path for path in cache.iterdir() if path.is_dir())
    return place


def test_every_item_has_content_and_an_embedding(corpus: Corpus) -> None:
    assert corpus.items == collect(FOLDER)
    assert len(corpus.items) == len(corpus.contents) > 200
    assert (corpus.embeddings.shape, corpus.embeddings.dtype) == ((len(corpus.items), DIMENSION), np.float32)
    assert (corpus.query_embeddings.shape, corpus.query_embeddings.dtype) == ((20, DIMENSION), np.float32)
    np.testing.assert_allclose(np.linalg.norm(corpus.embeddings, axis=1), 1, atol=1e-5)
    assert len(corpus.digest) == 64
    assert int(corpus.digest, 16) >= 0


def test_a_question_is_the_first_sentence_of_its_answer_and_of_no_other_item(corpus: Corpus) -> None:
    by_id = {item.id: item for item in corpus.items}
    sentences = [item.first_sentence.lower() for item in corpus.items]
    assert len({query.answer_id for query in corpus.queries}) == 20
    for query in corpus.queries:
        assert by_id[query.answer_id].first_sentence == query.text
        assert sentences.count(query.text.lower()) == 1
        assert len(query.text.split()) >= 4


def test_only_the_held_out_sentences_are_missing_from_what_is_stored(corpus: Corpus) -> None:
    questions = {query.answer_id: query.text for query in corpus.queries}
    for item, content in zip(corpus.items, corpus.contents, strict=True):
        said = " ".join(content.split())
        elsewhere = item.first_sentence in " ".join(f"{item.rest} {item.excerpt}".split())
        if item.id not in questions:
            assert item.first_sentence in said
        elif not elsewhere:
            assert questions[item.id] not in said
            assert said.startswith(item.signature.split("(")[0])
        assert content == item.content(with_first_sentence=item.id not in questions)


def test_answers_are_found_far_more_often_than_by_chance(corpus: Corpus) -> None:
    ids = np.array([item.id for item in corpus.items])
    nearest = np.argsort(-(corpus.query_embeddings @ corpus.embeddings.T), axis=1)[:, :10]
    hits = [query.answer_id in ids[row] for query, row in zip(corpus.queries, nearest, strict=True)]
    assert np.mean(hits) > 0.3  # ten of some 360 by chance: 0.03


def test_the_second_time_the_corpus_comes_from_the_cache_as_it_was(cache: Path, corpus: Corpus) -> None:
    before = {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in kept(cache).iterdir()}
    again = made(cache)
    assert {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in kept(cache).iterdir()} == before
    np.testing.assert_array_equal(again.embeddings, corpus.embeddings)
    np.testing.assert_array_equal(again.query_embeddings, corpus.query_embeddings)
    assert (again.items, again.contents, again.queries) == (corpus.items, corpus.contents, corpus.queries)
    assert (again.embedding_model, again.seed, again.digest) == (corpus.embedding_model, 3, corpus.digest)


def test_what_is_kept_is_found_by_the_files_without_parsing_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(FOLDER, tmp_path / "asyncio")
    first = build(3, 20, tmp_path / "cache", dimension=DIMENSION, folder=folder)
    with monkeypatch.context() as patched:
        patched.setattr(corpus_module, "collect", None)
        again = build(3, 20, tmp_path / "cache", dimension=DIMENSION, folder=folder)
    assert (again.items, again.digest) == (first.items, first.digest)
    (folder / "one_more.py").write_text('"""One more module, which nobody has read before."""\n')
    after = build(3, 20, tmp_path / "cache", dimension=DIMENSION, folder=folder)
    assert after.digest != first.digest
    assert {item.id for item in after.items} - {item.id for item in first.items} == {"one_more"}


def test_made_elsewhere_it_is_the_same_and_with_another_seed_it_is_not(tmp_path: Path, corpus: Corpus) -> None:
    elsewhere = made(tmp_path / "deep" / "cache")
    np.testing.assert_array_equal(elsewhere.embeddings, corpus.embeddings)
    assert (elsewhere.queries, elsewhere.digest) == (corpus.queries, corpus.digest)
    others = [made(tmp_path, seed=4), made(tmp_path, queries=19), made(tmp_path, dimension=32)]
    assert len({corpus.digest, *(other.digest for other in others)}) == 4
    assert others[0].queries != corpus.queries
    assert not list(tmp_path.glob(".making-*"))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("embeddings.npy", b"\x93NUMPY broken"),
        ("embeddings.npy", b""),
        ("query_embeddings.npy", None),
        ("corpus.json", b"{"),
    ],
)
def test_a_damaged_cache_is_refused_and_its_folder_named(tmp_path: Path, name: str, content: bytes | None) -> None:
    made(tmp_path)
    path = kept(tmp_path) / name
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        made(tmp_path)
    assert str(kept(tmp_path)) in str(caught.value)
    assert "remove that folder" in str(caught.value)


def test_a_cache_half_made_is_made_anew(tmp_path: Path, corpus: Corpus) -> None:
    made(tmp_path)
    (kept(tmp_path) / "corpus.json").unlink()
    (kept(tmp_path) / "embeddings.npy").write_bytes(b"half")
    np.testing.assert_array_equal(made(tmp_path).embeddings, corpus.embeddings)


def test_more_questions_than_there_are_sentences_are_refused_with_both_numbers(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has (\d+) sentences fit for questions, 5000 are wanted; give queries \1"):
        made(tmp_path, queries=5_000)
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


def test_fewer_items_than_dimensions_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="texts cannot span 1536 dimensions"):
        build(3, 20, tmp_path, folder=FOLDER)


def test_who_comes_while_it_is_made_waits_and_makes_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    times, make = [], corpus_module._make

    def counted(*given: object) -> Corpus:
        times.append(time.monotonic())
        return make(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(corpus_module, "_make", counted)
    with ThreadPoolExecutor(3) as pool:
        found = [one.result() for one in [pool.submit(made, tmp_path) for _ in range(3)]]
    assert len(times) == 1
    assert len({one.digest for one in found}) == 1


def test_a_cache_that_cannot_be_written_is_refused_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match="ORCHESTRA_STATE_DIR"):
        made(tmp_path / "file")
