"""Choosing the index by measurement, as runbooks 03 and 08 do it: the tuning, its evidence, its figures, its words."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import plotly.graph_objects as go

from orchestra_lib.database import Address
from orchestra_lib.display import Progress, Table
from orchestra_lib.display.boxes import Box, message_box
from orchestra_lib.display.tuning import build_figure, pages_figure, plane_figure
from orchestra_lib.errors import GateFailed
from orchestra_lib.phases.report import candidates_table, tuning_evidence
from orchestra_lib.runbook import Runbook
from orchestra_lib.vectors.explanation import sentences
from orchestra_lib.vectors.goals import Goals, Queries
from orchestra_lib.vectors.index import available_memory_mib
from orchestra_lib.vectors.tune import Options, tune
from orchestra_lib.vectors.tuning import Tuning


class IndexTuning:
    """The tuning of one table in one run."""

    def __init__(self, run: Runbook, table: str, journal_path: Path) -> None:
        self._run, self._table, self._journal_path = run, table, journal_path
        self._found: Tuning | None = None

    @property
    def found(self) -> Tuning:
        """What the tuning came to. Raises GateFailed before it has run."""
        if self._found is None:
            raise GateFailed("nothing was tuned yet: run the cell that tunes first")
        return self._found

    @property
    def has_run(self) -> bool:
        """Whether there is something to show."""
        return self._found is not None

    def goals(self, asked: Sequence[int]) -> Goals:
        """What the settings want of a search; ``asked`` are lists that are judged whatever is chosen."""
        memory, targets = self._run.settings.memory, self._run.settings.targets
        return Goals(
            recall_target=memory.search.recall_target,
            p95_ms=targets.vector_search_p95_ms,
            k=memory.search.k,
            opclass=memory.index.opclass,
            offered_per_second=memory.tuning.offered_per_second,
            budget_seconds=memory.tuning.budget_seconds,
            filters=memory.tuning.filters,
            lists=tuple(asked),
            memory_limit_mib=memory.index.maintenance_work_mem_mib,
            inserts_per_second=memory.tuning.inserts_per_second,
        )

    def options(self) -> Options:
        """How the tuning goes about it, by the settings. A live server is not restarted for a cold figure."""
        wanted = self._run.settings.memory.tuning
        return Options(
            methods=wanted.methods,
            storages=wanted.storages,
            available_mib=self.available_mib(),
            load_seconds=wanted.load_seconds,
        )

    def available_mib(self) -> int | None:
        """Memory of the machine that runs the server; None where that is not this machine."""
        settings = self._run.settings
        local = settings.environment.kind == "local" and settings.memory.target.dsn is None
        return available_memory_mib() if local else None

    def tune(self, address: Address, queries: Queries, asked: Sequence[int] = ()) -> Table:
        """Tune within the budget, and show everything that was looked at. Raises GateFailed when nothing was chosen."""
        progress = Progress("tune", "candidates")
        with self._run.step("tune"):
            self._found = tune(
                address,
                self._table,
                queries,
                self.goals(asked),
                journal_path=self._journal_path,
                options=self.options(),
                progress=progress.say,
            )
        found = self._found
        self._run.add(*tuning_evidence(found, queries.origin, len(queries)))
        progress.say("interrupted; what was learnt is kept" if found.interrupted else "done")
        if found.interrupted:
            raise KeyboardInterrupt("the tuning was interrupted; what it has learnt is kept: run the cell again")
        if found.chosen is None:
            raise GateFailed(
                f"within {found.goals.budget_seconds:g} s nothing was found that reaches recall "
                f"{found.goals.recall_target:g}: {found.reason}. Run it again, it goes on, or raise budget_seconds"
            )
        return candidates_table(found)

    def plane(self) -> go.Figure:
        """Recall against latency, everything that was looked at."""
        found = self.found
        shown = [*found.candidates, *found.asked]
        return plane_figure(
            shown, found.chosen, found.before, found.goals.recall_target, found.goals.p95_ms, self.subject()
        )

    def pages(self) -> go.Figure:
        """Why: what a search reads over the number of lists."""
        found = self.found
        chosen = found.chosen.form.lists if found.chosen else None
        return pages_figure(found.growth, chosen, self.subject())

    def builds(self) -> go.Figure:
        """Build time, memory and size of every form."""
        found = self.found
        return build_figure([*found.candidates, *found.asked], found.goals.memory_limit_mib, self.subject())

    def sentences(self) -> tuple[str, ...]:
        """The choice in plain words made of its numbers."""
        return sentences(self.found)

    def explain(self) -> Box:
        """The choice in sentences made of its numbers; the record keeps them too."""
        told = self.sentences()
        for sentence in told:
            if sentence not in self._run.record.notes:
                self._run.note(sentence)
        return message_box("\n".join(told))

    def subject(self) -> str:
        """Which rows, server and machine the figures are about."""
        host, profile = self._run.record.host, self.found.profile
        return (
            f"{profile.rows:,} rows of {profile.dimension:,} dimensions · {host['cores']} cores, {host['cpu']} · "
            f"{profile.server}"
        )
