"""The sequences that a table uses: logical replication leaves them behind, so they are carried over by hand.

A sequence moves outside of transactions and sessions keep numbers in stock, so the other side starts a margin further
on; it is never set back. https://www.postgresql.org/docs/current/logical-replication-restrictions.html
"""

from __future__ import annotations

from collections.abc import Sequence as Sequenced
from dataclasses import dataclass

import psycopg
from psycopg import sql

from orchestra_lib.errors import DataError

# Those that a column of the table owns (serial, identity), and those that the default of one takes numbers from.
_USED = """
SELECT n.nspname, c.relname, format_type(s.seqtypid, NULL), s.seqstart, s.seqincrement, s.seqmin, s.seqmax, s.seqcache,
       s.seqcycle, pg_sequence_last_value(c.oid)
FROM pg_sequence s JOIN pg_class c ON c.oid = s.seqrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.oid IN (
    SELECT objid FROM pg_depend
    WHERE classid = 'pg_class'::regclass AND refclassid = 'pg_class'::regclass AND deptype IN ('a', 'i')
      AND refobjid = %(table)s::regclass
    UNION
    SELECT d.refobjid FROM pg_depend d JOIN pg_attrdef a ON a.oid = d.objid
    WHERE d.classid = 'pg_attrdef'::regclass AND d.refclassid = 'pg_class'::regclass
      AND a.adrelid = %(table)s::regclass
)
ORDER BY 1, 2
"""

# One call for all of them: this runs while nobody may write.
_SET = """
SELECT setval(sequence, CASE WHEN step > 0 THEN greatest(value, own) ELSE least(value, own) END)
FROM (
    SELECT name::regclass AS sequence, step, value, pg_sequence_last_value(name::regclass) AS own
    FROM unnest(%(names)s::text[], %(steps)s::int8[], %(values)s::int8[]) AS given(name, step, value)
) AS compared
"""


@dataclass(frozen=True)
class Sequence:
    """A sequence as its server has it; ``last_value`` is None where no number was taken yet."""

    schema: str
    name: str
    type: str
    start: int
    increment: int
    minimum: int
    maximum: int
    cache: int
    cycles: bool
    last_value: int | None

    def further_on(self, margin: int) -> int:
        """The value ``margin`` steps after the last one; the last there is of one that then begins again.

        Raises DataError when the sequence has not that many numbers left.
        """
        reached = self.start - self.increment if self.last_value is None else self.last_value
        value = reached + margin * self.increment
        if self.minimum <= value <= self.maximum:
            return value
        end = self.maximum if self.increment > 0 else self.minimum
        if self.cycles:
            return end
        raise DataError(
            f"sequence {self.schema}.{self.name} stands at {reached} and ends at {end}: {margin} steps of "
            f"{self.increment} lead past it; make it a bigint, or choose a smaller margin"
        )


def sequences(connection: psycopg.Connection, table: sql.Composable) -> tuple[Sequence, ...]:
    """The sequences that the table owns or takes defaults from, by name."""
    rows = connection.execute(_USED, {"table": table.as_string(connection)}).fetchall()
    return tuple(Sequence(*row) for row in rows)


def make_missing(connection: psycopg.Connection, wanted: Sequenced[Sequence], users: Sequenced[str] = ()) -> None:
    """Make those that are not there, alike but at their beginning; the roles ``users`` may take numbers from them.

    Raises DataError when their schema is missing.
    """
    for sequence in wanted:
        name = sql.Identifier(sequence.schema, sequence.name)
        if connection.execute("SELECT to_regclass(%s)", [name.as_string(connection)]).fetchone() == (None,):
            _make(connection, sequence, name)
            grant = sql.SQL("GRANT USAGE ON SEQUENCE {} TO {}")
            for user in users:
                connection.execute(grant.format(name, sql.Identifier(user)))


def _make(connection: psycopg.Connection, sequence: Sequence, name: sql.Identifier) -> None:
    statement = sql.SQL(
        "CREATE SEQUENCE {} AS {} INCREMENT BY {} MINVALUE {} MAXVALUE {} START WITH {} CACHE {} {}"
    ).format(
        name,
        sql.SQL(sequence.type),
        sql.Literal(sequence.increment),
        sql.Literal(sequence.minimum),
        sql.Literal(sequence.maximum),
        sql.Literal(sequence.start),
        sql.Literal(sequence.cache),
        sql.SQL("CYCLE" if sequence.cycles else "NO CYCLE"),
    )
    try:
        connection.execute(statement)
    except psycopg.errors.InvalidSchemaName as error:
        raise DataError(
            f"sequence {sequence.schema}.{sequence.name} has no schema to be made in: make {sequence.schema} first"
        ) from error


def set_further_on(connection: psycopg.Connection, wanted: Sequenced[Sequence], margin: int) -> None:
    """Set each of them ``margin`` steps after the value given, unless it is further on already. They must be there."""
    if not wanted:
        return
    names = [sql.Identifier(sequence.schema, sequence.name).as_string(connection) for sequence in wanted]
    steps = [sequence.increment for sequence in wanted]
    values = [sequence.further_on(margin) for sequence in wanted]
    connection.execute(_SET, {"names": names, "steps": steps, "values": values})
