"""More rows than there are real ones, drawn from the real rows' own covariance."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float32]

# How much of the variance is drawn anew; the rest is the real row's. At 0 there would be only copies, at 1 one
# Gaussian cloud without the clusters that an IVFFlat index lives from.
_BANDWIDTH = 0.5


class Growth:
    """The smoothed bootstrap with corrected variance (Silverman, Density Estimation, 1986, section 6.4.1).

    A drawn row is ``mean + sqrt(1 - h^2) (real row - mean) + h C^(1/2) z``: before it is scaled to unit length it has
    the real rows' mean and covariance, and it lies near one of them.
    """

    def __init__(self, embeddings: Matrix) -> None:
        self._embeddings = embeddings
        self._mean = embeddings.mean(axis=0, dtype=np.float64)
        centred = embeddings - self._mean.astype(np.float32)
        values, vectors = np.linalg.eigh((centred.T @ centred).astype(np.float64) / len(embeddings))
        self._root = (vectors * np.sqrt(np.clip(values, 0, None))).T.astype(np.float32)

    def draw(self, count: int, rng: np.random.Generator) -> tuple[npt.NDArray[np.int64], Matrix]:
        """Which real row each drawn one is near, (count,) int64, and the drawn rows, float32 of unit length."""
        near = rng.integers(len(self._embeddings), size=count)
        noise = rng.standard_normal((count, self._root.shape[0]), dtype=np.float32) @ self._root
        mean = self._mean.astype(np.float32)
        kept = np.float32(np.sqrt(1 - _BANDWIDTH**2))
        drawn = mean + kept * (self._embeddings[near] - mean) + np.float32(_BANDWIDTH) * noise
        return near, drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
