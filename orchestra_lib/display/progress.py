"""One progress line per step: it replaces itself, so an executed notebook keeps only its last state."""

from __future__ import annotations

import os
import sys
import time

from IPython.core.getipython import get_ipython
from IPython.display import DisplayHandle, display

from orchestra_lib.display.boxes import Box, message_box, progress_box
from orchestra_lib.record import RUN_CONTEXT_VARIABLE

_SECONDS_BETWEEN_UPDATES = 0.5  # each update is a message that the notebook stores until the next replaces it
_SECONDS_IN_ONE_PLACE = 15  # a browser that has cleared the output, or was reloaded, shows no update of it any more
_NOTHING = Box("", "")


class Progress:
    """Called with (done, total), shows ``name: done of total unit, rate, time left`` and a bar on one line.

    In a notebook the line updates in place; under a person's eyes it is also set anew now and then, and so comes back
    after its output was cleared. Elsewhere it goes to standard error.
    """

    def __init__(self, name: str, unit: str) -> None:
        self._name = name
        self._unit = unit
        self._started = time.monotonic()
        self._shown = 0.0
        self._placed = 0.0
        self._handle: DisplayHandle | None = None
        self._in_notebook = get_ipython() is not None
        self._may_be_cleared = RUN_CONTEXT_VARIABLE not in os.environ

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if done < total and now - self._shown < _SECONDS_BETWEEN_UPDATES:
            return
        self._shown = now
        line = self._line(done, total, now - self._started)
        self._show(message_box(line) if done >= total else progress_box(line, done / total))

    def say(self, text: str) -> None:
        """Show ``name: text`` on the line instead of a count."""
        self._show(message_box(f"{self._name}: {text}, {time.monotonic() - self._started:.0f} s"))

    def _line(self, done: int, total: int, elapsed_seconds: float) -> str:
        rate = done / elapsed_seconds if elapsed_seconds > 0 else 0.0
        line = f"{self._name}: {done:,} of {total:,} {self._unit}, {rate:,.0f} {self._unit}/s, "
        if done >= total:
            return f"{line}{elapsed_seconds:.1f} s"
        return f"{line}{(total - done) / rate:.0f} s left" if rate else f"{line}waiting"

    def _show(self, box: Box) -> None:
        if not self._in_notebook:
            sys.stderr.write(f"{box.text}\n")
            return
        now = time.monotonic()
        if self._handle is not None and self._may_be_cleared and now - self._placed > _SECONDS_IN_ONE_PLACE:
            self._handle.update(_NOTHING)
            self._handle = None
        if self._handle is None:
            self._placed = now
            self._handle = display(box, display_id=True)
        else:
            self._handle.update(box)
