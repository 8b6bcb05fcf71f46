"""The validation as one page of HTML for the person who decides: it prints to one sheet and asks no network.

Figures are drawn into the page as SVG; there is no script in it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from html import escape
from pathlib import Path

import plotly.graph_objects as go

from orchestra_lib.display.still import still_svg
from orchestra_lib.display.tables import badge
from orchestra_lib.evidence import Verdict, bound_text
from orchestra_lib.record import write_atomically
from orchestra_lib.validation.criteria import Criterion
from orchestra_lib.validation.opportunities import Opportunity
from orchestra_lib.validation.targets import State, Target

_SHOWN_OPPORTUNITIES = 5
_STYLE = """
@page { size: A4; margin: 10mm }
* { box-sizing: border-box }
body { font: 12px/1.35 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; color: #222; margin: 18px auto;
  max-width: 980px; padding: 0 14px }
h1 { font-size: 21px; margin: 0 0 2px } h2 { font-size: 14px; margin: 12px 0 3px; color: #0b4f8a }
p { margin: 3px 0 } .said { font-size: 14px } .small { color: #555; font-size: 10.5px }
table { border-collapse: collapse; width: 100% } th { text-align: left; border-bottom: 1.5px solid #999 }
td, th { padding: 2px 8px 2px 0; vertical-align: top } td { border-bottom: 1px solid #e3e3e3 }
.figures { display: flex; gap: 10px; align-items: flex-start } .figures > div { flex: 1; min-width: 0 }
.figures svg { width: 100%; height: auto }
.number { white-space: nowrap }
@media print { body { margin: 0; max-width: none; font-size: 9.2px; padding: 0 } h1 { font-size: 16px }
  h2 { font-size: 11px; margin: 7px 0 2px } .said { font-size: 10.5px } .small { font-size: 8px }
  td, th { padding: 1px 6px 1px 0 } * { -webkit-print-color-adjust: exact; print-color-adjust: exact } }
"""


@dataclass(frozen=True)
class Report:
    """What the page says. ``verdict`` is the run's as far as it has come."""

    verdict: Verdict
    environment: str
    is_rehearsal: bool
    run_id: str
    operator: str
    commit: str
    machine: str
    at: datetime
    targets: Sequence[Target]
    criteria: Sequence[Criterion]
    opportunities: Sequence[Opportunity]
    figures: Sequence[go.Figure]


def write_report(report: Report, path: Path) -> str:
    """Write the page; returns its SHA-256 as 64 hexadecimal digits. Raises RecordError when the disk refuses."""
    content = page(report).encode()
    write_atomically(path, content)
    return hashlib.sha256(content).hexdigest()


def page(report: Report) -> str:
    """The page as HTML."""
    title = "AI Orchestra on Google Cloud: what the migration has reached"
    figures = "".join(f"<div>{still_svg(figure)}</div>" for figure in report.figures)
    return (
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style></head><body><h1>{escape(title)}</h1>"
        f'<p class="said">{badge(report.verdict)} {escape(_sentence(report))}</p>'
        f"<h2>Targets, measured again</h2>{_targets(report.targets)}"
        f'<div class="figures">{figures}</div>'
        f"<h2>The strategy's success criteria</h2>{_criteria(report.criteria)}"
        f"<h2>What is left to gain, first what is worth most</h2>{_opportunities(report.opportunities)}"
        f'<p class="small">{escape(_source(report))}</p></body></html>\n'
    )


def _sentence(report: Report) -> str:
    counted = {state: sum(one.state is state for one in report.targets) for state in State}
    reached = counted[State.REACHED] + counted[State.REHEARSED]
    parts = [f"{reached} of {len(report.targets)} targets are reached"]
    if counted[State.NOT_REACHED]:
        parts.append(f"{counted[State.NOT_REACHED]} are not")
    if counted[State.MISSING]:
        parts.append(f"{counted[State.MISSING]} could not be measured")
    improved = [f"{one.title} {one.improvement}" for one in report.targets if one.is_improved is not None]
    than = f" Against today's system, both sides measured: {'; '.join(improved)}." if improved else ""
    where = (
        " This is a rehearsal: the figures are this machine's, and a simulated Google Cloud says nothing of how fast "
        "Google's is."
        if report.is_rehearsal
        else ""
    )
    return f"{', '.join(parts)}.{than}{where}"


def _targets(targets: Sequence[Target]) -> str:
    rows = [
        [
            badge(one.state.verdict) + (f" {one.state}" if one.state is State.NOT_REACHED else ""),
            escape(one.title),
            f'<span class="number">{escape(bound_text(str(one.bound)))} {escape(one.unit)}</span>',
            f'<span class="number">{escape(one.now.text(one.unit))}</span>'
            if one.now
            else escape(f"MISSING: {one.missing}"),
            escape(f"{one.before.text(one.unit)}, {one.before.source.value}" if one.before else "–"),
            escape(one.improvement),
            escape(" · ".join(filter(None, (one.now.how if one.now else "", one.load)))),
        ]
        for one in targets
    ]
    return _table(("", "target", "wanted", "now [95 % interval]", "before", "may be said", "how, and how busy"), rows)


def _criteria(criteria: Sequence[Criterion]) -> str:
    rows = [[badge(one.state.verdict), escape(one.words), escape(one.evidence)] for one in criteria]
    return _table(("", "criterion", "evidence"), rows)


def _opportunities(found: Sequence[Opportunity]) -> str:
    rows = [
        [str(number), escape(one.name), escape(one.gain), escape(one.step)]
        for number, one in enumerate(found[:_SHOWN_OPPORTUNITIES], start=1)
    ]
    more = len(found) - _SHOWN_OPPORTUNITIES
    told = f'<p class="small">{more} more stand in the notebook.</p>' if more > 0 else ""
    return _table(("", "what", "what it is worth", "step"), rows) + told


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(one)}</th>" for one in headings)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _source(report: Report) -> str:
    return (
        f"Environment {report.environment}, run {report.run_id} by {report.operator}, {report.at:%Y-%m-%d %H:%M} UTC, "
        f"code {report.commit}, measured on {report.machine}. Every figure stands in the record beside this page, "
        "which is sealed in the ledger: python -m orchestra_lib audit verify."
    )
