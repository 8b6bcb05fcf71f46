"""Changes as the log brings them, made from rows for tests."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import psycopg
from psycopg import sql
from stores import Pair

from orchestra_lib.local.databases import LocalState
from orchestra_lib.memory import state_tables
from orchestra_lib.memory.apply import Applier
from orchestra_lib.memory.coalesce import Net, Rekey, effects
from orchestra_lib.memory.layout import Layout, layout_of
from orchestra_lib.memory.lsn import lsn_text
from orchestra_lib.memory.pgoutput import NULL_FIELD, Column, Relation, Row
from orchestra_lib.memory.schema import COLUMNS
from orchestra_lib.memory.source import source_table
from orchestra_lib.memory.transactions import Change

_HEADER_BYTES = 19


def relation_of(source: psycopg.Connection, name: str = "memories") -> Relation:
    """A table as pgoutput describes it now."""
    oid, identity = source.execute(
        "SELECT oid::bigint, relreplident::text FROM pg_class WHERE oid = %s::regclass", [name]
    ).fetchone()
    columns = source.execute(
        """
        SELECT a.attname, a.atttypid::bigint, a.atttypmod, c.relreplident = 'f' OR EXISTS (
            SELECT FROM pg_index i WHERE i.indrelid = c.oid AND a.attnum = ANY(i.indkey::int2[])
            AND CASE c.relreplident WHEN 'i' THEN i.indisreplident WHEN 'd' THEN i.indisprimary ELSE false END)
        FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
        WHERE c.oid = %s AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '' ORDER BY a.attnum
        """,
        [oid],
    ).fetchall()
    return Relation(oid, "public", name, identity, tuple(Column(*column) for column in columns))


def rows_of(source: psycopg.Connection, query: str) -> list[Row]:
    """The rows of a SELECT as the log would send them: fields of COPY BINARY."""
    with source.cursor().copy(f"COPY ({query}) TO STDOUT (FORMAT binary)") as copy:
        content = memoryview(b"".join(copy))
    rows, at = [], _HEADER_BYTES
    while (count := int.from_bytes(content[at : at + 2], "big", signed=True)) >= 0:
        at += 2
        fields = []
        for _ in range(count):
            end = at + 4 + max(0, int.from_bytes(content[at : at + 4], "big", signed=True))
            fields.append(content[at:end])
            at = end
        rows.append(tuple(fields))
    return rows


def own_row(key: str, content: str = "x", version: int | None = 1, vector: Sequence[float] = (1, 2, 3)) -> Row:
    """A row of our own layout as the log would send it, without asking a server."""
    texts = (key, "agent", "user", "session", "persona", "note", content)
    values: list[bytes | None] = [text.encode() for text in texts]
    values += [b'\x01{"n": 1}', struct.pack(f">hh{len(vector)}f", len(vector), 0, *vector), b"model"]
    values += [None if version is None else struct.pack(">q", version), bytes(8), bytes(8), None]
    return tuple(NULL_FIELD if value is None else memoryview(struct.pack(">i", len(value)) + value) for value in values)


def without(row: Row, *positions: int) -> Row:
    """The row as the log sends it when large values did not change."""
    return tuple(None if position in positions else value for position, value in enumerate(row))


def key_only(row: Row, relation: Relation) -> Row:
    """The old row as the log sends it: the key, and NULL for the rest."""
    return tuple(value if column.in_key else NULL_FIELD for value, column in zip(row, relation.columns, strict=True))


@contextmanager
def lasting_pair(servers: LocalState, name: str) -> Iterator[Pair]:
    """A source and a target for many tests: making them takes longer than most of those take."""
    conninfos = {role: database.conninfo for role, database in servers.databases.items()}
    for conninfo in conninfos.values():
        with psycopg.connect(conninfo, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        with psycopg.connect(conninfo, dbname=name, autocommit=True) as connection:
            connection.execute("CREATE EXTENSION vector")
    yield Pair(**{role: f"{conninfo} dbname={name}" for role, conninfo in conninfos.items()})
    for conninfo in conninfos.values():
        with psycopg.connect(conninfo, autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@dataclass
class Log:
    """The log of one source table: changes, each a transaction of its own that commits at the next position."""

    source: psycopg.Connection
    name: str = "memories"
    mapping: Mapping[str, str] = field(default_factory=dict)
    lsn: int = 1_000

    def __post_init__(self) -> None:
        self.layout: Layout = layout_of(self.source, source_table(self.source, self.name, self.mapping))
        self.relation = relation_of(self.source, self.name)
        self.layout.check(self.relation)

    def insert(self, new: Row) -> Change:
        return Change("insert", self.relation, None, new, self._next())

    def update(self, new: Row, old: Row | None = None) -> Change:
        return Change("update", self.relation, old and key_only(old, self.relation), new, self._next())

    def delete(self, old: Row) -> Change:
        return Change("delete", self.relation, key_only(old, self.relation), None, self._next())

    def nets(self, *changes: Change) -> list[Net]:
        """What changes of different rows do, none of them a barrier."""
        return [net for change in changes for net in self._effects(change)]

    def rekey(self, change: Change) -> Rekey:
        made = effects(change, self.layout)
        assert isinstance(made, Rekey), made
        return made

    def _effects(self, change: Change) -> tuple[Net, ...]:
        made = effects(change, self.layout)
        assert not isinstance(made, Rekey), made
        return made

    def _next(self) -> int:
        self.lsn += 10
        return self.lsn


def appliers(target: str, layout: Layout, partitions: int = 1, table: str = "memories") -> list[Applier]:
    """Open appliers of a stream ``s`` that begins at 1000; the state tables are made if need be."""
    with psycopg.connect(target, autocommit=True) as connection:
        state_tables.create(connection)
        connection.execute(
            "INSERT INTO orchestra_stream.stream "
            "(name, source_system, source_table, source_table_oid, slot, publication, start_lsn, copy_done_at) "
            "VALUES ('s', '1', 'memories', 1, 'slot', 'publication', %s, now()) ON CONFLICT DO NOTHING",
            [lsn_text(1_000)],
        )
        state_tables.prepare_checkpoints(connection, "s", partitions)
    made = [Applier(target, "s", number, layout, sql.Identifier(table)) for number in range(partitions)]
    for applier in made:
        applier.open()
    return made


def stored(conninfo: str, columns: Sequence[str] = COLUMNS, table: str = "memories") -> list[tuple]:
    """What a table holds, in key order."""
    with psycopg.connect(conninfo) as connection:
        return connection.execute(f"SELECT {', '.join(columns)} FROM {table} ORDER BY id").fetchall()


def emptied(conninfo: str) -> None:
    """Remove what a test has made in a database that others use after it."""
    with psycopg.connect(conninfo, autocommit=True) as connection:
        connection.execute("DROP SCHEMA IF EXISTS orchestra_stream, elsewhere CASCADE")
        for kind, letter in (("TABLE", "r"), ("SEQUENCE", "S")):
            names = (
                "SELECT quote_ident(relname) FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = %s"
            )
            for (name,) in connection.execute(names, [letter]).fetchall():
                connection.execute(f"DROP {kind} IF EXISTS {name} CASCADE")
