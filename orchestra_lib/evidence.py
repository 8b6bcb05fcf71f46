"""Evidence, and the one function that turns evidence into a verdict.

A row of evidence says what was claimed, where the value came from and what it had to be. Nobody passes a
verdict in: the row computes its own from source, value and bound, and :func:`roll_up` computes the run's
from its rows. Neither has a default that is green.
"""

from __future__ import annotations

import hashlib
import json
import math
import operator
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from enum import StrEnum


class Source(StrEnum):
    """Where a value came from. Only the first two can prove anything about Google Cloud."""

    MEASURED = "MEASURED"  # timed or counted by us against the real thing
    OBSERVED = "OBSERVED"  # read back from the real control plane or server
    REHEARSED = "REHEARSED"  # true of the local target only
    ASSUMED = "ASSUMED"  # stated, not checked
    MISSING = "MISSING"  # wanted, not there


class Verdict(StrEnum):
    """What a row of evidence, or a whole run, amounts to."""

    PASS = "PASS"  # noqa: S105 - a verdict, not a password
    REHEARSED = "REHEARSED"
    PLANNED = "PLANNED"
    NOTED = "NOTED"
    FAIL = "FAIL"
    MISSING = "MISSING"
    INTERRUPTED = "INTERRUPTED"


_COMPARISONS: Mapping[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    "==": operator.eq,
    ">=": operator.ge,
    ">": operator.gt,
}


@dataclass(frozen=True)
class Bound:
    """What a value has to be: a comparison and a number, in the unit of the evidence.

    Raises ValueError for an unknown comparison or a limit that is not a finite number.
    """

    comparison: str
    limit: float

    def __post_init__(self) -> None:
        if self.comparison not in _COMPARISONS:
            raise ValueError(f"comparison {self.comparison!r} is not one of {', '.join(_COMPARISONS)}")
        if not math.isfinite(self.limit):
            raise ValueError(f"the limit of a bound must be a finite number, not {self.limit!r}")

    def holds(self, value: float) -> bool:
        """Whether the value satisfies the bound; never for a value that is not a finite number."""
        return (isinstance(value, int) or math.isfinite(value)) and _COMPARISONS[self.comparison](value, self.limit)

    def __str__(self) -> str:
        # Every digit: this text stands in the record, and 1234567 must not read (or digest) like 1234568.
        return f"{self.comparison} {str(self.limit).removesuffix('.0')}"


@dataclass(frozen=True)
class Evidence:
    """One checked claim.

    ``value`` is a number, a text or None; only a finite number can satisfy a ``target``. ``command`` says how to
    see the same again, ``note`` what qualifies the value (hardware, load, confidence interval). A row without a
    target is a reading: it is recorded (verdict NOTED) and proves nothing by itself.
    """

    claim: str
    source: Source
    value: float | int | str | None
    unit: str = ""
    target: Bound | None = None
    command: str = ""
    note: str = ""
    at: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def verdict(self) -> Verdict:
        """PASS, REHEARSED, FAIL, MISSING or NOTED, from the source, the value and the target alone."""
        if self.source is Source.MISSING or (self.target is not None and self.value is None):
            return Verdict.MISSING
        if self.target is None:
            return Verdict.NOTED
        if isinstance(self.value, str) or self.value is None or not self.target.holds(self.value):
            return Verdict.FAIL
        return _SATISFIED[self.source]

    @property
    def digest(self) -> str:
        """SHA-256 over everything that the row states, as 64 hexadecimal digits."""
        return digest_of(self._stated())

    def _stated(self) -> dict[str, object]:
        stated = asdict(self)
        stated["source"] = self.source.value
        stated["target"] = str(self.target) if self.target else None
        stated["at"] = self.at.isoformat()
        stated["value"] = _json_number(self.value)
        stated["verdict"] = self.verdict.value
        return stated

    def as_json(self) -> dict[str, object]:
        """The row as it stands in a record: JSON types only, with its verdict and digest."""
        return with_digest(self._stated())

    def __str__(self) -> str:
        wanted = f", wanted {bound_text(str(self.target))}" if self.target else ""
        note = f" ({self.note})" if self.note else ""
        return f"{self.claim}: {value_text(self.value, self.unit)}{wanted}, {self.source}{note}"


# A satisfied claim is worth what its source is worth; an assumption proves nothing.
_SATISFIED: Mapping[Source, Verdict] = {
    Source.MEASURED: Verdict.PASS,
    Source.OBSERVED: Verdict.PASS,
    Source.REHEARSED: Verdict.REHEARSED,
    Source.ASSUMED: Verdict.MISSING,
}


def digest_of(stated: Mapping[str, object]) -> str:
    """SHA-256 over everything that a row of a record states but its digest, as 64 hexadecimal digits."""
    content = {name: value for name, value in stated.items() if name != "digest"}
    return hashlib.sha256(canonical_json(content).encode()).hexdigest()


def with_digest(stated: Mapping[str, object]) -> dict[str, object]:
    """A row of a record with the digest of what it states."""
    return {**stated, "digest": digest_of(stated)}


def evidence_of(row: Mapping[str, object]) -> Evidence:
    """A row of a record as evidence again, whose verdict is computed anew. Raises ValueError for what is no row."""
    try:
        comparison, _, limit = str(row["target"] or "").partition(" ")
        return Evidence(
            str(row["claim"]),
            Source(str(row["source"])),
            _value_of(row["value"]),
            str(row["unit"]),
            Bound(comparison, float(limit)) if comparison else None,
            str(row["command"]),
            str(row["note"]),
            datetime.fromisoformat(str(row["at"])),
        )
    except (KeyError, ValueError, TypeError) as error:
        raise ValueError(f"a row of the record is no evidence: {error}") from error


def yes_or_no(claim: str, source: Source, holds: bool, *, command: str = "", note: str = "") -> Evidence:
    """Evidence for a claim that is either true or false: 1 or 0 against ``== 1``."""
    return Evidence(claim, source, int(holds), "", Bound("==", 1), command, note)


def roll_up(rows: Iterable[Evidence], *, rehearsal: bool) -> Verdict:
    """The verdict of a run, from its rows and nothing else.

    FAIL when any row fails, or when no row was judged at all; MISSING when any judged row could not be shown;
    otherwise REHEARSED in a rehearsal and, on Google Cloud, PASS. On Google Cloud a row that is only true of the
    local target counts as missing.
    """
    verdicts = {row.verdict for row in rows} - {Verdict.NOTED}
    if not verdicts or Verdict.FAIL in verdicts:
        return Verdict.FAIL
    if Verdict.MISSING in verdicts:
        return Verdict.MISSING
    if rehearsal:
        return Verdict.REHEARSED
    return Verdict.MISSING if Verdict.REHEARSED in verdicts else Verdict.PASS


def failing(rows: Iterable[Evidence], *, rehearsal: bool) -> tuple[Evidence, ...]:
    """The rows that keep a run from passing, in the order given."""
    red = {Verdict.FAIL, Verdict.MISSING} | (set() if rehearsal else {Verdict.REHEARSED})
    return tuple(row for row in rows if row.verdict in red)


def value_text(value: object, unit: str = "") -> str:
    """A value for people: thousands apart, floats to four digits, – for None; with its unit where it has one."""
    if value is None:
        told = "–"
    elif isinstance(value, bool):
        told = "yes" if value else "no"
    elif isinstance(value, int):
        told = f"{value:,}"
    elif isinstance(value, float):
        told = f"{value:,.0f}" if abs(value) >= 10_000 and math.isfinite(value) else f"{value:,.4g}".replace("inf", "∞")
    else:
        told = str(value)
    return f"{told} {unit}".rstrip()


def bound_text(target: str) -> str:
    """A bound as a record has it, such as ``<= 22873``, for people: thousands apart, no digit dropped."""
    comparison, _, limit = target.partition(" ")
    try:
        return f"{comparison} {float(limit):,}".removesuffix(".0")
    except ValueError:
        return target


def canonical_json(value: object) -> str:
    """The one text of a JSON value: keys sorted, no spaces, UTF-8 kept; refuses NaN and infinity (ValueError)."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _value_of(stated: object) -> float | int | str | None:
    if stated is None or isinstance(stated, float | int | str):
        return stated
    raise TypeError(f"its value is {stated!r}")


def _json_number(value: float | int | str | None) -> float | int | str | None:
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
