"""What a swap of the vector index has replaced, brought back: the previous index, built beside the present one.

Built again it has other centroids, or another graph, than the index that went. Where that one found enough, what comes
back has to as well: it is measured, and given more effort than the previous one had if it needs that.
"""

from __future__ import annotations

from psycopg import sql

from orchestra_lib.database import connect
from orchestra_lib.errors import DataError
from orchestra_lib.evidence import Bound, Evidence, Source, yes_or_no
from orchestra_lib.move import TARGET_TABLE
from orchestra_lib.phases.found_memory import rehearsal_questions
from orchestra_lib.phases.index_journals import swap_journal, tuning_journal
from orchestra_lib.phases.serving import Serving
from orchestra_lib.phases.tuning import IndexTuning
from orchestra_lib.phases.vector_tuning import memory_store
from orchestra_lib.plan import Change, Verb
from orchestra_lib.runbook import Runbook
from orchestra_lib.vectors.index import serving_index, vector_indexes
from orchestra_lib.vectors.swap import recover, roll_back
from orchestra_lib.vectors.swap_journal import Outcome, RecordedSwap, SwapJournal


class IndexReturn:
    """The swaps of one environment's store by one phase, the last one first."""

    def __init__(self, run: Runbook, phase: str) -> None:
        self._run = run
        self._path = swap_journal(run.settings, phase)
        self._address = memory_store(run.settings)
        self._finding = ""
        recover(self._address, journal_path=self._path)

    @property
    def journalled(self) -> int:
        """Swaps that the journal knows, taken back or not."""
        return len(SwapJournal(self._path).swaps)

    def check(self) -> Evidence:
        """What is brought back must not find a half-made index in its way."""
        with connect(self._address, role="target") as session:
            present = vector_indexes(session, sql.Identifier(TARGET_TABLE))
        broken = [index.name for index in present if not index.valid]
        note = f"drop {', '.join(broken)}" if broken else ""
        return yes_or_no("every vector index of the store is valid", Source.OBSERVED, not broken, note=note)

    def changes(self) -> tuple[Change, ...]:
        """What would come back and what would go, swap by swap."""
        return tuple(change for swap in reversed(self._standing()) for change in _changes(swap))

    def apply(self) -> int:
        """Take the swaps back; returns how many."""
        count = 0
        while SwapJournal(self._path).last_done() is not None:
            roll_back(self._address, journal_path=self._path)
            count += 1
        self._finding = self._finds_as_before()
        return count

    def evidence(self) -> tuple[Evidence, ...]:
        """No swap may stand."""
        claim = "swaps of the index that stand"
        standing = len(self._standing())
        return (Evidence(claim, Source.OBSERVED, standing, "", Bound("==", 0), note=self._finding),)

    def _finds_as_before(self) -> str:
        """Raise the effort of the index that came back where it needs that; what it finds, in words.

        A rollback with nothing left to take back looks again: the one before may have been killed here.
        """
        came_back = SwapJournal(self._path).last_came_back()
        with connect(self._address, role="target") as session:
            present = serving_index(session, sql.Identifier(TARGET_TABLE))
        if came_back is None or present is None or present.name not in {one.name for one in came_back[0].orders.making}:
            return ""
        if not came_back[1].found_enough:
            return "the index that came back found too little before: its effort is as it was"
        before, tuning = came_back[1].before, IndexTuning(self._run, TARGET_TABLE, tuning_journal(self._run.settings))
        serving = Serving(self._run.settings, self._address, TARGET_TABLE, tuning, rehearsal_questions(self._run))
        try:
            found = serving.brought_up(serving.parts())
        except DataError as error:
            return f"it is back with its effort; what it finds cannot be measured: {error}"
        name = found.form.effort_setting or ""
        return f"{name} {found.effort}, before {before.get(name) or 'unset'}: recall {found.recall}"

    def _standing(self) -> list[RecordedSwap]:
        done = [swap for swap in SwapJournal(self._path).swaps if swap.outcome is Outcome.DONE]
        taken_back = {swap.orders.rolls_back for swap in done}
        return [swap for swap in done if swap.orders.rolls_back is None and swap.id not in taken_back]


def _changes(swap: RecordedSwap) -> tuple[Change, ...]:
    orders = swap.orders
    comes = [Change(Verb.CREATE, "index", index.name, f"{index.form.label}, as it was") for index in orders.dropping]
    effort = "as it was, or more where the index that is built again needs more" if orders.found_enough else "as it was"
    goes = [Change(Verb.DELETE, "index", index.name, index.form.label) for index in orders.making]
    settings = [
        Change(Verb.UPDATE, "database setting", name, effort, orders.after.get(name), before)
        for name, before in orders.before.items()
    ]
    return (*comes, *settings, *goes)
