"""The executed runbooks as HTML pages that need no network, and an index of them.

A page is made only of a notebook that is as it was sealed; for the others the index says why there is none.
"""

from __future__ import annotations

from html import escape
from pathlib import Path

import nbformat
from nbconvert import HTMLExporter

from orchestra_lib import audit, record, settings
from orchestra_lib.audit import Entry
from orchestra_lib.display.tables import badge
from orchestra_lib.errors import RecordError

_HEADINGS = ("sealed (UTC)", "runbook", "environment", "outcome", "verdict", "operator", "page")
_STYLE = (
    "body{font-family:sans-serif;margin:2em}table{border-collapse:collapse}"
    "td,th{text-align:left;padding:4px 12px;border-bottom:1px solid #ddd}"
)


def write_pages(directory: Path) -> Path:
    """Write a page for each executed notebook in the ledger, and ``index.html``, whose path is returned.

    Raises RecordError when the folder cannot be written.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RecordError(f"{directory} cannot be made: {error.strerror}; choose another folder") from error
    # Newest first: that is the one that is looked for.
    rows = "".join(_row(entry, directory) for entry in reversed(audit.entries()))
    head = "".join(f"<th>{heading}</th>" for heading in _HEADINGS)
    index = directory / "index.html"
    content = (
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>Executed runbooks</title>'
        f"<style>{_STYLE}</style></head><body><h1>Executed runbooks</h1>"
        f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></body></html>\n"
    )
    record.write_atomically(index, content.encode())
    return index


def _row(entry: Entry, directory: Path) -> str:
    cells = [
        escape(entry.at[:19].replace("T", " ")),
        escape(entry.runbook),
        escape(entry.environment or "–"),
        escape(entry.outcome.value),
        badge(entry.verdict) if entry.verdict else "–",
        escape(entry.operator),
        _page(entry, directory),
    ]
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


def _page(entry: Entry, directory: Path) -> str:
    """A link to the page, which is written, or why there is none."""
    if entry.notebook is None or entry.notebook_sha256 is None:
        return escape(entry.notebook_missing or "no notebook")
    notebook = settings.root() / entry.notebook
    if not notebook.exists():
        return "the notebook is missing"
    if record.sha256_of(notebook) != entry.notebook_sha256:
        return "the notebook is not the one that was sealed"
    name = f"{entry.run_id}-{entry.runbook}.html"
    record.write_atomically(directory / name, _html(notebook).encode())
    return f'<a href="{escape(name)}">{escape(entry.run_id)}</a>'


def _html(notebook: Path) -> str:
    # Figures carry their own code; the addresses that nbconvert would load scripts from are left out.
    exporter = HTMLExporter(mathjax_url="", require_js_url="", mermaid_js_url="")
    body, _ = exporter.from_notebook_node(nbformat.read(notebook, as_version=4))
    return str(body)
