"""Asking the model: a request with its context, what came back, and how steady answers to the same request are."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from google import genai
from google.genai import types

from orchestra_lib.assistant.calls import ask
from orchestra_lib.assistant.context import Packed
from orchestra_lib.assistant.prompt import Prompt
from orchestra_lib.errors import DataError
from orchestra_lib.settings.assistant import Assistant

_CITATION = re.compile(r"\[(\d+)\]")


@dataclass(frozen=True)
class Request:
    """What is sent: the system instruction, the user's turn, and the numbers that the answer may cite."""

    system: str
    user: str
    numbers: frozenset[int]


@dataclass(frozen=True)
class Answer:
    """What came back: ``model`` as the service says it, ``ended`` why it stopped, tokens as the service counts them.

    ``cited`` are the numbers in it, ``invented`` those of them that the context did not have.
    """

    text: str
    model: str
    ended: str
    input_tokens: int
    output_tokens: int
    thinking_tokens: int
    milliseconds: float
    cited: frozenset[int]
    invented: frozenset[int]

    @property
    def is_whole(self) -> bool:
        """Whether the model came to its end by itself and said something."""
        return self.ended == types.FinishReason.STOP.value and bool(self.text.strip())


@dataclass(frozen=True)
class Steadiness:
    """Repeats of one request: how many, how many different answers, and the share of the most frequent one."""

    repeats: int
    different: int
    most_frequent: float


def request(prompt: Prompt, context: Packed, question: str) -> Request:
    """The request that asks a question with a context."""
    numbers = frozenset(citation.number for citation in context.citations)
    return Request(prompt.system, prompt.fill(context.text, question), numbers)


def configuration(settings: Assistant, system: str) -> types.GenerateContentConfig:
    """What is sent beside the question. A setting that is None is not sent at all."""
    level = settings.thinking_level
    return types.GenerateContentConfig(
        system_instruction=system,
        temperature=settings.temperature,
        max_output_tokens=settings.max_output_tokens,
        thinking_config=types.ThinkingConfig(thinking_level=types.ThinkingLevel(level)) if level else None,
    )


def generate(client: genai.Client, settings: Assistant, wanted: Request) -> Answer:
    """Ask once. Raises CloudRefused, TargetUnreachable, and DataError for an answer without a candidate."""
    began = time.perf_counter()
    answer = ask(
        f"generate with {settings.model}",
        lambda: client.models.generate_content(
            model=settings.model, contents=wanted.user, config=configuration(settings, wanted.system)
        ),
    )
    elapsed_ms = (time.perf_counter() - began) * 1e3
    if not answer.candidates:
        blocked = answer.prompt_feedback.block_reason if answer.prompt_feedback else None
        raise DataError(f"{settings.model} gave no answer{f': the request was blocked, {blocked}' if blocked else ''}")
    candidate, usage = answer.candidates[0], answer.usage_metadata or types.GenerateContentResponseUsageMetadata()
    parts = (candidate.content.parts or []) if candidate.content else []
    text = "".join(part.text for part in parts if part.text and not part.thought)
    cited = frozenset(map(int, _CITATION.findall(text)))
    return Answer(
        text,
        answer.model_version or "",
        candidate.finish_reason.value if candidate.finish_reason else "",
        usage.prompt_token_count or 0,
        usage.candidates_token_count or 0,
        usage.thoughts_token_count or 0,
        elapsed_ms,
        cited,
        cited - wanted.numbers,
    )


def repeat(
    ask_once: Callable[[], Answer], repeats: int, progress: Callable[[int, int], None] | None = None
) -> tuple[tuple[Answer, ...], Steadiness]:
    """Ask the same several times, one after the other."""
    answers: list[Answer] = []
    for _ in range(repeats):
        answers.append(ask_once())
        if progress:
            progress(len(answers), repeats)
    return tuple(answers), steadiness(answers)


def steadiness(answers: Sequence[Answer]) -> Steadiness:
    """How alike the texts of answers are: white space at their ends does not count. Raises ValueError for none."""
    if not answers:
        raise ValueError("how steady no answers are cannot be said")
    counted = Counter(answer.text.strip() for answer in answers)
    return Steadiness(len(answers), len(counted), counted.most_common(1)[0][1] / len(answers))
