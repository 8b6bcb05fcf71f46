"""Whether the cells that ran are those of the runbook as it was committed: a gate is skipped by editing a cell."""

from __future__ import annotations

import json
import subprocess
from functools import lru_cache
from pathlib import Path
from typing import Any

from orchestra_lib import settings
from orchestra_lib.record import Record

_OWN_TAGS = frozenset({"parameters", "injected-parameters"})
_GIT_SECONDS = 10


def edited_cells(notebook: Path, found: Record) -> str:
    """What differs between an executed notebook's code and its commit's, in a sentence; empty when nothing does.

    Cells that hold parameters may differ. Nothing is said where nothing can be known: of a session in JupyterLab, whose
    cells are the operator's, and where the commit is not at hand.
    """
    executed = _cells(notebook.read_bytes())
    committed = _committed(settings.root(), found.git.commit, found.runbook) if found.git.commit else None
    if executed is None or committed is None or found.source_sha256 is None:
        return ""
    if executed == committed:
        return ""
    gone = [cell for cell in committed if cell not in executed]
    new = [cell for cell in executed if cell not in committed]
    what = [f"{_first_line(gone[0])!r} is not in it"] if gone else []
    what += [f"{_first_line(new[0])!r} is in it instead"] if new else []
    told = ", ".join(what) or "its cells stand in another order"
    return f"other cells ran than those of {found.runbook} in commit {str(found.git.commit)[:12]}: {told}"


def _cells(content: bytes) -> list[str] | None:
    """The code of a notebook's cells, those of its parameters left out; None when it is no notebook."""
    try:
        cells: list[dict[str, Any]] = json.loads(content)["cells"]
        return [
            "".join(cell["source"])
            for cell in cells
            if cell["cell_type"] == "code" and not _OWN_TAGS & set(cell["metadata"].get("tags", ()))
        ]
    except (ValueError, KeyError, TypeError):
        return None


@lru_cache(maxsize=128)
def _committed(root: Path, commit: str, runbook: str) -> list[str] | None:
    command = ["git", "-C", str(root), "show", f"{commit}:notebooks/{runbook}.ipynb"]
    try:
        done = subprocess.run(command, capture_output=True, timeout=_GIT_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return None  # no git, no checkout, or a commit that is not here: then nothing is known
    return _cells(done.stdout)


def _first_line(cell: str) -> str:
    return cell.strip().splitlines()[0][:60] if cell.strip() else ""
