"""What packing costs and keeps: tokens a request, and whether the item that holds the answer is still in it.

Half of the questions choose order and budget, the other half report: what was chosen never judges itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orchestra_lib.assistant.context import ORDERS, Packed, Shortlist, pack, section, whole, words_kept
from orchestra_lib.assistant.tokens import TokenRatio
from orchestra_lib.bench.statistics import CONFIDENCE, Estimate, mean, proportion
from orchestra_lib.errors import DataError

BUDGETS = (250, 500, 750, 1_000, 1_250, 1_500, 1_750, 2_000, 2_500, 3_000, 4_000, 6_000, 8_000)
"""Tokens that are tried."""

FEWEST_QUESTIONS = 20
"""Below them neither half says anything."""

_WORDS_KEPT = 0.9  # of the question's words that the answering item holds: an item that is only named supports nothing


@dataclass(frozen=True)
class Asked:
    """A question's shortlist and the id of the item that answers it."""

    shortlist: Shortlist
    answer_id: str


@dataclass(frozen=True)
class Choice:
    """An order and a budget in tokens. ``earned`` says whether the questions chose the budget, or the settings did."""

    order: str
    budget_tokens: int
    earned: bool


@dataclass(frozen=True)
class Point:
    """A way of giving context: mean tokens a request by the ratio, and the share of questions whose answer is in it."""

    label: str
    tokens: float
    supported: float


@dataclass(frozen=True)
class Support:
    """What the reporting half says of a choice.

    ``gain`` is packed minus whole: the share of the answers that packing loses, below zero, since it adds none.
    ``words_kept`` of the question's words in the answering item, over the questions whose answer is in; the curves are
    over all budgets, and over the first 1, 2, … items whole.
    """

    choice: Choice
    questions: int
    whole: Estimate
    packed: Estimate
    gain: Estimate
    words_kept: Estimate
    whole_curve: tuple[Point, ...]
    packed_curve: tuple[Point, ...]


def questions_needed(margin: float) -> int:
    """How many questions it takes to show that packing loses fewer than ``margin`` of the answers, if it loses none.

    With n of them and no loss at all, the exact interval still reaches to a loss of 1 - 0.025^(1/n), and only half of
    them report.
    """
    if margin >= 1:
        return FEWEST_QUESTIONS
    return max(FEWEST_QUESTIONS, 2 * math.ceil(math.log((1 - CONFIDENCE) / 2) / math.log1p(-margin)))


def halves(count: int) -> tuple[list[int], list[int]]:
    """The places of the questions that choose, and of those that report. Raises DataError for too few."""
    if count < FEWEST_QUESTIONS:
        raise DataError(
            f"{count} questions cannot both choose a budget and judge it: give {FEWEST_QUESTIONS} or more, with the "
            "id of the item that answers each"
        )
    return list(range(0, count, 2)), list(range(1, count, 2))


def choose(asked: Sequence[Asked], ratio: TokenRatio, budget_tokens: int | None) -> Choice:
    """The order and the smallest budget that lose no answer that the whole items hold; a given budget keeps its own.

    When no budget is enough, the largest: the report will say what it loses.
    """
    hits = _whole_hits(asked)
    budgets = BUDGETS if budget_tokens is None else (budget_tokens,)
    found: list[tuple[int, float, str]] = []
    for order in ORDERS:
        for budget in budgets:
            packed = [pack(one.shortlist, order, budget, ratio) for one in asked]
            lost = int((hits & ~_hits(asked, packed)).sum())
            if budget_tokens is not None or (lost == 0 and _kept(asked, packed).mean() >= _WORDS_KEPT):
                found.append((budget, lost - float(_kept(asked, packed).mean()), order))
                break
    if not found:
        return Choice(ORDERS[0], BUDGETS[-1], earned=False)
    budget, _, order = min(found)
    return Choice(order, budget, earned=budget_tokens is None)


def measure(asked: Sequence[Asked], choice: Choice, ratio: TokenRatio) -> Support:
    """What a choice keeps, on questions that did not make it."""
    packed = [pack(one.shortlist, choice.order, choice.budget_tokens, ratio) for one in asked]
    before, after = _whole_hits(asked), _hits(asked, packed)
    lost = proportion(int((before & ~after).sum()), len(asked))
    return Support(
        choice,
        len(asked),
        mean(before.astype(np.float64)),
        mean(after.astype(np.float64)),
        Estimate(0.0 - lost.value, -lost.high, 0.0 - lost.low, lost.samples),
        mean(_kept(asked, packed)),
        _whole_curve(asked, ratio),
        tuple(_packed_point(asked, choice.order, budget, ratio) for budget in BUDGETS),
    )


def _whole_curve(asked: Sequence[Asked], ratio: TokenRatio) -> tuple[Point, ...]:
    most = max(len(one.shortlist.retrieved) for one in asked)
    return tuple(
        Point(
            f"{count} whole items",
            float(np.mean([ratio.tokens(whole(one.shortlist.retrieved[:count]).text) for one in asked])),
            float(np.mean([one.answer_id in {m.id for m in one.shortlist.retrieved[:count]} for one in asked])),
        )
        for count in range(1, most + 1)
    )


def _packed_point(asked: Sequence[Asked], order: str, budget: int, ratio: TokenRatio) -> Point:
    packed = [pack(one.shortlist, order, budget, ratio) for one in asked]
    tokens = float(np.mean([ratio.tokens(one.text) for one in packed]))
    return Point(f"budget {budget:,}", tokens, float(_hits(asked, packed).mean()))


def _whole_hits(asked: Sequence[Asked]) -> NDArray[np.bool_]:
    return np.asarray([one.answer_id in {memory.id for memory in one.shortlist.retrieved} for one in asked])


def _hits(asked: Sequence[Asked], packed: Sequence[Packed]) -> NDArray[np.bool_]:
    return np.asarray([one.answer_id in context.ids for one, context in zip(asked, packed, strict=True)])


def _kept(asked: Sequence[Asked], packed: Sequence[Packed]) -> NDArray[np.float64]:
    """For each question whose answer is in, the share of its words in the answering item that were kept; 1 for none."""
    kept = [1.0]
    for one, context in zip(asked, packed, strict=True):
        number = next((citation.number for citation in context.citations if one.answer_id in citation.ids), None)
        if number is not None:
            answering = next(memory for memory in one.shortlist.retrieved if memory.id == one.answer_id)
            kept.append(words_kept(one.shortlist.question, answering, section(context, number)))
    return np.asarray(kept[1:] or kept)
