"""Rules of the generative models: names, places, sampling, lengths, thinking, caching."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

from orchestra_lib.rules import known
from orchestra_lib.rules.kinds import FLAG, NUMBER, TEXT, WHOLE
from orchestra_lib.rules.rule import Level, Rule, Values, in_document, may, needs, on_page, used

BEST, CHEAP = "gemini-4-argon", "gemini-3.8-flash"
"""What is proposed in the place of a model that cannot be: the best, and where flash was meant the cheap one."""

_MODELS = on_page("https://cloud.google.com/vertex-ai/generative-ai/docs/models")
_SAMPLING = on_page("https://github.com/livekit/agents/issues/7178")
_ENDS: Mapping[str, date] = {
    "gemini-2.5-pro": date(2026, 10, 20),
    "gemini-2.5-flash": date(2026, 10, 16),
}
_LOCATIONS: Mapping[str, tuple[str, ...]] = {
    "gemini-4-argon": ("global", "us", "eu"),
    "gemini-3.1-pro-preview": ("global",),
    "gemini-3-flash-preview": ("global",),
}
LEAST_WITH_THINKING = 32_768
"""The fewest output tokens that leave room for an answer after the thinking."""
_MOST_STREAMED, _MOST_AT_ONCE = 65_536, 32_768
_NEUTRAL_TEMPERATURE = 1.0


@dataclass(frozen=True)
class _Name:
    """``gemini-3.5-flash-lite``: version (3, 5), variant flash-lite."""

    version: tuple[int, int]
    variant: str


def _name(model: str) -> _Name | None:
    match = re.fullmatch(r"gemini-([0-9]{1,3})(?:\.([0-9]{1,3}))?-([a-z0-9-]+)", model)
    return _Name((int(match[1]), int(match[2] or 0)), match[3]) if match else None


def _plain(model: str) -> str:
    """``Gemini Pro Latest`` as an id would be written."""
    return re.sub(r"[\s_]+", "-", model.strip().lower())


def _is_alias(model: str) -> bool:
    return _plain(model).endswith("-latest") or _plain(model) == "latest"


def _is_id(model: str) -> bool:
    return bool(re.fullmatch(r"[a-z][a-z0-9.-]{1,62}", model))


def _retired(model: str) -> bool:
    name = _name(model)
    return model in _ENDS or (name is not None and name.version < (2, 5))


def nearest_model(asked: str) -> str:
    """The model that takes the place of one that cannot be: where flash was meant the cheap one, else the best."""
    return CHEAP if "flash" in asked.lower() else BEST


def _instead(v: Values) -> Mapping[str, Any]:
    return {"assistant.model": nearest_model(v.model)}


def takes_no_sampling(model: str) -> bool:
    """From 3.6 on, and 3.5-flash-lite. A model whose version is not in its name is taken for a new one."""
    name = _name(model)
    return name is None or name.version >= (3, 6) or (name.version == (3, 5) and name.variant.startswith("flash-lite"))


def thinks(model: str) -> bool:
    """Whether its thinking counts as output."""
    name = _name(model)
    return name is None or name.version >= (2, 5)


def prefers_neutral(model: str) -> bool:
    """Whether it takes a temperature, and Google advises to leave it at 1."""
    name = _name(model)
    return name is not None and (3, 0) <= name.version < (3, 6) and not takes_no_sampling(model)


def _has_thinking_level(model: str) -> bool:
    name = _name(model)
    return name is None or name.version >= (3, 5)


def _level_of(budget_tokens: int) -> str:
    steps = ((0, "MINIMAL"), (4_096, "LOW"), (16_384, "MEDIUM"))
    return next((level for most, level in steps if budget_tokens <= most), "HIGH")


def _sampling(field: str) -> Rule:
    return Rule(
        "R-AI-03",
        Level.FAIL,
        f"{field} is not sent to a model that takes no sampling parameters",
        {"value": used(f"assistant.{field}", NUMBER), "model": needs("assistant.model", TEXT)},
        lambda v: not takes_no_sampling(v.model),
        lambda v: (
            f"{field} {v.value:g} with {v.model}: sampling parameters are deprecated; from 3.6 on they are ignored, "
            "and later models are to refuse them; for steady answers use thinking_level, a response schema and tests"
        ),
        _SAMPLING,
        lambda _: {f"assistant.{field}": None},
    )


_MODEL = {"model": needs("assistant.model", TEXT)}

RULES = (
    Rule(
        "R-AI-01",
        Level.FAIL,
        "the model is named by its id and not by an alias",
        _MODEL,
        lambda v: not _is_alias(v.model) and _is_id(v.model),
        lambda v: (
            f"{v.model!r} is an alias or no id: Agent Platform does not know it, and it names another model tomorrow"
        ),
        on_page("https://pypi.org/project/google-genai/ 3.4.0", date(2026, 11, 16)),
        _instead,
    ),
    Rule(
        "R-AI-01",
        Level.FAIL,
        "the model is still served",
        _MODEL,
        lambda v: not _retired(v.model),
        lambda v: f"{v.model} ended on {_ENDS.get(v.model, 'a day before 2026-10-16')}",
        on_page("https://cloud.google.com/vertex-ai/generative-ai/docs/learn/model-versions"),
        _instead,
    ),
    Rule(
        "R-AI-01",
        Level.WARN,
        "the model is not a preview",
        _MODEL,
        lambda v: not v.model.endswith(("-preview", "-exp")),
        lambda v: f"{v.model} is a preview: no warranty, and it ends at short notice",
        _MODELS,
        _instead,
    ),
    Rule(
        "R-AI-02",
        Level.FAIL,
        "the model is served in this location",
        {"location": needs("assistant.location", TEXT), **_MODEL},
        lambda v: v.location in _LOCATIONS.get(v.model, (v.location,)),
        lambda v: f"{v.model} is not served in {v.location}: only in {', '.join(_LOCATIONS[v.model])}",
        _MODELS,
        lambda _: {"assistant.location": "global"},
    ),
    *(_sampling(field) for field in ("temperature", "top_p", "top_k")),
    Rule(
        "R-AI-03",
        Level.FAIL,
        "the temperature is within the range",
        {"value": used("assistant.temperature", NUMBER)},
        lambda v: known.temperature_range()[0] < v.value <= known.temperature_range()[1],
        lambda v: f"{v.value:g}: above {known.temperature_range()[0]:g} and up to {known.temperature_range()[1]:g}",
        in_document(known.AIPLATFORM, "GenerationConfig.temperature"),
        lambda _: {"assistant.temperature": None},
    ),
    Rule(
        "R-AI-03",
        Level.WARN,
        "models from 3.0 to 3.5 keep their temperature of 1",
        {"value": used("assistant.temperature", NUMBER), **_MODEL},
        lambda v: not prefers_neutral(v.model) or v.value == _NEUTRAL_TEMPERATURE,
        lambda v: f"{v.value:g} with {v.model}: low temperatures can make it loop, Google advises 1",
        _SAMPLING,
        lambda _: {"assistant.temperature": None},
    ),
    Rule(
        "R-AI-04",
        Level.WARN,
        "there is room for thinking in the output",
        {"tokens": needs("assistant.max_output_tokens", WHOLE), **_MODEL},
        lambda v: not thinks(v.model) or v.tokens >= LEAST_WITH_THINKING,
        lambda v: (
            f"{v.tokens} tokens: thinking tokens count as output and can use that up before the first word, which is "
            f"paid all the same; {LEAST_WITH_THINKING} are advised"
        ),
        on_page("https://cloud.google.com/vertex-ai/generative-ai/docs/thinking"),
        lambda _: {"assistant.max_output_tokens": LEAST_WITH_THINKING},
    ),
    Rule(
        "R-AI-04",
        Level.FAIL,
        "the output is not longer than one answer may be",
        {"tokens": needs("assistant.max_output_tokens", WHOLE), "streaming": may("assistant.streaming", FLAG)},
        lambda v: 1 <= v.tokens <= (_MOST_AT_ONCE if v.streaming is False else _MOST_STREAMED),
        lambda v: f"{v.tokens} tokens: 1 to {_MOST_STREAMED} streamed, {_MOST_AT_ONCE} in one piece",
        _MODELS,
        lambda _: {"assistant.max_output_tokens": LEAST_WITH_THINKING},
    ),
    Rule(
        "R-AI-05",
        Level.FAIL,
        "from 3.5 on thinking is asked for by level",
        {"budget": used("assistant.thinking_budget_tokens", WHOLE), **_MODEL},
        lambda v: not _has_thinking_level(v.model),
        lambda v: f"a thinking budget of {v.budget} tokens with {v.model}: it takes a level instead",
        on_page("https://pypi.org/project/google-genai/ 3.4.0", date(2026, 11, 16)),
        lambda v: {"assistant.thinking_budget_tokens": None, "assistant.thinking_level": _level_of(v.budget)},
    ),
    Rule(
        "R-AI-05",
        Level.FAIL,
        "there is such a thinking level",
        {"level": used("assistant.thinking_level", TEXT)},
        lambda v: v.level in known.thinking_levels(),
        lambda v: f"{v.level}: there are {', '.join(known.thinking_levels())}",
        in_document(known.AIPLATFORM, "ThinkingConfig.thinkingLevel"),
        lambda _: {"assistant.thinking_level": "MEDIUM"},
    ),
    Rule(
        "R-AI-06",
        Level.FAIL,
        "no explicit cache where only the implicit one works",
        {"explicit": needs("assistant.explicit_caching", FLAG), **_MODEL},
        lambda v: not v.explicit or "argon" not in v.model,
        lambda v: f"{v.model} takes no explicit cache: prefixes of 6,144 tokens and more are cached by themselves",
        on_page("https://cloud.google.com/vertex-ai/generative-ai/docs/context-cache/context-cache-overview"),
        lambda _: {"assistant.explicit_caching": False},
    ),
    Rule(
        "R-AI-07",
        Level.FAIL,
        "a request does not end with the model's turn",
        {"turn": needs("assistant.last_turn", TEXT), **_MODEL},
        lambda v: v.turn != "model" or not takes_no_sampling(v.model),
        lambda v: f"requests to {v.model} end with a turn of the {v.turn}: from 3.6 on that is refused",
        _MODELS,
        lambda _: {"assistant.last_turn": "user"},
    ),
)
