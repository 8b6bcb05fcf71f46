"""Ranking and packing: within the budget, by number, the same every time, nothing invented."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestra_lib.assistant.context import (
    FUSED,
    ORDERS,
    RETRIEVED,
    Memory,
    pack,
    section,
    shortlist,
    whole,
    words_kept,
)
from orchestra_lib.assistant.tokens import TokenRatio

RATIO = TokenRatio(3.0, 3.5, 10)
WORDS = ("merge", "sorted", "heap", "queue", "socket", "timeout", "Retry", "parse", "JSON", "path", "\n\n", "\n", "def")

contents = st.lists(st.sampled_from(WORDS), min_size=1, max_size=120).map(" ".join)
memories = st.lists(contents, min_size=1, max_size=12).map(
    lambda texts: [Memory(f"id-{number}", "function", "2026-01-01", text) for number, text in enumerate(texts)]
)


def memory(id_: str, content: str) -> Memory:
    return Memory(id_, "function", "2026-01-01", content)


@given(found=memories, budget=st.integers(10, 2_000), order=st.sampled_from(ORDERS))
def test_a_context_keeps_its_budget_and_holds_only_what_was_retrieved(
    found: list[Memory], budget: int, order: str
) -> None:
    packed = pack(shortlist("merge sorted heaps", found), order, budget, RATIO)
    assert RATIO.tokens(packed.text) <= budget
    assert packed.ids <= {one.id for one in found}
    assert [citation.number for citation in packed.citations] == list(range(1, len(packed.citations) + 1))
    by_id = {one.id: one for one in found}
    for citation in packed.citations:
        words = section(packed, citation.number).split()
        source = by_id[citation.ids[0]]
        assert set(words) <= {*source.content.split(), source.id, "·", source.item_type, source.written}


@given(found=memories, order=st.sampled_from(ORDERS))
def test_with_room_for_all_nothing_is_left_out_and_no_item_is_cited_twice(found: list[Memory], order: str) -> None:
    packed = pack(shortlist("merge sorted heaps", found), order, 100_000, RATIO)
    assert packed.left_out == 0
    assert packed.ids == {one.id for one in found}
    assert sum(len(citation.ids) for citation in packed.citations) == len(found)


@given(found=memories, budgets=st.tuples(st.integers(10, 500), st.integers(10, 500)))
@settings(max_examples=50)
def test_the_same_question_and_items_give_the_same_context(found: list[Memory], budgets: tuple[int, int]) -> None:
    texts = {pack(shortlist("parse JSON", found), RETRIEVED, budgets[0], RATIO).text for _ in range(3)}
    assert len(texts) == 1


def test_items_with_the_same_content_share_a_number_and_count_once() -> None:
    found = [memory("a", "merge\n\nof heaps"), memory("b", "merge\n\nof   heaps"), memory("c", "another")]
    packed = pack(shortlist("merge heaps", found), RETRIEVED, 1_000, RATIO)
    assert [citation.ids for citation in packed.citations] == [("a", "b"), ("c",)]


def test_the_passage_nearest_to_the_question_is_the_one_that_is_kept() -> None:
    filler = "\n\n".join(f"paragraph {number} about sockets and their buffers" for number in range(20))
    found = [memory("long", f"def serve()\n\n{filler}\n\nretries until the deadline has passed\n\n{filler}")]
    packed = pack(shortlist("how often until the deadline", found), RETRIEVED, 40, RATIO)
    assert "retries until the deadline has passed" in packed.text
    assert "paragraph 3" not in packed.text
    assert packed.text.startswith("[1] long · function · 2026-01-01\ndef serve()")


def test_fusing_lifts_what_the_words_agree_on() -> None:
    found = [memory(f"far-{number}", "sockets and buffers") for number in range(5)]
    found = [memory(f"far-{n}", f"sockets and buffers {n}") for n in range(5)] + [memory("near", "merge sorted heaps")]
    orders = shortlist("merge sorted heaps", found).orders
    assert orders[RETRIEVED].index(5) == 5
    assert orders[FUSED].index(5) < 5


def test_whole_items_stand_as_they_are_and_as_they_came() -> None:
    found = [memory("b", "second\n\nall of it"), memory("a", "first")]
    packed = whole(found)
    assert packed.text.index("second\n\nall of it") < packed.text.index("first")
    assert [citation.ids for citation in packed.citations] == [("b",), ("a",)]


@pytest.mark.parametrize(("text", "kept"), [("merge sorted heaps", 1.0), ("merge only", 0.5), ("nothing of it", 0.0)])
def test_words_kept_counts_the_questions_words_that_the_item_holds(text: str, kept: float) -> None:
    assert words_kept("merge heaps quickly", memory("a", "merge two heaps"), text) == kept


def test_an_item_that_holds_none_of_the_questions_words_loses_none() -> None:
    assert words_kept("merge", memory("a", "sockets"), "") == 1.0
