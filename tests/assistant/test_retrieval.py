"""The effort of a search is the least that finds what twice as much would."""

from __future__ import annotations

import pytest

from orchestra_lib.assistant.retrieval import _least_effort, _most
from orchestra_lib.vectors.forms import EXACT, Effort, hnsw, ivfflat


def finds(all_of_it_at: int, asked: list[int]):
    """A search that finds more of ten rows with more effort, and all of them from some effort on."""

    def found(effort: Effort) -> list[frozenset[str]]:
        asked.append(effort.value)
        return [frozenset(str(row) for row in range(min(10, 10 * effort.value // all_of_it_at)))]

    return found


@pytest.mark.parametrize(("all_of_it_at", "chosen"), [(1, 8), (8, 8), (30, 32), (64, 64), (10_000, 500)])
def test_the_effort_is_doubled_until_nothing_more_is_found(all_of_it_at: int, chosen: int) -> None:
    asked: list[int] = []
    assert _least_effort(finds(all_of_it_at, asked), Effort(8), 500).value == chosen
    assert max(asked) <= 500
    assert asked == sorted(set(asked)), "no effort is tried twice"


def test_no_effort_is_larger_than_what_the_index_has() -> None:
    assert (_most(ivfflat(400)), _most(hnsw()), _most(EXACT)) == (400, 1_000, 1)
