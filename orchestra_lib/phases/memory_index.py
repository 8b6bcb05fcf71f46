"""The index of runbook 03: chosen by measurement or as it was asked for, built, certified, and held against before."""

from __future__ import annotations

import plotly.graph_objects as go
from psycopg import sql

from orchestra_lib.database import connect
from orchestra_lib.display import Progress, Table
from orchestra_lib.display.boxes import Box, message_box
from orchestra_lib.display.tuning import Delivered, before_after_figure, load_figure
from orchestra_lib.errors import GateFailed
from orchestra_lib.evidence import Bound, Evidence, Source, yes_or_no
from orchestra_lib.memory.inventory import Inventory
from orchestra_lib.memory.source import SourceTable
from orchestra_lib.move import TARGET_TABLE
from orchestra_lib.phases.delivery import Delivery
from orchestra_lib.phases.index_journals import swap_journal, tuning_journal
from orchestra_lib.phases.memory_stores import PHASE, Stores
from orchestra_lib.phases.report import (
    beside_sentence,
    certificate_evidence,
    certificate_table,
    comparison_sentence,
    deliveries_table,
    delivery_evidence,
)
from orchestra_lib.phases.serving import Serving
from orchestra_lib.phases.tuning import IndexTuning
from orchestra_lib.plan import Change, Verb
from orchestra_lib.rehearsal import Corpus
from orchestra_lib.vectors.certificate import Certificate
from orchestra_lib.vectors.forms import EXACT, Effort, Form, ivfflat
from orchestra_lib.vectors.index import BuiltIndex, LiveIndex, build_index, drop_others, vector_indexes
from orchestra_lib.vectors.measured import one_notch_up
from orchestra_lib.vectors.memory import build_memory
from orchestra_lib.vectors.swap import recover


class IndexSteps:
    """The vector index on the target.

    Without a number of lists in the settings the index is the one that the tuning chooses; with one it is exactly
    that, and the tuning says what would have been best.
    """

    def __init__(self, stores: Stores, corpus: Corpus | None) -> None:
        self._stores, self._corpus = stores, corpus
        self._settings, self._run = stores.memory, stores.run
        self._tuning = IndexTuning(stores.run, TARGET_TABLE, tuning_journal(stores.run.settings))
        self._form: Form | None = None
        self._index: str | None = None
        self._certificate: Certificate | None = None
        self._before_and_after: tuple[Delivery, Delivery] | None = None

    @property
    def asked(self) -> Form | None:
        """The index that the settings ask for; None when it is to be chosen."""
        lists = self._settings.index.lists
        return ivfflat(lists) if lists is not None else None

    def checks(self, taken: Inventory) -> tuple[Evidence, ...]:
        """Whether the memory suffices that the build needs. A tuning leaves out what does not fit."""
        if self.asked is None:
            return ()
        available, dimension = self._tuning.available_mib(), self._settings.dimension
        memory = build_memory(self.asked, taken.rows, dimension, max(1, taken.table_bytes // 8192))
        allowed = self._settings.index.maintenance_work_mem_mib
        needs = "wanted is what the index build needs, by formula"
        given = (
            ("maintenance_work_mem that the settings allow", allowed, memory.required_mib),
            ("memory that this machine has available", available, memory.resident_mib),
        )
        return tuple(
            Evidence(claim, Source.OBSERVED, value, "MiB", Bound(">=", wanted), note=needs)
            for claim, value, wanted in given
            if value is not None
        )

    def changes(self, present: LiveIndex | None) -> tuple[Change, ...]:
        """What becomes of the index that is there now; which one comes is known only once it was measured."""
        asked = self.asked
        if asked is None:
            seconds = self._settings.tuning.budget_seconds
            now = f"; {present.name} is there now" if present else ""
            detail = f"chosen by measurement within {seconds:g} s, certified{now}"
            verb, name, after = Verb.UPDATE if present else Verb.CREATE, f"{TARGET_TABLE}.embedding", None
            setting = "ivfflat.probes or hnsw.ef_search"
        else:
            opclass = self._settings.index.opclass
            is_there = present is not None and (present.form, present.opclass) == (asked, opclass)
            verb = Verb.KEEP if is_there else Verb.REPLACE if present else Verb.CREATE
            replaced = f"; replaces {present.name}" if present and not is_there else ""
            name, detail = asked.index_name(TARGET_TABLE), f"{asked.label}, {opclass}{replaced}"
            after = asked.lists
            setting = "ivfflat.probes"
        before = present.form.label if present else None
        return (
            Change(verb, "index", name, detail, before, after),
            Change(Verb.UPDATE, "database setting", setting, "what the measurement chooses, read back"),
        )

    # --- choosing and building ----------------------------------------------------------------------------------------

    def tune(self) -> Table:
        """Choose the index within the budget, on copies of the vectors; show everything that was looked at."""
        lists = self._settings.index.lists
        return self._tuning.tune(self._stores.target(), self._serving().queries(), () if lists is None else (lists,))

    def plane(self) -> go.Figure:
        """Recall against latency of everything that was looked at."""
        return self._tuning.plane()

    def pages(self) -> go.Figure:
        """What a search reads over the number of lists, now and at ten times the rows."""
        return self._tuning.pages()

    def builds(self) -> go.Figure:
        """What each index takes: time, memory, disk."""
        return self._tuning.builds()

    def build(self) -> Table:
        """Check the memory that the build needs, build, and read back what was built.

        Another index that is there serves until the new one is certified.
        """
        form, progress = self._wanted(), Progress("index", "rows")
        with self._run.step("index"):
            if form == EXACT:
                note = "reading every row is quick enough: no index is built"
                rows: tuple[Evidence, ...] = (Evidence("index", Source.MEASURED, "none", note=note),)
            else:
                built = self._built(form, progress)
                self._index = built.name
                rows = self._built_evidence(built, form)
                progress.say("built" if built.build_seconds else "there already")
        self._form = form
        return self._stores.show(rows, "The index")

    # --- measuring ----------------------------------------------------------------------------------------------------

    def measure(self, source: SourceTable) -> Table:
        """The certificate of the index as it is now, its effort made every session's, and before against after."""
        form, serving, probes = self._searched(), self._serving(), self._settings.index.probes
        with self._run.step("measure"):
            queries = serving.parts()
            before = serving.todays(self._stores.source.address, source, queries)
            effort = Effort(probes) if probes is not None else serving.effort(form, queries)
            notch = effort if probes is not None or form == EXACT else one_notch_up(form, effort)
            self._certificate = certified = serving.certified(form, self._index, effort, notch, queries)
            after = serving.delivery(form, certified.effort, queries, "after", "target")
            self._before_and_after = (before, after)
            persisted = serving.persisted(form, certified.effort)
        self._run.add(
            *certificate_evidence(certified, after, self._run.settings),
            *delivery_evidence(self._before_and_after, self._run.settings),
            *persisted,
        )
        return deliveries_table(self._before_and_after)

    def certificate(self) -> Table:
        """The certificate in full."""
        return certificate_table(self._need_certificate())

    def load(self) -> go.Figure:
        """Latency at the offered load."""
        return load_figure(self._need_certificate(), self._subject())

    def before_and_after(self) -> go.Figure:
        """Recall and latency of today's store and of the target."""
        before, after = self._measured()
        target_ms = self._run.settings.targets.vector_search_p95_ms
        drawn = [Delivered(one.label, one.recall, one.p95_ms) for one in (before, after)]
        return before_after_figure(drawn, self._settings.search.recall_target, target_ms, self._subject())

    def explain(self) -> Box:
        """Why this index, what others would cost, and before against after; the record keeps the sentences too."""
        certified, (before, after) = self._need_certificate(), self._measured()
        told = [comparison_sentence(before, after)]
        if self._tuning.has_run:
            found = self._tuning.found
            if self.asked is not None and found.chosen is not None:
                told.insert(0, beside_sentence(certified, found.chosen, found.certificate))
            told = [*self._tuning.sentences(), *told]
        for sentence in told:
            if sentence not in self._run.record.notes:
                self._run.note(sentence)
        return message_box("\n".join(told))

    # --- inside -------------------------------------------------------------------------------------------------------

    def _wanted(self) -> Form:
        if self.asked is not None:
            return self.asked
        chosen = self._tuning.found.chosen
        if chosen is None:
            raise GateFailed("the tuning chose no index: run the cell that tunes again, it goes on where it was")
        return chosen.form

    def _searched(self) -> Form:
        if self._form is None:
            raise GateFailed("there is no index to measure yet: run the cell that builds it first")
        return self._form

    def _need_certificate(self) -> Certificate:
        if self._certificate is None:
            raise GateFailed("nothing was measured yet: run the cell that measures first")
        return self._certificate

    def _measured(self) -> tuple[Delivery, Delivery]:
        if self._before_and_after is None:
            raise GateFailed("nothing was measured yet: run the cell that measures first")
        return self._before_and_after

    def _built_evidence(self, built: BuiltIndex, form: Form) -> tuple[Evidence, ...]:
        memory, seconds = built.memory, built.build_seconds
        rows = [
            yes_or_no(
                "the index is the one that was wanted, read back",
                Source.OBSERVED,
                built.form == form,
                note=f"{built.name}: {built.form.label}",
            )
        ]
        if form.lists is not None:
            rows.append(
                Evidence(
                    "lists of the index, read back",
                    Source.OBSERVED,
                    built.form.lists,
                    "lists",
                    Bound("==", form.lists),
                    note="chosen by measurement" if self.asked is None else "as they were asked for",
                )
            )
        rows += [
            Evidence(
                "memory that the build needs",
                Source.ASSUMED,
                memory.required_mib,
                "MiB",
                note=f"by formula: what maintenance_work_mem has to allow; {memory.resident_mib:,} of it are touched",
            ),
            Evidence(
                "build time", Source.MEASURED, seconds, "s", note="" if seconds else "the index was there already"
            ),
            Evidence("size of the index", Source.MEASURED, built.size_bytes / 2**20, "MiB"),
        ]
        return tuple(rows)

    def _built(self, form: Form, progress: Progress) -> BuiltIndex:
        address, serving, journal = self._stores.target(), self._serving(), swap_journal(self._run.settings, PHASE)
        recover(address, journal_path=journal, progress=progress.say)
        with connect(address, role="target") as session:
            present = vector_indexes(session, sql.Identifier(TARGET_TABLE))
        others = [index for index in present if index.valid and index.form != form]
        if others and len(others) == len(present):
            self._run.note(f"{others[0].name} was there: it served until {form.label} was certified")
            swapped = serving.swapped(form, self._effort_seen(form), serving.parts(), journal, progress.say)
            return swapped.made[0]
        spec = serving.spec(form)
        built = build_index(address, spec, self._tuning.available_mib(), progress.say)
        drop_others(address, spec)
        return built

    def _effort_seen(self, form: Form) -> Effort:
        """What the tuning found that an index of this form needs; without one, what is usual."""
        seen = [*self._tuning.found.asked, *self._tuning.found.candidates] if self._tuning.has_run else []
        return next((one.effort for one in seen if one.form == form), form.usual_effort(self._settings.search.k))

    def _serving(self) -> Serving:
        return Serving(self._run.settings, self._stores.target(), TARGET_TABLE, self._tuning, self._corpus)

    def _subject(self) -> str:
        host, certified = self._run.record.host, self._need_certificate()
        return f"{certified.rows:,} rows · {host['cores']} cores, {host['cpu']}"
