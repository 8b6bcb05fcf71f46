"""Why a search does not use its vector index, or uses it and still answers wrongly: one sentence and what to do.

The statement is the application's own; it is explained, not guessed at: what is said was read from the server's plan,
its indexes and its settings. The conditions are those of PostgreSQL's match_clause_to_ordering_op and of pgvector 0.8.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import psycopg
from psycopg import sql

from orchestra_lib.vectors.forms import Method, Storage
from orchestra_lib.vectors.index import LiveIndex, vector_indexes
from orchestra_lib.vectors.pinned import nodes_of
from orchestra_lib.vectors.search import session
from orchestra_lib.vectors.session_defaults import LOADS_THE_LIBRARY
from orchestra_lib.vectors.truth import OPERATORS

_BLOCK_KIB = 8
_TAPE_TO_MEMORY = 3  # rows take about three times as much memory in a sort as on its tape
_OPERATORS = {
    **{opclass.removeprefix("vector"): operator for opclass, operator in OPERATORS.items()},
    "_l1_ops": "<+>",
    "_hamming_ops": "<~>",
    "_jaccard_ops": "<%>",
}
_LITERAL = re.compile(r"'(?:[^']|'')*'")
_OPERATOR = re.compile(r"<=>|<->|<#>|<~>|<\+>|<%>")
# A cast to the type that a column has is none to the planner; one that names dimensions is.
_RELABELLED = re.compile(r"^\(([\w.\"]+)\)::vector$")
_DISTANCE_FUNCTION = re.compile(r"\b(cosine_distance|l2_distance|inner_product|l1_distance|hamming_distance)\(")


class Trap(StrEnum):
    """What is the matter. The value is a name to refer to."""

    NO_INDEX = "no index"
    NOT_VALID = "index not valid"
    NO_ORDER = "no order by distance"
    OTHER_ORDER = "ordered by something else too"
    DESCENDING = "descending"
    WRAPPED = "distance inside an expression"
    JOINED = "query vector from a join"
    OTHER_EXPRESSION = "other expression than the index's"
    OTHER_OPERATOR = "other operator class"
    NO_LIMIT = "no limit"
    ALL_PROBES = "probes as many as lists"
    COST = "the planner takes the table for cheaper"
    FILTERED = "filtered after the search"
    TWO_INDEXES = "two indexes share one effort"
    SPILLED = "sorted on the disk"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Finding:
    """One trap: a plain sentence with the values, and what to do."""

    trap: Trap
    sentence: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.sentence} {self.remedy}"


@dataclass(frozen=True)
class Explanation:
    """The vector index that the plan scans, None when it does not, and what was found, the cause first."""

    uses: str | None
    findings: tuple[Finding, ...]

    @property
    def traps(self) -> tuple[Trap, ...]:
        """What is the matter, by name."""
        return tuple(finding.trap for finding in self.findings)


@dataclass(frozen=True)
class _Key:
    """A distance in a sort key, literals taken out: the operator, the side with the column, the other side."""

    text: str
    descending: bool
    operator: str | None
    stored: str
    asked: str
    first: bool
    alone: bool


def why_not(
    connection: psycopg.Connection,
    statement: sql.Composable,
    parameters: Mapping[str, Any],
    table: sql.Composable,
    column: str = "embedding",
    *,
    run: bool = False,
) -> Explanation:
    """Explain what a statement makes of the vector indexes on a column, under this session's settings.

    ``run`` runs the statement too, which alone shows whether its rows were sorted on the disk. Raises psycopg.Error
    when the server refuses the statement.
    """
    connection.execute(LOADS_THE_LIBRARY)
    indexes = vector_indexes(connection, table, column)
    plan = _explained(connection, statement, parameters, run=run)
    scan = _scan(plan, indexes)
    if scan is None:
        return Explanation(None, (_cause(connection, statement, parameters, plan, indexes, column),))
    index = next(index for index in indexes if index.name == scan["Index Name"])
    return Explanation(index.name, tuple(_warnings(connection, plan, scan, index, indexes)))


def _cause(
    connection: psycopg.Connection,
    statement: sql.Composable,
    parameters: Mapping[str, Any],
    plan: Sequence[dict[str, Any]],
    indexes: tuple[LiveIndex, ...],
    column: str,
) -> Finding:
    valid = [index for index in indexes if index.valid]
    if not indexes:
        return Finding(Trap.NO_INDEX, f"There is no vector index on {column}.", "Build one.")
    if not valid:
        name = indexes[0].name
        return Finding(
            Trap.NOT_VALID,
            f"{name} is not valid: its concurrent build was cut off.",
            f"DROP INDEX CONCURRENTLY {name} and build it again.",
        )
    key = _distance_key(plan, column)
    if key is None:
        return Finding(
            Trap.NO_ORDER,
            "The statement does not sort by a distance; a vector index answers nothing else, no WHERE on a distance.",
            f"ORDER BY {column} {_operators(valid)[0]} the query vector, with a LIMIT.",
        )
    return _of_key(key, valid, column) or _of_cost(connection, statement, parameters, plan, valid)


def _of_key(key: _Key, valid: Sequence[LiveIndex], column: str) -> Finding | None:
    """What of the sort key keeps every index from answering it."""
    operators, plain = _operators(valid), f"ORDER BY {column} {_operators(valid)[0]} the query vector"
    storages = {index.form.storage for index in valid}
    rules = (
        (
            key.operator is None,
            Trap.WRAPPED,
            f"The distance stands inside the expression {key.text}.",
            f"{plain}, the bare operator; compute the rest in the select list.",
        ),
        (
            key.descending,
            Trap.DESCENDING,
            "The statement sorts descending; a vector index gives the nearest first.",
            f"{plain}, ascending: the smallest distance is the greatest similarity.",
        ),
        (
            not key.alone,
            Trap.OTHER_ORDER,
            f"The statement sorts by more than the distance{'' if key.first else ', and by something else first'}.",
            f"{plain} alone with the LIMIT in a subquery, and sort its rows outside.",
        ),
        (
            "." in key.asked and "?" not in key.asked,
            Trap.JOINED,
            f"The query vector, {key.asked}, comes from a joined table, so it is not known before the join.",
            "Put the search into a LATERAL subquery with its LIMIT, or fetch the vector first and pass it.",
        ),
        (
            _storage_of(key.stored) not in storages,
            Trap.OTHER_EXPRESSION,
            f"The statement sorts by {key.stored}, the index is on "
            f"{' and '.join(_EXPRESSIONS[storage].format(column) for storage in sorted(storages))}.",
            "Use the very expression of the index on both sides of the operator.",
        ),
        (
            key.operator not in operators,
            Trap.OTHER_OPERATOR,
            f"The statement measures by {key.operator}, the index answers {' and '.join(operators)} "
            f"({', '.join(sorted({index.name for index in valid}))}).",
            "Use its operator, or build an index with the operator class of yours.",
        ),
    )
    return next((Finding(trap, said, remedy) for holds, trap, said, remedy in rules if holds), None)


def _of_cost(
    connection: psycopg.Connection,
    statement: sql.Composable,
    parameters: Mapping[str, Any],
    plan: Sequence[dict[str, Any]],
    valid: Sequence[LiveIndex],
) -> Finding:
    """Some index could answer: why the planner has not taken it."""
    if not _has(plan, "Limit"):
        return Finding(
            Trap.NO_LIMIT,
            "The statement has no LIMIT, so all rows are to come back and the planner sorts the table.",
            "Say how many rows are wanted: LIMIT 10.",
        )
    probes = _probes(connection)
    all_of_them = [index for index in valid if index.form.lists and probes >= index.form.lists]
    if all_of_them:
        return Finding(
            Trap.ALL_PROBES,
            f"ivfflat.probes is {probes} and {all_of_them[0].name} has {all_of_them[0].form.lists} lists: with as many "
            "probes as lists the index costs more than the table.",
            "Set fewer probes; where everything has to be read, an exact search is the right one.",
        )
    with session(connection, {"enable_seqscan": "off"}):
        taken = _scan(_explained(connection, statement, parameters), tuple(valid))
    if taken is not None:
        return Finding(
            Trap.COST,
            f"The planner takes reading the table for cheaper than {taken['Index Name']} with {probes} probes: it does "
            "not see that the vectors lie in TOAST, nor what a distance costs.",
            "SET enable_seqscan = off in sessions that search; fewer probes make the index cheaper, too.",
        )
    return Finding(
        Trap.UNKNOWN,
        f"{valid[0].name} could answer by operator and expression, and the planner does not take it even when it must "
        "not read the table.",
        "Look whether the index has a WHERE that the statement does not repeat, or the statement locks or aggregates "
        "its rows.",
    )


def _warnings(
    connection: psycopg.Connection,
    plan: Sequence[dict[str, Any]],
    scan: Mapping[str, Any],
    index: LiveIndex,
    indexes: Sequence[LiveIndex],
) -> Iterator[Finding]:
    """What can be wrong with an answer although the index gave it."""
    probes, lists = _probes(connection), index.form.lists
    is_ivfflat = index.form.method is Method.IVFFLAT
    if not _has(plan, "Limit"):
        yield Finding(
            Trap.NO_LIMIT,
            "The statement has no LIMIT and yet reads the index: it returns the rows that a search looks at and leaves "
            "the others out, without a word.",
            "Add the LIMIT; where all rows are wanted, SET enable_indexscan = off and enable_seqscan = on.",
        )
    if "Filter" in scan and not _is_iterative(connection, index):
        yield Finding(
            Trap.FILTERED,
            f"The filter {_LITERAL.sub('?', scan['Filter'])} is applied to what the search found, so fewer rows than "
            "the LIMIT may come back.",
            f"SET {index.form.method}.iterative_scan = relaxed_order, or index the rows of the filter alone.",
        )
    twins = [
        other.name
        for other in indexes
        if other.valid and other.name != index.name and other.form.effort_setting == index.form.effort_setting
        and other.form.storage is index.form.storage
    ]  # fmt: skip
    if twins:
        yield Finding(
            Trap.TWO_INDEXES,
            f"{index.name} answers, and {' and '.join(twins)} could: both live by the one {index.form.effort_setting}, "
            "and which of them answers changes with it.",
            "Keep one of them.",
        )
    if is_ivfflat and lists and probes >= lists:
        yield Finding(
            Trap.ALL_PROBES,
            f"ivfflat.probes is {probes} and {index.name} has {lists} lists: every row is read and sorted.",
            "Set fewer probes, or search exactly.",
        )
    if scan.get("Temp Written Blocks", 0):
        row = connection.execute("SELECT pg_size_bytes(current_setting('work_mem')) / 1024").fetchone()
        work_mem = int(row[0]) if row else 0
        needed = work_mem + _TAPE_TO_MEMORY * _BLOCK_KIB * int(scan["Temp Written Blocks"])
        yield Finding(
            Trap.SPILLED,
            f"The rows of the probed lists did not fit into work_mem of {work_mem:,} kB and were sorted on the disk.",
            f"SET work_mem = '{needed}kB' or more in sessions that search.",
        )


_EXPRESSIONS = {
    Storage.VECTOR: "{}",
    Storage.HALFVEC: "({}::halfvec)",
    Storage.BIT: "binary_quantize({})::bit",
}


def _explained(
    connection: psycopg.Connection, statement: sql.Composable, parameters: Mapping[str, Any], *, run: bool = False
) -> list[dict[str, Any]]:
    how = "ANALYZE, BUFFERS, TIMING OFF, " if run else ""
    explain = sql.SQL(f"EXPLAIN ({how}VERBOSE, FORMAT json) ") + statement
    return list(nodes_of(connection.execute(explain, parameters, prepare=False).fetchone()))


def _scan(plan: Sequence[dict[str, Any]], indexes: Sequence[LiveIndex]) -> dict[str, Any] | None:
    names = {index.name for index in indexes}
    return next((node for node in plan if node.get("Index Name") in names and "Order By" in node), None)


def _has(plan: Sequence[dict[str, Any]], kind: str) -> bool:
    return any(node["Node Type"] == kind for node in plan)


def _distance_key(plan: Sequence[dict[str, Any]], column: str) -> _Key | None:
    """The first sort key of the plan that holds a distance from the column."""
    for node in plan:
        keys = [_LITERAL.sub("?", key) for key in node.get("Sort Key", ())]
        for number, key in enumerate(keys):
            if column in key and (_OPERATOR.search(key) or _DISTANCE_FUNCTION.search(key)):
                return _parsed(key, column, first=number == 0, alone=len(keys) == 1)
    return None


def _parsed(key: str, column: str, *, first: bool, alone: bool) -> _Key:
    descending = key.endswith(" DESC")
    text = _without_parentheses(key.removesuffix(" DESC"))
    found = next((match for match in _OPERATOR.finditer(text) if _depth(text[: match.start()]) == 0), None)
    if found is None or _depth_changes_name(text):
        return _Key(text, descending, None, "", "", first, alone)
    sides = text[: found.start()].strip(), text[found.end() :].strip()
    stored, asked = sides if column in sides[0] else sides[::-1]
    stored = _RELABELLED.sub(r"\1", stored)
    return _Key(text, descending, found.group(), stored, asked, first, alone)


def _depth_changes_name(text: str) -> bool:
    """Whether something else than one distance stands at the top: an arithmetic operator beside it."""
    top, depth = [], 0
    for character in text:
        depth += (character == "(") - (character == ")")
        if depth == 0:
            top.append(character)
    return bool(re.search(r"\s[-+*/]\s", "".join(top)))


def _depth(text: str) -> int:
    return text.count("(") - text.count(")")


def _without_parentheses(text: str) -> str:
    while text.startswith("(") and text.endswith(")") and all(_depth(text[:end]) > 0 for end in range(1, len(text))):
        text = text[1:-1]
    return text


def _storage_of(stored: str) -> Storage | None:
    if "halfvec" in stored:
        return Storage.HALFVEC
    if "binary_quantize" in stored:
        return Storage.BIT
    return Storage.VECTOR if "(" not in stored else None


def _operators(indexes: Sequence[LiveIndex]) -> list[str]:
    return sorted({operator for index in indexes for name, operator in _OPERATORS.items() if name in index.definition})


def _probes(connection: psycopg.Connection) -> int:
    row = connection.execute("SELECT current_setting('ivfflat.probes')").fetchone()
    return int(row[0]) if row else 1


def _is_iterative(connection: psycopg.Connection, index: LiveIndex) -> bool:
    if not index.form.runs_on_postgresql:
        return False
    row = connection.execute("SELECT current_setting(%s)", [f"{index.form.method}.iterative_scan"]).fetchone()
    return bool(row and row[0] != "off")
