"""Key ranges: every key lies in exactly one of them."""

from __future__ import annotations

import pytest
from stores import fill

from orchestra_lib.database import connect
from orchestra_lib.memory.ranges import KeyRange, key_ranges
from orchestra_lib.memory.source import source_table


@pytest.mark.parametrize(("rows", "count"), [(0, 8), (1, 8), (5, 8), (100, 1), (100, 8), (1000, 16)])
def test_ranges_cover_every_row_once(pair, rows, count):
    fill(pair.source, rows)
    with connect(pair.source) as source:
        table = source_table(source, "memories", {})
        ranges = key_ranges(source, table, count)
        conditions = [r.condition().as_string(source) for r in ranges]
        hits = source.execute(
            f"SELECT count(*), coalesce(sum({' + '.join(f'({c})::int' for c in conditions)}), 0) FROM memories"
        ).fetchone()
    assert hits == (rows, rows)
    assert 1 <= len(ranges) <= count
    assert ranges[0].low is None
    assert ranges[-1].high is None


def test_ranges_are_about_equal(pair):
    fill(pair.source, 1000)
    with connect(pair.source) as source:
        ranges = key_ranges(source, source_table(source, "memories", {}), 10)
        sizes = [
            source.execute(f"SELECT count(*) FROM memories WHERE {r.condition().as_string(source)}").fetchone()[0]
            for r in ranges
        ]
    assert max(sizes) - min(sizes) <= 2


def test_keys_with_quotes_and_accents_are_bound_safely(pair):
    fill(pair.source, 3)
    with connect(pair.source) as source:
        source.execute("UPDATE memories SET id = 'o''; DROP TABLE memories; --é' WHERE id = 'id-00000001'")
        ranges = key_ranges(source, source_table(source, "memories", {}), 3)
        for key_range in ranges:
            source.execute(f"SELECT count(*) FROM memories WHERE {key_range.condition().as_string(source)}")
        assert source.execute("SELECT count(*) FROM memories").fetchone() == (3,)


def test_a_range_tells_its_ends():
    assert str(KeyRange(2, "b", None)) == "range 2, keys from b to before the end"
