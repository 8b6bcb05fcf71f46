"""A lexical embedding that needs no download: word and character n-grams, TF-IDF, truncated SVD, unit length.

Latent semantic analysis (Deerwester et al., 1990). It knows words, not meaning: retrieval quality measured with it says
how well the store and its index work, not how good a neural embedding would be.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix, hstack
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.preprocessing import normalize
from sklearn.utils.extmath import randomized_range_finder

MODEL = "lexical-tfidf-svd-{dimension}/2"

_CHARACTERS_READ = 1_500  # of each text; more adds time, hardly words
_FEATURES = 12_000  # of each kind; the SVD's time and memory grow with it
_MORE_DIRECTIONS, _PASSES = 10, 1  # what the range is looked for with; a second pass finds 1 of 200 answers more

_WORD = r"[A-Za-z][a-z]+|\w+"  # parts of CamelCase count as words

Matrix = npt.NDArray[np.float32]


class LexicalEmbedding:
    """Fitted once on the store's texts, then used for texts and questions. The same seed gives the same vectors."""

    def __init__(self, dimension: int, seed: int) -> None:
        self.dimension = dimension
        self.model = MODEL.format(dimension=dimension)
        self._words = TfidfVectorizer(sublinear_tf=True, max_features=_FEATURES, token_pattern=_WORD, dtype=np.float32)
        self._grams = TfidfVectorizer(
            analyzer="char_wb", ngram_range=(3, 4), sublinear_tf=True, max_features=_FEATURES, dtype=np.float32
        )
        self._seed = seed
        self._directions: Matrix = np.empty((0, 0), np.float32)

    def fit(self, texts: list[str]) -> Matrix:
        """Fit on the texts and return their embeddings: float32, (len(texts), dimension), unit rows.

        Raises ValueError for fewer texts than dimensions.
        """
        if len(texts) <= self.dimension:
            raise ValueError(f"{len(texts)} texts cannot span {self.dimension} dimensions: give more")
        read = [text[:_CHARACTERS_READ] for text in texts]
        features = hstack([self._words.fit_transform(read), self._grams.fit_transform(read)], format="csr")
        self._directions = _right_singular_vectors(features, self.dimension, self._seed)
        return self._unit(features @ self._directions)

    def transform(self, texts: list[str]) -> Matrix:
        """Embeddings of further texts: float32, (len(texts), dimension), unit rows; zero where no word is known."""
        read = [text[:_CHARACTERS_READ] for text in texts]
        features: csr_matrix = hstack([self._words.transform(read), self._grams.transform(read)], format="csr")
        return self._unit(features @ self._directions)

    @staticmethod
    def _unit(vectors: npt.NDArray[np.floating]) -> Matrix:
        return np.ascontiguousarray(normalize(vectors), dtype=np.float32)


def _right_singular_vectors(features: csr_matrix, count: int, seed: int) -> Matrix:
    """The first of them, as columns: a randomized range (Halko, Martinsson and Tropp, 2011), and within it the
    eigenvectors of the small Gram matrix. An SVD of the small factor itself takes three times as long.
    """
    span = randomized_range_finder(
        features, size=count + _MORE_DIRECTIONS, n_iter=_PASSES, power_iteration_normalizer="none", random_state=seed
    )
    within = (features.T @ span).T
    squares, vectors = np.linalg.eigh(within @ within.T)
    squares, vectors = squares[::-1][:count], vectors[:, ::-1][:, :count]
    # Of what is no larger than rounding, no direction is known.
    smallest = squares[0] * np.finfo(np.float32).eps
    directions: Matrix = within.T @ (vectors / np.sqrt(np.maximum(squares, smallest)))
    return directions
