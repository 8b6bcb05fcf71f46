"""The steps of runbook 06: every target measured once more, before and after, criteria, what is left, one page."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime

import plotly.graph_objects as go

from orchestra_lib import audit
from orchestra_lib.bench.statistics import quantile
from orchestra_lib.cloud.refusals import CloudRefused
from orchestra_lib.display import Table, evidence_table
from orchestra_lib.display.boxes import Box, message_box
from orchestra_lib.display.schedule import schedule_figure
from orchestra_lib.display.targets import criteria_table, opportunities_table, targets_figure, targets_table
from orchestra_lib.errors import GateFailed
from orchestra_lib.evidence import Bound, Evidence, Source, roll_up
from orchestra_lib.phases.cloud_work import CloudWork
from orchestra_lib.phases.found_memory import rehearsal_corpus
from orchestra_lib.phases.memory_cutover import TARGET
from orchestra_lib.phases.memory_stores import Stores
from orchestra_lib.phases.memory_stream import PILED_ROWS
from orchestra_lib.phases.validation_api import ApiAgain
from orchestra_lib.phases.validation_store import BACKLOG_SECONDS, StoreAgain, stated
from orchestra_lib.phases.vector_tuning import memory_store
from orchestra_lib.phases.workstations import WorkstationsPhase
from orchestra_lib.plan import Change, Plan, Verb
from orchestra_lib.prices import list_prices
from orchestra_lib.runbook import Runbook
from orchestra_lib.validation.criteria import Criterion, criteria
from orchestra_lib.validation.gates import counted_now
from orchestra_lib.validation.opportunities import Opportunity, cost_levers, opportunities
from orchestra_lib.validation.report_page import Report, write_report
from orchestra_lib.validation.schedule import schedule
from orchestra_lib.validation.sealed import MEASURED, SealedRun, latest_runs
from orchestra_lib.validation.targets import Side, Target
from orchestra_lib.workstations.report import start_evidence

PHASE = "06"
_OTHERS = MEASURED["06_validation"]
"""Phases that must not run meanwhile: their machines, store, settings, service and index are measured."""

_STEPS = {
    "vector search, p95": "tune the index again: 08_vector_tuning",
    "memory retrieval, p95": "fewer candidates a question (assistant.context.candidates), or 08_vector_tuning",
    "API, p95": "more CPU or a smaller concurrency: run 05_api with its long form",
    "workstation start": "a machine that stands ready: workstations.pool_size, priced in 02_workstations",
    "synchronization": "fewer lists, or more sessions: memory.sync.connections",
}


class ValidationPhase:
    """One validation. Methods are called in the order of the runbook's cells, again if need be."""

    def __init__(self, run: Runbook) -> None:
        self._run, self._settings = run, run.settings
        for phase in _OTHERS:
            run.also_lock(phase)
        self._work = CloudWork(run, PHASE)
        self._stores = Stores(run)
        corpus = rehearsal_corpus(run) if self._stores.source.is_rehearsal else None
        self._store = StoreAgain(run, self._stores, memory_store(run.settings), corpus)
        self._api = ApiAgain(run, self._work)
        self._targets: dict[str, Target] = {}
        self._runs: Mapping[str, SealedRun] | None = None

    # --- check and plan -----------------------------------------------------------------------------------------------

    def checks(self) -> tuple[Evidence, ...]:
        """What there is to measure. Without a store nothing is; what else is not there is MISSING at the end."""
        with self._run.step("checks"):
            index, rows = self._store.index(), self._store.rows()
            side = self._store.live_side()
            return (
                Evidence("rows of the memory store", Source.OBSERVED, rows, "rows", Bound(">", 0)),
                Evidence("vector index that serves", Source.OBSERVED, index.form.label if index else "none"),
                Evidence("the writers write on the", Source.OBSERVED, side),
                Evidence("the API of phase 5", self._work.place.source, self._api.told()),
                Evidence(
                    "load average of this machine", Source.MEASURED, round(os.getloadavg()[0], 2), note=self._hardware
                ),
            )

    def plan(self) -> Plan:
        """What measuring does to what is measured; nothing of it stays."""
        memory, section = self._settings.memory, self._settings.workstations
        starts = section.measured_starts if section else 0
        index = self._store.index()
        offered = memory.tuning.offered_per_second or 0
        changes = (
            Change(Verb.KEEP, "memory store", memory.source.table, f"searched, {offered:g} times a second at most"),
            Change(Verb.UPDATE, "rows on the source", memory.source.table, self._piled()),
            Change(Verb.UPDATE, "workstation", "one that is stopped", f"started and stopped {starts} times a machine"),
            Change(Verb.KEEP, "API", "of phase 5", self._api.told()),
        )
        live: dict[str, object] = {
            "environment": self._settings.environment.name,
            "index": index.definition if index else None,  # not the rows: a live store has others when it is approved
        }
        return Plan(changes, live)

    # --- measure ------------------------------------------------------------------------------------------------------

    def search(self) -> Table:
        """Vector search and recall, on today's store and on the target."""
        self._store.clear_left()
        with self._run.step("search"):
            latency, recall, rows = self._store.search(*self._conditions())
        self._targets |= {"vector_search": latency, "recall": recall}
        return self._show(rows, "Vector search, as phase 3 certifies it")

    def retrieval(self) -> Table:
        """Reading and packing what a question needs."""
        with self._run.step("retrieval"):
            target, rows = self._store.retrieval(self._work, *self._conditions())
        self._targets["memory_retrieval"] = target
        return self._show(rows, "Memory retrieval, as phase 4 measures it")

    def api(self) -> Table:
        """The API of phase 5 at stated rates, by its service's own address."""
        with self._run.step("api"):
            target, rows = self._api.measure(*self._conditions())
        self._targets["api"] = target
        return self._show(rows, "The API, as phase 5 measures it")

    def workstations(self) -> Table:
        """Starts of a workstation that is stopped; it is stopped again."""
        hardware, load = self._conditions()
        bound = Bound("<", self._settings.targets.workstation_start_seconds)
        before = stated(self._settings.baseline.workstation_start_seconds)
        blank = Target("workstation start", "s", bound, None, before, hardware, load)
        with self._run.step("workstations"):
            target, rows = self._started(blank)
        self._targets["workstation_start"] = target
        return self._show(rows, "Workstation starts, as phase 2 times them")

    def stream(self) -> Table:
        """The stream catches up with rows that are piled up for it and deleted again."""
        seen = len(self._run.evidence)
        with self._run.step("stream again"):
            target, rows = self._store.stream(*self._conditions())
        self._targets["sync"] = target
        self._run.add(*rows)
        return evidence_table(self._run.evidence[seen:], "The stream, as phase 3 times it")

    # --- what it amounts to -------------------------------------------------------------------------------------------

    def targets(self) -> Table:
        """Every target with its interval, hardware and load; before and after as far as that may be said."""
        return targets_table(self._measured())

    def figure(self) -> go.Figure:
        """How much of each target is used up."""
        return targets_figure(self._measured(), self._subject())

    def criteria(self) -> Table:
        """The strategy's success criteria, each with its evidence or MISSING; readings, the gates are the targets'."""
        found = self._criteria()
        self._run.add(
            *(
                Evidence(f"success criterion: {one.words}", Source.ASSUMED, str(one.state), note=one.evidence)
                for one in found
            )
        )
        return criteria_table(found)

    def opportunities(self) -> Table:
        """What is left to gain, ranked."""
        return opportunities_table(self._opportunities())

    def timeline(self) -> go.Figure:
        """The strategy's weeks, planned against the ledger."""
        today, environment = datetime.now(UTC).date(), self._settings.environment.name
        first = self._settings.finalization.first_day
        found = schedule(
            self._settings.timeline or (), self._settings.windows, audit.entries(), environment, first, today
        )
        return schedule_figure(found, f"environment {environment}")

    def report(self) -> Box:
        """One page for the person who decides, beside the executed notebook; it prints to PDF and asks no network."""
        record, rows = self._run.record, self._run.evidence
        path = self._run.record_path.with_name(self._run.record_path.name.replace(".record.json", ".report.html"))
        made = Report(
            verdict=roll_up(rows, rehearsal=self._run.rehearsal),
            environment=self._settings.environment.name,
            is_rehearsal=self._run.rehearsal,
            run_id=record.run_id,
            operator=record.operator,
            commit=(record.git.commit or "no commit")[:12] + (" with local changes" if record.git.dirty else ""),
            machine=self._hardware,
            at=datetime.now(UTC),
            targets=self._measured(),
            criteria=self._criteria(),
            opportunities=self._opportunities(),
            figures=(self.figure(), self.timeline()),
        )
        digest = write_report(made, path)
        self._run.add(Evidence("the report", Source.OBSERVED, path.name, note=f"SHA-256 {digest}"))
        return message_box(f"The report: {path}\nOpen it in a browser; printed, it is one page.")

    def read_back(self) -> Table:
        """Nothing of the measuring may be left."""
        with self._run.step("read back"):
            left = self._store.left()
            cut_off = left > 0 and self._store.live_side() == TARGET
            note = "a run of 07_finalization was cut off: open it again, it deletes them; then run this again"
            rows = [
                Evidence("rows of the measurement left on the target", Source.OBSERVED, left, "rows", Bound("==", 0),
                         note=note if cut_off else ""),
                *self._api.left(),
            ]  # fmt: skip
        return self._show(rows, "Read back")

    # --- inside -------------------------------------------------------------------------------------------------------

    def _started(self, blank: Target) -> tuple[Target, tuple[Evidence, ...]]:
        source = Source.REHEARSED if self._work.is_local else Source.MEASURED
        try:
            measured = WorkstationsPhase(self._run).timed()
        except (CloudRefused, GateFailed) as error:
            return self._without(blank, f"{error}")
        if not measured:
            return self._without(blank, "nobody has a workstation")
        rows = tuple(start_evidence(measured, self._settings, source))
        # The slowest machine has to be quick enough.
        found = [
            (quantile(seconds, 0.5), name, machine)
            for name, machine, starts in measured
            if (seconds := starts.running_seconds if self._work.is_local else starts.reachable_seconds)
        ]
        if not found:
            return replace(blank, missing="no start ended with a machine that answers"), rows
        slowest, name, machine = max(found, key=lambda one: one[0].high)
        how = f"the {name} machine, {machine}: the slower of {len(found)}; median of {slowest.samples} starts"
        return replace(blank, now=Side.of(slowest, source, how)), rows

    def _without(self, blank: Target, why: str) -> tuple[Target, tuple[Evidence, ...]]:
        row = Evidence(f"{blank.title}: measured again", Source.MISSING, None, blank.unit, blank.bound, note=why)
        return replace(blank, missing=why), (row,)

    def _criteria(self) -> tuple[Criterion, ...]:
        self._measured()
        targets = {key: target for key, target in self._targets.items() if key != "recall"}
        wanted, is_switched = self._settings.finalization, self._store.live_side() == TARGET
        runs = counted_now(self._sealed(), datetime.now(UTC), wanted.evidence_hours, is_switched=is_switched)
        return criteria(targets, self._targets["recall"], runs, wanted.developers_agree)

    def _opportunities(self) -> tuple[Opportunity, ...]:
        levers = cost_levers(self._settings.public(), list_prices(), datetime.now(UTC).date())
        recall = {
            self._targets["recall"].title: "the effort is the least that suffices: more finds more, and takes longer"
        }
        return opportunities(self._measured(), {**_STEPS, **recall}, levers)

    def _sealed(self) -> Mapping[str, SealedRun]:
        if self._runs is None:
            self._runs = latest_runs(self._settings.environment.name, rehearsal=self._run.rehearsal)
        return self._runs

    def _measured(self) -> tuple[Target, ...]:
        missing = [key for key in _ORDER if key not in self._targets]
        if missing:
            raise GateFailed(f"{', '.join(missing)} were not measured yet: run the cells above first")
        return tuple(self._targets[key] for key in _ORDER)

    def _piled(self) -> str:
        if self._settings.environment.kind == "local":
            return f"{PILED_ROWS:,} are piled up for the stream to catch up with, and deleted again"
        return f"none: the stream is paused for {BACKLOG_SECONDS:.0f} s, and timed on what the application has written"

    def _conditions(self) -> tuple[str, str]:
        return self._hardware, f"load average {os.getloadavg()[0]:.2f}"

    @property
    def _hardware(self) -> str:
        host = self._run.record.host
        return f"{host['cores']} cores, {host['cpu']}, {int(host['memory_bytes']) / 2**30:.0f} GiB"

    def _subject(self) -> str:
        where = "the local target" if self._run.rehearsal else "Google Cloud"
        return f"{self._store.rows():,} rows · {where} · {self._hardware}"

    def _show(self, rows: Sequence[Evidence], caption: str) -> Table:
        self._run.add(*rows)
        return evidence_table(rows, caption)


_ORDER = ("vector_search", "recall", "memory_retrieval", "api", "workstation_start", "sync")
