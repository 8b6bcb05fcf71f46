"""The memory phase in a process of its own, from its beginning to a chosen moment: there it ends by SIGKILL.

    python tests/phases/killed_phase.py MOMENT

The moment is a step of MOMENTS. Nothing is tidied up, as when a machine loses its power.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from orchestra_lib.memory import initial_copy
from orchestra_lib.memory.cutover_journal import CutoverJournal, Step
from orchestra_lib.phases.memory import MemoryPhase
from orchestra_lib.phases.memory_cutover import CutoverSteps
from orchestra_lib.phases.memory_stream import StreamSteps
from orchestra_lib.runbook import Runbook

RANGES_BEFORE = 3
"""How many key ranges are on the target when the copy is cut off in its middle."""


def _die(*_arguments: Any, **_named: Any) -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("unreachable")


def _in_the_copy() -> None:
    note, noted = initial_copy.note_range, iter(range(RANGES_BEFORE))

    def die_after_some(*arguments: Any) -> None:
        if next(noted, None) is None:
            _die()
        note(*arguments)

    initial_copy.note_range = die_after_some


def _in_the_catch_up() -> None:
    StreamSteps._note = _die  # type: ignore[method-assign]


def _after(step: Step) -> Callable[[], None]:
    """When that step of the cutover has been carried out, and before that is written down."""

    def prepare() -> None:
        done = CutoverJournal.done

        def die_instead(journal: CutoverJournal, record: Any, what: Step) -> None:
            if what is step:
                _die()
            done(journal, record, what)

        CutoverJournal.done = die_instead  # type: ignore[method-assign]

    return prepare


def _before_the_return() -> None:
    CutoverSteps.back = _die  # type: ignore[method-assign]


MOMENTS: Mapping[str, Callable[[], None]] = {
    "in the copy": _in_the_copy,
    "in the catch-up": _in_the_catch_up,
    "writers shut out": _after(Step.CLOSE),
    "endpoint switched": _after(Step.SWITCH),
    "before the return": _before_the_return,
}


def main(moment: str) -> None:
    """Go through the runbook's cells. Raises AssertionError when the moment never came."""
    MOMENTS[moment]()
    phase = MemoryPhase(Runbook.open("03_memory", environment="local"))
    phase.inventory()
    phase.copy()
    phase.stream.start()
    phase.stream.catch_up()
    phase.cutover.there()
    phase.cutover.back()
    raise AssertionError(f"it was not killed {moment}")


if __name__ == "__main__":
    main(sys.argv[1])
