"""The steps of runbook 99: undo a phase, or all of them, with plan, approval and read-back like any other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from orchestra_lib.cloud.apply import Done
from orchestra_lib.cloud.client import Client
from orchestra_lib.cloud.journal import Journal
from orchestra_lib.cloud.plan import refuse_destruction
from orchestra_lib.cloud.resource import Resource
from orchestra_lib.cloud.target import connect
from orchestra_lib.display import Progress, Table, evidence_table
from orchestra_lib.errors import GateFailed, ParameterError
from orchestra_lib.evidence import Bound, Evidence, Source
from orchestra_lib.paths import journal_path
from orchestra_lib.phases import api_release, finalization_release, memory_release, vector_tuning
from orchestra_lib.phases.index_journals import swap_journal
from orchestra_lib.phases.index_return import IndexReturn
from orchestra_lib.phases.memory_return import WritersReturn
from orchestra_lib.phases.release import Release
from orchestra_lib.phases.undoing import Undoing
from orchestra_lib.plan import Plan
from orchestra_lib.runbook import Runbook
from orchestra_lib.settings.base import ALL_PHASES

_PHASES = tuple(f"{number:02d}" for number in range(8, 0, -1))
"""In the order in which a complete rollback undoes them."""


def _beside_memory(run: Runbook) -> Sequence[Release]:
    # AlloyDB goes with its index; a database of one's own stays.
    index = _index_of(run, memory_release.PHASE) if run.settings.memory.target.dsn else ()
    return (*index, WritersReturn(run), memory_release.SourceRelease(run.settings))


def _beside_tuning(run: Runbook) -> Sequence[Release]:
    goes_with_its_store = run.settings.rollback.phase == ALL_PHASES and not run.settings.memory.target.dsn
    return () if goes_with_its_store else _index_of(run, vector_tuning.PHASE)


def _index_of(run: Runbook, phase: str) -> Sequence[Release]:
    is_one_of_many = run.settings.rollback.phase == ALL_PHASES
    if is_one_of_many and not swap_journal(run.settings, phase).exists():
        return ()
    return (IndexReturn(run, phase),)


_BESIDE: Mapping[str, Callable[[Runbook], Sequence[Release]]] = MappingProxyType(
    {
        memory_release.PHASE: _beside_memory,
        api_release.PHASE: api_release.beside_api,
        finalization_release.PHASE: finalization_release.beside_finalization,
        vector_tuning.PHASE: _beside_tuning,
    }
)
"""Phase -> what it has left beside its resources, in the order in which it is taken back."""

_TAKEN_BACK_BY_RUN = frozenset({api_release.PHASE})
"""Phases of which what lies beside the resources is taken back too when only a run is undone."""


class RollbackPhase:
    """One rollback. Methods are called in the order of the runbook's cells, again if need be."""

    def __init__(self, run: Runbook) -> None:
        self._run, self._wanted = run, run.settings.rollback
        if self._wanted.phase is None:
            raise ParameterError("no phase was named that is to be undone: give it as phase, such as 01, or all")
        if self._wanted.phase == ALL_PHASES and self._wanted.since_run:
            raise ParameterError("since_run is a run of one phase: name that phase, or leave since_run out")
        target = connect(run.settings)
        self._source = Source.REHEARSED if target.kind == "local" else Source.OBSERVED
        self._is_complete = self._wanted.phase == ALL_PHASES
        phases = _PHASES if self._is_complete else (self._wanted.phase,)
        # Of a single phase too, or another could come to stand on it between the checks and the end.
        for phase in _PHASES:
            run.also_lock(phase)
        client = Client(target)
        with run.step("recover"):
            found = [self._undoing(client, phase) for phase in phases]
        self._phases = [one for one in found if one.journalled or not self._is_complete]

    def checks(self) -> tuple[Evidence, ...]:
        """What the journals hold: a phase without a journal has nothing that could be undone."""
        if not self._phases:
            return (Evidence("phases with a journal", Source.MEASURED, len(self._phases), "phases", Bound(">", 0)),)
        return (*(row for one in self._phases for row in one.checks()), *self._what_stands_on_it())

    def _what_stands_on_it(self) -> tuple[Evidence, ...]:
        """Nothing may go that another phase's resources need: without their API they could not even be deleted."""
        if self._is_complete:
            return ()
        (own,) = self._phases
        going = own.what_would_go()
        standing = {
            other: sum(not going.isdisjoint(one.all_needs) for one in _ours(self._journal(other)).values())
            for other in reversed(_PHASES)
            if other != own.phase
        }
        told = ", ".join(f"{count} of {other}" for other, count in standing.items() if count)
        note = f"{told}: undo these phases first, or all of them" if told else f"{len(going)} resources would go"
        claim = f"resources of other phases that stand on what would go with {own.phase}"
        return (Evidence(claim, Source.MEASURED, sum(standing.values()), "resources", Bound("==", 0), note=note),)

    def _journal(self, phase: str) -> Journal:
        environment = self._run.settings.environment
        return Journal(journal_path(environment.name, phase, local=environment.kind == "local"))

    def plan(self) -> Plan:
        """What brings back the state before.

        Raises GateFailed for data that would be destroyed and nobody named; a plan alone says so in a note.
        """
        with self._run.step("plan"):
            plans = [one.plan() for one in self._phases]
        self._refuse_destruction()
        live = {key: value for plan in plans for key, value in plan.live_state.items()}
        return Plan(tuple(change for plan in plans for change in plan.changes), live)

    def apply(self) -> Table:
        """Carry out the plan, the last phase first."""
        if any(one.plan_of_resources is None for one in self._phases):
            raise GateFailed("there is no plan yet: run the cell that makes one first")
        rows: list[tuple[str, ...]] = []
        undone = 0
        for number, one in enumerate(self._phases):
            released, done = self._undo(one, earlier_were_undone=number > 0)
            rows += [(one.phase, made.verb.value, made.name, f"{made.seconds:.1f} s") for made in done]
            undone += released + len(done)
        return Table(("phase", "action", "resource", "took"), rows, f"{undone} changes undone")

    def verify(self) -> Table:
        """A second rollback has to be empty."""
        claim = "changes that a second rollback would make"
        with self._run.step("read back"):
            rows = tuple(
                row
                for one in self._phases
                for row in one.evidence(self._source, f"{claim} in phase {one.phase}" if self._is_complete else claim)
            )
        self._run.add(*rows)
        return evidence_table(rows, "Read back")

    def _refuse_destruction(self) -> None:
        steps = [step for one in self._phases if one.plan_of_resources for step in one.plan_of_resources.steps]
        run = self._run.settings.run
        try:
            refuse_destruction(steps, run.may_destroy)
        except GateFailed as refused:
            if run.mode == "apply":
                raise
            self._run.note(str(refused))

    def _undo(self, one: Undoing, *, earlier_were_undone: bool) -> tuple[int, tuple[Done, ...]]:
        progress = Progress(f"roll back {one.phase}", "changes")
        with self._run.step(f"apply {one.phase}" if self._is_complete else "apply"):
            return one.apply(
                self._run.record.run_id,
                lambda done, total, _: progress(done, total),
                earlier_were_undone=earlier_were_undone,
            )

    def _undoing(self, client: Client, phase: str) -> Undoing:
        path = self._journal(phase).path
        since, beside = self._wanted.since_run, _BESIDE.get(phase)
        also = beside is not None and (since is None or phase in _TAKEN_BACK_BY_RUN)
        return Undoing(client, path, phase, beside(self._run) if beside and also else (), since)


def _ours(journal: Journal) -> Mapping[str, Resource]:
    """The resources that the journal says we have made and not deleted since, as they were wanted last."""
    last = {one.wanted.key: one.wanted for one in journal.changes}
    return {key: wanted for key, wanted in last.items() if journal.is_ours(key)}
