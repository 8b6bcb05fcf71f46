"""Logged production queries, to be asked again: which vectors, with which filters, and when.

From a file of queries (JSON lines or Parquet), or from PostgreSQL's own log as csvlog or jsonlog, in which the server
writes statements with their parameters when ``log_min_duration_statement`` or ``log_statement`` says so.
https://www.postgresql.org/docs/16/runtime-config-logging.html
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestra_lib.errors import DataError, ParameterError

_CSV_TIME, _CSV_MESSAGE, _CSV_DETAIL = 0, 13, 14
_DISTANCE = re.compile(r"<=>|<->|<#>|<\+>|<~>")
_LOGGED = re.compile(r"^(?:duration: (?P<ms>[\d.]+) ms\s+)?(?:execute [^:]*|statement): (?P<statement>.*)", re.DOTALL)
_PARAMETER = re.compile(r"\$(\d+) = (NULL|'(?:[^']|'')*')")
_NUMBER = r"\s*[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?\s*"
_VECTOR = re.compile(rf"\[{_NUMBER}(?:,{_NUMBER})*\]")
_VECTOR_IN_STATEMENT = re.compile(rf"'({_VECTOR.pattern})'")
_FILTER = re.compile(r'"?(\w+)"?\s*=\s*(\$\d+|\'(?:[^\']|\'\')*\')')


@dataclass(frozen=True, eq=False)
class Replay:
    """Queries in the order in which they came. ``at``: float64 (q,), seconds since the first; ``vectors``: float32
    (q, dimension); ``filters``: for each query the columns that it filtered by, and their values as text.

    ``skipped`` counts the lines that were no search, or one of another dimension than most.
    """

    at: NDArray[np.float64]
    vectors: NDArray[np.float32]
    filters: tuple[Mapping[str, str], ...]
    skipped: int

    @property
    def seconds(self) -> float:
        """From the first query to the last."""
        return float(self.at[-1])

    def faster(self, factor: float) -> NDArray[np.float64]:
        """Intended starts for ``run_load``, the same pattern ``factor`` times as fast. Raises ValueError below 0."""
        if factor <= 0:
            raise ValueError(f"queries cannot be replayed {factor} times as fast; give a factor above 0")
        return self.at / factor


@dataclass(frozen=True)
class _Query:
    at: float
    vector: NDArray[np.float32]
    filters: Mapping[str, str]


def read_queries(path: Path) -> Replay:
    """Queries from a file of one object a line, or of one row: ``at`` (seconds), ``embedding``, the rest filters.

    A name that ends in ``.parquet`` is Parquet, any other JSON lines. Raises DataError for a line that is none, with
    its number, and ParameterError when Parquet wants pyarrow and it is not installed.
    """
    rows = _parquet_rows(path) if path.suffix == ".parquet" else _json_lines(path)
    return _replay(path, (_query(path, number, row) for number, row in enumerate(rows, start=1)))


def read_server_log(path: Path) -> Replay:
    """The vector searches in a log that PostgreSQL wrote, in the order in which they were sent.

    A name that ends in ``.json`` is a jsonlog, any other a csvlog. A search is a statement with one of pgvector's
    distance operators and a vector among its parameters, or in itself; what it compares columns with for equality are
    its filters. A parameter that only begins like a vector is none. Raises DataError when the log holds no search.
    """
    entries = _json_log(path) if path.suffix == ".json" else _csv_log(path)
    return _replay(path, (_logged(*entry) for entry in entries))


def _replay(path: Path, found: Iterable[_Query | None]) -> Replay:
    everything = list(found)
    queries = sorted((query for query in everything if query), key=lambda query: query.at)
    if not queries:
        raise DataError(f"{path} holds no vector search; was it logged with its parameters, as csvlog or jsonlog?")
    sizes, counts = np.unique([query.vector.size for query in queries], return_counts=True)
    usual = sizes[counts.argmax()]
    kept = [query for query in queries if query.vector.size == usual]
    at = np.asarray([query.at for query in kept])
    return Replay(
        at - at[0],
        np.stack([query.vector for query in kept]),
        tuple(query.filters for query in kept),
        len(everything) - len(kept),
    )


def _query(path: Path, number: int, row: Mapping[str, Any]) -> _Query:
    try:
        at, vector = float(row["at"]), np.asarray(row["embedding"], dtype=np.float32)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{path}, line {number}: a query has a number `at` and a list of numbers `embedding`, this one has not: "
            f"{error!r}"
        ) from error
    if vector.ndim != 1 or not vector.size or not np.isfinite(vector).all() or not np.isfinite(at):
        raise DataError(f"{path}, line {number}: the embedding has to be one list of finite numbers, at a finite time")
    others = {name: str(value) for name, value in row.items() if name not in ("at", "embedding") and value is not None}
    return _Query(at, vector, others)


def _json_lines(path: Path) -> Iterator[Mapping[str, Any]]:
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield _json_object(path, number, line)


def _json_object(path: Path, number: int, line: str) -> Mapping[str, Any]:
    try:
        found = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"{path}, line {number}: this is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise DataError(f"{path}, line {number}: a query is a JSON object, this is {type(found).__name__}")
    return found


def _parquet_rows(path: Path) -> Iterator[Mapping[str, Any]]:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise ParameterError(f"{path} is Parquet, which wants pyarrow: pip install 'orchestra-lib[bench]'") from error
    for batch in parquet.ParquetFile(path).iter_batches():
        yield from batch.to_pylist()


def _csv_log(path: Path) -> Iterator[tuple[str, str, str]]:
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        csv.field_size_limit(1 << 30)  # a vector of 16,000 dimensions is one field, too
        for row in csv.reader(file):
            if len(row) > _CSV_DETAIL:
                yield row[_CSV_TIME], row[_CSV_MESSAGE], row[_CSV_DETAIL]


def _json_log(path: Path) -> Iterator[tuple[str, str, str]]:
    for line in _json_lines(path):
        yield line.get("timestamp", ""), line.get("message", ""), line.get("detail", "")


def _logged(time: str, message: str, detail: str) -> _Query | None:
    """The search that a line of the log tells of; None when it tells of something else."""
    line = _LOGGED.match(message)
    if line is None or not _DISTANCE.search(line["statement"]):
        return None
    parameters = {f"${number}": _unquoted(value) for number, value in _PARAMETER.findall(detail)}
    vectors = [value for value in parameters.values() if value and _VECTOR.fullmatch(value.strip())]
    vectors += _VECTOR_IN_STATEMENT.findall(line["statement"])
    if not vectors:
        return None
    filters = {name: parameters.get(value, _unquoted(value)) for name, value in _FILTER.findall(line["statement"])}
    # A line with a duration is written at the statement's end, one without at its beginning.
    at = _seconds(time) - float(line["ms"] or 0) / 1e3
    return _Query(
        at,
        np.asarray(vectors[0].strip("[] ").split(","), dtype=np.float32),
        {name: value for name, value in filters.items() if value is not None},
    )


def _unquoted(value: str) -> str | None:
    return None if value == "NULL" else value[1:-1].replace("''", "'")


def _seconds(time: str) -> float:
    """A time of the log, ``2026-11-25 19:54:53.123 UTC``, as seconds; only differences are of use.

    A log has one time zone, ``log_timezone``, whose name Python need not know.
    """
    return datetime.fromisoformat(" ".join(time.split()[:2])).timestamp()
