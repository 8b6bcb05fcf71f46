"""What a swap of the vector index has replaced, brought back: the previous index, built beside the present one.

Built again it has other centroids, or another graph, than the index that went. Where that one found enough, what comes
back has to as well: it is measured, and given more effort than the previous one had if it needs that.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from psycopg import sql

from orchestra_lib.database import connect
from orchestra_lib.errors import DataError, ParameterError
from orchestra_lib.evidence import Bound, Evidence, Source, yes_or_no
from orchestra_lib.move import TARGET_TABLE
from orchestra_lib.phases.found_memory import rehearsal_questions
from orchestra_lib.phases.index_journals import swap_journal, tuning_journal
from orchestra_lib.phases.serving import Found, Serving
from orchestra_lib.phases.tuning import IndexTuning
from orchestra_lib.phases.vector_tuning import memory_store
from orchestra_lib.plan import Change, Verb
from orchestra_lib.runbook import Runbook
from orchestra_lib.vectors.forms import Effort
from orchestra_lib.vectors.index import LiveIndex, vector_indexes
from orchestra_lib.vectors.swap import recover, roll_back
from orchestra_lib.vectors.swap_journal import Outcome, Promise, RecordedSwap, Settled, SwapJournal


class IndexReturn:
    """The swaps of one environment's store by one phase, the last one first."""

    def __init__(self, run: Runbook, phase: str) -> None:
        self._run = run
        self._path = swap_journal(run.settings, phase)
        self._address = memory_store(run.settings)
        self._took_back = False
        recover(self._address, journal_path=self._path)

    @property
    def journalled(self) -> int:
        """Swaps that the journal knows, taken back or not."""
        return len(SwapJournal(self._path).swaps)

    def check(self) -> Evidence:
        """What comes back must find the index that took its place, whole, and no other."""
        standing = self._standing()
        present = self._present()
        broken = [index.name for index in present if not index.valid]
        made = {index.name for index in standing[-1].orders.making} if standing else None
        others = sorted({index.name for index in present}.symmetric_difference(made)) if made is not None else []
        note = f"drop {', '.join(broken)}" if broken else ""
        if others and not broken:
            note = f"since the swap {', '.join(others)} came or went: take that back first, by the phase that did it"
        claim = "the vector indexes are those that the swap has made, and valid"
        return yes_or_no(claim, Source.OBSERVED, not broken and not others, note=note)

    def changes(self) -> tuple[Change, ...]:
        """What would come back and what would go, swap by swap."""
        return tuple(change for swap in reversed(self._standing()) for change in _changes(swap))

    def apply(self) -> int:
        """Take the swaps back; returns how many."""
        count = 0
        while (last := SwapJournal(self._path).last_done()) is not None:
            promise, before = last.orders.promise, last.orders.before
            roll_back(
                self._address,
                journal_path=self._path,
                settle=partial(self._settle, promise, before) if promise else None,
            )
            count += 1
        self._took_back |= count > 0
        return count

    def evidence(self) -> tuple[Evidence, ...]:
        """No swap may stand, and what came back has to find what it found before."""
        journal = SwapJournal(self._path)
        claim, standing = "swaps of the index that stand", len(self._standing())
        rows = [Evidence(claim, Source.OBSERVED, standing, "", Bound("==", 0))]
        last = journal.swaps[-1] if journal.swaps else None
        if last is None or last.orders.rolls_back is None or last.outcome is not Outcome.DONE:
            return tuple(rows)
        if self._took_back:
            back, present = {index.name for index in last.orders.making}, {index.name for index in self._present()}
            note = ", ".join(sorted(present)) or "none"
            rows.append(
                yes_or_no("the vector indexes are those of before", Source.OBSERVED, back == present, note=note)
            )
        return (*rows, *(_finding(one) for one in last.settled))

    def _settle(self, promise: Promise, before: Mapping[str, str | None], index: LiveIndex) -> Settled:
        """Measure an index that was built again as its predecessor was, and give it the effort that it needs."""
        setting = index.form.effort_setting or ""
        usual = index.form.usual_effort(self._run.settings.memory.search.k)
        had = Effort(int(before.get(setting) or usual.value), usual.rerank)
        try:
            found = self._found(promise, index, had)
        except (DataError, ParameterError) as error:
            return Settled(index.name, None, None, None, f"its effort is as it was; it was not measured: {error}")
        told = f"{setting} {found.effort}, before {had}: recall {found.recall}, wanted {promise.recall_target:g}"
        if found.effort.value == had.value:
            return Settled(index.name, None, None, found.finds_enough, told)
        return Settled(index.name, setting, str(found.effort.value), found.finds_enough, told)

    def _found(self, promise: Promise, index: LiveIndex, effort: Effort) -> Found:
        serving = self._serving(promise)
        origin = serving.queries().origin
        if origin != promise.origin:
            raise DataError(f"its predecessor was measured with {promise.origin}, and there are {origin} only")
        return serving.settled(index.name, index.form, effort, serving.parts())

    def _serving(self, promise: Promise) -> Serving:
        """With the target and the queries of back then."""
        settings = self._run.settings
        search = settings.memory.search.model_copy(update={"recall_target": promise.recall_target})
        tuning = settings.memory.tuning.model_copy(update={"replay": promise.replay})
        memory = settings.memory.model_copy(update={"search": search, "tuning": tuning})
        corpus = rehearsal_questions(self._run) if promise.replay is None else None
        goals = IndexTuning(self._run, TARGET_TABLE, tuning_journal(settings))
        return Serving(settings.model_copy(update={"memory": memory}), self._address, TARGET_TABLE, goals, corpus)

    def _present(self) -> tuple[LiveIndex, ...]:
        with connect(self._address, role="target") as session:
            return vector_indexes(session, sql.Identifier(TARGET_TABLE))

    def _standing(self) -> list[RecordedSwap]:
        done = [swap for swap in SwapJournal(self._path).swaps if swap.outcome is Outcome.DONE]
        taken_back = {swap.orders.rolls_back for swap in done}
        return [swap for swap in done if swap.orders.rolls_back is None and swap.id not in taken_back]


def _finding(settled: Settled) -> Evidence:
    claim = f"{settled.index}, built again, finds what it found before"
    if settled.enough is None:
        return Evidence(claim, Source.MISSING, None, "", note=settled.told)
    return yes_or_no(claim, Source.MEASURED, settled.enough, note=settled.told)


def _changes(swap: RecordedSwap) -> tuple[Change, ...]:
    orders = swap.orders
    comes = [Change(Verb.CREATE, "index", index.name, f"{index.form.label}, as it was") for index in orders.dropping]
    effort = "as it was, or more where the index that is built again needs more" if orders.promise else "as it was"
    goes = [Change(Verb.DELETE, "index", index.name, index.form.label) for index in orders.making]
    settings = [
        Change(Verb.UPDATE, "database setting", name, effort, orders.after.get(name), before)
        for name, before in orders.before.items()
    ]
    return (*comes, *settings, *goes)
