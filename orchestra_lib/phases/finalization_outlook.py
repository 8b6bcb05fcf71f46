"""What comes after the migration: the index watched, other ways to search held against it, levers of the bill."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from functools import cached_property

from psycopg import sql

from orchestra_lib.bench.statistics import Estimate
from orchestra_lib.database import connect
from orchestra_lib.display import Table
from orchestra_lib.display.targets import opportunities_table
from orchestra_lib.errors import TargetUnreachable
from orchestra_lib.evidence import Evidence, Source
from orchestra_lib.move import TARGET_TABLE
from orchestra_lib.phases.cloud_work import CloudWork
from orchestra_lib.phases.index_journals import tuning_journal
from orchestra_lib.phases.tuning import IndexTuning
from orchestra_lib.phases.vector_tuning import VectorTuningPhase, memory_store
from orchestra_lib.prices import list_prices
from orchestra_lib.runbook import Runbook
from orchestra_lib.validation.opportunities import cost_levers
from orchestra_lib.validation.vertex_search import DeployedIndex, ask, match_client
from orchestra_lib.vectors.forms import Method
from orchestra_lib.vectors.session_defaults import searched_now
from orchestra_lib.vectors.tune import tune

_HEADINGS = ("way to search", "recall@k", "p50 ms", "p95 ms", "source", "note")
_SCANN = "SELECT 1 FROM pg_available_extensions WHERE name = 'alloydb_scann'"


class Outlook:
    """The strategy's post-migration opportunities, as far as they can be measured where we are."""

    def __init__(self, run: Runbook, work: CloudWork) -> None:
        self._run, self._settings, self._work = run, run.settings, work
        self._address = memory_store(run.settings)

    def drift(self) -> Table:
        """How far the index has drifted since it was made: where the watch of 08 begins to count."""
        return self._tuning.drift()

    def challengers(self) -> Table:
        """AlloyDB's index, ScaNN and Vertex AI Vector Search: the same questions, the same truth, the same units.

        What cannot be had here is said to be not measured, and why.
        """
        with self._run.step("challengers"):
            rows = [self._present()]
            for name, measured in (("ScaNN in AlloyDB", self._scann), ("Vertex AI Vector Search", self._vertex)):
                try:
                    rows.append(measured())
                except TargetUnreachable as error:
                    rows.append(self._not_measured(name, str(error)))
        return Table(_HEADINGS, rows, "One query after another, warm; value [95 % interval]")

    def levers(self) -> Table:
        """What a setting would save a month, at list prices, most first."""
        return opportunities_table(cost_levers(self._settings.public(), list_prices(), datetime.now(UTC).date()))

    # --- inside -------------------------------------------------------------------------------------------------------

    @cached_property
    def _tuning(self) -> VectorTuningPhase:
        return VectorTuningPhase(self._run)

    def _present(self) -> tuple[object, ...]:
        with connect(self._address, role="target") as session:
            form, effort = searched_now(session, sql.Identifier(TARGET_TABLE), self._settings.memory.search.k)
        found = self._tuning.serving.delivery(form, effort, self._tuning.parts(), "now", "store")
        name = f"{form.label}, effort {effort}"
        return self._row(name, found.recall, found.p50_ms, found.p95_ms, "what serves now")

    def _scann(self) -> tuple[object, ...]:
        name = "ScaNN in AlloyDB"
        with connect(self._address, role="target") as session:
            has_scann = session.execute(_SCANN).fetchone() is not None
        if not has_scann:
            return self._not_measured(name, "this server has no extension alloydb_scann: it is AlloyDB's own")
        tuning = IndexTuning(self._run, TARGET_TABLE, tuning_journal(self._settings))
        found = tune(
            self._address,
            TARGET_TABLE,
            self._tuning.serving.queries(),
            tuning.goals(()),
            journal_path=tuning_journal(self._settings).with_suffix(".scann.jsonl"),
            options=replace(tuning.options(), methods=("scann",), storages=("vector",), certify=False),
            progress=_silent,
        )
        best = next((one for one in found.candidates if one.form.method is Method.SCANN and one.p95_ms), None)
        if best is None or best.p95_ms is None:
            return self._not_measured(name, "; ".join(found.skipped) or found.reason)
        return self._row(f"{best.form.label}, effort {best.effort}", best.recall, None, best.p95_ms, "on a copy")

    def _vertex(self) -> tuple[object, ...]:
        name, wanted = "Vertex AI Vector Search", self._settings.finalization
        if self._work.is_local:
            return self._not_measured(name, "the local target has none: it is Google Cloud's alone")
        if wanted.vertex_index_endpoint is None or wanted.vertex_deployed_index is None:
            return self._not_measured(name, "finalization.vertex_index_endpoint is open: no index was named")
        index = DeployedIndex(wanted.vertex_index_endpoint, wanted.vertex_deployed_index)
        client = match_client(self._work.client.target, index)
        found = ask(client, index, self._tuning.parts().reporting, self._settings.memory.search.k)
        return self._row(name, found.recall, found.p50_ms, found.p95_ms, index.id)

    def _row(
        self, name: str, recall: Estimate, p50_ms: Estimate | None, p95_ms: Estimate, note: str
    ) -> tuple[object, ...]:
        self._run.add(
            Evidence(f"{name}: recall@k", Source.MEASURED, recall.value, note=f"{recall}; {note}"),
            Evidence(f"{name}: p95", Source.MEASURED, p95_ms.value, "ms", note=f"{p95_ms} ms; {note}"),
        )
        return (name, str(recall), str(p50_ms) if p50_ms else "–", str(p95_ms), Source.MEASURED.value, note)

    def _not_measured(self, name: str, why: str) -> tuple[object, ...]:
        self._run.add(Evidence(f"{name}: compared with what serves", Source.ASSUMED, "not measured", note=why))
        return (name, "–", "–", "–", "not measured", why)


def _silent(_told: str) -> None:
    """Nobody listens: the row says what came of it."""
