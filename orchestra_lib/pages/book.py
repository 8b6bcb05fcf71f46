"""Writing the book: the index, a page for each run, and each executed notebook that is as it was sealed."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from html import escape
from pathlib import Path

import plotly

from orchestra_lib import record
from orchestra_lib.audit import Verification
from orchestra_lib.errors import RecordError
from orchestra_lib.evidence import bound_text
from orchestra_lib.pages import notebook
from orchestra_lib.pages.difference import difference
from orchestra_lib.pages.markup import duration, mark, moment, page, said, table
from orchestra_lib.pages.reading import Run, read
from orchestra_lib.pages.run_page import number, run_page
from orchestra_lib.run_summary import key_row

_PAGES = "pages"
_HEADINGS = (
    "sealed (UTC)", "runbook", "verdict", "environment", "operator", "commit", "took", "judged", "since the run before",
    "notebook",
)  # fmt: skip


def write_pages(directory: Path) -> Path:
    """Write the index, whose path is returned, and the pages of all runs; pages of an earlier writing go.

    Raises RecordError when the folder cannot be written, or the ledger cannot be read.
    """
    runs, found = read()
    pages = directory / _PAGES
    try:
        pages.mkdir(parents=True, exist_ok=True)
        for old in pages.glob("*.html"):
            old.unlink()  # of a run that has been tampered with since, say
        shutil.copyfile(_plotly_js(), directory / notebook.PLOTLY_JS)
    except OSError as error:
        raise RecordError(f"{directory} cannot be made: {error.strerror}; choose another folder") from error
    for run in runs:
        _write_run(run, pages)
    index = directory / "index.html"
    record.write_atomically(index, page("Executed runbooks", _index(runs, found)))
    return index


def _write_run(run: Run, pages: Path) -> None:
    figures = notebook.figures(run.notebook) if run.notebook else []
    title = f"{run.runbook} · {run.run_id}"
    live = notebook.LIVE if figures else ""
    record.write_atomically(pages / run.page, page(title, run_page(run, figures), at_end=live))
    if run.notebook:
        head = (
            '<p class="crumbs"><a href="../index.html">All runs</a> · '
            f'<a href="{escape(run.page)}">{escape(title)}</a></p><p>{mark(run)} The executed notebook, as sealed.</p>'
        )
        body = f'{head}<div class="notebook">{notebook.body(run.notebook)}</div>'
        record.write_atomically(pages / run.notebook_page, page(title, body, notebook.CODE_STYLE, live))


def _plotly_js() -> Path:
    return Path(plotly.__file__).parent / "package_data" / "plotly.min.js"


def _index(runs: Sequence[Run], found: Verification) -> str:
    made = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    head = f'<h1>Executed runbooks</h1><p class="pale">{len(runs)} runs, as of {made}. {_head(runs)}</p>'
    if not runs:
        return head + _held(found) + "<p>No runbook has been run yet.</p>"
    return (
        head
        + _held(found)
        + "<h2>Where it stands</h2>"
        + f'<div class="cards">{"".join(_card(run) for run in _latest(runs))}</div>'
        + "<h2>All runs, newest first</h2>"
        + table(_HEADINGS, (_row(run) for run in runs))
    )


def _head(runs: Sequence[Run]) -> str:
    """What has to be written down elsewhere, so that a ledger that was made anew can be told from this one."""
    last = max((run.entry for run in runs if run.entry), key=lambda entry: entry.sequence, default=None)
    return f"Entry {last.sequence} of the ledger has the digest <code>{last.entry_sha256[:16]}…</code>." if last else ""


def _held(found: Verification) -> str:
    """What ``audit verify`` says of the whole."""
    harm = [str(one) for one in found.findings if not one.is_note]
    notes = [str(one) for one in found.findings if one.is_note]
    if harm:
        first = f"audit verify: NOT as sealed. {len(harm)} finding{'' if len(harm) == 1 else 's'}:"
        return said(first, "harmed", [*harm, *notes])
    if not found.entries:
        return said("audit verify: no run has been sealed yet.", "note", notes)
    told = f"audit verify: {found.entries} entries, every file as it was sealed."
    return said(told, "sound") + (said("Worth knowing, nothing wrong:", "note", notes) if notes else "")


def _latest(runs: Iterable[Run]) -> list[Run]:
    """The last run of each runbook, in the order of the phases."""
    latest: dict[str, Run] = {}
    for run in runs:  # newest first
        latest.setdefault(run.runbook, run)
    return [latest[name] for name in sorted(latest)]


def _card(run: Run) -> str:
    key = key_row(run.record) if run.record and run.is_sound else None
    name = run.runbook[3:].replace("_", " ")
    told = (
        f'<div class="key">{escape(number(key))}</div><div class="small">{escape(str(key["claim"]))}</div>'
        f'<div class="small pale">wanted {escape(bound_text(str(key["target"])))}</div>'
        if key
        else f'<p class="small">{escape(run.harm[0]) if run.harm else "no numbers"}</p>'
    )
    took = f" · {duration(run.record.duration_seconds)}" if run.record else ""
    return (
        f'<a class="card" href="{_PAGES}/{escape(run.page)}"><div class="top"><span>{escape(run.runbook[:2])} '
        f'{escape(name)}</span>{mark(run)}</div>{told}<div class="small pale">{moment(run.at)}{took}</div></a>'
    )


def _row(run: Run) -> tuple[str, ...]:
    kept = run.record
    judged = [row for row in kept.evidence if row["verdict"] != "NOTED"] if kept else []
    red = sum(row["verdict"] not in ("PASS", "REHEARSED") for row in judged)
    commit = (kept.git.commit or "–")[:10] + (" +" if kept.git.dirty else "") if kept else "–"
    return (
        moment(run.at),
        f'<a class="nowrap" href="{_PAGES}/{escape(run.page)}">{escape(run.runbook)}</a>',
        mark(run),
        escape(kept.environment or "–") if kept else "–",
        escape(run.entry.operator) if run.entry else "–",
        f"<code>{escape(commit)}</code>",
        f'<span class="nowrap">{duration(kept.duration_seconds)}</span>' if kept else "–",
        f"{len(judged)}" + (f", <b>{red} red</b>" if red else "") if kept else "–",
        _since(run),
        _notebook(run),
    )


def _since(run: Run) -> str:
    if run.record is None:
        return f'<span class="small">{escape((run.harm or run.remarks or ("–",))[0])}</span>'
    if run.previous is None:
        return '<span class="pale">the first</span>'
    return f'<span class="small">{escape(difference(run.previous, run.record).words)}</span>'


def _notebook(run: Run) -> str:
    if run.notebook:
        return f'<a href="{_PAGES}/{escape(run.notebook_page)}">notebook</a>'
    if run.harm:
        return '<span class="pale">not as sealed</span>'
    return f'<span class="small pale">{escape((run.entry and run.entry.notebook_missing) or "–")}</span>'
