"""Truth that was computed once is kept on disk, by the table's content and the question: it takes minutes to find."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import psycopg
from psycopg import sql

from orchestra_lib.bench.fingerprint import table_fingerprint
from orchestra_lib.errors import DataError
from orchestra_lib.paths import state_directory
from orchestra_lib.vectors.nearest import Matrix
from orchestra_lib.vectors.truth import Truth, exact_neighbours

_LAYOUT = 1  # of a file; a new number makes old ones unused
_FILES_KEPT = 50  # half a megabyte each for 1,000 queries and 10 neighbours


def cached_neighbours(
    connection: psycopg.Connection,
    table: sql.Composable,
    queries: Matrix,
    k: int,
    opclass: str,
    excluded: tuple[str, ...] | None = None,
    where: sql.Composable | None = None,
    directory: Path | None = None,
) -> Truth:
    """What ``exact_neighbours`` gives, from ``<state directory>/truth`` where the same was asked of the same rows.

    The table's fingerprint knows rows by their ids and versions: a vector that was changed while its row's version was
    not goes unseen, so check a sample with ``recheck.verified_by_sql``. Raises DataError as ``exact_neighbours`` does,
    and when a kept file cannot be read or written.
    """
    content = table_fingerprint(connection, table).digest
    condition = where.as_string(connection) if where is not None else None
    question = json.dumps([_LAYOUT, content, list(queries.shape), k, opclass, excluded, condition])
    name = hashlib.sha256(question.encode() + np.ascontiguousarray(queries).tobytes()).hexdigest()[:32]
    place = (directory or state_directory() / "truth") / f"{name}.npz"
    if place.exists():
        return _load(place, k, excluded)
    truth = exact_neighbours(connection, table, queries, k, opclass, excluded, where)
    _save(truth, place)
    return truth


def _load(place: Path, k: int, excluded: tuple[str, ...] | None) -> Truth:
    try:
        with np.load(place, allow_pickle=False) as kept:
            ends, ids, distances, rows = kept["ends"], kept["ids"].tolist(), kept["distances"].tolist(), kept["rows"]
        os.utime(place)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(
            f"the kept truth in {place} cannot be read ({error}); remove that file and run again"
        ) from error
    bounds = list(zip([0, *ends[:-1].tolist()], ends.tolist(), strict=True))
    return Truth(
        tuple(tuple(ids[start:end]) for start, end in bounds),
        tuple(tuple(distances[start:end]) for start, end in bounds),
        k,
        int(rows),
        excluded,
    )


def _save(truth: Truth, place: Path) -> None:
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=place.parent, prefix=".making-", delete=False) as file:
            np.savez(
                file,
                ends=np.cumsum([len(ids) for ids in truth.ids]),
                ids=np.array([key for ids in truth.ids for key in ids], dtype=np.str_),
                distances=np.array([distance for distances in truth.distances for distance in distances]),
                rows=truth.rows,
            )
        Path(file.name).replace(place)
        kept = sorted(place.parent.glob("*.npz"), key=lambda path: path.stat().st_mtime)
        for oldest in kept[:-_FILES_KEPT]:
            oldest.unlink(missing_ok=True)
    except OSError as error:
        raise DataError(
            f"the truth cannot be kept in {place.parent}: {error.strerror or error}; make room, or set "
            "ORCHESTRA_STATE_DIR to a larger disk"
        ) from error
