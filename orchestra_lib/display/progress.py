"""One progress line per step: it replaces itself, so an executed notebook keeps only its last state."""

from __future__ import annotations

import sys
import time

from IPython.core.getipython import get_ipython
from IPython.display import DisplayHandle, display

from orchestra_lib.display.boxes import message_box

_SECONDS_BETWEEN_UPDATES = 0.5  # each update is a message that the notebook stores until the next replaces it


class Progress:
    """Called with (done, total), shows ``name: done of total unit, rate, time left`` on one line.

    In a notebook the line updates in place; elsewhere it goes to standard error.
    """

    def __init__(self, name: str, unit: str) -> None:
        self._name = name
        self._unit = unit
        self._started = time.monotonic()
        self._shown = 0.0
        self._handle: DisplayHandle | None = None
        self._in_notebook = get_ipython() is not None

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if done < total and now - self._shown < _SECONDS_BETWEEN_UPDATES:
            return
        self._shown = now
        self._show(self._line(done, total, now - self._started))

    def say(self, text: str) -> None:
        """Show ``name: text`` on the line instead of a count."""
        self._show(f"{self._name}: {text}, {time.monotonic() - self._started:.0f} s")

    def _line(self, done: int, total: int, elapsed_seconds: float) -> str:
        rate = done / elapsed_seconds if elapsed_seconds > 0 else 0.0
        line = f"{self._name}: {done:,} of {total:,} {self._unit}, {rate:,.0f} {self._unit}/s, "
        if done >= total:
            return f"{line}{elapsed_seconds:.1f} s"
        return f"{line}{(total - done) / rate:.0f} s left" if rate else f"{line}waiting"

    def _show(self, line: str) -> None:
        if not self._in_notebook:
            sys.stderr.write(f"{line}\n")
        elif self._handle is None:
            self._handle = display(message_box(line), display_id=True)
        else:
            self._handle.update(message_box(line))
