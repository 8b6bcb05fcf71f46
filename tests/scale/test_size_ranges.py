"""Ranges of equal bytes: every key in exactly one of them, none much larger than its share."""

from __future__ import annotations

import psycopg
from hypothesis import given
from hypothesis import strategies as st
from stores import fill

from orchestra_lib.database import connect
from orchestra_lib.memory.source import source_table
from orchestra_lib.scale.size_ranges import boundaries, ranges_by_size

SAMPLES = st.dictionaries(st.text(min_size=1, max_size=8), st.integers(1, 1_000_000), max_size=60).map(
    lambda sizes: list(sizes.items())
)


@given(SAMPLES, st.integers(1, 20))
def test_a_part_is_larger_than_its_share_by_less_than_a_row(sample, ranges):
    cuts = boundaries(sample, ranges)
    assert list(cuts) == sorted(set(cuts), key=str.encode)
    assert len(cuts) < ranges or not cuts
    edges = [b"", *(cut.encode() for cut in cuts), b"\xff" * 40]
    sizes = dict.fromkeys(edges[:-1], 0)
    for key, size in sample:
        sizes[max(edge for edge in edges[:-1] if edge <= key.encode())] += size
    if sample:
        share = sum(size for _, size in sample) / ranges
        assert max(sizes.values()) <= share + max(size for _, size in sample) + 1e-6
        assert all(sizes.values())


def test_long_rows_make_narrow_ranges():
    sample = [(f"{number:03}", 100 if number < 50 else 1) for number in range(100)]
    assert boundaries(sample, 2) == ("026",)


def test_ranges_of_a_table_hold_equal_bytes(pair):
    fill(pair.source, 400)
    with psycopg.connect(pair.source, autocommit=True) as connection:
        # The first hundred become as large as the other three hundred together.
        connection.execute("ALTER TABLE memories ALTER content SET STORAGE EXTERNAL")
        connection.execute("UPDATE memories SET content = repeat('x', 14000) WHERE id < 'id-00000100'")
        connection.execute("VACUUM FULL memories")
    with connect(pair.source) as source:
        table = source_table(source, "memories", {})
        (whole,) = ranges_by_size(source, table, 1 << 30)
        found = ranges_by_size(source, table, 500_000)
        counts = [
            source.execute(f"SELECT count(*) FROM memories WHERE {one.condition().as_string(source)}").fetchone()[0]
            for one in found
        ]
    assert (whole.low, whole.high) == (None, None)
    assert (found[0].low, found[-1].high) == (None, None)
    assert sum(counts) == 400
    assert len(found) > 5
    # The long rows are in many narrow ranges, the short ones in few wide ones.
    assert max(counts) > 2 * min(counts)


def test_an_empty_table_is_one_range(pair):
    fill(pair.source, 0)
    with connect(pair.source) as source:
        assert len(ranges_by_size(source, source_table(source, "memories", {}), 1)) == 1
