"""The judge of every loss claim: what the ledger says was acknowledged against the rows that are there, one by one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from psycopg import sql

from orchestra_lib.database import Address, connect
from orchestra_lib.evidence import Bound, Evidence, Source
from orchestra_lib.rehearsal.ledger import Standing, lives_of, standing
from orchestra_lib.rehearsal.written import Lives, State, digest_select

_NAMED = 20
_ROWS_A_FETCH = 5_000


class Violation(StrEnum):
    """What can be wrong with a row; the values finish the claim "rows that are …"."""

    LOST = "lost"  # acknowledged, and not there
    STALE = "stale"  # there, in a version before the acknowledged one
    RESURRECTED = "resurrected"  # there, although its delete was acknowledged
    CORRUPT = "corrupt"  # its bytes are not those of the version that it says it is
    DUPLICATED = "duplicated"  # more than one row has the id
    FOREIGN = "foreign"  # in the writer's key space, and never sent by it


_MEANING = {
    Violation.LOST: "acknowledged and not there",
    Violation.STALE: "there in an older version than the acknowledged one",
    Violation.RESURRECTED: "there although their delete was acknowledged",
    Violation.CORRUPT: "whose bytes are not those of their version",
    Violation.DUPLICATED: "that share their id with another",
    Violation.FOREIGN: "there that were never written",
}


@dataclass(frozen=True)
class Finding:
    """One row that violates the invariant: its id, what is wrong, and what was expected and found."""

    violation: Violation
    id: str
    told: str

    def __str__(self) -> str:
        return f"{self.id} is {self.violation}: {self.told}"


@dataclass(frozen=True)
class Verdict:
    """What the judge found. ``findings`` names up to twenty rows of each kind, ``counts`` counts them all."""

    writes: int
    in_doubt: int
    rows: int
    counts: dict[Violation, int]
    findings: tuple[Finding, ...]

    @property
    def holds(self) -> bool:
        """Whether something was judged and nothing is wrong."""
        return bool(self.writes) and not any(self.counts.values())

    def evidence(self, where: str = "the target") -> tuple[Evidence, ...]:
        """One row for each kind of violation, none of which may occur, and one that says how much was judged."""
        note = f"{self.rows:,} rows of {self.writes:,} acknowledged writes, {self.in_doubt:,} in doubt"
        judged = Evidence(
            f"acknowledged writes judged on {where}", Source.MEASURED, self.writes, "writes", Bound(">=", 1), note=note
        )
        return judged, *(
            Evidence(
                f"rows on {where} {_MEANING[violation]}",
                Source.MEASURED,
                self.counts[violation],
                "rows",
                Bound("==", 0),
                note="; ".join(str(found) for found in self.findings if found.violation is violation) or note,
            )
            for violation in Violation
        )

    def __str__(self) -> str:
        wrong = ", ".join(f"{count:,} {violation}" for violation, count in self.counts.items() if count)
        told = (
            f"{self.writes:,} acknowledged writes, {self.in_doubt:,} in doubt, {self.rows:,} rows: {wrong or 'holds'}"
        )
        return "\n    ".join([told, *map(str, self.findings)])


def judge(ledger: Path, address: Address, table: str) -> Verdict:
    """Compare the ledger with the table, row by row, when the writer rests and what it wrote has arrived.

    Every row of the key space is read from the table itself in one snapshot and its digest computed by the server;
    what it has to be follows from the ledger's seed. Memory grows with the keys, not with the writes. Raises DataError
    for what is no ledger, TargetUnreachable when the database cannot be reached.
    """
    lives, known = lives_of(ledger), standing(ledger)
    found = Counter[Violation]()
    findings: list[Finding] = []
    rows, seen, sent = 0, set[int](), known.written()

    def accuse(violation: Violation, id_: str, told: str) -> None:
        found[violation] += 1
        if found[violation] <= _NAMED:
            findings.append(Finding(violation, id_, told))

    for id_, step, digest in _rows(address, table, lives):
        rows += 1
        key = lives.key(id_)
        if key is None or key not in sent:
            accuse(Violation.FOREIGN, id_, "this id was never sent")
        elif key in seen:
            accuse(Violation.DUPLICATED, id_, "it was read before")
        else:
            seen.add(key)
            if wrong := _wrong(lives, known, key, step, digest):
                accuse(wrong[0], id_, wrong[1])
    for key in sorted(sent - seen):
        allowed = _allowed(lives, known, key)
        if all(state.present for state in allowed):
            accuse(Violation.LOST, lives.id(key), f"it is not there and has to be at {_steps(allowed)}")
    counts = {violation: found[violation] for violation in Violation}
    return Verdict(known.writes, len(known.in_doubt), rows, counts, tuple(findings))


def _wrong(lives: Lives, known: Standing, key: int, step: str | None, digest: bytes) -> tuple[Violation, str] | None:
    """What is wrong with a row that is there, None if nothing is."""
    allowed = _allowed(lives, known, key)
    if any(state.present and lives.digest(state) == digest for state in allowed):
        return None
    last = max(state.step for state in allowed)
    if step is None or not step.isdecimal():
        return Violation.CORRUPT, f"it says that it is at step {step!r} and has to be at {_steps(allowed)}"
    if int(step) > last:
        return Violation.FOREIGN, f"it is at step {step} and was sent up to step {last}"
    state = lives.at(key, int(step))
    if not state.present or lives.digest(state) != digest:
        return Violation.CORRUPT, f"its bytes are not those of step {step}, as which it is there"
    if not any(other.present for other in allowed):
        return Violation.RESURRECTED, f"it is at step {step} and was deleted by {_steps(allowed)}"
    return Violation.STALE, f"it is at step {step} and has to be at {_steps(allowed)}"


def _allowed(lives: Lives, known: Standing, key: int) -> tuple[State, ...]:
    """The states that are right for a key: the acknowledged one, and the one in doubt if there is one."""
    steps = {known.acknowledged.get(key, 0)}
    if key in known.in_doubt:
        steps.add(known.in_doubt[key])
    return tuple(lives.at(key, step) for step in sorted(steps))


def _steps(allowed: tuple[State, ...]) -> str:
    return " or ".join(f"step {state.step}" + ("" if state.present else " (absent)") for state in allowed)


def _rows(address: Address, table: str, lives: Lives) -> Iterator[tuple[str, str | None, bytes]]:
    with connect(address, role="judged", autocommit=False) as connection:
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        # The table is read, not its index: an index that has lost an entry would hide the row from us.
        for way in ("indexscan", "indexonlyscan", "bitmapscan"):
            connection.execute(f"SET LOCAL enable_{way} = off")
        with connection.cursor("judged", binary=True) as cursor:
            cursor.itersize = _ROWS_A_FETCH
            cursor.execute(digest_select(sql.Identifier(*table.split(".")), lives))
            yield from cursor
