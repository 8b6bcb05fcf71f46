"""The layout of an IVFFlat index: pgvector's own packing, and the size that a built index really has."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from stores import fill

from orchestra_lib.database import connect
from orchestra_lib.errors import ParameterError
from orchestra_lib.vectors.forms import Storage, ivfflat
from orchestra_lib.vectors.pages import centroid_pages, centroids_per_page, index_pages, list_pages, rows_per_page


@pytest.mark.parametrize(
    ("dimension", "storage", "rows"),
    [(1536, "vector", 1), (2000, "vector", 1), (1015, "vector", 1), (1014, "vector", 2), (674, "vector", 3),
     (504, "vector", 4), (505, "vector", 3), (1536, "halfvec", 2), (1536, "bit", 38)],
)  # fmt: skip
def test_known_packings(dimension, storage, rows):
    assert rows_per_page(dimension, Storage(storage)) == centroids_per_page(dimension, Storage(storage)) == rows


def test_more_dimensions_than_can_be_indexed_are_refused():
    with pytest.raises(ParameterError, match="IVFFlat index of vector takes 1 to 2,000 dimensions, got 2,001"):
        rows_per_page(2001, Storage.VECTOR)


@given(st.lists(st.integers(0, 5_000), min_size=1, max_size=50), st.integers(1, 2_000))
def test_every_row_has_a_place_and_every_list_a_page(list_rows, dimension):
    rows = np.array(list_rows, dtype=np.float64)
    per_page = rows_per_page(dimension, Storage.VECTOR)
    pages = list_pages(rows, dimension, Storage.VECTOR)
    assert (pages >= 1).all()
    assert (pages * per_page >= rows).all()
    assert ((pages - 1) * per_page < np.maximum(rows, 1)).all()
    assert index_pages(rows, dimension, Storage.VECTOR) == 1 + centroid_pages(
        len(rows), dimension, Storage.VECTOR
    ) + int(pages.sum())


def test_an_index_has_the_size_that_its_layout_gives_it(pair):
    fill(pair.target, 500)
    lists, dimension = 20, 1536
    with connect(pair.target) as connection:
        connection.execute(
            "CREATE TABLE small AS SELECT id, subvector(embedding, 1, 24)::vector(24) AS embedding FROM memories"
        )
        sizes = {}
        for table, size, storage in [("memories", dimension, storage) for storage in Storage] + [
            ("small", 24, Storage.VECTOR)
        ]:
            statement = ivfflat(lists, storage).create_statement(
                table, "embedding", size, "vector_cosine_ops", name="i"
            )
            connection.execute(statement)
            row = connection.execute("SELECT pg_relation_size('i') / 8192").fetchone()
            connection.execute("DROP INDEX i")
            sizes[size, storage] = row[0]
    # Which list a row is in is pgvector's secret; the fewest and the most pages that any shares can have are not.
    # The most, when one list has all the rows and each of the others a page for nothing.
    for (size, storage), pages in sizes.items():
        per_page = rows_per_page(size, storage)
        fixed = 1 + centroid_pages(lists, size, storage)
        assert fixed + max(lists, -(-500 // per_page)) <= pages <= fixed + lists + (500 - 1) // per_page
