"""Whether a number of lists suits a number of rows, said plainly. A rule of thumb: measurements decide.

A list should have at least 50 rows to be learnt from (pgvector samples 50 a list), and there should be at least half
as many lists as the square root of the rows, or each probe reads too much.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

_ROWS_PER_LIST_WANTED = 50
_MOST_LISTS = 32_768


@dataclass(frozen=True)
class Suitability:
    """``suits``, the sensible number of lists to compare with, and one sentence about the lists that were asked for."""

    suits: bool
    sensible_lists: int
    sentence: str


def suitability(lists: int, rows: int) -> Suitability:
    """Judge ``lists`` for ``rows`` rows, by arithmetic alone."""
    fewest = max(1, math.isqrt(rows) // 2)
    most = max(fewest, min(rows // _ROWS_PER_LIST_WANTED, _MOST_LISTS))
    sensible = min(max(math.isqrt(rows), 1), most)
    per_list = rows / lists
    if lists > most:
        sentence = (
            f"{lists:,} lists are too many for {rows:,} rows: {per_list:.1f} rows a list, where k-means wants "
            f"{_ROWS_PER_LIST_WANTED} to learn from. Every query and every insert first reads {lists:,} centroid "
            f"pages ({lists * 8 / 1024:.0f} MiB). They would suit {lists * _ROWS_PER_LIST_WANTED:,} rows and more."
        )
    elif lists < fewest:
        sentence = (
            f"{lists:,} lists are too few for {rows:,} rows: each probe reads about {per_list:,.0f} rows. "
            f"{fewest:,} to {most:,} lists suit this table."
        )
    else:
        sentence = f"{lists:,} lists suit {rows:,} rows ({per_list:,.0f} rows a list; {fewest:,} to {most:,} do)."
    return Suitability(fewest <= lists <= most, sensible, sentence)
