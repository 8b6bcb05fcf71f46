"""What runbook 07 has done beside resources, taken back: the writers go home, with what they have written since."""

from __future__ import annotations

from collections.abc import Sequence

from orchestra_lib.evidence import Evidence
from orchestra_lib.memory.cutover_journal import CutoverJournal, Outcome
from orchestra_lib.paths import move_journal_path
from orchestra_lib.phases.memory_cutover import TARGET
from orchestra_lib.phases.memory_return import WritersReturn
from orchestra_lib.phases.release import Release
from orchestra_lib.plan import Change
from orchestra_lib.runbook import Runbook
from orchestra_lib.settings.base import ALL_PHASES

PHASE = "07"


def beside_finalization(run: Runbook) -> Sequence[Release]:
    """The writers' way back; in a complete rollback phase 3 does the same, and once is enough."""
    return () if run.settings.rollback.phase == ALL_PHASES else (FinalizationReturn(run),)


class FinalizationReturn:
    """The return of one environment's writers, counted by the journal of the cutovers."""

    def __init__(self, run: Runbook) -> None:
        environment = run.settings.environment
        self._path = move_journal_path(environment.name, "cutover", local=environment.kind == "local")
        self._writers = WritersReturn(run)

    @property
    def journalled(self) -> int:
        """How many cutovers to the target were done."""
        cutovers = CutoverJournal(self._path).cutovers
        return sum(one.there == TARGET and one.outcome is Outcome.DONE for one in cutovers)

    def check(self) -> Evidence:
        """Whether what was written on the target can come back; else what would be lost."""
        return self._writers.check()

    def changes(self) -> tuple[Change, ...]:
        """The writers' way back."""
        return self._writers.changes()

    def apply(self) -> int:
        """Bring the writers back; returns 1, or 0 where they are at home. Raises GateFailed where they cannot be."""
        return self._writers.apply()

    def evidence(self) -> tuple[Evidence, ...]:
        """Where the application writes now."""
        return self._writers.evidence()
