"""The digest of a row: every server computes the same number, and any difference between rows changes it."""

from __future__ import annotations

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import sql
from stores import fill

from orchestra_lib.database import connect
from orchestra_lib.errors import DataError
from orchestra_lib.memory.checksum import record_digest, require_equal_digests
from orchestra_lib.memory.copy import CopyJob, checksum, copy, exported_snapshot, target_rows
from orchestra_lib.memory.ranges import KeyRange
from orchestra_lib.memory.schema import create_table
from orchestra_lib.memory.source import source_table

pytestmark = pytest.mark.slow

EVERYTHING = KeyRange(1, None, None)
TABLE = sql.Identifier("memories")
KNOWN_DIGEST = -1432328826257446711  # PostgreSQL 16 and 18


text = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=40)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**12), 10**12) | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=6,
)


@pytest.fixture
def one_row(pair):
    fill(pair.source, 1)
    with connect(pair.source) as source, connect(pair.target) as target:
        target.execute(create_table())
        job = CopyJob(pair.source, source_table(source, "memories", {}), pair.target, TABLE)
        yield source, target, job


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=text,
    metadata=st.dictionaries(text, json_values, max_size=3),
    version=st.integers(-(2**63), 2**63 - 1),
    expires=st.none() | st.datetimes(),
)
def test_stream_source_and_target_agree_on_any_value(one_row, content, metadata, version, expires):
    source, target, job = one_row
    source.execute(
        "UPDATE memories SET content = %s, metadata = %s, version = %s, expires_at = %s",
        [content, psycopg.types.json.Jsonb(metadata), version, expires],
    )
    target.execute("TRUNCATE memories")
    with exported_snapshot(source) as snapshot:
        (copied,) = copy(job, snapshot, [EVERYTHING], 1, lambda done: None).ranges
    assert copied.source.rows == 1
    assert checksum(source, job.source.select, EVERYTHING) == copied.source
    assert checksum(target, target_rows(TABLE), EVERYTHING) == copied.source


def test_a_known_record_has_the_digest_it_always_had(pair):
    known = record_digest(sql.SQL("ROW('Zürich'::text, '\\x00ff'::bytea, 1::int8, NULL::timestamptz)"))
    with connect(pair.target) as target:
        assert target.execute(sql.SQL("SELECT {}").format(known)).fetchone() == (KNOWN_DIGEST,)


def test_a_server_that_hashes_otherwise_is_refused(pair):
    with connect(pair.source) as source, connect(pair.target) as target:
        require_equal_digests(source, target)
        target.execute(
            "CREATE FUNCTION hash_record_extended(record, bigint) RETURNS bigint AS 'BEGIN RETURN 7; END' "
            "LANGUAGE plpgsql"
        )
        target.execute("SET search_path = public, pg_catalog")
        with pytest.raises(DataError, match=r"hash the same row to -?\d+ and 7"):
            require_equal_digests(source, target)


def test_a_value_that_two_rows_exchange_changes_the_checksum(pair):
    fill(pair.source, 9)
    with connect(pair.source) as connection:
        before = checksum(connection, target_rows(TABLE), EVERYTHING)
        for column in ("content", "embedding"):
            connection.execute(
                f"UPDATE memories AS one SET {column} = other.{column} FROM memories AS other "
                "WHERE (one.id, other.id) IN (('id-00000003', 'id-00000004'), ('id-00000004', 'id-00000003'))"
            )
            after = checksum(connection, target_rows(TABLE), EVERYTHING)
            assert (after.rows, after.total == before.total) == (9, False)
            before = after


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
