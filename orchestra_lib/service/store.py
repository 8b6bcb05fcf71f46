"""The memory of one user: store, get, delete, list, search, history. Both faces, HTTP and MCP, stand on this.

Whose rows these are is nowhere in the statements: the database shows a transaction the rows of its user and no others
(``schema``). Every function fails with StoreError when the store does; an empty answer means that there is nothing.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any, LiteralString

import numpy as np
from numpy.typing import NDArray
from pgvector import Vector
from psycopg import AsyncCursor, sql
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from orchestra_lib.service.cursors import Position
from orchestra_lib.service.fusion import fuse
from orchestra_lib.service.index_form import IndexForm
from orchestra_lib.service.problems import Problem
from orchestra_lib.service.schema import KEYS
from orchestra_lib.service.sessions import Session, Sessions, Spent

Embedding = NDArray[np.float32]

FUSED_CANDIDATES = 50
"""How many each ranking gives to a fusion, at least; and four for each that is asked for."""
TEXT_ROWS = 2_000
"""The full text of so many of a user's newest memories is looked at. Under row level security the operator of full
text search is not pushed into an index, because it might leak what it sees: each row is parsed when it is asked for."""
TEXT_CHARACTERS = 100_000
"""So much of each is looked at: what the API takes for one. A memory that came by another way may be longer, and its
tsvector larger than the megabyte that PostgreSQL allows, which would fail every search by text of its user."""
_TEXT_LANGUAGE = "english"
_KEY_LIFETIME = "24 hours"


@dataclass(frozen=True)
class Filters:
    """What a memory has to be like; None: anything. Moments are of creation, the first included, the last not."""

    agent_id: str | None = None
    session_id: str | None = None
    persona: str | None = None
    item_type: str | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None

    def stated(self) -> dict[str, Any]:
        """The filters that say something."""
        return {one.name: value for one in fields(self) if (value := getattr(self, one.name)) is not None}


@dataclass(frozen=True)
class NewMemory:
    """A memory to store. ``embedding`` is float32 of the table's dimension."""

    agent_id: str
    session_id: str
    persona: str
    item_type: str
    content: str
    embedding: Embedding
    embedding_model: str
    metadata: Mapping[str, Any]
    expires_at: datetime | None

    def digest(self) -> bytes:
        """SHA-256 over everything that was sent: whether a key comes back with the same request."""
        parts = [repr(getattr(self, one.name)) for one in fields(self) if one.name != "embedding"]
        return hashlib.sha256("\0".join(parts).encode() + self.embedding.tobytes()).digest()


@dataclass(frozen=True)
class Memory:
    """A memory as it is kept, without its vector."""

    id: str
    agent_id: str
    user_id: str
    session_id: str
    persona: str
    item_type: str
    content: str
    metadata: dict[str, Any]
    embedding_model: str
    version: int
    created_at: datetime
    updated_at: datetime
    expires_at: datetime | None


@dataclass(frozen=True)
class Receipt:
    """What storing answers; ``replayed``: the key was known, and nothing was stored now."""

    id: str
    created_at: datetime
    replayed: bool = False


@dataclass(frozen=True)
class Page:
    """Some memories, newest first, and where the next page begins; None: there is none."""

    memories: tuple[Memory, ...]
    next: Position | None


@dataclass(frozen=True)
class Hit:
    """A memory that was found. ``distance``: to the query, where vectors were compared; ``score``: of fused ranks."""

    memory: Memory
    distance: float | None
    score: float | None


_COLUMNS = sql.SQL(", ").join(sql.Identifier(one.name) for one in fields(Memory))
_CONDITIONS: Mapping[str, LiteralString] = {
    "agent_id": "agent_id = %(agent_id)s",
    "session_id": "session_id = %(session_id)s",
    "persona": "persona = %(persona)s",
    "item_type": "item_type = %(item_type)s",
    "created_after": "created_at >= %(created_after)s",
    "created_before": "created_at < %(created_before)s",
}
# The planner takes a distance to a vector that lies in TOAST for free, and would never use the index for a part of the
# rows. So it is not asked: where the filters leave many rows the index is walked until it has given enough of them.
# Where they leave few, or where the walk ended before it had given enough, as one of HNSW may, the rows are compared
# one by one, which is exact. What is not needed is not executed; OFFSET 0 keeps the comparison away from the index.
_NEAREST: LiteralString = """
WITH walked AS MATERIALIZED (
    SELECT id, {distance} AS distance FROM {table}
    WHERE {alive} AND {filters}
      AND (SELECT count(*) FROM (SELECT FROM {table} WHERE {alive} AND {filters} LIMIT %(over_few)s) AS few) > %(few)s
    ORDER BY {distance} LIMIT %(limit)s
), nearest AS (
    SELECT id, distance FROM walked WHERE (SELECT count(*) FROM walked) = %(limit)s
    UNION ALL
    (SELECT id, distance
     FROM (SELECT id, {distance} AS distance FROM {table}
           WHERE {alive} AND {filters} AND (SELECT count(*) FROM walked) < %(limit)s OFFSET 0) AS compared
     ORDER BY distance LIMIT %(limit)s)
)
SELECT {wanted}, distance FROM nearest JOIN {table} USING (id) ORDER BY distance, id
"""
_ALIVE = sql.SQL("(expires_at IS NULL OR expires_at > now())")


class MemoryStore:
    """The operations, each in one transaction of the user's."""

    def __init__(self, sessions: Sessions, table: str, dimension: int) -> None:
        self._sessions, self._dimension = sessions, dimension
        self._table = sql.Identifier(table)
        self._near_statements: dict[tuple[str, str, tuple[str, ...], bool], bytes] = {}
        self._page_statements: dict[tuple[tuple[str, ...], bool], bytes] = {}
        one = sql.SQL("SELECT {columns} FROM {table} WHERE id = %(id)s AND {alive}")
        self._one_statement = self._filled(one).as_bytes()

    async def store(self, user: str, new: NewMemory, key: str | None, spent: Spent) -> Receipt:
        """Store a memory, once for a key.

        Raises Problem for a key that came with another request before, and for a memory that has expired already,
        unless its key says that it was stored when it had not.
        """

        async def work(session: Session) -> Receipt:
            if key is not None and (known := await self._claimed(session, user, key, new, id_)):
                return known
            if new.expires_at is not None and new.expires_at <= datetime.now(UTC):
                place, detail = "body.expires_at", "it has passed already"
                raise Problem("invalid", f"{place}: {detail}", errors=[{"place": place, "detail": detail}])
            values = {
                **{one.name: getattr(new, one.name) for one in fields(NewMemory)},
                "id": id_,
                "user_id": user,
                "embedding": Vector(new.embedding),
                "metadata": Jsonb(dict(new.metadata)),
            }
            insert = sql.SQL(
                "INSERT INTO {table} ({names}, created_at, updated_at) VALUES ({values}, now(), now())"
                " RETURNING created_at"
            ).format(
                table=self._table,
                names=sql.SQL(", ").join(map(sql.Identifier, values)),
                values=sql.SQL(", ").join(map(sql.Placeholder, values)),
            )
            row = await (await session.execute(insert, values)).fetchone()
            assert row is not None  # noqa: S101 - an insert that is refused raises
            return Receipt(id_, row[0])

        id_ = str(uuid.uuid4())
        return await self._sessions.run(user, work, spent, repeatable=key is not None)

    async def _claimed(self, session: Session, user: str, key: str, new: NewMemory, id_: str) -> Receipt | None:
        """Take the key, or say what it was taken for. Who comes second waits here until the first has committed."""
        expired = sql.SQL("DELETE FROM {keys} WHERE created_at < now() - {age}::interval")
        await session.execute(expired.format(keys=KEYS, age=sql.Literal(_KEY_LIFETIME)))
        claim = sql.SQL(
            "INSERT INTO {keys} (user_id, key, request_digest, memory_id) VALUES (%s, %s, %s, %s)"
            " ON CONFLICT DO NOTHING RETURNING key"
        )
        claimed = await session.execute(claim.format(keys=KEYS), [user, key, new.digest(), id_])
        if await claimed.fetchone():
            return None
        known = sql.SQL("SELECT memory_id, created_at, request_digest FROM {keys} WHERE key = %s")
        row = await (await session.execute(known.format(keys=KEYS), [key])).fetchone()
        if row is None or bytes(row[2]) != new.digest():
            raise Problem("key-in-use", "Idempotency-Key: it came with another request before; take a new one")
        return Receipt(row[0], row[1], replayed=True)

    async def get(self, user: str, id_: str, spent: Spent) -> Memory | None:
        """The memory of that id; None where the user has none."""
        found = await self._read(user, self._one_statement, {"id": id_}, spent)
        return found[0] if found else None

    async def delete(self, user: str, id_: str, spent: Spent) -> bool:
        """Delete the memory of that id; False where the user has none."""

        async def work(session: Session) -> bool:
            statement = self._filled(sql.SQL("DELETE FROM {table} WHERE id = %s RETURNING id"))
            return await (await session.execute(statement, [id_])).fetchone() is not None

        return await self._sessions.run(user, work, spent, repeatable=False)

    async def page(self, user: str, filters: Filters, limit: int, after: Position | None, spent: Spent) -> Page:
        """Up to ``limit`` memories, newest first, from behind ``after`` on."""
        statement = self._page_statement(tuple(filters.stated()), further=after is not None)
        values = {**filters.stated(), "limit": limit + 1}
        if after:
            values.update(at=after.created_at, id=after.id)
        found = await self._read(user, statement, values, spent)
        shown = tuple(found[:limit])
        return Page(shown, Position(shown[-1].created_at, shown[-1].id) if len(found) > limit else None)

    def _page_statement(self, names: tuple[str, ...], *, further: bool) -> bytes:
        """Put together once, as that of a search is."""
        key = (names, further)
        if key not in self._page_statements:
            statement = sql.SQL(
                "SELECT {columns} FROM {table} WHERE {alive} AND {filters} AND {further}"
                " ORDER BY created_at DESC, id DESC LIMIT %(limit)s"
            )
            behind = sql.SQL("(created_at, id) < (%(at)s, %(id)s)") if further else sql.SQL("true")
            self._page_statements[key] = self._filled(statement, names, further=behind).as_bytes()
        return self._page_statements[key]

    async def search(
        self, user: str, filters: Filters, k: int, embedding: Embedding | None, text: str | None, spent: Spent
    ) -> list[Hit]:
        """The ``k`` memories nearest to the embedding, or that fit the text best, or both rankings fused."""
        if embedding is not None and text is None:
            return await self._nearest(user, filters, k, embedding, spent)
        candidates = max(FUSED_CANDIDATES, 4 * k)

        async def work(session: Session) -> list[Hit]:
            distances: dict[str, float] = {}
            if embedding is not None:
                near = await self._near(session, filters, candidates, embedding, sql.Identifier("id"))
                distances = dict(await near.fetchall())
            texts = await self._fitting_ids(session, filters, candidates, text or "")
            best = fuse([list(distances), texts])[:k]
            rows = {one.id: one for one in await self._rows(session, [id_ for id_, _ in best])}
            return [Hit(rows[id_], distances.get(id_), score) for id_, score in best if id_ in rows]

        return await self._sessions.run(user, work, spent, repeatable=True)

    async def _nearest(self, user: str, filters: Filters, k: int, embedding: Embedding, spent: Spent) -> list[Hit]:
        async def statement(session: Session) -> AsyncCursor[tuple[Any, ...]]:
            return await self._near(session, filters, k, embedding, _COLUMNS)

        rows = await self._sessions.rows(user, statement, spent)
        return [Hit(Memory(*row[:-1]), row[-1], None) for row in rows]

    async def _near(
        self, session: Session, filters: Filters, limit: int, embedding: Embedding, columns: sql.Composable
    ) -> AsyncCursor[tuple[Any, ...]]:
        """The columns and the distance of the nearest memories, nearest first; not yet fetched."""
        statement = self._near_statement(self._sessions.form, tuple(filters.stated()), columns)
        few = self._sessions.few_rows(limit)
        values = {**filters.stated(), "query": Vector(embedding), "limit": limit, "few": few, "over_few": few + 1}
        cursor = session.cursor(binary=True)
        return await cursor.execute(statement, values, prepare=True)

    def _near_statement(self, form: IndexForm, names: tuple[str, ...], columns: sql.Composable) -> bytes:
        """Put together once: doing it for every search takes longer than sending it."""
        key = (form.storage, form.operator, names, columns is _COLUMNS)
        if key not in self._near_statements:
            distance = form.distance(sql.Identifier("embedding"), sql.SQL("%(query)b"), self._dimension)
            statement = self._filled(sql.SQL(_NEAREST), names, wanted=columns, distance=distance)
            self._near_statements[key] = statement.as_bytes()
        return self._near_statements[key]

    async def _fitting_ids(self, session: Session, filters: Filters, limit: int, text: str) -> list[str]:
        """Ids of memories that hold any of the text's words, best first: a question is seldom answered in its words."""
        statement = self._filled(
            sql.SQL(
                "WITH asked AS (SELECT replace(plainto_tsquery({language}, %(text)s)::text, '&', '|')::tsquery AS any),"
                " newest AS MATERIALIZED"
                " (SELECT id, to_tsvector({language}, left(content, {characters})) AS words FROM {table}"
                "  WHERE {alive} AND {filters} ORDER BY created_at DESC, id DESC LIMIT {rows})"
                " SELECT id FROM newest, asked WHERE words @@ asked.any"
                " ORDER BY ts_rank_cd(words, asked.any) DESC, id LIMIT %(limit)s"
            ),
            filters.stated(),
            language=sql.Literal(_TEXT_LANGUAGE),
            rows=sql.Literal(TEXT_ROWS),
            characters=sql.Literal(TEXT_CHARACTERS),
        )
        found = await session.execute(statement, {**filters.stated(), "text": text, "limit": limit})
        return [row[0] for row in await found.fetchall()]

    async def _rows(self, session: Session, ids: Sequence[str]) -> list[Memory]:
        statement = self._filled(sql.SQL("SELECT {columns} FROM {table} WHERE id = ANY (%s)"))
        cursor = session.cursor(row_factory=class_row(Memory))
        return await (await cursor.execute(statement, [list(ids)])).fetchall()

    async def _read(self, user: str, statement: bytes, values: Mapping[str, Any], spent: Spent) -> list[Memory]:
        async def asked(session: Session) -> AsyncCursor[Memory]:
            return await session.cursor(row_factory=class_row(Memory)).execute(statement, values)

        return await self._sessions.rows(user, asked, spent)

    def _filled(self, statement: sql.SQL, names: Iterable[str] = (), **parts: sql.Composable) -> sql.Composed:
        """The statement with the table, the columns, and the conditions of the filters of these names."""
        conditions = [sql.SQL(_CONDITIONS[name]) for name in names]
        return statement.format(
            columns=_COLUMNS,
            table=self._table,
            alive=_ALIVE,
            filters=sql.SQL(" AND ").join(conditions) if conditions else sql.SQL("true"),
            **parts,
        )
