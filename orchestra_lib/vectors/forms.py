"""The forms that a vector index can have, as data: what each is called, made by, searched by and tuned with.

An operator class is always named by its class for ``vector``: it says which distance counts. Which class the index
itself then has follows from what it stores. ScaNN exists on AlloyDB only; its statements and settings follow
https://cloud.google.com/alloydb/docs/ai/create-scann-index and
https://cloud.google.com/alloydb/docs/reference/ai/scann-index-reference, and were never run here: see ``Form.caveat``.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from psycopg import sql

from orchestra_lib.errors import ParameterError
from orchestra_lib.vectors.truth import OPERATORS

_LONGEST_NAME = 63  # bytes; PostgreSQL cuts off what is longer


class Method(StrEnum):
    """How the nearest rows are found. The value is the access method's name, and ``exact`` where there is none."""

    EXACT = "exact"
    IVFFLAT = "ivfflat"
    HNSW = "hnsw"
    SCANN = "scann"


class Storage(StrEnum):
    """What the index stores of a vector: its float32, half of their bits, or one bit a dimension."""

    VECTOR = "vector"
    HALFVEC = "halfvec"
    BIT = "bit"


LARGEST_EFFORT: Mapping[Method, int] = {Method.IVFFLAT: 32_768, Method.HNSW: 1_000, Method.SCANN: 30_000_000}
"""The largest value of the setting that a search's effort goes to (pgvector 0.8, src/ivfflat.h and src/hnsw.h)."""
LARGEST_DIMENSION: Mapping[Storage, int] = {Storage.VECTOR: 2_000, Storage.HALFVEC: 4_000, Storage.BIT: 64_000}
"""The most dimensions that an index of IVFFlat or HNSW takes (https://github.com/pgvector/pgvector)."""

_EFFORT_SETTING = {
    Method.IVFFLAT: "ivfflat.probes",
    Method.HNSW: "hnsw.ef_search",
    Method.SCANN: "scann.num_leaves_to_search",
}
# IVFFlat knows no strict order, so the rows are sorted once more by the statement: that serves HNSW as well.
_ITERATIVE_SETTING = {Method.IVFFLAT: "ivfflat.iterative_scan", Method.HNSW: "hnsw.iterative_scan"}
_SCANN_CLASS = {"vector_cosine_ops": "cosine", "vector_ip_ops": "dot_product", "vector_l2_ops": "l2"}
_SCANN_RERANKS = "scann.pre_reordering_num_neighbors"
_DEFAULT_EF_SEARCH = 40
_CANDIDATES_PER_ROW = 10
_HAMMING = "bit_hamming_ops"
_TITLES = {Method.EXACT: "exact", Method.IVFFLAT: "IVFFlat", Method.HNSW: "HNSW", Method.SCANN: "ScaNN"}


@dataclass(frozen=True)
class Effort:
    """How much one search does.

    ``value`` is probes for IVFFlat, ef_search for HNSW, leaves for ScaNN, and means nothing to an exact search.
    ``rerank`` is how many candidates are taken from the index and sorted by their float32 distance. ``iterative`` lets
    a search that a filter left short go on looking.
    """

    value: int
    rerank: int | None = None
    iterative: bool = False

    def __str__(self) -> str:
        parts = [f"{self.value:,}"]
        if self.rerank:
            parts.append(f"{self.rerank:,} re-ranked")
        if self.iterative:
            parts.append("iterative")
        return ", ".join(parts)


@dataclass(frozen=True)
class Form:
    """One form of an index. ``lists`` is for IVFFlat (and the leaves of ScaNN), ``m`` and ``ef_construction`` for HNSW.

    What is None is not known or not of this method; a form without its own numbers can be searched, not made.
    Raises ParameterError for numbers that no index of that method has.
    """

    method: Method
    storage: Storage = Storage.VECTOR
    lists: int | None = None
    m: int | None = None
    ef_construction: int | None = None

    def __post_init__(self) -> None:
        if self.storage is not Storage.VECTOR and self.method in (Method.EXACT, Method.SCANN):
            raise ParameterError(f"{self.method} searches vectors as they are, not as {self.storage}")
        for name, low, high in (("lists", 1, 32_768), ("m", 2, 100), ("ef_construction", 4, 1_000)):
            value = getattr(self, name)
            if value is not None and self.method is not Method.SCANN and not low <= value <= high:
                raise ParameterError(f"{name} {value} has to lie between {low} and {high:,}")
        if self.m is not None and self.ef_construction is not None and self.ef_construction < 2 * self.m:
            raise ParameterError(
                f"ef_construction {self.ef_construction} has to be at least twice the m of {self.m} (pgvector)"
            )

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Form:
        """The form that ``as_document`` made this of."""
        return cls(**{**document, "method": Method(document["method"]), "storage": Storage(document["storage"])})

    def as_document(self) -> dict[str, Any]:
        """The form as a JSON object."""
        return asdict(self)

    @property
    def runs_on_postgresql(self) -> bool:
        """Whether PostgreSQL with pgvector has it. ScaNN is AlloyDB's: its statements were made but never run here."""
        return self.method is not Method.SCANN

    @property
    def caveat(self) -> str:
        """What has to be said beside the form; empty for those that are tested on a real server."""
        if self.runs_on_postgresql:
            return ""
        return "ScaNN's statements and settings follow AlloyDB's documentation; they were not run here."

    @property
    def label(self) -> str:
        """What a person calls it."""
        numbers = {
            Method.EXACT: "",
            Method.IVFFLAT: f" with {self.lists:,} lists" if self.lists else "",
            Method.HNSW: f" with m {self.m}, ef_construction {self.ef_construction}" if self.m else "",
            Method.SCANN: f" with {self.lists:,} leaves" if self.lists else "",
        }[self.method]
        stored = {Storage.VECTOR: "", Storage.HALFVEC: " of halfvec", Storage.BIT: " of bits"}[self.storage]
        return f"{_TITLES[self.method]}{stored}{numbers}"

    @property
    def effort_setting(self) -> str | None:
        """The session's setting that an effort goes to; None for an exact search."""
        return _EFFORT_SETTING.get(self.method)

    def index_name(self, table: str, column: str = "embedding") -> str:
        """The index's name; it carries the form's numbers, so that two forms never share one name."""
        numbers = [str(number) for number in (self.lists, self.m, self.ef_construction) if number is not None]
        stored = [] if self.storage is Storage.VECTOR else [self.storage.value]
        name = "_".join([table, column, *stored, self.method.value, *numbers])
        if len(name.encode()) <= _LONGEST_NAME:
            return name
        digest = hashlib.sha256(name.encode()).hexdigest()[:8]
        ending = "_".join(["", digest, *stored, self.method.value, *numbers])
        kept = name.encode()[: _LONGEST_NAME - len(ending)].decode(errors="ignore")
        return f"{kept}{ending}"

    def index_opclass(self, opclass: str) -> str:
        """The operator class that the index itself has, for a distance named by its class for ``vector``."""
        if opclass not in OPERATORS:
            raise ParameterError(f"opclass {opclass} is none of {', '.join(OPERATORS)}")
        if self.method is Method.SCANN:
            return _SCANN_CLASS[opclass]
        return {
            Storage.VECTOR: opclass,
            Storage.HALFVEC: opclass.replace("vector_", "halfvec_"),
            Storage.BIT: _HAMMING,
        }[self.storage]

    def create_statement(
        self,
        table: str,
        column: str,
        dimension: int,
        opclass: str,
        *,
        concurrently: bool = False,
        name: str | None = None,
    ) -> sql.Composed:
        """The statement that makes the index. Raises ParameterError when the form lacks a number or cannot be made."""
        if self.method is Method.EXACT:
            raise ParameterError("an exact search has no index to make")
        if dimension > LARGEST_DIMENSION[self.storage]:
            raise ParameterError(
                f"an index of {self.storage} takes at most {LARGEST_DIMENSION[self.storage]:,} dimensions, "
                f"{dimension:,} were asked for; halfvec takes 4,000 and bit 64,000"
            )
        return sql.SQL(
            "CREATE INDEX {concurrently}{name} ON {table} USING {method} ({key} {opclass}) WITH ({numbers})"
        ).format(
            concurrently=sql.SQL("CONCURRENTLY " if concurrently else ""),
            name=sql.Identifier(name or self.index_name(table, column)),
            table=sql.Identifier(table),
            method=sql.SQL(self.method.value),
            key=self._indexed(sql.Identifier(column), dimension),
            opclass=sql.Identifier(self.index_opclass(opclass)),
            numbers=sql.SQL(", ").join(
                sql.SQL("{} = {}").format(sql.SQL(option), sql.Literal(number)) for option, number in self._options()
            ),
        )

    def search_statement(
        self,
        table: sql.Composable,
        id_column: str,
        column: str,
        dimension: int | None,
        opclass: str,
        k: int,
        effort: Effort,
        filters: Sequence[str] = (),
    ) -> sql.Composed:
        """The application's query: ids of the k nearest rows, nearest first.

        Its parameters are ``query`` (a vector, in binary) and one named like each column of ``filters``. Raises
        ParameterError when the form cannot be searched so.
        """
        self._check_effort(effort, k)
        exact = sql.SQL("{}::vector {} %(query)b").format(sql.Identifier(column), sql.SQL(OPERATORS[opclass]))
        order = exact if self.storage is Storage.VECTOR else self._order(column, dimension, opclass)
        where = sql.SQL(" WHERE {}").format(_condition(filters)) if filters else sql.SQL("")
        key, vector = sql.Identifier(id_column), sql.Identifier(column)
        by_the_index = self.method is Method.SCANN  # it re-ranks by a setting
        if (effort.rerank is None or by_the_index) and not effort.iterative:
            return sql.SQL("SELECT {key}::text FROM {table}{where} ORDER BY {order} LIMIT {k}").format(
                key=key, table=table, where=where, order=order, k=sql.Literal(k)
            )
        return sql.SQL(
            "SELECT {key}::text FROM (SELECT {key}, {vector} FROM {table}{where} ORDER BY {order} LIMIT {candidates}) "
            "AS candidates ORDER BY {exact} LIMIT {k}"
        ).format(
            key=key,
            vector=vector,
            table=table,
            where=where,
            order=order,
            candidates=sql.Literal(effort.rerank or k),
            exact=exact,
            k=sql.Literal(k),
        )

    def usual_effort(self, k: int) -> Effort:
        """What to begin with where nothing was measured: the square root of the lists, pgvector's own ef_search."""
        if self.method is Method.IVFFLAT:
            return Effort(max(1, math.isqrt(self.lists or 1)), self._usual_candidates(k))
        if self.method is Method.HNSW:
            return Effort(max(_DEFAULT_EF_SEARCH, self._usual_candidates(k) or k), self._usual_candidates(k))
        return Effort(max(1, (self.lists or 1) // 100))

    def settings(self, effort: Effort) -> dict[str, str]:
        """The session settings with which a search makes this effort, by name."""
        found = {self.effort_setting: str(effort.value)} if self.effort_setting else {}
        iterative = _ITERATIVE_SETTING.get(self.method)
        if iterative:
            found[iterative] = "relaxed_order" if effort.iterative else "off"
        if self.method is Method.SCANN and effort.rerank is not None:
            found[_SCANN_RERANKS] = str(effort.rerank)
        return found

    def _usual_candidates(self, k: int) -> int | None:
        return _CANDIDATES_PER_ROW * k if self.storage is Storage.BIT else None

    def _check_effort(self, effort: Effort, k: int) -> None:
        largest = LARGEST_EFFORT.get(self.method)
        if largest and not 1 <= effort.value <= largest:
            raise ParameterError(f"{self.effort_setting} {effort.value} has to lie between 1 and {largest:,}")
        if effort.rerank is not None and effort.rerank < k:
            raise ParameterError(f"{effort.rerank} candidates cannot be re-ranked to {k} rows; take at least {k}")
        if self.storage is Storage.BIT and effort.rerank is None:
            raise ParameterError("bits alone do not order rows finely enough: give the effort a number to re-rank")
        if self.method is Method.HNSW and not effort.iterative and effort.value < (effort.rerank or k):
            raise ParameterError(
                f"hnsw.ef_search {effort.value} gives at most {effort.value} rows where {effort.rerank or k} are asked "
                "for; raise it to at least that"
            )
        if effort.iterative and self.method not in _ITERATIVE_SETTING:
            raise ParameterError(f"{self.method} knows no iterative scan")

    def _indexed(self, column: sql.Identifier, dimension: int) -> sql.Composable:
        if self.storage is Storage.HALFVEC:
            return sql.SQL("({}::halfvec({}))").format(column, sql.Literal(dimension))
        if self.storage is Storage.BIT:
            return sql.SQL("(binary_quantize({})::bit({}))").format(column, sql.Literal(dimension))
        return column

    def _order(self, column: str, dimension: int | None, opclass: str) -> sql.Composable:
        if dimension is None:
            raise ParameterError(f"an index of {self.storage} is searched by its dimension, which was not given")
        stored, size = sql.Identifier(column), sql.Literal(dimension)
        if self.storage is Storage.HALFVEC:
            return sql.SQL("{}::halfvec({}) {} %(query)b::halfvec({})").format(
                stored, size, sql.SQL(OPERATORS[opclass]), size
            )
        return sql.SQL("binary_quantize({})::bit({}) <~> binary_quantize(%(query)b)::bit({})").format(
            stored, size, size
        )

    def _options(self) -> list[tuple[str, int]]:
        wanted: dict[Method, list[tuple[str, int | None]]] = {
            Method.IVFFLAT: [("lists", self.lists)],
            Method.HNSW: [("m", self.m), ("ef_construction", self.ef_construction)],
            Method.SCANN: [("num_leaves", self.lists)],
        }
        found = [(option, number) for option, number in wanted[self.method] if number is not None]
        if len(found) < len(wanted[self.method]):
            raise ParameterError(
                f"{self.label} cannot be made: it has no {' or no '.join(o for o, _ in wanted[self.method])}"
            )
        return found


EXACT = Form(Method.EXACT)
"""The search that reads every row: slow, and right."""


def ivfflat(lists: int | None = None, storage: Storage = Storage.VECTOR) -> Form:
    """An IVFFlat index; without lists it can be searched, not made."""
    return Form(Method.IVFFLAT, storage, lists=lists)


def hnsw(m: int = 16, ef_construction: int = 64, storage: Storage = Storage.VECTOR) -> Form:
    """An HNSW index, with pgvector's default numbers unless others are given."""
    return Form(Method.HNSW, storage, m=m, ef_construction=ef_construction)


def scann(leaves: int) -> Form:
    """AlloyDB's ScaNN index with a manually chosen number of leaves. Never run here."""
    return Form(Method.SCANN, lists=leaves)


def _condition(filters: Sequence[str]) -> sql.Composed:
    return sql.SQL(" AND ").join(
        sql.SQL("{} = {}").format(sql.Identifier(name), sql.Placeholder(name)) for name in filters
    )
