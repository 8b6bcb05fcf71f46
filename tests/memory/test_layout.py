"""What the log's rows mean: found in the live catalogue, held against what the log says, refused with the cure."""

from __future__ import annotations

from dataclasses import replace

import psycopg
import pytest
from changes import lasting_pair, relation_of, rows_of

from orchestra_lib.database import connect
from orchestra_lib.errors import DataError
from orchestra_lib.memory.layout import ID, Layout, layout_of
from orchestra_lib.memory.pgoutput import NULL_FIELD, Column
from orchestra_lib.memory.schema import COLUMNS, create_table
from orchestra_lib.memory.source import source_table
from orchestra_lib.memory.stream_errors import SchemaChanged, StreamError

MAPPING = {"id": "external_id", "embedding": "vec", "content": "body"}
MINE = (
    "CREATE TABLE mine (serial_no int PRIMARY KEY, body text, external_id varchar(20) NOT NULL UNIQUE, "
    "vec vector(1536))"
)


@pytest.fixture(scope="module")
def database(servers):
    with lasting_pair(servers, "layouts") as pair:
        yield pair.source


@pytest.fixture
def source(database):
    """A session in a transaction that is rolled back."""
    with connect(database, autocommit=False) as connection:
        yield connection
        connection.rollback()


def made(source: psycopg.Connection, *statements: str, name="mine", mapping=MAPPING) -> Layout:
    for statement in statements:
        source.execute(statement)
    return layout_of(source, source_table(source, name, mapping))


def identified(source: psycopg.Connection, *statements: str, mapping=MAPPING) -> Layout:
    return made(
        source, *statements, "ALTER TABLE mine REPLICA IDENTITY USING INDEX mine_external_id_key", mapping=mapping
    )


def test_our_own_table_is_taken_as_it_comes(source):
    source.execute(create_table())
    layout = layout_of(source, source_table(source, "memories", {}))
    assert [column.column for column in layout.columns] == list(COLUMNS)
    layout.check(relation_of(source))
    row = tuple(memoryview(bytes([0, 0, 0, 1, number])) for number in range(14))
    assert layout.columns_of(row) is row, "nothing is copied"


def test_mapped_columns_are_picked_from_where_they_stand(source):
    layout = identified(source, MINE)
    layout.check(relation_of(source, "mine"))
    names = tuple(memoryview(name.encode()) for name in ("serial_no", "body", "external_id", "vec"))
    assert [bytes(value) for value in layout.columns_of(names)] == [b"external_id", b"body", b"vec"]
    assert [column.column for column in layout.columns] == ["id", "content", "embedding"]


@pytest.mark.parametrize(
    ("statements", "words"),
    [
        (
            [MINE],
            'updates and deletes do not carry the id: ALTER TABLE "mine" REPLICA IDENTITY USING INDEX '
            "mine_external_id_key",
        ),
        ([MINE, "ALTER TABLE mine REPLICA IDENTITY NOTHING"], "do not carry the id"),
        ([MINE.replace("NOT NULL UNIQUE", "NOT NULL")], "two rows may have the same id: CREATE UNIQUE INDEX"),
        (
            [MINE.replace(" UNIQUE", ""), "CREATE UNIQUE INDEX ON mine (external_id) WHERE serial_no > 5"],
            "two rows may have the same id",
        ),
        ([MINE.replace("NOT NULL UNIQUE", "UNIQUE DEFERRABLE NOT NULL")], "two rows may have the same id"),
        ([MINE.replace("NOT NULL UNIQUE", "UNIQUE")], 'the id may be missing: ALTER TABLE "mine" ALTER "external_id"'),
        ([MINE.replace("CREATE TABLE", "CREATE UNLOGGED TABLE")], "not logged"),
        ([MINE, "CREATE TABLE child () INHERITS (mine)"], "not a plain table"),
        ([MINE.replace("varchar(20)", "numeric")], "the id external_id has the type numeric"),
        ([MINE.replace("body text", "body text GENERATED ALWAYS AS ('x') STORED")], "body is generated"),
        (["CREATE TYPE pair AS (a int, b int)", MINE.replace("body text", "body pair")], "body has the type pair"),
    ],
)
def test_a_table_whose_changes_cannot_be_followed_is_refused_with_the_cure(source, statements, words):
    with pytest.raises(DataError) as refused:
        made(source, *statements)
    assert words in str(refused.value)


@pytest.mark.parametrize(
    "cure",
    ["ALTER TABLE mine REPLICA IDENTITY FULL", "ALTER TABLE mine REPLICA IDENTITY USING INDEX mine_external_id_key"],
)
def test_the_cure_cures(source, cure):
    layout = made(source, MINE, cure)
    layout.check(relation_of(source, "mine"))
    assert layout.old_is_whole == cure.endswith("FULL")


@pytest.mark.parametrize(
    ("declared", "value", "staged"),
    [
        ("text", "Zürich ☂", "text"),
        ("varchar(20)", "abc ", "character varying"),
        ("char(8)", "abc", "bpchar"),
        ("name", "abc", "name"),
        ("mood", "glad", "text"),
        ("short_text", "abc", "text"),
        ("smallint", "-7", "smallint"),
        ("int", "2147483647", "integer"),
        ("bigint", "-9223372036854775808", "bigint"),
        ("uuid", "00112233-4455-6677-8899-aabbccddeeff", "uuid"),
    ],
)
def test_the_key_is_the_id_as_the_cast_to_text_makes_it(source, declared, value, staged):
    source.execute("CREATE TYPE mood AS ENUM ('sad', 'glad')")
    source.execute("CREATE DOMAIN short_text AS varchar(40)")
    layout = identified(source, MINE.replace("varchar(20)", declared))
    if declared == "short_text":
        staged = "character varying"
    assert layout.columns[ID].type_name == staged
    (row,) = rows_of(source, f"SELECT '{value}'::{declared}")
    (as_text,) = source.execute(f"SELECT '{value}'::{declared}::text").fetchone()
    assert layout.key(row[0]) == as_text.encode()


def test_no_id_is_no_key(source):
    layout = identified(source, MINE)
    with pytest.raises(StreamError, match="without external_id"):
        layout.key(NULL_FIELD)


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("ALTER TABLE mine ADD note text", "added to public.mine: note"),
        ("ALTER TABLE mine DROP body", r"no longer publishes public.mine.body, from which content is made"),
        ("ALTER TABLE mine RENAME body TO text_body", "added to public.mine: text_body"),
        ("ALTER TABLE mine ALTER body TYPE varchar(50)", "public.mine.body has another type now"),
        ("ALTER TABLE mine ALTER vec TYPE vector(3)", "public.mine.vec has another type now"),
        ("ALTER TABLE mine REPLICA IDENTITY DEFAULT", "no longer carry external_id"),
    ],
)
def test_a_table_that_changed_stops_the_stream(source, statement, words):
    layout = identified(source, MINE)
    layout.check(relation_of(source, "mine"))
    source.execute(statement)
    with pytest.raises(SchemaChanged, match=words):
        layout.check(relation_of(source, "mine"))


@pytest.mark.parametrize(
    "statement",
    ["ALTER TABLE mine ALTER external_id TYPE varchar(50)", "ALTER TABLE mine RENAME TO still_mine"],
)
def test_what_does_not_matter_does_not_stop_it(source, statement):
    layout = identified(source, MINE)
    source.execute(statement)
    layout.check(relation_of(source, "still_mine" if "RENAME" in statement else "mine"))


def test_a_log_from_before_a_column_came_is_still_read(source):
    source.execute(MINE)
    old = relation_of(source, "mine")
    layout = identified(source, "ALTER TABLE mine ADD note text")
    layout.check(replace(old, columns=tuple(replace(one, in_key=one.name == "external_id") for one in old.columns)))


def test_another_table_is_refused(source):
    source.execute(create_table())
    layout = identified(source, MINE)
    with pytest.raises(SchemaChanged, match=r"changes of public.memories .* not only of"):
        layout.check(relation_of(source, "memories"))


def test_a_mapped_column_that_went_since_is_named(source):
    source.execute(MINE)
    table = source_table(source, "mine", MAPPING)
    source.execute("ALTER TABLE mine DROP body")
    with pytest.raises(DataError, match="no column body any more"):
        layout_of(source, table)


def test_columns_that_are_not_sent_in_the_log_stop_it(source):
    layout = identified(source, MINE)
    relation = relation_of(source, "mine")
    cut = tuple(column for column in relation.columns if column.name != "vec")
    with pytest.raises(SchemaChanged, match=r"no longer publishes public.mine.vec"):
        layout.check(replace(relation, columns=cut))
    assert all(isinstance(column, Column) for column in cut)
