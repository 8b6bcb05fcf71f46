"""What a swap of the vector index has replaced, brought back: the previous index, built beside the present one."""

from __future__ import annotations

from psycopg import sql

from orchestra_lib.database import connect
from orchestra_lib.evidence import Bound, Evidence, Source, yes_or_no
from orchestra_lib.move import TARGET_TABLE
from orchestra_lib.phases.index_journals import swap_journal
from orchestra_lib.phases.vector_tuning import memory_store
from orchestra_lib.plan import Change, Verb
from orchestra_lib.settings import Settings
from orchestra_lib.vectors.index import vector_indexes
from orchestra_lib.vectors.swap import recover, roll_back
from orchestra_lib.vectors.swap_journal import Outcome, RecordedSwap, SwapJournal


class IndexReturn:
    """The swaps of one environment's store by one phase, the last one first."""

    def __init__(self, settings: Settings, phase: str) -> None:
        self._path = swap_journal(settings, phase)
        self._address = memory_store(settings)
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
        return count

    def evidence(self) -> Evidence:
        """No swap may stand."""
        return Evidence("swaps of the index that stand", Source.OBSERVED, len(self._standing()), "", Bound("==", 0))

    def _standing(self) -> list[RecordedSwap]:
        done = [swap for swap in SwapJournal(self._path).swaps if swap.outcome is Outcome.DONE]
        taken_back = {swap.orders.rolls_back for swap in done}
        return [swap for swap in done if swap.orders.rolls_back is None and swap.id not in taken_back]


def _changes(swap: RecordedSwap) -> tuple[Change, ...]:
    orders = swap.orders
    comes = [Change(Verb.CREATE, "index", index.name, f"{index.form.label}, as it was") for index in orders.dropping]
    goes = [Change(Verb.DELETE, "index", index.name, index.form.label) for index in orders.making]
    settings = [
        Change(Verb.UPDATE, "database setting", name, "as it was", orders.after.get(name), before)
        for name, before in orders.before.items()
    ]
    return (*comes, *settings, *goes)
