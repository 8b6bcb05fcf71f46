"""A cell's error as a short box: what is wrong and what to do, with the traceback folded away.

The kernel still reports the error as one, so JupyterLab stops and papermill fails; only the wall of frames is folded.
"""

from __future__ import annotations

import re
import traceback
from html import escape
from typing import Any

from IPython.display import display

from orchestra_lib.display.boxes import EDGES, Box
from orchestra_lib.errors import OrchestraError, StopAfterPlan

_REMEDIES = {
    "KeyboardInterrupt": "The run stays open. Run this cell again to go on; what is done is found and left alone.",
    "NameError": "A cell above makes this name: run the notebook from its first cell.",
    "ModuleNotFoundError": "The kernel is not the project's: open JupyterLab with `python -m orchestra_lib lab`.",
    "OperationalError": "A database did not answer: `python -m orchestra_lib status` says what runs here. "
    "Then run this cell again.",
    "MemoryError": "Free memory on this machine, or choose smaller parameters, and run this cell again.",
}
_UNKNOWN = "Run this cell again. If it fails again, the traceback says where."
_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_MOST_LINES = 12  # of a message: some errors print whole documents


def error_box(error: BaseException, frames: str) -> Box:
    """The error's class, message and remedy (our own messages hold it); ``frames`` is the traceback as plain text."""
    name = type(error).__name__
    remedy = "" if isinstance(error, OrchestraError) else _REMEDIES.get(name, _UNKNOWN)
    lines = (str(error) or "without a message").splitlines()
    more = [f"… {len(lines) - _MOST_LINES} more lines stand in the traceback"] if len(lines) > _MOST_LINES else []
    shown = [*lines[:_MOST_LINES], *more]
    first, *rest = (escape(line) for line in shown)
    below = "".join(f"<div>{line}</div>" for line in [*rest, *([_with_code(remedy)] if remedy else [])])
    folded = "overflow-x:auto;font-size:12px;line-height:1.35;background:#f6f6f6;padding:8px 12px;max-height:30em"
    html = (
        f'<div style="border-left:4px solid {EDGES["error"]};background:#fdf3f3;padding:8px 14px;margin:4px 0">'
        f'<div style="color:{EDGES["error"]};font-weight:600">{escape(name)}: {first}</div>'
        f'{below}<details style="margin-top:4px"><summary style="cursor:pointer">Traceback</summary>'
        f'<pre style="{folded}">{escape(frames)}</pre></details></div>'
    )
    return Box(html, "\n".join([f"{name}: {shown[0]}", *shown[1:], *([remedy] if remedy else [])]))


def fold_tracebacks(shell: Any) -> None:
    """From now on the errors of this kernel's cells are shown as boxes. Installing it again changes nothing."""
    if getattr(shell, "_orchestra_folds", False) or not hasattr(shell, "_showtraceback"):
        return
    show = shell._showtraceback

    def folded(kind: type[BaseException], error: BaseException | str, frames: list[str]) -> None:
        if isinstance(error, StopAfterPlan) or not isinstance(error, BaseException):
            show(kind, error, frames)  # an end that was asked for, and has been told; or a message of IPython's own
            return
        whole = frames if not isinstance(error, OrchestraError) else traceback.format_exception(error)
        display(error_box(error, _ANSI.sub("", "\n".join(whole))))
        show(kind, error, [f"{kind.__name__}: see above"])

    shell._showtraceback = folded
    shell._orchestra_folds = True


def _with_code(text: str) -> str:
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))
