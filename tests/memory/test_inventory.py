"""The inventory counts what must not be there, and each count closes the gate."""

from __future__ import annotations

import pytest
from stores import fill

from orchestra_lib.database import connect
from orchestra_lib.errors import DataError
from orchestra_lib.evidence import Verdict, roll_up
from orchestra_lib.memory.inventory import inventory_checks, inventory_readings, take_inventory
from orchestra_lib.memory.source import source_table


def taken(pair):
    with connect(pair.source) as source:
        return take_inventory(source, source_table(source, "memories", {}))


def loosen(pair, statement):
    with connect(pair.source) as source:
        source.execute("ALTER TABLE memories DROP CONSTRAINT memories_pkey")
        source.execute("ALTER TABLE memories ALTER id DROP NOT NULL, ALTER embedding DROP NOT NULL")
        source.execute("ALTER TABLE memories ALTER embedding TYPE vector")
        source.execute(statement)


def test_a_sound_store_passes(pair):
    fill(pair.source, 40)
    found = taken(pair)
    assert (found.rows, found.distinct_ids, found.dimensions, found.normalised) == (40, 40, {1536: 40}, True)
    assert found.rows_by_model == {"test/1": 40}
    assert found.table_bytes > 40 * 6144
    assert roll_up(inventory_checks(found, 1536), rehearsal=False) is Verdict.PASS


@pytest.mark.parametrize(
    ("statement", "claim"),
    [
        ("UPDATE memories SET embedding = '[1,2,3]' WHERE id = 'id-00000001'", "has not 1536 dimensions"),
        ("UPDATE memories SET embedding = NULL WHERE id = 'id-00000001'", "without an embedding"),
        (
            "UPDATE memories SET embedding = embedding * embedding - embedding * embedding WHERE id = 'id-00000001'",
            "zero embedding",
        ),
        ("UPDATE memories SET id = 'id-00000002' WHERE id = 'id-00000001'", "id another row has"),
        ("UPDATE memories SET id = NULL WHERE id = 'id-00000001'", "without an id"),
        ("DELETE FROM memories", "holds rows"),
        (
            "ALTER TABLE memories ALTER session_id DROP NOT NULL; UPDATE memories SET session_id = NULL",
            "without a session_id",
        ),
    ],
)
def test_each_defect_closes_the_gate_by_its_own_row(pair, statement, claim):
    fill(pair.source, 10)
    loosen(pair, statement)
    red = [row.claim for row in inventory_checks(taken(pair), 1536) if row.verdict is Verdict.FAIL]
    assert len(red) == 1
    assert claim in red[0]


def test_duplicate_ids_are_named(pair):
    fill(pair.source, 10)
    loosen(pair, "UPDATE memories SET id = 'id-00000002' WHERE id = 'id-00000001'")
    assert taken(pair).duplicate_ids == ("id-00000002",)


def test_readings_judge_nothing(pair):
    fill(pair.source, 10)
    assert {row.verdict for row in inventory_readings(taken(pair))} == {Verdict.NOTED}


def test_lengths_other_than_one_are_told(pair):
    fill(pair.source, 10)
    loosen(pair, "UPDATE memories SET embedding = embedding + embedding WHERE id = 'id-00000001'")
    assert not taken(pair).normalised


def test_a_column_without_vectors_is_refused(pair):
    fill(pair.source, 1)
    with connect(pair.source) as source:
        source.execute("CREATE TABLE odd (id text, embedding text)")
        source.execute("INSERT INTO odd VALUES ('a', 'not a vector')")
        with pytest.raises(DataError, match="does not hold vectors"):
            take_inventory(source, source_table(source, "odd", {}))
