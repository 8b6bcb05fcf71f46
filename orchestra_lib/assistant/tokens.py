"""Counting tokens: by the service, and for the thousands of small decisions of packing by a ratio learnt from it.

google-genai's own tokenizer downloads a vocabulary, and knows none of the models that are served today.
https://github.com/googleapis/python-genai/blob/main/google/genai/_local_tokenizer_loader.py
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from google import genai
from google.genai import types

from orchestra_lib.assistant.calls import ask
from orchestra_lib.errors import DataError

_ROOM = 0.03  # left between the densest text that was counted and what a budget is reckoned by


@dataclass(frozen=True)
class TokenRatio:
    """How many characters a token has in the densest of the texts that were counted, and a little less.

    What is packed by it has hardly ever more tokens than it says, if the texts were of its kind.

    ``texts`` is how many were counted, ``middle`` the ratio over all of them together.
    """

    characters_per_token: float
    middle: float
    texts: int

    def tokens(self, text: str) -> int:
        """About how many tokens a text has."""
        return math.ceil(len(text) / self.characters_per_token)


class TokenCounter:
    """Counts as a model's service does, free of charge."""

    def __init__(self, client: genai.Client, model: str) -> None:
        self._client, self.model = client, model

    def count(self, text: str, system: str | None = None) -> int:
        """The tokens of a request's text, with the system instruction's. Raises CloudRefused, TargetUnreachable."""
        # Agent Platform counts the system instruction with the rest; the client sends it only in a configuration.
        config = types.CountTokensConfig(system_instruction=system) if system else None
        answer = ask(
            f"count tokens with {self.model}",
            lambda: self._client.models.count_tokens(model=self.model, contents=text, config=config),
        )
        if answer.total_tokens is None:
            raise DataError(f"{self.model} was asked to count tokens and answered without a number")
        return answer.total_tokens

    def ratio(self, texts: Sequence[str]) -> TokenRatio:
        """The ratio learnt from these texts, one request each. Raises DataError without a text that has a token."""
        counted = [(len(text), self.count(text)) for text in texts if text.strip()]
        known = np.asarray([pair for pair in counted if pair[1]], dtype=np.float64)
        if known.size == 0:
            raise DataError("no text to learn from how many characters a token has: the memory is empty")
        densest = float((known[:, 0] / known[:, 1]).min())
        return TokenRatio(densest * (1 - _ROOM), float(known[:, 0].sum() / known[:, 1].sum()), len(known))
