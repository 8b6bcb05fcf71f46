"""Loading the corpus into "today's" store, with today's index, so that there is something real to move."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import psycopg
from pgvector.psycopg import register_vector
from psycopg import sql
from psycopg.types.json import Jsonb

from orchestra_lib import paths
from orchestra_lib.database import connect
from orchestra_lib.errors import DataError
from orchestra_lib.memory.schema import COLUMN_TYPES, COLUMNS, create_table
from orchestra_lib.rehearsal.corpus import Corpus
from orchestra_lib.rehearsal.synthetic import Growth
from orchestra_lib.vectors.forms import ivfflat
from orchestra_lib.vectors.index import IndexSpec, available_memory_mib, build_index

TABLE = "memories"

_STATE_TABLE = "orchestra_rehearsal"
_EPOCH = datetime(2026, 1, 1, tzinfo=UTC)  # fixed: the same corpus gives the same rows on every machine
_SYNTHETIC_BATCH = 2_000
# A row with its vector is about 7.5 kB, its index entry 6, the log of both as much again; source and target hold it.
_DISK_BYTES_A_ROW = 40_000


@dataclass(frozen=True)
class Seeded:
    """What the store holds, and whether it was there already."""

    rows: int
    synthetic: int
    embedding_model: str
    lists: int
    was_there: bool

    def __str__(self) -> str:
        how = "found" if self.was_there else "made"
        return (
            f"the rehearsal's store was {how}: {self.rows:,} rows, {self.synthetic:,} of them synthetic, "
            f"embeddings {self.embedding_model}, index with {self.lists:,} lists"
        )


def seed_store(
    conninfo: str,
    corpus: Corpus,
    rows: int | None,
    lists: int,
    progress: Callable[[int, int], None],
    say: Callable[[str], None],
) -> Seeded:
    """Make the store hold ``rows`` rows of the corpus (None: all real ones), unless it does already.

    More rows than real ones are grown from them and say so; fewer keep the items that answer questions. A store that is
    half made is made anew. Raises DataError when there is no room.
    """
    wanted = rows if rows is not None else len(corpus.items)
    seeded = Seeded(wanted, max(0, wanted - len(corpus.items)), corpus.embedding_model, lists, was_there=False)
    state = f"{corpus.digest} {wanted} {lists}"
    with connect(conninfo, role="source") as connection:
        if _state(connection) == state:
            return Seeded(**{**vars(seeded), "was_there": True})
        _require_room(wanted)
        _load(connection, corpus, wanted, progress)
    spec = IndexSpec(TABLE, ivfflat(lists), "vector_cosine_ops", corpus.embeddings.shape[1])
    build_index(conninfo, spec, available_memory_mib(), say)
    with connect(conninfo, role="source") as connection:
        connection.execute(sql.SQL("INSERT INTO {} VALUES (%s)").format(sql.Identifier(_STATE_TABLE)), [state])
    return seeded


def _state(connection: psycopg.Connection) -> str | None:
    if connection.execute("SELECT to_regclass(%s)", [_STATE_TABLE]).fetchone() == (None,):
        return None
    row = connection.execute(sql.SQL("SELECT state FROM {}").format(sql.Identifier(_STATE_TABLE))).fetchone()
    return str(row[0]) if row else None


def _require_room(rows: int) -> None:
    directory = paths.state_directory()
    directory.mkdir(parents=True, exist_ok=True)
    needed, free = rows * _DISK_BYTES_A_ROW, shutil.disk_usage(directory).free
    if needed > free:
        raise DataError(
            f"{rows:,} rows need about {needed / 2**30:,.1f} GiB in {directory}, {free / 2**30:,.1f} GiB are free; "
            "ask for fewer rows or set ORCHESTRA_STATE_DIR to a larger disk"
        )


def _load(connection: psycopg.Connection, corpus: Corpus, rows: int, progress: Callable[[int, int], None]) -> None:
    """All or nothing: until this commits, the state table says that nothing is there."""
    statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT binary)").format(
        sql.Identifier(TABLE), sql.SQL(", ").join(map(sql.Identifier, COLUMNS))
    )
    connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
    register_vector(connection)  # an empty server had no such type when we connected
    with connection.transaction(), connection.cursor() as cursor:
        cursor.execute(sql.SQL("DROP TABLE IF EXISTS {}, {}").format(*map(sql.Identifier, (TABLE, _STATE_TABLE))))
        cursor.execute(sql.SQL("CREATE TABLE {} (state text NOT NULL)").format(sql.Identifier(_STATE_TABLE)))
        cursor.execute(create_table(TABLE, corpus.embeddings.shape[1]))
        with cursor.copy(statement) as copy:
            copy.set_types(list(COLUMN_TYPES.values()))
            for number, row in enumerate(_rows(corpus, rows), start=1):
                copy.write_row(row)
                if number % 1_000 == 0 or number == rows:
                    progress(number, rows)
    connection.execute(sql.SQL("ANALYZE {}").format(sql.Identifier(TABLE)))


def _rows(corpus: Corpus, count: int) -> Iterator[tuple[object, ...]]:
    for number in _real(corpus, count):
        yield _row(corpus, number, corpus.items[number].id, corpus.contents[number], corpus.embeddings[number], number)
    if count > len(corpus.items):
        yield from _grown(corpus, count - len(corpus.items))


def _real(corpus: Corpus, count: int) -> list[int]:
    """Which items to store: the answers first, so that a small store still has them, then the others as they come."""
    if count >= len(corpus.items):
        return list(range(len(corpus.items)))
    answers = {query.answer_id for query in corpus.queries}
    order = sorted(range(len(corpus.items)), key=lambda number: corpus.items[number].id not in answers)
    return sorted(order[:count])


def _grown(corpus: Corpus, count: int) -> Iterator[tuple[object, ...]]:
    growth, rng = Growth(corpus.embeddings), np.random.default_rng(corpus.seed)
    for start in range(0, count, _SYNTHETIC_BATCH):
        near, vectors = growth.draw(min(_SYNTHETIC_BATCH, count - start), rng)
        for offset, (real, vector) in enumerate(zip(near.tolist(), vectors, strict=True)):
            number = start + offset
            content = f"[synthetic, drawn near {corpus.items[real].id}]\n{corpus.contents[real]}"
            yield _row(
                corpus, real, f"synthetic:{number:09}", content, vector, len(corpus.items) + number, synthetic=True
            )


def _row(
    corpus: Corpus, item_number: int, id_: str, content: str, vector: object, place: int, *, synthetic: bool = False
) -> tuple[object, ...]:
    item = corpus.items[item_number]
    about = {"signature": item.signature, "line": item.line, "synthetic": synthetic}
    if synthetic:
        about["drawn_near"] = item.id
    model = f"{corpus.embedding_model} synthetic" if synthetic else corpus.embedding_model
    moment = _EPOCH + timedelta(seconds=place)
    return (
        id_, item.agent_id, item.user_id, item.session_id, item.persona, item.item_type, content, Jsonb(about), vector,
        model, 1, moment, moment, None,
    )  # fmt: skip
