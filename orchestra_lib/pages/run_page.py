"""The page of one run: what came out, how it was come to, and what differs from the run before it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from orchestra_lib.evidence import bound_text, canonical_json, value_text
from orchestra_lib.pages.difference import Changed, difference
from orchestra_lib.pages.markup import duration, facts, mark, moment, said, table, verdict_mark
from orchestra_lib.pages.notebook import Figure
from orchestra_lib.pages.reading import Run
from orchestra_lib.record import Record

_JUDGED = ("verdict", "claim", "value", "wanted", "source", "note")
_GREEN = ("PASS", "REHEARSED")
_LONG_LIST = 12


def run_page(run: Run, figures: Sequence[Figure]) -> str:
    """The content of a run's page."""
    parts = [
        '<p class="crumbs"><a href="../index.html">All runs</a></p>',
        f"<h1>{escape(run.runbook)} {mark(run)}</h1>",
        _found(run),
    ]
    if run.record is None:
        parts.append(said("Nothing of what its files say now is shown: they are not what was sealed.", "note"))
        return "".join(parts)
    record = run.record
    parts += [_who(run, record), _failure(record), _numbers(record)]
    if figures:
        parts += ["<h2>Figures</h2>", *(figure.html for figure in figures)]
    parts += [_difference(run, record), _checks(record), _readings(record), _steps(record), _plan(record)]
    parts.append(_notes(record))
    return "".join(parts)


def number(row: Mapping[str, Any]) -> str:
    """The value of a row of evidence, with its unit, as text."""
    return value_text(row["value"], str(row["unit"]))


def _found(run: Run) -> str:
    if run.harm:
        what = "This run is not as it was sealed:" if run.entry else "The ledger has no entry for this run:"
        return said(what, "harmed", [*run.harm, *run.remarks])
    remarks = said("To be said of its files:", "note", run.remarks) if run.remarks else ""
    if run.entry is None or run.record is None:
        return remarks
    files = "record and notebook are" if run.notebook else "the record is"
    return said(f"As it was sealed: {files} held against entry {run.entry.sequence} of the ledger.", "sound") + remarks


def _who(run: Run, record: Record) -> str:
    commit = escape((record.git.commit or "not a git checkout")[:12]) + (
        " <b>with local changes</b>" if record.git.dirty else ""
    )
    host = record.host
    memory = int(host["memory_bytes"]) / 2**30
    given = {name: value for name, value in record.parameters.items() if name != "environment"}
    told = [f"{name} = {value if isinstance(value, str) else canonical_json(value)}" for name, value in given.items()]
    pairs = [
        ("run", f"<code>{escape(record.run_id)}</code>"),
        ("environment", escape(f"{record.environment or '–'}{', a rehearsal' if record.rehearsal else ''}")),
        ("operator", f"{escape(record.operator)} on {escape(str(host['name']))}"),
        ("started", f"{moment(record.started.isoformat())} UTC, took {duration(record.duration_seconds)}"),
        ("outcome", f"{escape(record.outcome.value)}, exit code {record.exit_code}"),
        ("parameters given", escape("; ".join(told)) or "none: all as the environment's file says"),
        ("code", f"<code>{commit}</code>"),
        ("machine", escape(f"{host['cores']} cores, {memory:.0f} GiB, {host['cpu']}, Python {host['python']}")),
    ]
    if run.notebook:
        pairs.append(("executed notebook", f'<a href="{escape(run.notebook_page)}">as a page</a>'))
    if run.entry:
        pairs.append(("record", f"<code>{escape(run.entry.record)}</code>, SHA-256 {run.entry.record_sha256[:16]}…"))
    return f'<div class="box">{facts(pairs)}</div>'


def _failure(record: Record) -> str:
    if record.failure is None:
        return ""
    where = f" (cell {record.failure.cell_index + 1})" if record.failure.cell_index is not None else ""
    return said(f"{record.failure.error}{where}", "harmed", record.failure.message.splitlines())


def _numbers(record: Record) -> str:
    """What is red, and what was held against a number of its own; yes and no, all and none stand below."""
    rows = [row for row in _judged(record) if _is_red(row) or not str(row["target"]).startswith("== ")]
    if not rows:
        return ""
    ordered = sorted(rows, key=lambda row: not _is_red(row))
    return "<h2>Key numbers</h2>" + table(_JUDGED, (_evidence(row) for row in ordered))


def _checks(record: Record) -> str:
    rows = _judged(record)
    if not rows:
        return "<h2>Checks</h2><p>Nothing was judged.</p>"
    red = sum(map(_is_red, rows))
    shown = table(_JUDGED, (_evidence(row) for row in sorted(rows, key=lambda row: not _is_red(row))))
    told = f"{len(rows)} checks, {red or 'none'} of them red"
    return f"<h2>Checks</h2><details><summary>{told}</summary>{shown}</details>"


def _judged(record: Record) -> list[Mapping[str, Any]]:
    return [row for row in record.evidence if row["verdict"] != "NOTED"]


def _is_red(row: Mapping[str, Any]) -> bool:
    return str(row["verdict"]) not in _GREEN


def _readings(record: Record) -> str:
    rows = [row for row in record.evidence if row["verdict"] == "NOTED"]
    if not rows:
        return ""
    shown = table(("claim", "value", "source", "note"), ((c[1], c[2], c[4], c[5]) for c in map(_evidence, rows)))
    return f"<h2>Readings</h2><details><summary>{len(rows)} values without a target</summary>{shown}</details>"


def _evidence(row: Mapping[str, Any]) -> tuple[str, ...]:
    wanted = bound_text(str(row["target"])) if row["target"] else ""
    return (
        verdict_mark(row["verdict"]),
        f'<div class="long">{escape(str(row["claim"]))}</div>',
        f'<span class="nowrap">{escape(number(row))}</span>' if len(number(row)) < 30 else escape(number(row)),
        f'<span class="nowrap">{escape(wanted)}</span>',
        escape(str(row["source"])),
        f'<span class="small pale">{escape(str(row["note"]))}</span>' if row["note"] else "",
    )


def _difference(run: Run, record: Record) -> str:
    heading = "<h2>Compared with the run before</h2>"
    if run.previous is None:
        return f"{heading}<p>There is none of {escape(run.runbook)} in this environment.</p>"
    found = difference(run.previous, record)
    name = f"{run.previous.run_id}-{run.previous.runbook}.html"
    told = (
        f'<p><a href="{escape(name)}">{escape(run.previous.run_id)}</a> of '
        f"{moment(run.previous.started.isoformat())} UTC. Different: {escape(found.words)}.</p>"
    )
    parts = (
        ("Code and machine", found.code),
        ("Parameters and settings", found.parameters),
        ("Plan", found.plan),
        ("Numbers", found.numbers),
    )
    return heading + told + "".join(_changed(title, rows) for title, rows in parts)


def _changed(title: str, rows: Sequence[Changed]) -> str:
    if not rows:
        return f'<p class="pale">{title}: the same.</p>'
    shown = table(
        ("what", "before", "now", ""),
        (
            (f'<div class="long">{escape(row.name)}</div>', escape(row.before), escape(row.now), escape(row.note))
            for row in rows
        ),
    )
    is_open = " open" if len(rows) <= _LONG_LIST else ""
    return f"<details{is_open}><summary>{title}: {len(rows)}</summary>{shown}</details>"


def _steps(record: Record) -> str:
    if not record.steps:
        return ""
    longest = max((step.duration_seconds or 0 for step in record.steps), default=0) or 1
    rows = (
        (
            escape(step.name),
            f'<span class="nowrap">{duration(step.duration_seconds)}</span>',
            f'<div class="bar" style="width:{100 * (step.duration_seconds or 0) / longest:.1f}%"></div>',
            "" if step.outcome == "completed" else escape(step.outcome),
        )
        for step in record.steps
    )
    return "<h2>Steps</h2>" + table(("step", "took", "", "ended"), rows)


def _plan(record: Record) -> str:
    if record.plan_sha256 is None:
        return ""
    digest = f'<p class="small pale">digest <code>{record.plan_sha256}</code></p>'
    if not record.plan:
        return f"<h2>Plan</h2><p>The changes stand in the executed notebook.</p>{digest}"
    rows = (tuple(escape(one[name]) for name in ("verb", "kind", "name", "detail")) for one in record.plan)
    shown = table(("action", "kind", "name", "detail"), rows)
    is_open = " open" if len(record.plan) <= _LONG_LIST else ""
    return f"<h2>Plan</h2><details{is_open}><summary>{len(record.plan)} changes</summary>{shown}</details>{digest}"


def _notes(record: Record) -> str:
    if not record.notes:
        return ""
    return "<h2>Notes</h2><ul>" + "".join(f"<li>{escape(note)}</li>" for note in record.notes) + "</ul>"
