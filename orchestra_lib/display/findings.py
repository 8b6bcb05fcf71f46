"""The preflight's one table: every check, the worst first, with its remedy and the setting that would do."""

from __future__ import annotations

from collections.abc import Sequence

from orchestra_lib.display.tables import Table
from orchestra_lib.evidence import bound_text, value_text
from orchestra_lib.preflight.check import Check


def findings_table(rows: Sequence[Check], caption: str = "") -> Table:
    """The checks, worst first, otherwise in the order given. The last column can be pasted into a parameter file."""
    ordered = sorted(rows, key=lambda row: row.rank)
    return Table(
        ("verdict", "area", "claim", "value", "wanted", "what was found, what to do", "nearest valid setting"),
        [_cells(row) for row in ordered],
        caption,
        [row.evidence.verdict for row in ordered],
    )


def _cells(row: Check) -> tuple[str, ...]:
    evidence = row.evidence
    wanted = bound_text(str(evidence.target)).replace(" ", "\N{NO-BREAK SPACE}") if evidence.target else ""
    return (
        evidence.verdict.value,
        row.area,
        evidence.claim,
        value_text(evidence.value, evidence.unit),
        wanted,
        row.words or evidence.note,
        ", ".join(row.settings),
    )
