"""The steps of runbook 08: look at the index that serves, choose a better one, put it in its place, watch it."""

from __future__ import annotations

import json

import plotly.graph_objects as go
import psycopg
from psycopg import sql

from orchestra_lib.cloud.target import connect as cloud_target
from orchestra_lib.database import Address, connect
from orchestra_lib.display import Progress, Table, evidence_table
from orchestra_lib.display.boxes import Box
from orchestra_lib.display.tuning import Delivered, before_after_figure, load_figure
from orchestra_lib.errors import GateFailed, TargetUnreachable
from orchestra_lib.evidence import Bound, Evidence, Source, yes_or_no
from orchestra_lib.memory_target import primary_instance
from orchestra_lib.move import TARGET_TABLE
from orchestra_lib.phases.delivery import Delivery, Parts
from orchestra_lib.phases.found_memory import rehearsal_questions
from orchestra_lib.phases.index_journals import drift_notes, swap_journal, tuning_journal
from orchestra_lib.phases.report import (
    certificate_evidence,
    certificate_table,
    comparison_sentence,
    deliveries_table,
    drift_evidence,
    profile_evidence,
)
from orchestra_lib.phases.search_plan import search_plan
from orchestra_lib.phases.serving import Serving
from orchestra_lib.phases.tuning import IndexTuning
from orchestra_lib.plan import Change, Plan, Verb
from orchestra_lib.record import write_atomically
from orchestra_lib.runbook import Runbook
from orchestra_lib.settings import Settings
from orchestra_lib.target import Instances
from orchestra_lib.vectors.certificate import Certificate
from orchestra_lib.vectors.drift import Baseline, DriftReport, take_baseline, watch
from orchestra_lib.vectors.forms import EXACT, Effort, Form, ivfflat
from orchestra_lib.vectors.goals import FEWEST_QUERIES
from orchestra_lib.vectors.index import LiveIndex, serving_index, vector_indexes
from orchestra_lib.vectors.measured import one_notch_up
from orchestra_lib.vectors.search import Searchable
from orchestra_lib.vectors.session_defaults import searched_now, session_setting
from orchestra_lib.vectors.swap import Swapped, recover
from orchestra_lib.vectors.swap_journal import SwapJournal

PHASE = "08"
_TABLE = sql.Identifier(TARGET_TABLE)
_COPIES = "orchestra\\_tuning\\_%"


class VectorTuningPhase:
    """One tuning of a live store. Methods are called in the order of the runbook's cells, again if need be."""

    def __init__(self, run: Runbook) -> None:
        self._run, self._settings = run, run.settings
        self._address = memory_store(run.settings)
        self._swaps = swap_journal(run.settings, PHASE)
        self._tuning = IndexTuning(run, TARGET_TABLE, tuning_journal(run.settings))
        with run.step("recover"):
            for phase in ("03", PHASE):
                found = recover(self._address, journal_path=swap_journal(run.settings, phase))
                if found is not None:
                    run.note(f"an earlier run was cut off: its swap of the index is {found.outcome}")
        self._corpus = rehearsal_questions(run)
        self._serving = Serving(run.settings, self._address, TARGET_TABLE, self._tuning, self._corpus)
        self._queries: Parts | None = None
        self._certificate: Certificate | None = None
        self._deliveries: tuple[Delivery, Delivery] | None = None

    @property
    def serving(self) -> Serving:
        """The index that serves, for those who look at it with the same questions."""
        return self._serving

    def parts(self) -> Parts:
        """The questions with their exact neighbours, found once."""
        if self._queries is None:
            self._queries = self._serving.parts()
        return self._queries

    # --- check --------------------------------------------------------------------------------------------------------

    def profile(self) -> Table:
        """The table, the index that serves it, and what a new session searches with. Nothing is computed yet."""
        with self._run.step("profile"), connect(self._address, role="target") as session:
            rows = _count(session)
            present = vector_indexes(session, _TABLE)
            readings = [Evidence("rows of the table", Source.OBSERVED, rows, "rows")]
            readings += [
                Evidence(
                    "vector index" if index.valid else "vector index that a killed build left, not valid",
                    Source.OBSERVED,
                    index.form.label,
                    note=f"{index.name}, {index.size_bytes / 2**20:,.0f} MiB; {_effort(session, index.form)}",
                )
                for index in present
            ] or [Evidence("vector index", Source.OBSERVED, "none", note="every search reads every row")]
            form, effort = searched_now(session, _TABLE, self._settings.memory.search.k)
            readings += search_plan(session, self._searched(form), effort)
        self._run.add(*readings)
        return evidence_table(readings, "What serves now")

    def checks(self) -> tuple[Evidence, ...]:
        """Whether there is enough to tune with, and whether what a build needs can be had."""
        with connect(self._address, role="target") as session:
            rows = _count(session)
        queries = len(self._serving.queries()) if rows else 0
        enough = Bound(">=", FEWEST_QUERIES)
        checks = [
            Evidence("rows to tune for", Source.OBSERVED, rows, "rows", enough),
            Evidence("queries to judge by", Source.OBSERVED, queries, "queries", enough),
        ]
        available = self._tuning.available_mib()
        if available is not None:
            note = "what does not fit is left out of the choice"
            checks.append(Evidence("memory of this machine available", Source.OBSERVED, available, "MiB", note=note))
        return tuple(checks)

    def tune(self) -> Table:
        """Choose the index within the budget; the table is only read."""
        lists = self._settings.memory.tuning.lists
        shown = self._tuning.tune(self._address, self._serving.queries(), () if lists is None else (lists,))
        self._run.add(*profile_evidence(self._tuning.found.profile))
        return shown

    def plane(self) -> go.Figure:
        """Recall against latency of everything that was looked at."""
        return self._tuning.plane()

    def pages(self) -> go.Figure:
        """What a search reads over the number of lists, now and at ten times the rows."""
        return self._tuning.pages()

    def builds(self) -> go.Figure:
        """What each index takes: time, memory, disk."""
        return self._tuning.builds()

    def explain(self) -> Box:
        """The choice in sentences."""
        return self._tuning.explain()

    # --- plan and apply -----------------------------------------------------------------------------------------------

    def plan(self) -> Plan:
        """The present index against the one that is wanted. What only a measurement says stands in words."""
        form = self._wanted()
        with connect(self._address, role="target") as session:
            present = vector_indexes(session, _TABLE)
            now = _effort(session, present[0].form) if present else "no index"
            place = f"{session.info.host}:{session.info.port}/{session.info.dbname}"
        live: dict[str, object] = {
            "environment": self._settings.environment.name,
            "target": place,
            "indexes": [index.definition for index in present],
        }
        if form == EXACT:
            detail = "reading every row is quick enough; what is there stays"
            return Plan((Change(Verb.KEEP, "index", f"{TARGET_TABLE}.embedding", detail),), live)
        name = f"{form.label}, {self._settings.memory.index.opclass}"
        if self._is_there(form, present):
            changes = [Change(Verb.KEEP, "index", present[0].name, f"{name}: the best that was found")]
        else:
            old = ", ".join(index.name for index in present)
            detail = f"{name}; built beside {old}, which goes once it is certified" if present else name
            verb = Verb.REPLACE if present else Verb.CREATE
            before = [index.form.label for index in present]
            changes = [Change(verb, "index", f"{TARGET_TABLE}.embedding", detail, before, form.label)]
        setting = form.effort_setting or ""
        least = f"the least that the index needs for recall {self._settings.memory.search.recall_target:g}"
        changes.append(Change(Verb.UPDATE, "database setting", setting, f"{least}; now {now}"))
        return Plan(tuple(changes), live)

    def swap(self) -> Table:
        """Put the index in its place, give it the effort that it needs, certify it as it stands."""
        form, progress = self._wanted(), Progress("swap", "steps")
        with self._run.step("swap"):
            self._queries = queries = self._serving.parts()
            with connect(self._address, role="target") as session:
                present = vector_indexes(session, _TABLE)
                before_form, before_effort = searched_now(session, _TABLE, self._settings.memory.search.k)
            before = self._serving.delivery(before_form, before_effort, queries, "before", "store")
            guess = self._effort_seen(form)
            if form != EXACT and not self._is_there(form, present):
                swapped = self._serving.swapped(form, guess, queries, self._swaps, progress.say)
                self._run.add(*_swap_evidence(swapped))
            progress.say("finding the least effort")
            effort = self._serving.effort(form, queries, guess)
            notch = effort if form == EXACT else one_notch_up(form, effort)
            progress.say("certifying")
            self._certificate = self._serving.certified(form, self._index_of(form), effort, notch, queries)
            after = self._serving.delivery(form, self._certificate.effort, queries, "after", "store")
            self._deliveries = (before, after)
            persisted = self._serving.persisted(form, self._certificate.effort)
        progress.say("done")
        self._run.add(*certificate_evidence(self._certificate, after, self._settings), *persisted)
        self._run.note(comparison_sentence(before, after))
        return deliveries_table(self._deliveries)

    def certificate(self) -> Table:
        """The certificate in full."""
        return certificate_table(self._need_certificate())

    def load(self) -> go.Figure:
        """Latency at the offered load."""
        return load_figure(self._need_certificate(), self._tuning.subject())

    def before_and_after(self) -> go.Figure:
        """Recall and latency before the swap and after it."""
        if self._deliveries is None:
            raise GateFailed("nothing was measured yet: run the cell that swaps first")
        drawn = [Delivered(one.label, one.recall, one.p95_ms) for one in self._deliveries]
        target_ms = self._settings.targets.vector_search_p95_ms
        return before_after_figure(drawn, self._settings.memory.search.recall_target, target_ms, self._tuning.subject())

    # --- watch and verify ---------------------------------------------------------------------------------------------

    def drift(self) -> Table:
        """How far the index that serves has drifted since it was made, and what to do about it."""
        with self._run.step("drift"):
            report = self._watched()
        which = "present index" if self._certificate is None else "index as it is now"
        if report is None:
            row = Evidence(f"{which}: drift", Source.OBSERVED, "none", note="there is no index that could drift")
            self._run.add(row)
            return evidence_table((row,), "Drift")
        rows = drift_evidence(report, which)
        self._run.add(*rows)
        return evidence_table(rows, f"Drift: {report.advice}")

    def read_back(self) -> Table:
        """The index and nothing beside it, the effort that a new session has, no copy left."""
        certified, form = self._need_certificate(), self._wanted()
        with self._run.step("read back"), connect(self._address, role="target") as session:
            present = vector_indexes(session, _TABLE)
            copies = session.execute("SELECT count(*) FROM pg_class WHERE relname LIKE %s", [_COPIES]).fetchone()
            rows = [
                Evidence(
                    "copies of the vectors left behind", Source.OBSERVED, copies[0] if copies else None, "",
                    Bound("==", 0),
                ),
            ]  # fmt: skip
            if form != EXACT:
                names = ", ".join(index.name for index in present)
                rows += [
                    Evidence("vector indexes on the column", Source.OBSERVED, len(present), "", Bound("==", 1),
                             note=names),
                    yes_or_no("the index is the one that was wanted, read back", Source.OBSERVED,
                              self._is_there(form, present), note=names),
                    yes_or_no("the search reads the index", Source.OBSERVED,
                              certified.index in {index.name for index in present}, note=f"plan: {certified.index}"),
                    Evidence(f"{form.effort_setting} of a new session, read back", Source.OBSERVED,
                             session_setting(session, form.effort_setting or ""), "",
                             Bound("==", certified.effort.value)),
                ]  # fmt: skip
        self._run.add(*rows)
        return evidence_table(rows, "Read back")

    # --- inside -------------------------------------------------------------------------------------------------------

    def _wanted(self) -> Form:
        lists, chosen = self._settings.memory.tuning.lists, self._tuning.found.chosen
        if lists is not None:
            return ivfflat(lists)
        if chosen is None:
            raise GateFailed("the tuning chose nothing: run the cell that tunes again, it goes on where it was")
        return chosen.form

    def _is_there(self, form: Form, present: tuple[LiveIndex, ...]) -> bool:
        """Whether exactly this index is there, alone and valid. Bits have an operator class of their own."""
        opclasses = (None, self._settings.memory.index.opclass)
        return [(index.form, index.valid, index.opclass in opclasses) for index in present] == [(form, True, True)]

    def _effort_seen(self, form: Form) -> Effort:
        found = self._tuning.found
        if found.certificate is not None and found.certificate.form == form:
            return found.certificate.effort
        seen = (one.effort for one in (*found.asked, *found.candidates) if one.form == form)
        return next(seen, form.usual_effort(self._settings.memory.search.k))

    def _index_of(self, form: Form) -> str | None:
        if form == EXACT:
            return None
        with connect(self._address, role="target") as session:
            present = serving_index(session, _TABLE)
        return present.name if present else None

    def _searched(self, form: Form) -> Searchable:
        memory = self._settings.memory
        return Searchable(_TABLE, memory.index.opclass, memory.search.k, form, dimension=memory.dimension)

    def _watched(self) -> DriftReport | None:
        queries = self.parts()
        with connect(self._address, role="target") as session:
            index = serving_index(session, _TABLE)
            if index is None:
                return None
            form, effort = searched_now(session, _TABLE, self._settings.memory.search.k)
            notes = drift_notes(self._settings)
            kept = json.loads(notes.read_text()) if notes.exists() else {}
            report = watch(
                session,
                self._serving.searchable(form, queries),
                index,
                effort,
                queries.reporting.vectors,
                queries.reporting.truth,
                self._settings.memory.search.recall_target,
                self._baseline(session, index),
                kept.get("recalls", ()) if kept.get("index") == index.definition else (),
            )
        notes.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(notes, json.dumps({"index": index.definition, "recalls": report.recalls}).encode())
        return report

    def _baseline(self, session: psycopg.Connection, index: LiveIndex) -> Baseline:
        """How things stood when the index was put in its place; from now on, where nobody noted that."""
        for phase in (PHASE, "03"):
            last = SwapJournal(swap_journal(self._settings, phase)).last_done()
            if last is not None and last.baseline and index.name in {made.name for made in last.orders.making}:
                return Baseline.from_document(last.baseline)
        return take_baseline(session, TARGET_TABLE, index)

    def _need_certificate(self) -> Certificate:
        if self._certificate is None:
            raise GateFailed("nothing was certified yet: run the cell that swaps first")
        return self._certificate


def memory_store(settings: Settings) -> Address:
    """The store that is tuned: one that somebody named, else that of 03_memory. Raises TargetUnreachable without it."""
    own = settings.memory.target.dsn
    try:
        address = own.reveal() if own else Instances(cloud_target(settings)).address(primary_instance(settings))
        with connect(address, role="target") as session:
            there = session.execute("SELECT to_regclass(%s)", [TARGET_TABLE]).fetchone() != (None,)
    except TargetUnreachable as error:
        raise TargetUnreachable(
            f"there is no memory store to tune: run 03_memory first, or give target_dsn ({error})"
        ) from error
    if not there:
        raise TargetUnreachable(
            f"the database has no table {TARGET_TABLE} to tune: run 03_memory first, or give target_dsn"
        )
    return address


def _count(session: psycopg.Connection) -> int:
    row = session.execute(sql.SQL("SELECT count(*) FROM {} WHERE embedding IS NOT NULL").format(_TABLE)).fetchone()
    return int(row[0]) if row else 0


def _effort(session: psycopg.Connection, form: Form) -> str:
    setting = form.effort_setting
    return f"{setting} = {session_setting(session, setting)}" if setting else "no effort"


def _swap_evidence(swapped: Swapped) -> tuple[Evidence, ...]:
    rows = [
        Evidence(
            "build time", Source.MEASURED, made.build_seconds, "s", note=f"{made.name}, beside the one that served"
        )
        for made in swapped.made
    ]
    rows += [Evidence("size of the index", Source.MEASURED, made.size_bytes / 2**20, "MiB") for made in swapped.made]
    rows.append(
        Evidence(
            "indexes that went", Source.OBSERVED, ", ".join(swapped.dropped) or "none", note="after the certificate"
        )
    )
    rows.append(
        Evidence(
            "sessions older than the swap",
            Source.OBSERVED,
            swapped.older_sessions,
            "sessions",
            note="they keep the effort that they began with until they connect again: restart pools",
        )
    )
    rows += [Evidence("a role's own effort", Source.OBSERVED, told) for told in swapped.hiding]
    return tuple(rows)
