"""The few directions in which rows differ most: large trainings of centroids take place along these."""

from __future__ import annotations

import numpy as np
from scipy import linalg

from orchestra_lib.vectors.nearest import Matrix

_ROWS = 5_000
_KEPT = 0.9  # of the squared lengths: below it recall curves move more than from one seed to another
_STEP = 64


def principal_axes(rows: Matrix, seed: int) -> Matrix | None:
    """Orthonormal directions, float32 (d, a), in which a sample of the rows keeps nine tenths of its squared lengths.

    Not centred: what has to be kept are the products of rows. None when more than half of the dimensions are needed,
    so that nothing would be gained.
    """
    some = rows[np.random.default_rng(seed).permutation(len(rows))[:_ROWS]]
    dimension = rows.shape[1]
    products = (some.T @ some).astype(np.float64)
    values, vectors = linalg.eigh(products, subset_by_index=(dimension - dimension // 2, dimension - 1), driver="evr")
    kept = np.cumsum(values[::-1]) / np.trace(products)
    if kept[-1] < _KEPT:
        return None
    axes = min(-(-(int(np.argmax(kept >= _KEPT)) + 1) // _STEP) * _STEP, len(kept))
    return np.ascontiguousarray(vectors[:, ::-1][:, :axes], dtype=np.float32)
