"""Which model answers: the one that was asked for, resolved to one that exists, and what it does with each setting."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from google import genai

from orchestra_lib.assistant.calls import ask
from orchestra_lib.cloud.refusals import CloudRefused
from orchestra_lib.rules import known
from orchestra_lib.rules.models import LEAST_WITH_THINKING, nearest_model, prefers_neutral, takes_no_sampling, thinks
from orchestra_lib.settings.assistant import Assistant
from orchestra_lib.settings.document import value_at

_DEARER_ABOVE_TOKENS = 200_000  # https://ai.google.dev/gemini-api/docs/pricing, of 3.1-pro: the price doubles


@dataclass(frozen=True)
class Resolution:
    """A model that was asked for, the one that is there, and how that was found out."""

    asked: str
    model: str
    location: str
    exists: bool
    how: str


@dataclass(frozen=True)
class Meaning:
    """One setting: what the strategy asks, what is sent, and what the model does with it. None is sent as nothing."""

    setting: str
    asked: object
    sent: object
    effect: str


def resolve(client: genai.Client, asked: str, settings: Assistant) -> Resolution:
    """Whether the settings' model answers in its location, asked of the service by counting tokens, which is free.

    ``asked`` is what the strategy wants, kept beside it. Raises CloudRefused for a refusal that says something else.
    """
    model, location = settings.model, settings.location
    nearest = nearest_model(asked)
    because = f"{asked!r} names no model" if asked != model else "asked for by its id"
    if model == nearest and asked != model:
        because += f"; {nearest} is the nearest that is served"
    try:
        ask(f"count tokens with {model}", lambda: client.models.count_tokens(model=model, contents="ping"))
    except CloudRefused as error:
        if not error.is_absence:
            raise
        return Resolution(asked, model, location, False, str(error))
    return Resolution(asked, model, location, True, f"{because}; it counts tokens in {location}")


def meanings(settings: Assistant, strategy: Mapping[str, Any]) -> tuple[Meaning, ...]:
    """What the settings' model does with each of the strategy's wishes; ``strategy`` is the file of its own words."""

    def wish(name: str) -> object:
        return value_at(strategy, f"assistant.{name}")

    return (
        Meaning("temperature", wish("temperature"), settings.temperature, _of_temperature(settings)),
        Meaning("thinking level", None, settings.thinking_level, _of_thinking(settings)),
        Meaning("max output tokens", wish("max_output_tokens"), settings.max_output_tokens, _of_output(settings)),
        Meaning("context window", wish("context_window"), None, _of_window(settings)),
    )


def _of_temperature(settings: Assistant) -> str:
    model = settings.model
    if takes_no_sampling(model):
        ignored = "ignores it today, and later models are to refuse it"
        instead = "a steady answer comes from little thinking, a fixed prompt and tests"
        return f"{model} {ignored}: not sent; {instead}" if settings.temperature is None else f"{model} {ignored}"
    if prefers_neutral(model):
        return f"{model} takes it, and Google advises 1: low values can make it repeat itself"
    least, most = known.temperature_range()
    return f"{model} takes it, above {least:g} up to {most:g}; low values make answers steadier, not equal"


def _of_thinking(settings: Assistant) -> str:
    if not thinks(settings.model):
        return f"{settings.model} does not think"
    level = settings.thinking_level or "its own"
    return f"level {level}: how much is thought before the first word, which is paid for as output"


def _of_output(settings: Assistant) -> str:
    if not thinks(settings.model):
        return "the longest answer"
    told = "thinking counts too: 8,192 can be used up before the first word, and are paid all the same"
    enough = settings.max_output_tokens >= LEAST_WITH_THINKING
    return f"{told}; a limit, not a price" if enough else f"{told}; {LEAST_WITH_THINKING:,} are advised"


def _of_window(settings: Assistant) -> str:
    return (
        f"input, thinking and output share {settings.context_window_tokens:,} tokens; each is paid for in each request "
        f"(with some models twice above {_DEARER_ABOVE_TOKENS:,}), so the memory is packed into a budget"
    )
