"""The rehearsal's corpus: items with embeddings, and held-out questions with known answers; made once, then kept."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

import filelock
import numpy as np
import numpy.typing as npt

from orchestra_lib.errors import DataError
from orchestra_lib.evidence import canonical_json
from orchestra_lib.memory.schema import DIMENSION
from orchestra_lib.rehearsal.docstrings import Item, collect, python_files, standard_library

Matrix = npt.NDArray[np.float32]

_MADE_BY = ("corpus.py", "docstrings.py", "embedding.py")  # modules beside this one: changed, they make another corpus
_LONGEST_MAKING_SECONDS = 600.0
_FEWEST_WORDS = 4  # a shorter first sentence ("Return self.") asks nothing


@dataclass(frozen=True)
class Query:
    """A held-out first sentence and the id of the item that it was taken out of."""

    text: str
    answer_id: str


@dataclass(frozen=True)
class Corpus:
    """Items, their contents as stored and their embeddings (float32, (items, dimension)); queries and theirs.

    ``digest`` names everything that the content depends on: 64 hexadecimal digits.
    """

    items: tuple[Item, ...]
    contents: tuple[str, ...]
    embeddings: Matrix
    queries: tuple[Query, ...]
    query_embeddings: Matrix
    embedding_model: str
    seed: int
    digest: str


def build(
    seed: int,
    queries: int,
    cache_directory: Path,
    *,
    dimension: int = DIMENSION,
    folder: Path | None = None,
) -> Corpus:
    """The corpus for a seed and a number of questions, from the cache when it is there (about 20 s otherwise).

    Two processes make one corpus once: the second waits for the first and reads what that has made. Raises DataError
    when the library has too few questions, or the cache cannot be written.
    """
    root = folder or standard_library()
    digest = _digest(root, seed, queries, dimension)
    place = cache_directory / digest[:16]
    if not _is_made(place):
        with _alone(place):
            if not _is_made(place):
                _save(_make(collect(root), seed, queries, dimension, digest), place)
    return _load(place)


def _is_made(place: Path) -> bool:
    return (place / "corpus.json").exists()


@contextmanager
def _alone(place: Path) -> Iterator[None]:
    lock = filelock.FileLock(place.with_suffix(".lock"), timeout=_LONGEST_MAKING_SECONDS, fallback_to_soft=False)
    with _kept_in(place.parent):
        place.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _make(items: tuple[Item, ...], seed: int, count: int, dimension: int, digest: str) -> Corpus:
    from orchestra_lib.rehearsal.embedding import LexicalEmbedding  # scikit-learn takes a second to import

    answers = _chosen(items, seed, count)
    queries = tuple(Query(items[number].first_sentence, items[number].id) for number in sorted(answers))
    contents = _contents(items, queries)
    embedding = LexicalEmbedding(dimension, seed)
    try:
        embeddings = embedding.fit(list(contents))
    except ValueError as error:
        raise DataError(f"the rehearsal's corpus: {error}") from error
    asked = embedding.transform([query.text for query in queries])
    return Corpus(items, contents, embeddings, queries, asked, embedding.model, seed, digest)


def _contents(items: tuple[Item, ...], queries: tuple[Query, ...]) -> tuple[str, ...]:
    answers = {query.answer_id for query in queries}
    return tuple(item.content(with_first_sentence=item.id not in answers) for item in items)


def _chosen(items: tuple[Item, ...], seed: int, count: int) -> frozenset[int]:
    """The items whose first sentence is held out: sentences that ask something and that no other item has too."""
    sentences: dict[str, list[int]] = {}
    for number, item in enumerate(items):
        sentences.setdefault(item.first_sentence.lower(), []).append(number)
    fit = [
        numbers[0]
        for sentence, numbers in sentences.items()
        if len(numbers) == 1 and len(sentence.split()) >= _FEWEST_WORDS and _has_more(items[numbers[0]])
    ]
    if len(fit) < count:
        raise DataError(
            f"the library has {len(fit)} sentences fit for questions, {count} are wanted; give queries {len(fit)}"
        )
    return frozenset(np.random.default_rng(seed).choice(fit, size=count, replace=False).tolist())


def _has_more(item: Item) -> bool:
    """Whether anything is left to be found by once the sentence is taken out."""
    return bool(item.rest or item.excerpt)


def _digest(root: Path, seed: int, queries: int, dimension: int) -> str:
    """Of what the corpus is made of and made by: the library's files, our own modules, the packages."""
    files = [(path.relative_to(root).as_posix(), _file_sha256(path)) for path in python_files(root)]
    made_by = [_file_sha256(Path(__file__).with_name(name)) for name in _MADE_BY]
    made_with = [platform.python_version(), *(metadata.version(name) for name in ("numpy", "scipy", "scikit-learn"))]
    stated = canonical_json([files, made_by, made_with, seed, queries, dimension])
    return hashlib.sha256(stated.encode()).hexdigest()


def _file_sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@contextmanager
def _kept_in(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:  # a lock that nobody gives back is one too
        raise DataError(
            f"the corpus cannot be kept in {folder}: {error.strerror or error}; make room, or set "
            "ORCHESTRA_STATE_DIR to a larger disk"
        ) from error


def _save(corpus: Corpus, place: Path) -> None:
    facts = {
        "items": [vars(item) for item in corpus.items],
        "queries": [asdict(query) for query in corpus.queries],
        "embedding_model": corpus.embedding_model,
        "seed": corpus.seed,
        "digest": corpus.digest,
    }
    with _kept_in(place.parent):
        temporary = Path(tempfile.mkdtemp(prefix=".making-", dir=place.parent))
        np.save(temporary / "embeddings.npy", corpus.embeddings)
        np.save(temporary / "query_embeddings.npy", corpus.query_embeddings)
        (temporary / "corpus.json").write_text(json.dumps(facts), encoding="utf-8")
        if place.exists():
            shutil.rmtree(place)  # left half made by an older layout
        temporary.rename(place)


def _load(place: Path) -> Corpus:
    try:
        facts = json.loads((place / "corpus.json").read_text(encoding="utf-8"))
        embeddings = np.load(place / "embeddings.npy", allow_pickle=False)
        asked = np.load(place / "query_embeddings.npy", allow_pickle=False)
        os.utime(place)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(
            f"the kept corpus in {place} cannot be read ({error}); remove that folder and run again"
        ) from error
    items = tuple(Item(**item) for item in facts["items"])
    queries = tuple(Query(**query) for query in facts["queries"])
    return Corpus(
        items,
        _contents(items, queries),
        embeddings,
        queries,
        asked,
        facts["embedding_model"],
        facts["seed"],
        facts["digest"],
    )
