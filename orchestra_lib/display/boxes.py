"""Boxes with one message each: the head of a run, a plain sentence, the verdict at the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from orchestra_lib.display.tables import badge
from orchestra_lib.evidence import Evidence, Verdict
from orchestra_lib.record import Record

EDGES = {"note": "#0b4f8a", "warning": "#b36b00", "error": "#a11616"}
"""The colour of a box's edge by its level."""


@dataclass(frozen=True)
class Box:
    """A block of HTML with the same content as plain text."""

    html: str
    text: str

    def _repr_html_(self) -> str:
        return self.html

    def __repr__(self) -> str:
        return self.text


def message_box(text: str, level: str = "note") -> Box:
    """A sentence or a few; ``level`` is note, warning or error."""
    body = "<br>".join(escape(line) for line in text.splitlines())
    return Box(f'<div style="border-left:4px solid {EDGES[level]};padding:4px 12px;margin:4px 0">{body}</div>', text)


def progress_box(text: str, share: float | None = None) -> Box:
    """A sentence about something that goes on, with a bar for how much of it is done (0 to 1)."""
    if share is None:
        return message_box(text)
    ground = "height:6px;max-width:32em;margin-top:5px;background:#dfe6ee;border-radius:3px;overflow:hidden"
    done = f"width:{100 * min(max(share, 0.0), 1.0):.1f}%;height:6px;background:{EDGES['note']}"
    return Box(
        f'<div style="border-left:4px solid {EDGES["note"]};padding:4px 12px;margin:4px 0">{escape(text)}'
        f'<div style="{ground}"><div style="{done}"></div></div></div>',
        text,
    )


def text_box(text: str) -> Box:
    """A text of many lines as it stands, such as a file to copy."""
    style = "background:#f6f6f6;padding:8px 12px;overflow-x:auto;font-size:12px;line-height:1.4"
    return Box(f'<pre style="{style}">{escape(text)}</pre>', text)


def header_box(record: Record, reading: str) -> Box:
    """Who runs what, where and with which code; ``reading`` is one line about the environment."""
    commit = (record.git.commit or "not a git checkout")[:12] + (" with local changes" if record.git.dirty else "")
    facts = [
        f"{record.runbook} · environment {record.environment} · mode {record.mode}",
        f"run {record.run_id} by {record.operator} on {record.host['name']}",
        f"code {commit} · {record.host['cores']} cores, {int(record.host['memory_bytes']) / 2**30:.0f} GiB",
        reading,
    ]
    return message_box("\n".join(facts))


def verdict_box(verdict: Verdict, failures: Sequence[Evidence], meaning: str) -> Box:
    """The verdict in large, what it means, and each failing row of evidence."""
    lines = "".join(f"<li>{escape(str(row))}</li>" for row in failures)
    html = (
        '<div style="border:1px solid #ccc;border-radius:6px;padding:10px 16px;margin:6px 0">'
        f'<div style="font-size:1.4em">{badge(verdict)}</div><p style="margin:6px 0">{escape(meaning)}</p>'
        f"{f'<ul>{lines}</ul>' if lines else ''}</div>"
    )
    return Box(html, "\n".join([f"{verdict.value}: {meaning}", *(f"  {row}" for row in failures)]))
