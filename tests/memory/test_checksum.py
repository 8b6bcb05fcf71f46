"""The digest of a row's wire image: the reader of a COPY stream and the server must compute the same number."""

from __future__ import annotations

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import sql
from stores import fill

from orchestra_lib.database import connect
from orchestra_lib.memory.checksum import image_digest, row_digest
from orchestra_lib.memory.copy import checksum, target_rows
from orchestra_lib.memory.ranges import KeyRange

EVERYTHING = KeyRange(1, None, None)
TABLE = sql.Identifier("memories")


def streamed_digests(connection: psycopg.Connection) -> list[int]:
    digests = []
    with connection.cursor().copy("COPY (SELECT * FROM memories ORDER BY id) TO STDOUT (FORMAT binary)") as copy:
        for number, message in enumerate(copy):
            image = bytes(message)[19 if number == 0 else 0 :]
            if image not in (b"", b"\xff\xff"):
                digests.append(image_digest(image))
    return digests


def test_server_and_reader_agree_on_every_row(pair):
    fill(pair.source, 50)
    with connect(pair.source) as connection:
        statement = sql.SQL("SELECT {} FROM memories ORDER BY id").format(row_digest())
        served = [row[0] for row in connection.execute(statement)]
        assert streamed_digests(connection) == served
        assert len(set(served)) == 50


text = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=40)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**12), 10**12) | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=6,
)


@pytest.fixture
def one_row(pair):
    fill(pair.source, 1)
    with connect(pair.source) as connection:
        yield connection


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=text,
    metadata=st.dictionaries(text, json_values, max_size=3),
    version=st.integers(-(2**63), 2**63 - 1),
    expires=st.none() | st.datetimes(),
)
def test_server_and_reader_agree_on_any_value(one_row, content, metadata, version, expires):
    one_row.execute(
        "UPDATE memories SET content = %s, metadata = %s, version = %s, expires_at = %s",
        [content, psycopg.types.json.Jsonb(metadata), version, expires],
    )
    served = one_row.execute(sql.SQL("SELECT {} FROM memories").format(row_digest())).fetchone()[0]
    assert streamed_digests(one_row) == [served]


@pytest.mark.parametrize(
    "change",
    [
        "content = content || ' '",
        "metadata = metadata || '{\"n\": 8}'",
        "embedding = (embedding::real[])[:1535]::real[] || (embedding::real[])[1536] * 1.0000002::real",
        "version = version + 1",
        "expires_at = coalesce(expires_at, 'epoch') + interval '1 microsecond'",
        "agent_id = user_id, user_id = agent_id",
    ],
)
def test_any_change_of_a_row_changes_the_checksum_of_its_range(pair, change):
    fill(pair.source, 9)
    with connect(pair.source) as connection:
        before = checksum(connection, target_rows(TABLE), EVERYTHING)
        connection.execute(f"UPDATE memories SET {change} WHERE id = 'id-00000007'")
        after = checksum(connection, target_rows(TABLE), EVERYTHING)
    assert before.rows == after.rows == 9
    assert before.total != after.total


def test_the_order_of_rows_does_not_matter(pair):
    fill(pair.source, 30)
    with connect(pair.source) as connection:
        before = checksum(connection, target_rows(TABLE), EVERYTHING)
        connection.execute("CREATE INDEX ON memories (version)")
        connection.execute("CLUSTER memories USING memories_version_idx")
        assert checksum(connection, target_rows(TABLE), EVERYTHING) == before
