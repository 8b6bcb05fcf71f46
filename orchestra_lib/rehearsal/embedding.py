"""A lexical embedding that needs no download: word and character n-grams, TF-IDF, truncated SVD, unit length.

Latent semantic analysis (Deerwester et al., 1990). It knows words, not meaning: retrieval quality measured with it says
how well the store and its index work, not how good a neural embedding would be.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix, hstack
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.preprocessing import normalize

MODEL = "lexical-tfidf-svd-{dimension}/1"

_CHARACTERS_READ = 1_500  # of each text; more adds time, hardly words
_FEATURES = 12_000  # of each kind; the SVD's time and memory grow with it

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
        self._svd = TruncatedSVD(dimension, n_iter=2, random_state=seed)

    def fit(self, texts: list[str]) -> Matrix:
        """Fit on the texts and return their embeddings: float32, (len(texts), dimension), unit rows.

        Raises ValueError for fewer texts than dimensions.
        """
        if len(texts) <= self.dimension:
            raise ValueError(f"{len(texts)} texts cannot span {self.dimension} dimensions: give more")
        read = [text[:_CHARACTERS_READ] for text in texts]
        features = hstack([self._words.fit_transform(read), self._grams.fit_transform(read)], format="csr")
        return self._unit(self._svd.fit_transform(features))

    def transform(self, texts: list[str]) -> Matrix:
        """Embeddings of further texts: float32, (len(texts), dimension), unit rows; zero where no word is known."""
        read = [text[:_CHARACTERS_READ] for text in texts]
        features: csr_matrix = hstack([self._words.transform(read), self._grams.transform(read)], format="csr")
        return self._unit(self._svd.transform(features))

    @staticmethod
    def _unit(vectors: npt.NDArray[np.floating]) -> Matrix:
        return np.ascontiguousarray(normalize(vectors), dtype=np.float32)
