"""Tables that read the same in JupyterLab, in an exported HTML page and in plain text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from orchestra_lib.display.sorting import ARROWS, ON_CLICK
from orchestra_lib.evidence import Evidence, Verdict, bound_text, value_text
from orchestra_lib.plan import Plan, Verb

# Colours with at least 4.5:1 contrast on the light grounds used here; the word is always there too.
_VERDICT_COLOURS = {
    Verdict.PASS: ("#0b6b2e", "#e3f4e8"),
    Verdict.REHEARSED: ("#0b4f8a", "#e3effa"),
    Verdict.PLANNED: ("#0b4f8a", "#e3effa"),
    Verdict.NOTED: ("#555555", "#f0f0f0"),
    Verdict.FAIL: ("#a11616", "#fbe6e6"),
    Verdict.MISSING: ("#8a5200", "#fdf0dc"),
    Verdict.INTERRUPTED: ("#8a5200", "#fdf0dc"),
}
_WORST_FIRST = (Verdict.FAIL, Verdict.INTERRUPTED, Verdict.MISSING, Verdict.PASS, Verdict.REHEARSED, Verdict.NOTED)
_VERB_SIGNS = {Verb.CREATE: "+", Verb.UPDATE: "~", Verb.REPLACE: "±", Verb.DELETE: "-", Verb.KEEP: " "}
# A notebook that is not trusted loses style sheets: what a table cannot be read without stands on each cell.
_CELL = "text-align:left;vertical-align:top"
_STYLE = (
    f"{ARROWS}table.orchestra th,table.orchestra td{{padding:3px 10px;white-space:normal}}"
    "table.orchestra th{border-bottom:2px solid #999}table.orchestra td{border-bottom:1px solid #ddd}"
)


def badge(verdict: Verdict) -> str:
    """A verdict as a coloured word, in HTML."""
    ink, ground = _VERDICT_COLOURS[verdict]
    return (
        f'<span style="color:{ink};background:{ground};padding:1px 7px;border-radius:3px;'
        f'font-weight:600">{verdict.value}</span>'
    )


@dataclass(frozen=True)
class Table:
    """Rows of short texts under headings; ``marks`` puts a verdict's colours on the first column, row by row.

    In a browser a click on a heading sorts by it.
    """

    headings: Sequence[str]
    rows: Sequence[Sequence[object]]
    caption: str = ""
    marks: Sequence[Verdict] = ()

    def _repr_html_(self) -> str:
        head = "".join(f'<th style="{_CELL}">{escape(name)}</th>' for name in self.headings)
        body = "".join(f"<tr>{self._html_cells(index, row)}</tr>" for index, row in enumerate(self.rows))
        caption = f'<caption style="text-align:left;padding:4px 10px;font-weight:600">{escape(self.caption)}</caption>'
        return (
            f'<div style="overflow-x:auto"><style>{_STYLE}</style>'
            '<table class="orchestra" style="border-collapse:collapse;margin:0">'
            f"{caption if self.caption else ''}<thead {ON_CLICK}><tr>{head}</tr></thead>"
            f"<tbody>{body}</tbody></table></div>"
        )

    def _html_cells(self, index: int, row: Sequence[object]) -> str:
        cells = [escape(value_text(value)) for value in row]
        if self.marks:
            cells[0] = badge(self.marks[index])
        return "".join(f'<td style="{_CELL}">{cell}</td>' for cell in cells)

    def __repr__(self) -> str:
        rows = [[str(name) for name in self.headings], *([value_text(value) for value in row] for row in self.rows)]
        widths = [max(len(row[column]) for row in rows) for column in range(len(self.headings))]
        lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        rule = "  ".join("-" * width for width in widths)
        return "\n".join([*([self.caption] if self.caption else []), lines[0], rule, *lines[1:]])


def evidence_table(rows: Sequence[Evidence], caption: str = "") -> Table:
    """Evidence as a table, worst verdict first, otherwise in the order given."""
    ordered = sorted(rows, key=lambda row: _WORST_FIRST.index(row.verdict))
    return Table(
        ("verdict", "claim", "value", "wanted", "source", "note"),
        [
            (row.verdict.value, row.claim, value_text(row.value, row.unit), _wanted(row), row.source.value, row.note)
            for row in ordered
        ],
        caption,
        [row.verdict for row in ordered],
    )


def plan_table(plan: Plan, caption: str = "") -> Table:
    """A plan as a table: what is created (+), updated (~), replaced (±), deleted (-) or kept."""
    return Table(
        ("", "action", "kind", "name", "detail"),
        [(_VERB_SIGNS[c.verb], c.verb.value, c.kind, c.name, c.detail) for c in plan.changes],
        caption,
    )


def _wanted(row: Evidence) -> str:
    # A no-break space: "<=" at the end of a line and its number on the next read like two things.
    return bound_text(str(row.target)).replace(" ", "\N{NO-BREAK SPACE}") if row.target else ""
