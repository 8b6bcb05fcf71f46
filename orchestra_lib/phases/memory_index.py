"""The index of runbook 03: checked for memory, built, read back, measured before and after, and explained."""

from __future__ import annotations

import plotly.graph_objects as go
from psycopg import sql

from orchestra_lib.database import Address, connect
from orchestra_lib.display import Progress, Table
from orchestra_lib.display.boxes import Box, message_box
from orchestra_lib.display.plots import recall_latency_figure
from orchestra_lib.errors import GateFailed
from orchestra_lib.evidence import Bound, Evidence, Source, yes_or_no
from orchestra_lib.memory.inventory import Inventory
from orchestra_lib.memory.source import SourceTable
from orchestra_lib.move import TARGET_TABLE
from orchestra_lib.phases.memory_stores import Stores
from orchestra_lib.phases.queries import corpus_queries, sampled_queries
from orchestra_lib.phases.report import cost_sentences, evaluation_evidence, evaluation_table
from orchestra_lib.rehearsal import Corpus
from orchestra_lib.vectors.alternative import measured_alternative
from orchestra_lib.vectors.evaluate import Evaluation, QuerySet, evaluate
from orchestra_lib.vectors.forms import EXACT, Form, ivfflat
from orchestra_lib.vectors.index import (
    BuiltIndex,
    IndexSpec,
    available_memory_mib,
    build_index,
    drop_others,
    persist_probes,
    serving_index,
)
from orchestra_lib.vectors.memory import build_memory
from orchestra_lib.vectors.search import Searchable
from orchestra_lib.vectors.suit import suitability
from orchestra_lib.vectors.truth import exact_neighbours

_TABLE = sql.Identifier(TARGET_TABLE)


class IndexSteps:
    """The vector index on the target."""

    def __init__(self, stores: Stores, corpus: Corpus | None) -> None:
        self._stores, self._corpus = stores, corpus
        self._settings, self._run = stores.memory, stores.run
        self.built: BuiltIndex | None = None
        self._evaluations: list[Evaluation] = []

    @property
    def spec(self) -> IndexSpec:
        """The index that the settings want."""
        wanted = self._settings.index
        return IndexSpec(
            TARGET_TABLE,
            ivfflat(wanted.lists),
            wanted.opclass,
            self._settings.dimension,
            wanted.maintenance_work_mem_mib,
        )

    def checks(self, taken: Inventory) -> tuple[Evidence, ...]:
        """Whether the memory suffices that the build needs."""
        spec, available = self.spec, self._available_mib()
        memory = build_memory(spec.form, taken.rows, spec.dimension, max(1, taken.table_bytes // 8192))
        allowed, needs = spec.maintenance_work_mem_mib, "wanted is what the index build needs, by formula"
        given = (
            ("maintenance_work_mem that the settings allow", allowed, memory.required_mib),
            ("memory that this machine has available", available, memory.resident_mib),
        )
        return tuple(
            Evidence(claim, Source.OBSERVED, value, "MiB", Bound(">=", wanted), note=needs)
            for claim, value, wanted in given
            if value is not None
        )

    def build(self, rows_expected: int) -> Table:
        """Check the memory that the build needs, build, and read back what was built."""
        spec, progress = self.spec, Progress("index", "rows")
        with self._run.step("index"):
            self.built = build_index(self._stores.target(), spec, self._available_mib(), progress.say)
            drop_others(self._stores.target(), spec)
        memory, seconds = self.built.memory, self.built.build_seconds
        progress.say("built" if seconds else "there already")
        judged = suitability(self._settings.index.lists, rows_expected)
        rows = (
            Evidence(
                "lists of the index, read back",
                Source.OBSERVED,
                self.built.form.lists,
                "lists",
                Bound("==", self._settings.index.lists),
                note=judged.sentence,
            ),
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
            Evidence("size of the index", Source.MEASURED, self.built.size_bytes / 2**20, "MiB"),
        )
        return self._stores.show(rows, "The index")

    def measure(self, source: SourceTable) -> Table:
        """Exact truth, then recall and latency before (source) and after (target), and of the alternative if needed."""
        if self.built is None:
            raise GateFailed("there is no index to measure yet: run the cell that builds it first")
        target = self._stores.target()
        with self._run.step("measure"):
            queries = self._queries(target)
            before = self._evaluate_source(source, queries)
            after = self._evaluate_target(target, queries, self.built)
            self._evaluations = [before, after]
            judged = suitability(self._settings.index.lists, after.rows)
            if not judged.suits:
                self._evaluations.append(self._evaluate_alternative(target, queries, judged.sensible_lists))
        persisted = persist_probes(target, after.probes)
        self._run.add(
            *evaluation_evidence(self._evaluations, self._run.settings),
            Evidence("probes that a new session has", Source.OBSERVED, persisted, "probes", Bound("==", after.probes)),
            yes_or_no(
                "the search reads the index",
                Source.OBSERVED,
                after.plan_uses == self.built.name,
                note=f"plan with enable_seqscan = off: {after.plan_uses or 'scan of the table'}; "
                f"left alone: {after.plan_left_alone or 'scan of the table'}",
            ),
        )
        return evaluation_table(self._evaluations)

    def figure(self, taken: Inventory) -> go.Figure:
        """Recall against latency, with the targets."""
        targets, host = self._run.settings.targets, self._run.record.host
        model = ", ".join(taken.rows_by_model)
        subject = (
            f"{self._evaluations[-1].rows:,} rows · {model} · {host['cores']} cores, {host['cpu']} · one client, warm"
        )
        return recall_latency_figure(
            self._evaluations, self._settings.search.recall_target, targets.vector_search_p95_ms, subject
        )

    def explain(self) -> Box:
        """What the chosen lists cost, in sentences made of the numbers above; the record keeps them too."""
        if self.built is None or not self._evaluations:
            raise GateFailed("nothing was measured yet: run the cells that build and measure first")
        sentences = cost_sentences(self._evaluations, self.built)
        for sentence in sentences:
            if sentence not in self._run.record.notes:
                self._run.note(sentence)
        return message_box("\n".join(sentences))

    def _queries(self, address: Address) -> QuerySet:
        wanted, k = self._settings, self._settings.search.k
        with connect(address, role="target") as target:
            if self._corpus is not None:
                vectors, answers = corpus_queries(self._corpus)
                truth = exact_neighbours(target, _TABLE, vectors, k, wanted.index.opclass)
                return QuerySet(vectors, answers, truth)
            ids, vectors = sampled_queries(target, _TABLE, wanted.corpus.queries, wanted.dimension)
            truth = exact_neighbours(target, _TABLE, vectors, k, wanted.index.opclass, excluded=ids)
            return QuerySet(vectors, None, truth)

    def _evaluate_source(self, source: SourceTable, queries: QuerySet) -> Evaluation:
        with connect(self._stores.source.address, role="source") as session:
            present = serving_index(session, source.table, source.embedding_column)
            form = present.form if present else EXACT
            searchable = self._searchable(source.table, queries, form, source.id_column, source.embedding_column)
            return evaluate(
                session,
                searchable,
                queries,
                form.lists,
                self._settings.search.recall_target,
                None if form.lists else form.usual_effort(searchable.k).value,
                f"before: source, {form.label}",
            )

    def _evaluate_target(self, address: Address, queries: QuerySet, index: BuiltIndex) -> Evaluation:
        with connect(address, role="target") as target:
            return evaluate(
                target,
                self._searchable(_TABLE, queries, index.form),
                queries,
                index.form.lists,
                self._settings.search.recall_target,
                self._settings.index.probes,
                f"after: target, {index.form.label}",
            )

    def _evaluate_alternative(self, address: Address, queries: QuerySet, lists: int) -> Evaluation:
        spec = self.spec
        return measured_alternative(
            address,
            IndexSpec(spec.table, ivfflat(lists), spec.opclass, spec.dimension),
            queries,
            self._settings.search.recall_target,
            self._available_mib(),
        )

    def _searchable(
        self,
        table: sql.Composable,
        queries: QuerySet,
        form: Form,
        id_column: str = "id",
        embedding_column: str = "embedding",
    ) -> Searchable:
        k = self._settings.search.k + (queries.truth.excluded is not None)
        return Searchable(
            table, self._settings.index.opclass, k, form, id_column, embedding_column, self._settings.dimension
        )

    def _available_mib(self) -> int | None:
        # Only the local databases share this machine's memory.
        local = self._run.settings.environment.kind == "local" and self._settings.target.dsn is None
        return available_memory_mib() if local else None
