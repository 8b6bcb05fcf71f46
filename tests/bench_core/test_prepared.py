"""What a load asks comes back as a cursor of psycopg would bring it, and so do the failures."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from pgvector import Vector
from psycopg import sql

from orchestra_lib.bench.prepared import Parameters, PreparedStatement
from orchestra_lib.database import connect


@pytest.fixture
def connection(pair) -> Iterator[psycopg.Connection]:
    with connect(pair.target) as connection:
        yield connection


def statements(connection: psycopg.Connection) -> list[str]:
    found = connection.execute("SELECT statement FROM pg_prepared_statements ORDER BY name", prepare=False)
    return [text for (text,) in found]


@pytest.mark.parametrize(
    ("statement", "parameters"),
    [
        ("SELECT %s::int + %b, %t::text", [1, 2, "three"]),
        ("SELECT %(b)s::text, %(a)b::int8, %(b)s::text", {"a": 2**40, "b": "twice", "unused": 0}),
        ("SELECT 7 %% %s, '%%s', %s::text", [4, None]),
        ("SELECT 1.50::numeric, now()::date, '{1,2}'::int[], '[1,2]'::vector, %b::vector", [Vector([3, 4.5])]),
        ("SELECT n, NULL::text FROM generate_series(1, %s) AS n", [300]),
        ("SELECT 1 WHERE false", []),
    ],
)
def test_rows_are_those_of_a_cursor(connection: psycopg.Connection, statement: str, parameters: Parameters) -> None:
    asked = PreparedStatement(connection, sql.SQL(statement))  # type: ignore[arg-type]
    cursor = connection.cursor(binary=True)
    assert asked(parameters) == asked(parameters) == cursor.execute(statement, parameters).fetchall()  # type: ignore[call-overload]


def test_it_is_prepared_once_and_once_more_for_other_types(connection: psycopg.Connection) -> None:
    asked = PreparedStatement(connection, sql.SQL("SELECT %s"))
    assert [asked([value]) for value in (1, 2, "three", 4)] == [[(1,)], [(2,)], [("three",)], [(4,)]]
    assert statements(connection) == ["SELECT $1", "SELECT $1"]
    PreparedStatement(connection, sql.SQL("SELECT -{}").format(sql.Placeholder("n")))({"n": 1})
    assert len(statements(connection)) == 3


def test_a_failure_is_the_servers_and_the_session_goes_on(connection: psycopg.Connection) -> None:
    asked = PreparedStatement(connection, sql.SQL("SELECT 1 / %s"))
    with pytest.raises(psycopg.errors.DivisionByZero, match="division by zero"):
        asked([0])
    assert asked([1]) == [(1,)]
    with pytest.raises(psycopg.errors.UndefinedTable, match="nowhere"):
        PreparedStatement(connection, sql.SQL("SELECT * FROM nowhere"))([])
    with pytest.raises(psycopg.ProgrammingError, match="gives no rows"):
        PreparedStatement(connection, sql.SQL("SET work_mem = '8MB'"))([])


@pytest.mark.parametrize(
    ("statement", "parameters", "words"),
    [
        ("SELECT %(missing)s", {"other": 1}, "placeholder 'missing'"),
        ("SELECT %s", [], "has 1 placeholders, not 0"),
        ("SELECT %s", [1, 2], "has 1 placeholders, not 2"),
    ],
)
def test_values_that_do_not_fit_are_refused(connection, statement, parameters, words):
    with pytest.raises(psycopg.ProgrammingError, match=words):
        PreparedStatement(connection, sql.SQL(statement))(parameters)


def test_another_one_of_the_same_text_has_the_same_plan(connection: psycopg.Connection) -> None:
    for value in (1, 2):
        PreparedStatement(connection, sql.SQL("SELECT %s"))([value])
    assert statements(connection) == ["SELECT $1"]


def test_what_was_deallocated_is_prepared_again(connection: psycopg.Connection) -> None:
    asked = PreparedStatement(connection, sql.SQL("SELECT %s"))
    asked([1])
    connection.execute("DEALLOCATE ALL")
    assert asked([2]) == [(2,)]
    assert statements(connection) == ["SELECT $1"]


def test_a_lost_session_is_told(connection: psycopg.Connection, pair) -> None:
    asked = PreparedStatement(connection, sql.SQL("SELECT %s"))
    asked([1])
    with psycopg.connect(pair.target, autocommit=True) as other:
        other.execute("SELECT pg_terminate_backend(%s)", [connection.info.backend_pid])
    with pytest.raises(psycopg.OperationalError):
        asked([1])
    assert connection.closed
    with pytest.raises(psycopg.OperationalError):
        asked([1])


def test_a_session_in_transactions_is_refused(connection: psycopg.Connection) -> None:
    connection.autocommit = False
    with pytest.raises(ValueError, match="autocommit"):
        PreparedStatement(connection, sql.SQL("SELECT 1"))
