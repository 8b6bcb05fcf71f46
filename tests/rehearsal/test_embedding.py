"""The lexical embedding: unit vectors, the same for the same seed, near for texts that share words."""

from __future__ import annotations

import numpy as np
import pytest

from orchestra_lib.rehearsal.docstrings import collect, standard_library
from orchestra_lib.rehearsal.embedding import LexicalEmbedding, Matrix

DIMENSION = 32


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return [item.content(with_first_sentence=True) for item in collect(standard_library() / "asyncio")][:300]


@pytest.fixture(scope="module")
def fitted(texts: list[str]) -> tuple[LexicalEmbedding, Matrix]:
    embedding = LexicalEmbedding(DIMENSION, seed=7)
    return embedding, embedding.fit(texts)


def test_embeddings_are_unit_vectors_of_single_precision(
    fitted: tuple[LexicalEmbedding, Matrix], texts: list[str]
) -> None:
    embedding, vectors = fitted
    assert (vectors.shape, vectors.dtype) == ((len(texts), DIMENSION), np.float32)
    assert vectors.flags.c_contiguous
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert str(DIMENSION) in embedding.model


def test_the_same_seed_gives_the_same_vectors_and_another_does_not(
    fitted: tuple[LexicalEmbedding, Matrix], texts: list[str]
) -> None:
    np.testing.assert_array_equal(LexicalEmbedding(DIMENSION, seed=7).fit(texts), fitted[1])
    assert not np.array_equal(LexicalEmbedding(DIMENSION, seed=8).fit(texts), fitted[1])


def test_a_stored_text_asked_again_is_nearest_to_itself(
    fitted: tuple[LexicalEmbedding, Matrix], texts: list[str]
) -> None:
    embedding, vectors = fitted
    asked = embedding.transform(texts)
    assert asked.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(asked, axis=1), 1, atol=1e-5)
    own = np.sum(asked * vectors, axis=1)
    assert own.min() > 0.9
    assert own.mean() > (asked @ vectors.T).mean() + 0.3


def test_a_text_without_a_known_word_is_zero_and_not_a_number_gone_wrong(
    fitted: tuple[LexicalEmbedding, Matrix],
) -> None:
    np.testing.assert_array_equal(fitted[0].transform(["☂☂☂", ""]), np.zeros((2, DIMENSION), np.float32))


@pytest.mark.parametrize("count", [0, 1, DIMENSION - 1, DIMENSION])
def test_texts_that_cannot_span_the_dimension_are_refused_with_both_numbers(texts: list[str], count: int) -> None:
    with pytest.raises(ValueError, match=f"^{count} texts cannot span {DIMENSION} dimensions"):
        LexicalEmbedding(DIMENSION, seed=7).fit(texts[:count])


def test_one_text_more_than_dimensions_is_enough(texts: list[str]) -> None:
    assert LexicalEmbedding(DIMENSION, seed=7).fit(texts[: DIMENSION + 1]).shape == (DIMENSION + 1, DIMENSION)
