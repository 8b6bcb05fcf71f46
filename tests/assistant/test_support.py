"""The budget is chosen by half of the questions and judged by the other."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestra_lib.assistant.context import FUSED, RETRIEVED, Memory, shortlist
from orchestra_lib.assistant.support import (
    BUDGETS,
    FEWEST_QUESTIONS,
    Asked,
    Choice,
    choose,
    halves,
    measure,
    questions_needed,
)
from orchestra_lib.assistant.tokens import TokenRatio
from orchestra_lib.errors import DataError

RATIO = TokenRatio(4.0, 4.0, 1)
FILLER = "\n\n".join(
    f"paragraph {number} of something else entirely, long enough to cost tokens" for number in range(8)
)


def asked(question: str, answer_place: int, items: int = 24) -> Asked:
    found = [
        Memory(
            f"{question}/{place}",
            "function",
            "2026-01-01",
            f"def f{place}()\n\n{FILLER}\n\n{question if place == answer_place else 'no word of it'}",
        )
        for place in range(items)
    ]
    return Asked(shortlist(question, found), f"{question}/{answer_place}")


QUESTIONS = [asked(f"deadline number{number} retries", number // 2 % 24) for number in range(48)]


def test_no_question_both_chooses_and_reports() -> None:
    choosing, reporting = halves(41)
    assert sorted((*choosing, *reporting)) == list(range(41))
    with pytest.raises(DataError, match=f"give {FEWEST_QUESTIONS} or more"):
        halves(FEWEST_QUESTIONS - 1)


def test_the_order_and_budget_that_lose_no_answer_with_the_fewest_tokens_are_chosen() -> None:
    choice = choose(QUESTIONS[::2], RATIO, None)
    assert (choice.order, choice.budget_tokens, choice.earned) == (FUSED, BUDGETS[0], True)
    support = measure(QUESTIONS[1::2], choice, RATIO)
    assert (support.whole.value, support.packed.value, support.gain.value) == (1.0, 1.0, 0.0)
    other = measure(QUESTIONS[1::2], replace(choice, order=RETRIEVED), RATIO)
    assert other.packed.value < 1.0, "as retrieved the answer comes too late for so small a budget"


def test_a_given_budget_is_kept_even_when_it_loses_answers() -> None:
    choice = choose(QUESTIONS[::2], RATIO, 60)
    assert (choice.budget_tokens, choice.earned) == (60, False)
    assert measure(QUESTIONS[1::2], choice, RATIO).gain.value < 0


def test_packed_contexts_are_smaller_and_whole_ones_grow_item_by_item() -> None:
    support = measure(QUESTIONS[1::2], choose(QUESTIONS[::2], RATIO, None), RATIO)
    tokens = [point.tokens for point in support.whole_curve]
    assert tokens == sorted(tokens)
    assert len(tokens) == 24
    chosen = next(p for p in support.packed_curve if p.label == f"budget {support.choice.budget_tokens:,}")
    assert chosen.tokens < 0.5 * tokens[-1]


def test_what_was_not_retrieved_is_supported_by_neither() -> None:
    lost = [Asked(one.shortlist, "not there") for one in QUESTIONS]
    support = measure(lost, choose(lost, RATIO, None), RATIO)
    assert (support.whole.value, support.packed.value, support.words_kept.value) == (0.0, 0.0, 1.0)


def test_questions_that_are_needed_are_those_that_can_show_the_margin() -> None:
    assert [questions_needed(margin) for margin in (0.03, 0.1, 0.4, 1.0)] == [244, 72, 20, 20]
    enough = QUESTIONS[: questions_needed(0.2) // 2]
    choice = choose(enough, RATIO, None)
    assert measure(enough, choice, RATIO).gain.low >= -0.2
    assert measure(enough[:-1], choice, RATIO).gain.low < -0.2


def test_one_lost_answer_of_a_hundred_is_not_shown_to_be_less_than_three_in_a_hundred() -> None:
    short = asked("deadline number1 retries", 0, items=2)
    unseen = asked("deadline number1 retries", 1, items=2)  # two items, and room for the first alone
    choice = Choice(RETRIEVED, 45, earned=False)
    gain = measure([short] * 99 + [unseen], choice, RATIO).gain
    assert gain.value == pytest.approx(-0.01)
    assert gain.low == pytest.approx(-0.0545, abs=1e-4)
    assert gain.high < 0
