"""Two families of synthetic vectors for the benchmarks. Whatever is measured on them is labelled synthetic.

``topics`` is a hierarchical mixture: subjects within fields, sizes by a power law, a covariance that decays and has an
effective dimension near 90 in each subject, one common mean, two in a hundred rows nearly the same as another.
``sheet`` has no clusters at all: a curved 16-dimensional surface, evenly populated, with a little noise about it.
Real embeddings lie between the two. Neither is uniform or isotropic: there nearest neighbours would mean nothing.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from orchestra_lib.vectors.nearest import Matrix

_BLOCK_ROWS = 16_384
_FIELDS, _SUBJECTS = 40, 1_200
_NEAR_DUPLICATES = 0.02
_SHEET_DIMENSION = 16


def topics(rows: int, queries: int, dimension: int, seed: int) -> tuple[Matrix, Matrix]:
    """Rows and held-out queries of the clustered family, float32 of unit length."""
    rng = np.random.default_rng(seed)
    latent = min(256, dimension)
    mean = 0.35 * rng.standard_normal(latent)
    fields = 1.3 * rng.standard_normal((_FIELDS, latent)) * _decay(latent, 0.3)
    subjects = fields[rng.integers(_FIELDS, size=_SUBJECTS)]
    subjects = mean + subjects + 1.1 * rng.standard_normal((_SUBJECTS, latent)) * _decay(latent, 0.3)
    share = 1 / np.arange(1, _SUBJECTS + 1) ** 0.8
    turn = np.linalg.qr(rng.standard_normal((dimension, latent)))[0].T.astype(np.float32)

    def draw(count: int) -> Matrix:
        chosen = rng.choice(_SUBJECTS, size=count, p=share / share.sum())
        spread = rng.lognormal(0, 0.3, size=(count, 1))
        return (subjects[chosen] + 1.3 * spread * rng.standard_normal((count, latent)) * _decay(latent, 0.3)).astype(
            np.float32
        )

    return _made(draw, turn, rows, queries, dimension, rng, _NEAR_DUPLICATES)


def sheet(rows: int, queries: int, dimension: int, seed: int) -> tuple[Matrix, Matrix]:
    """Rows and held-out queries of the curved surface, float32 of unit length."""
    rng = np.random.default_rng(seed)
    waves = min(512, dimension)
    frequencies = rng.standard_normal((_SHEET_DIMENSION, waves)) * 0.6
    phases = rng.uniform(0, 2 * np.pi, waves)
    turn = np.linalg.qr(rng.standard_normal((dimension, waves)))[0].T.astype(np.float32)

    def draw(count: int) -> Matrix:
        place = rng.uniform(-1, 1, size=(count, _SHEET_DIMENSION))
        return np.cos(place @ frequencies + phases).astype(np.float32)

    return _made(draw, turn, rows, queries, dimension, rng, 0.0)


FAMILIES: dict[str, Callable[[int, int, int, int], tuple[Matrix, Matrix]]] = {"topics": topics, "sheet": sheet}


def _decay(latent: int, power: float) -> np.ndarray:
    return np.arange(1, latent + 1) ** -power


def _made(
    draw: Callable[[int], Matrix],
    turn: Matrix,
    rows: int,
    queries: int,
    dimension: int,
    rng: np.random.Generator,
    near_duplicates: float,
) -> tuple[Matrix, Matrix]:
    made = np.empty((rows + queries, dimension), dtype=np.float32)
    for start in range(0, len(made), _BLOCK_ROWS):
        part = made[start : start + _BLOCK_ROWS]
        np.matmul(draw(len(part)), turn, out=part)
        part += rng.standard_normal(part.shape, dtype=np.float32) * np.float32(
            0.05 * np.sqrt(np.vecdot(part, part).mean() / dimension)
        )
        copies = rng.random(len(part)) < near_duplicates
        part[copies] = part[rng.integers(len(part), size=int(copies.sum()))] * (
            1 + np.float32(1e-3) * rng.standard_normal((int(copies.sum()), dimension), dtype=np.float32)
        )
        part /= np.linalg.norm(part, axis=1, keepdims=True)
    return made[:rows], made[rows:]
