"""What a row of the source's log means to us: which of its columns are ours, and what makes ours of their values.

A layout is made from the live catalogue when a stream begins. What the log then says of the table is compared with it,
and the stream stops where they part: a value must never land in the wrong column, nor be left behind unseen.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from operator import itemgetter
from uuid import UUID

import psycopg
from psycopg import sql

from orchestra_lib.errors import DataError
from orchestra_lib.memory.pgoutput import NULL_FIELD, Column, Relation, Row
from orchestra_lib.memory.schema import COLUMNS
from orchestra_lib.memory.source import SourceTable, as_ours
from orchestra_lib.memory.stream_errors import SchemaChanged, StreamError

ID = 0
"""Where the id stands in a layout's columns: it is the first of ours, and every source has it."""

_Field = memoryview | None


def _text(field: memoryview) -> bytes:
    return bytes(field[4:])


def _padded_text(field: memoryview) -> bytes:
    return bytes(field[4:]).rstrip(b" ")


def _integer(field: memoryview) -> bytes:
    return str(int.from_bytes(field[4:], "big", signed=True)).encode()


def _uuid(field: memoryview) -> bytes:
    return str(UUID(bytes=bytes(field[4:]))).encode()


# The id as text, exactly as the cast to text makes it, by the type that it is sent as.
_ID_TEXTS: dict[str, Callable[[memoryview], bytes]] = {
    "text": _text,
    "character varying": _text,
    "name": _text,
    "bpchar": _padded_text,
    "smallint": _integer,
    "integer": _integer,
    "bigint": _integer,
    "uuid": _uuid,
}


@dataclass(frozen=True, slots=True)
class StagedColumn:
    """A column of the source that one of ours is made from.

    ``type_name`` is what its values are on the target before they are cast: the type that has the same binary form and
    that every server knows (text for an enum, the base type for a domain).
    """

    column: str
    source_column: str
    type_oid: int
    type_modifier: int
    type_name: str

    @property
    def is_array(self) -> bool:
        """Whether a value is an array."""
        return self.type_name.endswith("[]")


class Layout:
    """The columns that are ours, in the order of ours. :meth:`check` belongs to one thread."""

    def __init__(self, table: str, table_oid: int, columns: tuple[StagedColumn, ...], known: frozenset[str]) -> None:
        self.table, self.columns = table, columns
        self.key_type = columns[ID].type_name
        self._table_oid, self._known = table_oid, known
        self._id_text = _ID_TEXTS[self.key_type]
        self._relation: Relation | None = None
        self._pick: Callable[[Row], Row] = tuple
        self.old_is_whole = False

    def check(self, relation: Relation) -> None:
        """Take the columns from this relation from now on.

        Raises SchemaChanged when a column was added, or one that is ours was dropped or has another type, or when
        changes no longer carry the id.
        """
        if relation is self._relation:
            return
        positions = self._positions(relation)
        if positions == list(range(len(relation.columns))):
            self._pick = tuple  # of a tuple that is the tuple itself
        else:
            self._pick = itemgetter(*positions)
        self.old_is_whole = relation.replica_identity == "f"
        self._relation = relation

    def columns_of(self, row: Row) -> Row:
        """Our columns of a row of the relation that was checked last."""
        return self._pick(row)

    def key(self, id_field: memoryview | None) -> bytes:
        """The id as text in UTF-8. Raises StreamError where there is none."""
        if id_field is None or id_field == NULL_FIELD:
            raise StreamError(
                f"the source sent a change of {self.table} without {self.columns[ID].source_column}, its id; set "
                "NOT NULL on the column and a REPLICA IDENTITY that has it, then copy the table again"
            )
        return self._id_text(id_field)

    def value(self, column: str, staged: sql.Composable) -> sql.Composed:
        """The SQL expression of our column over the staged values; ``staged`` is what they are called."""
        ours = any(item.column == column for item in self.columns)
        return as_ours(column, sql.SQL("{}.{}").format(staged, sql.Identifier(column)) if ours else None)

    def _positions(self, relation: Relation) -> list[int]:
        name = f"{relation.schema}.{relation.name}"
        if relation.oid != self._table_oid:
            raise SchemaChanged(
                f"the source sends changes of {name} (oid {relation.oid}), not only of {self.table} "
                f"(oid {self._table_oid}): a publication with that one table is needed; if the table was made anew, "
                "copy it again"
            )
        added = [column.name for column in relation.columns if column.name not in self._known]
        if added:
            raise SchemaChanged(
                f"the source added to {name}: {', '.join(added)}. Nothing of it was applied; start the stream again to "
                "go on without, or give it a place in source_columns and copy the table again"
            )
        found = {column.name: (position, column) for position, column in enumerate(relation.columns)}
        for item in self.columns:
            self._require_same(name, item, found.get(item.source_column))
        id_column = found[self.columns[ID].source_column][1]
        if not id_column.in_key:
            raise SchemaChanged(
                f"updates and deletes of {name} no longer carry {id_column.name} (REPLICA IDENTITY is "
                f"{relation.replica_identity!r}): set it back, and copy the table again if rows were changed meanwhile"
            )
        return [found[item.source_column][0] for item in self.columns]

    def _require_same(self, name: str, ours: StagedColumn, found: tuple[int, Column] | None) -> None:
        if found is None:
            raise SchemaChanged(
                f"the source dropped or no longer publishes {name}.{ours.source_column}, from which {ours.column} is "
                "made; bring it back, or change source_columns and copy the table again"
            )
        column = found[1]
        # A text may grow longer without harm; another dimension of the vectors is another type.
        modifier_counts = ours.column == "embedding"
        if column.type_oid != ours.type_oid or (modifier_counts and column.type_modifier != ours.type_modifier):
            raise SchemaChanged(
                f"{name}.{column.name} has another type now (oid {column.type_oid}, modifier {column.type_modifier}; "
                f"it was {ours.type_oid}, {ours.type_modifier}): stop the stream and copy the table again"
            )


# The base of a domain is found by going down; arrays of our own types have no form that every server knows.
_CATALOGUE = """
WITH RECURSIVE base (attnum, attname, declared, modifier, attnotnull, attgenerated, type) AS (
    SELECT attnum, attname, atttypid, atttypmod, attnotnull, attgenerated, atttypid
    FROM pg_attribute WHERE attrelid = %(table)s::regclass AND attnum > 0 AND NOT attisdropped
    UNION ALL
    SELECT attnum, attname, declared, modifier, attnotnull, attgenerated, t.typbasetype
    FROM base JOIN pg_type t ON t.oid = base.type WHERE t.typtype = 'd'
)
SELECT attname, attnum, declared, modifier, attnotnull, attgenerated <> '',
       CASE
           WHEN t.typtype = 'e' OR t.typname = 'citext' THEN 'text'
           WHEN t.typnamespace = 'pg_catalog'::regnamespace THEN format_type(t.oid, -1)
           WHEN t.typname IN ('vector', 'halfvec', 'sparsevec') THEN t.typname::text
       END,
       format_type(declared, modifier)
FROM base JOIN pg_type t ON t.oid = base.type
WHERE t.typtype <> 'd'
ORDER BY attnum
"""
_TABLE = """
SELECT c.oid::bigint, c.relkind::text, c.relpersistence::text, c.relreplident::text,
       EXISTS (SELECT FROM pg_inherits WHERE inhparent = c.oid),
       ARRAY(
           SELECT a.attname FROM pg_index i
           JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = ANY((i.indkey::int2[])[0:i.indnkeyatts - 1])
           WHERE i.indrelid = c.oid
             AND CASE c.relreplident WHEN 'd' THEN i.indisprimary WHEN 'i' THEN i.indisreplident ELSE false END
       ),
       (
           SELECT quote_ident(x.relname) FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid
           WHERE i.indrelid = c.oid AND i.indisunique AND i.indisvalid AND i.indimmediate AND i.indpred IS NULL
             AND i.indnkeyatts = 1 AND i.indkey[0] = %(id)s
           ORDER BY i.indisprimary DESC LIMIT 1
       )
FROM pg_class c WHERE c.oid = %(table)s::regclass
"""


@dataclass(frozen=True, slots=True)
class _Found:
    """A column in the source's catalogue; ``staged_type`` is None when no other server knows its values."""

    name: str
    number: int
    type_oid: int
    type_modifier: int
    not_null: bool
    generated: bool
    staged_type: str | None
    declared: str


def layout_of(source: psycopg.Connection, table: SourceTable) -> Layout:
    """The layout of a table as it is now.

    Raises DataError with everything that keeps its changes from being followed, and the statements that cure it.
    """
    name = table.table.as_string(source)
    found = {row[0]: _Found(*row) for row in source.execute(_CATALOGUE, {"table": name}).fetchall()}
    gone = [theirs for theirs in table.columns.values() if theirs not in found]
    if gone:
        raise DataError(f"{name} has no column {', '.join(gone)} any more; look at source_columns")
    ours = {column: found[table.columns[column]] for column in COLUMNS if column in table.columns}
    oid, obstacles = _table_obstacles(source, name, ours["id"])
    obstacles += _column_obstacles(name, ours)
    if obstacles:
        raise DataError(f"the changes of {name} cannot be followed: " + "; ".join(obstacles))
    columns = tuple(
        StagedColumn(column, item.name, item.type_oid, item.type_modifier, item.staged_type or "")
        for column, item in ours.items()
    )
    return Layout(name, oid, columns, frozenset(found))


def _column_obstacles(name: str, ours: dict[str, _Found]) -> list[str]:
    obstacles = [
        f"{item.name} is generated, and such columns are not in the log: map another column to {column}, or none"
        for column, item in ours.items()
        if item.generated
    ]
    obstacles += [
        f"{item.name} has the type {item.declared}, which other servers do not know: map another column to {column}"
        for column, item in ours.items()
        if item.staged_type is None
    ]
    key = ours["id"]
    if key.staged_type is not None and key.staged_type not in _ID_TEXTS:
        obstacles.append(f"the id {key.name} has the type {key.declared}; it may be one of {', '.join(_ID_TEXTS)}")
    if not key.not_null:
        obstacles.append(f"the id may be missing: ALTER TABLE {name} ALTER {_quoted(key.name)} SET NOT NULL")
    return obstacles


def _table_obstacles(source: psycopg.Connection, name: str, key: _Found) -> tuple[int, list[str]]:
    row = source.execute(_TABLE, {"table": name, "id": key.number}).fetchone()
    if row is None:
        raise DataError(f"the source's catalogue does not know {name}")
    oid, kind, persistence, identity, has_children, identifying, unique_index = row
    obstacles = []
    if kind != "r" or has_children:
        obstacles.append("it is not a plain table: partitions, children and views have changes of their own")
    if persistence != "p":
        obstacles.append(f"its changes are not logged: ALTER TABLE {name} SET LOGGED")
    if unique_index is None:
        obstacles.append(
            f"two rows may have the same id: CREATE UNIQUE INDEX CONCURRENTLY ON {name} ({_quoted(key.name)})"
        )
    if identity != "f" and key.name not in identifying:
        obstacles.append(
            f"updates and deletes do not carry the id: ALTER TABLE {name} REPLICA IDENTITY USING INDEX "
            f"{unique_index or '(the unique index on ' + key.name + ')'}"
        )
    return oid, obstacles


def _quoted(name: str) -> str:
    return sql.Identifier(name).as_string(None)
