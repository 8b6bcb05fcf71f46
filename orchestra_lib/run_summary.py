"""What a chain of runbooks came to, in lines for a terminal: each run with its judged rows, then one table of all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from orchestra_lib import record
from orchestra_lib.evidence import bound_text, value_text
from orchestra_lib.record import Outcome, Record

REACHED_ITS_END = (Outcome.COMPLETED, Outcome.PLANNED)
_CHARACTERS = 64  # of a claim in the table
_GREEN = ("PASS", "REHEARSED")
_HEADINGS = ("phase", "verdict", "key number", "wanted", "time")
_KEY_CLAIMS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "01": ("resources read back as they were wanted",),
        "02": ("start of the gpu machine", "start of the "),
        "03": ("p95 of vector search on the target",),
        "04": ("p95 of reading and packing a context",),
        "05": ("p95 of search at ", "p95 of "),
        "06": ("p95 of vector search on the target", "p95 of "),
        "07": ("rows on the target acknowledged and not there",),
        "99": ("changes that a second rollback would make",),
    }
)
"""Phase -> how the claim begins that says most about it, the best one first. Else the first row that was judged."""


@dataclass(frozen=True)
class Ended:
    """How one runbook ended: its record where one was written, the exit code, and papermill's last words."""

    runbook: str
    record: Record | None
    exit_code: int
    words: str
    seconds: float


def lines(ended: Sequence[Ended]) -> Iterator[str]:
    """Every run, what it has to say, and the table, without line ends."""
    for run in ended:
        yield f"{run.runbook:16} {_verdict(run):12} {run.seconds:.0f} s"
        if _failed(run):
            yield f"    {_why(run)}"
        if run.record:
            yield from (f"    {line}" for line in _numbers(run.record))
            yield f"    record: {record.record_path(Path(run.record.output_notebook or ''))}"
    yield ""
    yield from _table(ended)


def _table(ended: Sequence[Ended]) -> Iterator[str]:
    rows = [_HEADINGS, *(_row(run) for run in ended)]
    widths = [max(len(row[place]) for row in rows) for place in range(len(_HEADINGS))]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _row(run: Ended) -> tuple[str, str, str, str, str]:
    took = f"{int(run.seconds) // 60}:{int(run.seconds) % 60:02d}"
    key = key_row(run.record)
    if _failed(run) and (key is None or key["verdict"] in _GREEN):
        return run.runbook, _verdict(run), _why(run).splitlines()[0][:_CHARACTERS], "-", took
    if key is None:
        return run.runbook, _verdict(run), "-", "-", took
    number = f"{str(key['claim'])[:_CHARACTERS]}: {value_text(key['value'], str(key['unit']))}"
    return run.runbook, _verdict(run), number, bound_text(str(key["target"])), took


def _failed(run: Ended) -> bool:
    return run.record is None or run.record.outcome not in REACHED_ITS_END


def key_row(found: Record | None) -> dict[str, object] | None:
    """The row that says most about a run: one that is red, else the one that its phase is known by."""
    judged = [row for row in (found.evidence if found else ()) if row["verdict"] != "NOTED" and row["target"]]
    red = [row for row in judged if row["verdict"] not in _GREEN]
    starts = _KEY_CLAIMS.get(found.runbook[:2], ()) if found else ()
    known = (row for start in starts for row in judged if str(row["claim"]).startswith(start))
    return red[0] if red else next(known, judged[0] if judged else None)


def _verdict(run: Ended) -> str:
    return run.record.verdict.value if run.record and run.record.verdict else "NO RECORD"


def _why(run: Ended) -> str:
    if run.record and run.record.failure:
        return f"{run.record.failure.error}: {run.record.failure.message}"
    if run.record:
        return run.record.notes[-1] if run.record.notes else f"exit code {run.exit_code}"
    said = run.words.strip().splitlines()
    return f"papermill left no record; its last words: {said[-1] if said else 'none'}"


def _numbers(found: Record) -> list[str]:
    """The judged rows of a record, red ones marked, as lines."""
    return [
        f"{row['verdict']:10} {row['claim']}: {value_text(row['value'], str(row['unit']))}, "
        f"wanted {bound_text(str(row['target']))} ({row['source']})"
        for row in found.evidence
        if row["verdict"] != "NOTED"
    ]
