"""How pgvector lays out an IVFFlat index: rows a page, pages of centroids, pages of lists.

A page has 8,160 bytes for items and their pointers. The metapage comes first, then the centroids, then each list on
pages of its own, at least one, whether it has rows or not (src/ivfbuild.c, src/ivfflat.h, 0.8.5).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from orchestra_lib.errors import ParameterError
from orchestra_lib.vectors.forms import LARGEST_DIMENSION, Storage

PAGE_BYTES = 8_192
_PAGE_HEADER_BYTES = 24
_PAGE_SPECIAL_BYTES = 8  # IvfflatPageOpaqueData
_USABLE_BYTES = PAGE_BYTES - _PAGE_HEADER_BYTES - _PAGE_SPECIAL_BYTES
_POINTER_BYTES = 4
_TUPLE_HEADER_BYTES = 8  # IndexTupleData; a centroid's two block numbers take the same
_METAPAGES = 1
_VALUE_HEADER_BYTES = 8  # length, and dimensions or bits
_MOST_BYTES_OF_A_SHORT_VALUE = 127  # with a length of one byte; PostgreSQL stores such values unaligned
_BITS_PER_DIMENSION = {Storage.VECTOR: 32, Storage.HALFVEC: 16, Storage.BIT: 1}


def rows_per_page(dimension: int, storage: Storage) -> int:
    """Rows on a full page of a list. Raises ParameterError when such values cannot be indexed."""
    value = _value_bytes(dimension, storage)
    short = value - 3
    return _items_per_page(short if short <= _MOST_BYTES_OF_A_SHORT_VALUE else value)


def centroids_per_page(dimension: int, storage: Storage) -> int:
    """Centroids on a full page. Raises ParameterError when such values cannot be indexed."""
    return _items_per_page(_value_bytes(dimension, storage))


def centroid_pages(lists: int, dimension: int, storage: Storage) -> int:
    """Pages that every query and every insert reads before it knows its list."""
    return -(-lists // centroids_per_page(dimension, storage))


def list_pages(list_rows: NDArray[np.float64], dimension: int, storage: Storage) -> NDArray[np.float64]:
    """Pages of each list, from the rows of each (rounded, where they are estimates); an empty list has one."""
    return np.maximum(1.0, np.ceil(np.rint(list_rows) / rows_per_page(dimension, storage)))


def index_pages(list_rows: NDArray[np.float64], dimension: int, storage: Storage) -> int:
    """Pages of a whole index, freshly built: ``pg_relation_size`` divided by 8,192."""
    lists = list_pages(list_rows, dimension, storage)
    return _METAPAGES + centroid_pages(len(list_rows), dimension, storage) + int(lists.sum())


def _items_per_page(value_bytes: int) -> int:
    item = -(-(_TUPLE_HEADER_BYTES + value_bytes) // 8) * 8
    return _USABLE_BYTES // (item + _POINTER_BYTES)


def _value_bytes(dimension: int, storage: Storage) -> int:
    if not 1 <= dimension <= LARGEST_DIMENSION[storage]:
        raise ParameterError(
            f"an IVFFlat index of {storage} takes 1 to {LARGEST_DIMENSION[storage]:,} dimensions, got {dimension:,}"
        )
    return _VALUE_HEADER_BYTES + -(-dimension * _BITS_PER_DIMENSION[storage] // 8)
