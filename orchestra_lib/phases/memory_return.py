"""What the application has written on the target since the cutover, brought back before the target goes."""

from __future__ import annotations

from collections import Counter
from functools import cached_property

from orchestra_lib.database import connect
from orchestra_lib.errors import GateFailed, OrchestraError
from orchestra_lib.evidence import Evidence, Source, yes_or_no
from orchestra_lib.memory.compare import CHANGED, EXTRA, MISSING, differences
from orchestra_lib.memory.cutover_journal import CutoverJournal
from orchestra_lib.memory.ranges import key_ranges
from orchestra_lib.paths import move_journal_path
from orchestra_lib.phases.memory_cutover import SOURCE, TARGET, CutoverSteps
from orchestra_lib.phases.memory_load import RehearsalLoad
from orchestra_lib.phases.memory_stores import Stores
from orchestra_lib.phases.memory_stream import StreamSteps
from orchestra_lib.plan import Change, Verb
from orchestra_lib.runbook import Runbook


class WritersReturn:
    """The writers of one environment's store. Nothing is opened while they write on the source."""

    def __init__(self, run: Runbook) -> None:
        self._run, self._settings = run, run.settings
        self._path = move_journal_path(
            run.settings.environment.name, "cutover", local=run.settings.environment.kind == "local"
        )
        if CutoverJournal(self._path).unfinished() is not None:
            self._steps.settle()

    @property
    def journalled(self) -> int:
        """0: cutovers are counted by nobody, what matters is where the writers are."""
        return 0

    def check(self) -> Evidence:
        """Whether what was written on the target can come back; else what would be lost."""
        claim = "what was written since the cutover comes back"
        live = self._live
        if live == SOURCE:
            return yes_or_no(claim, Source.OBSERVED, live == SOURCE, note="the application writes on the source")
        obstacle = self._obstacle()
        note = "the stream back brings what was written on the target since"
        if obstacle:
            note = f"{obstacle}: what was written since would be lost, {self._how_much()}"
        return yes_or_no(claim, Source.OBSERVED, not obstacle, note=note)

    def changes(self) -> tuple[Change, ...]:
        """The writers' way back."""
        if self._live == SOURCE:
            return ()
        detail = "from the target back to the source, with everything that they wrote since the cutover"
        return (Change(Verb.UPDATE, "writers", "of the memory", detail, TARGET, SOURCE),)

    def apply(self) -> int:
        """Bring the writers back; returns 1, or 0 where they are at home.

        Raises GateFailed where they cannot be brought back.
        """
        if self._live == SOURCE:
            return 0
        obstacle = self._obstacle()
        if obstacle:
            raise GateFailed(f"the writers stay on the target, {obstacle}: what they wrote there would be lost")
        self._steps.bring_back("Return: from the target to the source")
        return 1

    def evidence(self) -> tuple[Evidence, ...]:
        """Where the application writes now."""
        return (yes_or_no("the application writes on the source", Source.OBSERVED, self._live == SOURCE),)

    @property
    def _live(self) -> str:
        return CutoverJournal(self._path).live() or SOURCE

    @cached_property
    def _stores(self) -> Stores:
        return Stores(self._run)

    @cached_property
    def _steps(self) -> CutoverSteps:
        load = RehearsalLoad(self._stores)
        return CutoverSteps(self._stores, load, StreamSteps(self._stores, load, None))

    def _obstacle(self) -> str:
        """Why the writers cannot be brought back; empty when they can."""
        memory = self._settings.memory
        if not memory.writers.source:
            return "memory.writers.source names nobody who could write on the source again"
        return "" if self._steps.can_return else "no stream leads back into a source whose columns are mapped"

    def _how_much(self) -> str:
        """How the stores differ, by reading both: times in the rows are the application's own.

        The old store may be gone by now. That what was written would be lost holds all the same.
        """
        try:
            return f"the stores differ by {self._difference()}"
        except OrchestraError as error:
            return f"how much is not known: {str(error).partition(chr(10))[0]}"

    def _difference(self) -> str:
        source, target = StreamSteps(self._stores, RehearsalLoad(self._stores), None).stores_compared()
        with connect(source.address, role="source") as theirs, connect(target.address, role="target") as ours:
            sides = (theirs, source.table.select), (ours, target.table.select)
            ranges = key_ranges(theirs, source.table, self._settings.memory.copy_.ranges)
            found = Counter(row.kind for key_range in ranges for row in differences(*sides, key_range))
        alone = f"{found[EXTRA]:,} rows on the target alone and {found[MISSING]:,} on the source alone"
        return f"{alone}, {found[CHANGED]:,} are not the same"
