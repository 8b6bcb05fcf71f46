"""What answers in the place of Google's models: arithmetic over words. Where an answer says who made it, it says so.

It has the shapes, limits and refusals of the real ones, as far as they are known, and none of their quality: an answer
repeats the line of the request that is nearest to the question, an embedding hashes words. The same request gets the
same answer. Its token counts are its own: pieces of up to six letters, about as many as Gemini is said to count.
https://ai.google.dev/gemini-api/docs/tokens
"""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

NAME = "orchestra-local-stand-in/1"

_PIECES = re.compile(r"[^\W\d_]{1,6}|\d{1,3}|[^\w\s]|_")
_WORDS = re.compile(r"[^\W\d_]{2,}|\d+")
_CITATION = re.compile(r"\[(\d+)\]")
_WHOLE_DIMENSION = 3_072
_SHORTENED_LENGTH = 0.7  # of a vector that is cut to fewer numbers: it has to be made unit length again


@dataclass(frozen=True)
class PublisherModel:
    """One of Google's models: where it is served (empty: everywhere), how far along it is, what it takes and gives."""

    id: str
    stage: str
    input_tokens: int
    output_tokens: int = 0
    locations: tuple[str, ...] = ()
    dimension: int = 0
    texts_per_request: int = 0

    @property
    def embeds(self) -> bool:
        """Whether it gives embeddings, and no text."""
        return self.dimension > 0


_MILLION, _LONGEST = 1_048_576, 65_536
_ROWS = (
    # https://cloud.google.com/vertex-ai/generative-ai/docs/models
    PublisherModel("gemini-4-argon", "GA", _MILLION, _LONGEST, ("global", "us", "eu")),
    PublisherModel("gemini-3.8-flash", "GA", _MILLION, _LONGEST),
    PublisherModel("gemini-3.6-flash", "GA", _MILLION, _LONGEST),
    PublisherModel("gemini-3.1-pro-preview", "PUBLIC_PREVIEW", _MILLION, _LONGEST, ("global",)),
    # https://cloud.google.com/vertex-ai/generative-ai/docs/embeddings/get-text-embeddings
    PublisherModel("gemini-embedding-001", "GA", 2_048, dimension=_WHOLE_DIMENSION, texts_per_request=1),
    PublisherModel("gemini-embedding-2", "GA", 8_192, dimension=_WHOLE_DIMENSION, texts_per_request=1),
    PublisherModel("text-embedding-005", "GA", 2_048, dimension=768, texts_per_request=250),
)
MODELS: Mapping[str, PublisherModel] = {row.id: row for row in _ROWS}
"""The models that there are, by id."""


def tokens_of(text: str) -> int:
    """How many tokens a text has, by this stand-in's own count."""
    return sum(1 for _ in _PIECES.finditer(text))


def cut(text: str, tokens: int) -> tuple[str, bool]:
    """The beginning of a text that has so many tokens, and whether anything was cut off."""
    for number, piece in enumerate(_PIECES.finditer(text)):
        if number == tokens:
            return text[: piece.start()].rstrip(), True
    return text, False


def answer_to(request: str) -> str:
    """The line of a request that shares most words with its last one, with the last ``[number]`` that stands before it.

    A question stands at the end of a request, what it can be answered from before it.
    """
    *lines, question = [line.strip() for line in request.strip().splitlines() if line.strip()] or [""]
    asked = _words(question)
    best, best_share, cited, best_cited = "", 0.0, "", ""
    for line in lines:
        if found := _CITATION.findall(line):
            cited = f" [{found[-1]}]"
        words = _words(line)
        share = sum((words & asked).values()) / math.sqrt(1 + words.total())
        if share > best_share:
            best, best_share, best_cited = line, share, cited
    told = f"{best}{best_cited}" if best else "nothing in the request is near the question"
    return f"No model was asked; the nearest line of the request is: {told}"


def embedding(text: str, dimension: int) -> list[float]:
    """Signed counts of hashed words and their parts; of length one only in the model's own number of dimensions."""
    counted = Counter[str]()
    for word, times in _words(text).items():
        counted[word] += 2 * times
        padded = f"^{word}$"
        counted.update({f"#{padded[start : start + 4]}": times for start in range(max(1, len(padded) - 3))})
    vector = [0.0] * dimension
    for feature, times in counted.items():
        digest = int.from_bytes(hashlib.blake2b(feature.encode(), digest_size=8).digest(), "big")
        vector[(digest >> 1) % dimension] += math.copysign(1 + math.log(times), 1 if digest & 1 else -1)
    length = math.sqrt(sum(value * value for value in vector)) or 1.0
    wanted = 1.0 if dimension >= _WHOLE_DIMENSION else _SHORTENED_LENGTH
    return [value * wanted / length for value in vector]


def _words(text: str) -> Counter[str]:
    return Counter(word.lower() for word in _WORDS.findall(text))
