"""What the measurements of runbook 04 amount to, as evidence and tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orchestra_lib.assistant.embeddings import LONGEST_DEVIATION, Embedded
from orchestra_lib.assistant.generation import Answer, Steadiness
from orchestra_lib.assistant.models import Meaning
from orchestra_lib.assistant.price import RequestPrice
from orchestra_lib.assistant.retrieval import Retrieved
from orchestra_lib.assistant.support import Support
from orchestra_lib.assistant.tokens import TokenRatio
from orchestra_lib.bench.statistics import AMOUNTS, Estimate, mean, quantile
from orchestra_lib.display import Table
from orchestra_lib.evidence import Bound, Evidence, Source, yes_or_no


@dataclass(frozen=True)
class CountedRequests:
    """Whole requests as the service counts their tokens: the same questions with items as they are, and packed.

    Both float64 (n,); characters are ours.
    """

    whole_tokens: NDArray[np.float64]
    packed_tokens: NDArray[np.float64]
    whole_characters: NDArray[np.float64]
    packed_characters: NDArray[np.float64]
    overhead_tokens: int

    @property
    def share(self) -> Estimate:
        """Packed tokens for each token of the items as they are."""
        return mean(self.packed_tokens / self.whole_tokens, bounds=AMOUNTS)


def meanings_table(meanings: Sequence[Meaning]) -> Table:
    """What the strategy asks of the model, what is sent, and what the model does with it."""
    rows = [
        (one.setting, _told(one.asked, "not spoken of"), _told(one.sent, "not sent"), one.effect) for one in meanings
    ]
    return Table(
        ("setting", "the strategy asks", "we send", "what the model does with it"), rows, "The model's settings"
    )


def retrieval_evidence(
    retrieved: Retrieved, packing_ms: NDArray[np.float64], target_ms: float | None, where: str
) -> tuple[Evidence, ...]:
    """How long reading and packing take, each question once, one at a time; a reading where nothing has to be met."""
    both = quantile(retrieved.milliseconds + packing_ms, 0.95)
    reading, packing = quantile(retrieved.milliseconds, 0.95), quantile(packing_ms, 0.95)
    load = f"{both.samples} questions, one client, one at a time, warm; {where}"
    return (
        Evidence(
            "p95 of reading and packing a context, upper end of its interval",
            Source.MEASURED,
            both.high,
            "ms",
            None if target_ms is None else Bound("<", target_ms),
            note=f"{both} ms, {load}",
        ),
        Evidence(
            "p95 of reading the candidates", Source.MEASURED, reading.value, "ms", note=f"{reading} ms, {retrieved.way}"
        ),
        Evidence("p95 of ranking and packing", Source.MEASURED, packing.value, "ms", note=f"{packing} ms"),
    )


def support_evidence(support: Support, margin: float, candidates: int) -> tuple[Evidence, ...]:
    """What the packed context keeps of the answers, on the questions that did not choose it."""
    choice = support.choice
    how = "chosen by the other half of the questions" if choice.earned else "as the settings have it"
    said = f"{support.questions} questions that chose nothing"
    return (
        Evidence(
            "budget of the context", Source.MEASURED, choice.budget_tokens, "tokens", note=f"{choice.order}; {how}"
        ),
        Evidence(
            f"questions whose answer is among {candidates} items as they are",
            Source.MEASURED,
            support.whole.value,
            note=f"{support.whole}, {said}",
        ),
        Evidence(
            "questions whose answer is in the packed context",
            Source.MEASURED,
            support.packed.value,
            note=f"{support.packed}, {said}",
        ),
        Evidence(
            "answers that packing gains or loses, lower end of the interval",
            Source.MEASURED,
            support.gain.low,
            "",
            Bound(">=", -margin),
            note=f"{support.gain}, as a ratio of all questions, each against itself",
        ),
        Evidence(
            "words of the question kept in the answering item",
            Source.MEASURED,
            support.words_kept.value,
            note=f"{support.words_kept}, of those that the item holds",
        ),
    )


def token_evidence(
    counted: CountedRequests, budget_tokens: int, ratio: TokenRatio, counter: str, source: Source
) -> tuple[Evidence, ...]:
    """Tokens of a request before and after packing, by the service, and its characters, by us."""
    before, after = (mean(tokens, bounds=AMOUNTS) for tokens in (counted.whole_tokens, counted.packed_tokens))
    share, characters = counted.share, mean(counted.packed_characters / counted.whole_characters, bounds=AMOUNTS)
    by = f"countTokens of {counter}, {before.samples} requests of {counted.overhead_tokens:,} tokens without context"
    return (
        Evidence(
            "tokens of a request with the items as they are", source, before.value, "tokens", note=f"{before}, {by}"
        ),
        Evidence("tokens of a request with the packed context", source, after.value, "tokens", note=f"{after}, {by}"),
        Evidence(
            "packed contexts above their budget",
            source,
            int((counted.packed_tokens - counted.overhead_tokens > budget_tokens).sum()),
            "requests",
            Bound("==", 0),
        ),
        Evidence(
            "tokens after packing for each before, upper end of the interval",
            source,
            share.high,
            "",
            Bound("<", 1.0),
            note=f"{share}, the same questions",
        ),
        Evidence(
            "characters after packing for each before, upper end of the interval",
            Source.MEASURED,
            characters.high,
            "",
            Bound("<", 1.0),
            note=f"{characters}, the same requests",
        ),
        Evidence(
            "characters for each token",
            source,
            ratio.middle,
            note=f"{ratio.characters_per_token:.2f} is what budgets go by; {ratio.texts} contexts counted",
        ),
    )


def embedding_evidence(
    first: Embedded, again: Embedded, model: str, dimension: int, source: Source, whole_usd: str
) -> tuple[Evidence, ...]:
    """What embedding a sample through Google's model took, and that asking again costs nothing."""
    texts = len(first.vectors)
    given = f"{texts} texts, {first.cached} of them from the cache; {first.requests} requests"
    raw = f"raw lengths {first.lengths.min():.3f} to {first.lengths.max():.3f}" if first.lengths.size else "all cached"
    return (
        Evidence(
            "numbers of an embedding",
            source,
            int(first.vectors.shape[1]),
            "",
            Bound("==", dimension),
            note=f"{model}; {given}",
        ),
        Evidence(
            "largest distance of an embedding's length from 1",
            source,
            first.deviation,
            "",
            Bound("<=", LONGEST_DEVIATION),
            note=f"{raw}, made unit length here",
        ),
        Evidence(
            "requests for the same texts again",
            source,
            again.requests,
            "requests",
            Bound("==", 0),
            note="the cache has them",
        ),
        Evidence("tokens embedded", source, first.tokens, "tokens", note=f"{first.seconds:.1f} s; {whole_usd}"),
        Evidence("texts that were read in part only", source, first.truncated, "texts"),
    )


def answer_evidence(
    answers: Sequence[Answer], repeated: Sequence[Answer], steady: Steadiness, source: Source
) -> tuple[Evidence, ...]:
    """What the model answered: whole, citing only what it was given, how steadily and how fast."""
    whole = sum(answer.is_whole for answer in answers)
    invented = sum(bool(answer.invented) for answer in answers)
    uncited = sum(not answer.cited for answer in answers)
    middle = quantile([answer.milliseconds for answer in (*answers, *repeated)], 0.5)
    models = ", ".join(sorted({answer.model for answer in answers}))
    thinking = sum(answer.thinking_tokens for answer in answers)
    return (
        Evidence("answers that came to their end", source, whole, "answers", Bound("==", len(answers)), note=models),
        Evidence("answers that cite what they were not given", source, invented, "answers", Bound("==", 0)),
        Evidence("answers without a citation", source, uncited, "answers"),
        Evidence(
            "different answers to the same request",
            source,
            steady.different,
            "answers",
            note=f"of {steady.repeats}; the most frequent one came {steady.most_frequent:.0%} of the time",
        ),
        Evidence("median time of an answer", source, middle.value, "ms", note=f"{middle} ms, one at a time"),
        Evidence("tokens of thinking", source, thinking, "tokens", note=f"in {len(answers)} answers, paid as output"),
    )


def price_evidence(
    counted: CountedRequests, output_tokens: int, prices: RequestPrice | None, model: str, source: Source
) -> tuple[Evidence, ...]:
    """What a request costs before and after packing. Without a price the row is MISSING, and so is the verdict."""
    if prices is None:
        note = f"the price table has no row for {model}: add one to prices/list_prices.yaml"
        return (Evidence("cost of a request", Source.MISSING, None, "USD", note=note),)
    before = prices.of(float(counted.whole_tokens.mean()), output_tokens)
    after = prices.of(float(counted.packed_tokens.mean()), output_tokens)
    at = (
        f"{model} on {prices.on}: {prices.input_usd:g} and {prices.output_usd:g} USD for a million tokens in and out "
        f"({prices.confidence}), {output_tokens:,} tokens of answer assumed"
    )
    return (
        Evidence("cost of a request with the items as they are", source, before, "USD", note=at),
        Evidence("cost of a request with the packed context", source, after, "USD", note=at),
        Evidence("saved by packing", source, 100 * (before - after) / before, "%", note="of the whole request's cost"),
    )


def steady_packing(digests: Sequence[str]) -> Evidence:
    """Whether packing the same question again gives the same text."""
    return yes_or_no(
        "the same question gets the same context",
        Source.MEASURED,
        len(set(digests)) == 1,
        note=f"{len(digests)} times read and packed anew, {len(set(digests))} different texts",
    )


def _told(value: object, nothing: str) -> str:
    return nothing if value is None else f"{value:,}" if isinstance(value, int) else str(value)
