"""A change of model: every memory embedded anew into a table beside, each different text paid for once.

The new vectors do not go into the memory's own column: two models' vectors in one column compare nothing. They lie
beside, by the hash of the text that they are of, until all are there; then an owner puts them in the column's place.
The table is its own cache: a text that is there already, of whatever memory and by whichever worker, is not asked for
again, and a memory whose text has changed since counts as missing. Its comment names the model, and no other model's
vectors go into it. A blank text has no vector: such a memory has no entry and is not missing. Each batch is one
transaction, so a worker that dies costs one request.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus

import numpy as np
import psycopg
from numpy.typing import NDArray
from psycopg import sql

from orchestra_lib.cloud.refusals import CloudRefused
from orchestra_lib.errors import DataError
from orchestra_lib.memory.ranges import KeyRange

Embed = Callable[[Sequence[str]], NDArray[np.float32]]
"""Texts into vectors of length one, in their order: float32 (n, dimension)."""

TEXTS_AT_ONCE = 250
_BLANKS = "".join(character for character in map(chr, range(0x10000)) if character.isspace())
"""What Python's ``strip`` takes away, and with it the embedder; the server's own idea of a blank has fewer."""

_DDL = """
CREATE TABLE IF NOT EXISTS {fresh} (
    id text COLLATE "C" PRIMARY KEY,
    text_sha256 bytea NOT NULL,
    embedding vector({dimension}) NOT NULL
);
CREATE INDEX IF NOT EXISTS {index} ON {fresh} (text_sha256);
"""
# A memory without a current entry. Its text's hash is computed by the server: workers agree on it whatever they are.
_MISSING = """
SELECT m.id, m.content, sha256(convert_to(m.content, 'UTF8')) AS text_sha256
FROM (SELECT id, content FROM {memories} WHERE {condition} AND btrim(content, {blanks}) <> '') AS m
LEFT JOIN {fresh} AS f ON f.id = m.id
WHERE f.text_sha256 IS DISTINCT FROM sha256(convert_to(m.content, 'UTF8'))
"""
_PUT = """
INSERT INTO {fresh} (id, text_sha256, embedding) {rows}
ON CONFLICT (id) DO UPDATE SET (text_sha256, embedding) = (EXCLUDED.text_sha256, EXCLUDED.embedding)
"""


@dataclass(frozen=True)
class FreshTable:
    """The memories' table, the one beside it for a model's vectors, their dimension, and the model in words.

    ``model`` is what makes vectors comparable: with it, for some, what stands in front of a text.
    """

    memories: sql.Identifier
    fresh: sql.Identifier
    dimension: int
    model: str

    def missing(self, condition: sql.Composable) -> sql.Composed:
        """The SELECT of the memories that want a vector and have no current one: id, content, text_sha256."""
        return sql.SQL(_MISSING).format(
            memories=self.memories, fresh=self.fresh, condition=condition, blanks=sql.Literal(_BLANKS)
        )


@dataclass(frozen=True)
class EmbeddedRange:
    """One range: memories that were given a vector, of them by reuse, texts that were asked for, and blank memories."""

    number: int
    memories: int
    reused: int
    asked: int
    blank: int


def create(connection: psycopg.Connection, table: FreshTable) -> None:
    """Make the table beside unless it is there. Raises DataError where it is another model's, or dimension's."""
    name = table.fresh.as_string(connection)
    index = sql.Identifier(f"{name.strip(chr(34)).rpartition('.')[2]}_text")
    with connection.transaction():  # a table is never there without its model
        connection.execute(sql.SQL(_DDL).format(fresh=table.fresh, index=index, dimension=sql.Literal(table.dimension)))
        if not _holds_any(connection, table):
            connection.execute(sql.SQL("COMMENT ON TABLE {} IS {}").format(table.fresh, sql.Literal(table.model)))
    row = connection.execute(
        "SELECT atttypmod, obj_description(attrelid, 'pg_class') FROM pg_attribute "
        "WHERE attrelid = %s::regclass AND attname = 'embedding'",
        [name],
    ).fetchone()
    dimension, model = row or ("no", None)
    if dimension != table.dimension:
        raise DataError(f"{name} holds vectors of {dimension} numbers, not {table.dimension}: drop it")
    if model != table.model:
        raise DataError(
            f"{name} holds vectors of {model or 'a model that it does not name'}, not of {table.model}: two models' "
            "vectors compare nothing; drop it, or name another table"
        )


def embed_range(connection: psycopg.Connection, table: FreshTable, key_range: KeyRange, embed: Embed) -> EmbeddedRange:
    """Give every memory of a range its vector; what is current is left alone.

    Raises what ``embed`` raises, DataError with the memory's id for a text that is refused, or for an answer of another
    shape; what was written stays.
    """
    memories = reused = asked = 0
    while True:
        found = _reuse(connection, table, key_range)
        reused += found
        batch = connection.execute(
            sql.SQL(
                "SELECT min(id), text_sha256, min(content) FROM ({}) AS missing "
                "GROUP BY text_sha256 ORDER BY min(id) LIMIT {}"
            ).format(table.missing(key_range.condition()), sql.Literal(TEXTS_AT_ONCE))
        ).fetchall()
        if not batch:
            blank = _blank(connection, table, key_range)
            return EmbeddedRange(key_range.number, memories + reused, reused, asked, blank)
        vectors = _embedded({id_: text for id_, _, text in batch}, embed)
        if vectors.shape != (len(batch), table.dimension):
            raise DataError(
                f"{len(batch)} texts were embedded into an array of {vectors.shape}, not "
                f"({len(batch)}, {table.dimension})"
            )
        asked += len(batch)
        memories += _put(connection, table, key_range, [sha for _, sha, _ in batch], vectors)


def left(connection: psycopg.Connection, table: FreshTable) -> int:
    """How many memories want a vector and have no current one. Reads every text."""
    row = connection.execute(
        sql.SQL("SELECT count(*) FROM ({}) AS missing").format(table.missing(sql.SQL("true")))
    ).fetchone()
    return int(row[0]) if row else 0


def _embedded(texts: Mapping[str, str], embed: Embed) -> NDArray[np.float32]:
    """The vectors of texts by their memories' ids. Raises DataError that names the memory whose text is refused."""
    try:
        return embed(list(texts.values()))
    except (CloudRefused, DataError) as error:
        if isinstance(error, CloudRefused) and error.status != HTTPStatus.BAD_REQUEST:
            raise  # busy, or not allowed: that is no text's fault
        # Alone, one by one: those that are embedded are in the embedder's cache, so no text is paid for twice.
        for id_, text in texts.items():
            try:
                embed([text])
            except (CloudRefused, DataError) as refused:
                raise DataError(f"the text of memory {id_} has no vector: {refused}") from error
        raise


def _holds_any(connection: psycopg.Connection, table: FreshTable) -> bool:
    row = connection.execute(sql.SQL("SELECT EXISTS (SELECT 1 FROM {})").format(table.fresh)).fetchone()
    return bool(row and row[0])


def _blank(connection: psycopg.Connection, table: FreshTable, key_range: KeyRange) -> int:
    """How many memories of a range have nothing that could be embedded."""
    row = connection.execute(
        sql.SQL("SELECT count(*) FROM {} WHERE {} AND btrim(content, {}) = ''").format(
            table.memories, key_range.condition(), sql.Literal(_BLANKS)
        )
    ).fetchone()
    return int(row[0]) if row else 0


def _reuse(connection: psycopg.Connection, table: FreshTable, key_range: KeyRange) -> int:
    """Give memories the vector of another that has the same text."""
    rows = sql.SQL(
        "SELECT missing.id, missing.text_sha256, same.embedding FROM ({}) AS missing CROSS JOIN LATERAL "
        "(SELECT embedding FROM {} AS f WHERE f.text_sha256 = missing.text_sha256 LIMIT 1) AS same"
    ).format(table.missing(key_range.condition()), table.fresh)
    return connection.execute(sql.SQL(_PUT).format(fresh=table.fresh, rows=rows)).rowcount


def _put(
    connection: psycopg.Connection,
    table: FreshTable,
    key_range: KeyRange,
    hashes: Sequence[bytes],
    vectors: NDArray[np.float32],
) -> int:
    """Write the vectors of these texts, for every memory of the range that still has one of them."""
    rows = sql.SQL(
        "SELECT missing.id, missing.text_sha256, new.embedding FROM ({}) AS missing "
        "JOIN unnest(%b::bytea[], %b::vector[]) AS new (text_sha256, embedding) USING (text_sha256)"
    ).format(table.missing(key_range.condition()))
    statement = sql.SQL(_PUT).format(fresh=table.fresh, rows=rows)
    return connection.execute(statement, [list(hashes), list(vectors)]).rowcount
