"""What of the memory goes into a request: retrieved items ranked, cut to passages, packed into a budget, numbered.

Pure functions over texts. The same items and question give the same text on every machine.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from orchestra_lib.assistant.tokens import TokenRatio

_WORD = re.compile(r"[^\W\d_]{2,}|\d+")
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")
_LONGEST_PASSAGE = 320  # characters: about what explains one thing; longer paragraphs are cut at their lines
_LONGEST_HEAD = 160
_RANKS_SMOOTHED = 60  # k of reciprocal rank fusion (Cormack, Clarke and Büttcher, SIGIR 2009)
_SATURATION, _LENGTH_WEIGHT = 1.2, 0.75  # k1 and b of BM25, as usual
_PASSAGE_SMOOTHED = 8  # words: or a passage of one right word would beat all others


@dataclass(frozen=True)
class Memory:
    """One retrieved item."""

    id: str
    item_type: str
    written: str
    content: str


@dataclass(frozen=True)
class Citation:
    """A number in the text, and the items that it stands for: more than one where their contents are the same."""

    number: int
    ids: tuple[str, ...]


@dataclass(frozen=True)
class Packed:
    """A context: its text, what its numbers stand for, and how many items found no room in it."""

    text: str
    citations: tuple[Citation, ...]
    left_out: int

    @property
    def ids(self) -> frozenset[str]:
        """Every item that is in it."""
        return frozenset(id_ for citation in self.citations for id_ in citation.ids)


@dataclass(frozen=True)
class Item:
    """A retrieved item read once: whom it stands for, its passages, and how near each is to the question."""

    memory: Memory
    ids: tuple[str, ...]
    passages: tuple[str, ...]
    nearness: tuple[float, ...]

    @property
    def nearest(self) -> int:
        """The number of the passage that is nearest to the question."""
        return max(range(len(self.passages)), key=lambda number: (self.nearness[number], -number))


@dataclass(frozen=True)
class Shortlist:
    """A question with what was retrieved for it; ``orders`` has the places of the items for each of :data:`ORDERS`."""

    question: str
    retrieved: tuple[Memory, ...]
    items: tuple[Item, ...]
    orders: Mapping[str, tuple[int, ...]]


RETRIEVED, FUSED = "as retrieved", "fused with BM25"
ORDERS = (RETRIEVED, FUSED)
"""How the items may be ranked. Which is better depends on the embedding, so it is measured."""


def shortlist(question: str, memories: Sequence[Memory]) -> Shortlist:
    """Read the retrieved items once. Those whose contents are the same become one."""
    asked = frozenset(_words(question))
    distinct: dict[str, list[Memory]] = {}
    for memory in memories:
        distinct.setdefault(" ".join(memory.content.split()), []).append(memory)
    groups = list(distinct.values())
    passages = [_passages(group[0].content) for group in groups]
    counted = [[_words(passage) for passage in of_one] for of_one in passages]
    documents = [sum(of_one, Counter[str]()) for of_one in counted]
    rarity = _rarity(documents)
    items = tuple(
        Item(
            group[0],
            tuple(memory.id for memory in group),
            tuple(of_one),
            tuple(_nearness(asked, words, rarity) for words in of_words),
        )
        for group, of_one, of_words in zip(groups, passages, counted, strict=True)
    )
    as_retrieved = tuple(range(len(items)))
    orders = {RETRIEVED: as_retrieved, FUSED: _fused(_bm25(asked, documents, rarity))}
    return Shortlist(question, tuple(memories), items, orders)


def whole(memories: Sequence[Memory]) -> Packed:
    """All items as they are, in the order in which they were retrieved: what packing is measured against."""
    citations = tuple(Citation(number, (memory.id,)) for number, memory in enumerate(memories, start=1))
    text = "\n\n".join(_rendered(number, memory, memory.content) for number, memory in enumerate(memories, start=1))
    return Packed(text, citations, 0)


def pack(of: Shortlist, order: str, budget_tokens: int, ratio: TokenRatio) -> Packed:
    """The items in one of the :data:`ORDERS`, within a budget of tokens as ``ratio`` has them.

    First each gets its head, which says what it is, and the passage that is nearest to the question, in order, until
    the budget is used up. What is left over goes to the nearest passages of all.
    """
    room = budget_tokens
    kept: list[tuple[Item, set[int]]] = []
    for place in of.orders[order]:
        item = of.items[place]
        taken = {0, item.nearest}
        cost = ratio.tokens(_shown(len(kept) + 1, item, taken)) + 1  # and the empty line between two
        if cost <= room:
            kept.append((item, taken))
            room -= cost
    further = sorted(
        (-item.nearness[number], place, number)
        for place, (item, taken) in enumerate(kept)
        for number in range(len(item.passages))
        if number not in taken and item.nearness[number] > 0
    )
    for _, place, number in further:
        item, taken = kept[place]
        cost = ratio.tokens(item.passages[number]) + 1
        if cost <= room:
            taken.add(number)
            room -= cost
    text = "\n\n".join(_shown(number, *one) for number, one in enumerate(kept, start=1))
    citations = tuple(Citation(number, item.ids) for number, (item, _) in enumerate(kept, start=1))
    return Packed(text, citations, len(of.items) - len(kept))


def words_kept(question: str, memory: Memory, text: str) -> float:
    """Of the question's words that an item holds, the share that a text holds too; 1 when it holds none of them."""
    held = set(_words(question)) & set(_words(memory.content))
    return len(held.intersection(_words(text))) / len(held) if held else 1.0


def section(packed: Packed, number: int) -> str:
    """The part of a context that stands under a number."""
    parts = packed.text.split(f"[{number}] ", 1)
    return parts[1].split(f"\n\n[{number + 1}] ", 1)[0] if len(parts) == 2 else ""


def _passages(content: str) -> list[str]:
    """The head, which says what an item is, and the paragraphs after it, long ones cut at their lines."""
    first, _, rest = content.strip().partition("\n")
    passages = [first[:_LONGEST_HEAD]]
    for paragraph in re.split(r"\n\s*\n", rest):
        passages += _cut(paragraph.strip("\n"))
    return passages


def _cut(paragraph: str) -> list[str]:
    parts: list[str] = []
    for line in paragraph.splitlines():
        if parts and len(parts[-1]) + len(line) < _LONGEST_PASSAGE:
            parts[-1] += f"\n{line}"
        else:
            parts += [line[start : start + _LONGEST_PASSAGE] for start in range(0, len(line), _LONGEST_PASSAGE)]
    return [part for part in parts if part.strip()]


def _shown(number: int, item: Item, taken: Iterable[int]) -> str:
    return _rendered(number, item.memory, "\n".join(item.passages[passage] for passage in sorted(taken)))


def _rendered(number: int, memory: Memory, text: str) -> str:
    return f"[{number}] {memory.id} · {memory.item_type} · {memory.written}\n{text}"


def _words(text: str) -> Counter[str]:
    return Counter(word.lower() for word in _WORD.findall(_CAMEL.sub(" ", text)))


def _rarity(documents: Sequence[Counter[str]]) -> dict[str, float]:
    """How much a word tells among these documents: the inverse document frequency of BM25."""
    found = Counter(word for document in documents for word in document)
    return {word: math.log(1 + (len(documents) - n + 0.5) / (n + 0.5)) for word, n in found.items()}


def _nearness(asked: frozenset[str], words: Counter[str], rarity: Mapping[str, float]) -> float:
    return sum(rarity[word] for word in asked if word in words) / math.sqrt(_PASSAGE_SMOOTHED + words.total())


def _bm25(asked: frozenset[str], documents: Sequence[Counter[str]], rarity: Mapping[str, float]) -> list[float]:
    usual = sum(document.total() for document in documents) / max(1, len(documents)) or 1.0

    def score(document: Counter[str]) -> float:
        norm = _SATURATION * (1 - _LENGTH_WEIGHT + _LENGTH_WEIGHT * document.total() / usual)
        return sum(
            rarity[word] * document[word] * (_SATURATION + 1) / (document[word] + norm)
            for word in asked
            if word in document
        )

    return [score(document) for document in documents]


def _fused(by_words: Sequence[float]) -> tuple[int, ...]:
    """The places by two opinions: the order in which they were retrieved, and the scores of their words."""
    places = range(len(by_words))
    position = {place: number for number, place in enumerate(sorted(places, key=lambda one: -by_words[one]))}
    fused = [1 / (_RANKS_SMOOTHED + place) + 1 / (_RANKS_SMOOTHED + position[place]) for place in places]
    return tuple(sorted(places, key=lambda one: -fused[one]))
