"""The steps of runbook 03: take stock, plan, copy, check, index, measure. Each adds its evidence to the run."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go
import psycopg
from psycopg import sql

from orchestra_lib.database import connect
from orchestra_lib.display import Progress, Table, evidence_table, message_box
from orchestra_lib.display.boxes import Box
from orchestra_lib.display.plots import recall_latency_figure
from orchestra_lib.errors import DataError, GateFailed
from orchestra_lib.evidence import Bound, Evidence, Source, yes_or_no
from orchestra_lib.memory.copy import CopyJob, CopyResult, copy, exported_snapshot
from orchestra_lib.memory.inventory import Inventory, inventory_checks, inventory_readings, take_inventory
from orchestra_lib.memory.ranges import key_ranges
from orchestra_lib.memory.schema import create_table
from orchestra_lib.memory.source import source_table
from orchestra_lib.memory.verify import verify
from orchestra_lib.paths import state_directory
from orchestra_lib.phases.queries import corpus_queries, sampled_queries
from orchestra_lib.phases.report import cost_sentences, evaluation_evidence, evaluation_table
from orchestra_lib.plan import Change, Plan, Verb
from orchestra_lib.rehearsal import Corpus, build, seed_store
from orchestra_lib.runbook import Runbook
from orchestra_lib.target import databases
from orchestra_lib.vectors.alternative import measured_alternative
from orchestra_lib.vectors.evaluate import FEWEST_QUERIES, Evaluation, QuerySet, evaluate
from orchestra_lib.vectors.index import (
    BuiltIndex,
    IndexSpec,
    available_memory_mib,
    build_index,
    is_built,
    ivfflat_index,
    persist_probes,
)
from orchestra_lib.vectors.memory import ivfflat_build_memory
from orchestra_lib.vectors.search import Searchable
from orchestra_lib.vectors.suit import suitability
from orchestra_lib.vectors.truth import exact_neighbours

TARGET_TABLE = "memories"


class MemoryPhase:
    """One run of the memory phase. Methods are called in the order of the runbook's cells and may be called again."""

    def __init__(self, run: Runbook) -> None:
        self._run = run
        self._settings = run.settings.memory
        self._databases = databases(run.settings)
        self._corpus = self._rehearsal_store() if self._databases.source_is_rehearsal else None
        self._source_session = connect(self._databases.source, role="source")
        self._source = source_table(self._source_session, self._settings.source.table, self._settings.source.columns)
        self._job = CopyJob(self._databases.source, self._source, self._databases.target, sql.Identifier(TARGET_TABLE))
        self._inventory: Inventory | None = None
        self._copied: CopyResult | None = None
        self._index: BuiltIndex | None = None
        self._evaluations: list[Evaluation] = []

    def inventory(self) -> Table:
        """Read the source once and show what it holds."""
        with self._run.step("inventory"):
            self._inventory = take_inventory(self._source_session, self._source)
        rows = list(inventory_readings(self._inventory))
        if self._source.defaulted:
            rows.append(
                Evidence(
                    "columns that the source has nothing for",
                    Source.OBSERVED,
                    ", ".join(self._source.defaulted),
                    note="they get constants; map them with source_columns if the table has them under another name",
                )
            )
        return self._show(rows, f"The source table {self._settings.source.table}")

    def checks(self) -> tuple[Evidence, ...]:
        """What must hold before anything is changed."""
        taken = self._taken_inventory()
        rows = list(inventory_checks(taken, self._settings.dimension))
        if self._corpus is None:
            enough = Bound(">=", FEWEST_QUERIES)
            rows.append(Evidence("rows to search with", Source.OBSERVED, taken.rows, "rows", enough))
        return (*rows, *self._memory_checks(taken))

    def plan(self) -> Plan:
        """What applying would change on the target, from the target as it is now."""
        taken, spec = self._taken_inventory(), self._index_spec()
        with connect(self._databases.target, role="target") as target:
            table_rows = _rows_in(target, TARGET_TABLE)
            present = ivfflat_index(target, sql.Identifier(TARGET_TABLE)) if table_rows is not None else None
            index_verb = Verb.KEEP if is_built(target, spec) else Verb.REPLACE if present else Verb.CREATE
            place = f"{target.info.host}:{target.info.port}/{target.info.dbname}"
        create = Verb.CREATE if table_rows is None else Verb.KEEP
        there = (
            "there now: key ranges that agree stay, all rows of the others are replaced" if table_rows else "there now"
        )
        replaced = f"; replaces {present[0]}" if present and index_verb is Verb.REPLACE else ""
        changes = (
            Change(create, "extension", "vector", f"pgvector, {taken.pgvector_version} on the source"),
            Change(create, "table", TARGET_TABLE, "the memory table, 14 columns"),
            Change(
                Verb.UPDATE if table_rows else Verb.CREATE,
                "rows",
                TARGET_TABLE,
                f"{taken.rows:,} from the source; {table_rows or 0:,} {there}",
                table_rows,
                taken.rows,
            ),
            Change(
                index_verb,
                "index",
                spec.name,
                f"IVFFlat with {spec.lists:,} lists, {spec.opclass}{replaced}",
                present[1] if present else None,
                spec.lists,
            ),
            Change(Verb.UPDATE, "database setting", "ivfflat.probes", "what the measurement chooses, read back"),
        )
        live: dict[str, object] = {
            "environment": self._run.settings.environment.name,
            "target": place,
            "source_rows": taken.rows,
            "target_rows": table_rows,
            "index": present[0] if present else None,
        }
        return Plan(changes, live)

    def copy(self) -> Table:
        """Make the table if it is missing and copy the rows; running it again sends only what differs."""
        with self._run.step("copy"), connect(self._databases.target, role="target") as target:
            target.execute("CREATE EXTENSION IF NOT EXISTS vector")
            target.execute(create_table(TARGET_TABLE, self._settings.dimension))
            ranges = key_ranges(self._source_session, self._source, self._settings.copy_.ranges)
            total = self._taken_inventory().rows
            progress = Progress("copy", "rows")
            with exported_snapshot(self._source_session) as snapshot:
                self._copied = copy(
                    self._job, snapshot, ranges, self._settings.copy_.workers, lambda done: progress(done, total)
                )
        return self._show(self._copy_evidence(self._copied), "The copy")

    def verify(self) -> Table:
        """Read the target back and compare it with what the source sent, range by range."""
        if self._copied is None:
            raise GateFailed("there is no copy to check yet: run the cell that copies first")
        progress, total = Progress("check", "rows"), self._taken_inventory().rows
        with self._run.step("check"):
            found = verify(
                self._job, self._copied.ranges, self._settings.copy_.workers, lambda done: progress(done, total)
            )
        table = self._show(found.evidence(), "Source and target compared")
        if found.differing_ranges:
            named = "; ".join(f"{row.id} is {row.kind}" for row in found.differences[:5])
            raise DataError(
                f"{len(found.differing_ranges)} of {found.ranges} key ranges differ from the source: {named}. "
                "Run the copy again: it sends those ranges anew"
            )
        return table

    def build_index(self) -> Table:
        """Check the memory that the build needs, build, and read back what was built."""
        spec, progress = self._index_spec(), Progress("index", "rows")
        with self._run.step("index"):
            self._index = build_index(self._databases.target, spec, self._available_mib(), progress.say)
        memory, built = self._index.memory, self._index.build_seconds
        progress.say("built" if built else "there already")
        judged = suitability(spec.lists, self._taken_inventory().rows)
        rows = (
            Evidence(
                "lists of the index, read back",
                Source.OBSERVED,
                self._index.lists,
                "lists",
                Bound("==", spec.lists),
                note=judged.sentence,
            ),
            Evidence(
                "memory that the build needs",
                Source.ASSUMED,
                memory.required_mib,
                "MiB",
                note=f"by formula: what maintenance_work_mem has to allow; {memory.resident_mib:,} of it are touched",
            ),
            Evidence("build time", Source.MEASURED, built, "s", note="" if built else "the index was there already"),
            Evidence("size of the index", Source.MEASURED, self._index.size_bytes / 2**20, "MiB"),
        )
        return self._show(rows, "The index")

    def measure(self) -> Table:
        """Exact truth, then recall and latency before (source) and after (target), and of the alternative if needed."""
        if self._index is None:
            raise GateFailed("there is no index to measure yet: run the cell that builds it first")
        with self._run.step("measure"):
            queries = self._queries()
            before = self._evaluate_source(queries)
            after = self._evaluate_target(queries, self._index)
            self._evaluations = [before, after]
            judged = suitability(self._index.lists, after.rows)
            if not judged.suits:
                self._evaluations.append(self._evaluate_alternative(queries, judged.sensible_lists))
        persisted = persist_probes(self._databases.target, after.probes)
        self._run.add(
            *evaluation_evidence(self._evaluations, self._run.settings),
            Evidence("probes that a new session has", Source.OBSERVED, persisted, "probes", Bound("==", after.probes)),
            yes_or_no(
                "the search reads the index",
                Source.OBSERVED,
                after.plan_uses == self._index.name,
                note=f"plan with enable_seqscan = off: {after.plan_uses or 'scan of the table'}; "
                f"left alone: {after.plan_left_alone or 'scan of the table'}",
            ),
        )
        return evaluation_table(self._evaluations)

    def figure(self) -> go.Figure:
        """Recall against latency, with the targets."""
        targets, host = self._run.settings.targets, self._run.record.host
        model = ", ".join(self._taken_inventory().rows_by_model)
        subject = (
            f"{self._evaluations[-1].rows:,} rows · {model} · {host['cores']} cores, {host['cpu']} · one client, warm"
        )
        return recall_latency_figure(
            self._evaluations, self._settings.search.recall_target, targets.vector_search_p95_ms, subject
        )

    def explain(self) -> Box:
        """What the chosen lists cost, in sentences made of the numbers above; the record keeps them too."""
        sentences = cost_sentences(self._evaluations, self._taken_index())
        for sentence in sentences:
            if sentence not in self._run.record.notes:
                self._run.note(sentence)
        return message_box("\n".join(sentences))

    def _rehearsal_store(self) -> Corpus:
        wanted = self._settings.corpus
        with self._run.step("rehearsal store"):
            progress = Progress("rehearsal store", "rows")
            progress.say("reading and embedding the standard library, a minute the first time")
            corpus = build(wanted.seed, wanted.queries, state_directory() / "corpus")
            seeded = seed_store(
                self._databases.source, corpus, wanted.rows, self._settings.source.lists, progress, progress.say
            )
            progress.say(str(seeded))
        self._run.note(str(seeded))
        return corpus

    def _queries(self) -> QuerySet:
        wanted, k = self._settings, self._settings.search.k
        with connect(self._databases.target, role="target") as target:
            if self._corpus is not None:
                vectors, answers = corpus_queries(self._corpus)
                truth = exact_neighbours(target, self._job.target_table, vectors, k, wanted.index.opclass)
                return QuerySet(vectors, answers, truth)
            ids, vectors = sampled_queries(target, self._job.target_table, wanted.corpus.queries, wanted.dimension)
            truth = exact_neighbours(target, self._job.target_table, vectors, k, wanted.index.opclass, excluded=ids)
            return QuerySet(vectors, None, truth)

    def _evaluate_source(self, queries: QuerySet) -> Evaluation:
        present = ivfflat_index(self._source_session, self._source.table)
        return evaluate(
            self._source_session,
            self._searchable(self._source.table, queries, self._source.id_column, self._source.embedding_column),
            queries,
            present[1] if present else None,
            self._settings.search.recall_target,
            None,
            f"before: source, {present[1]:,} lists" if present else "before: source, no IVFFlat index",
        )

    def _evaluate_target(self, queries: QuerySet, index: BuiltIndex) -> Evaluation:
        with connect(self._databases.target, role="target") as target:
            return evaluate(
                target,
                self._searchable(self._job.target_table, queries),
                queries,
                index.lists,
                self._settings.search.recall_target,
                self._settings.index.probes,
                f"after: target, {index.lists:,} lists",
            )

    def _evaluate_alternative(self, queries: QuerySet, lists: int) -> Evaluation:
        spec = self._index_spec()
        return measured_alternative(
            self._databases.target,
            IndexSpec(spec.table, lists, spec.opclass, spec.dimension),
            queries,
            self._settings.search.recall_target,
            self._available_mib(),
        )

    def _searchable(
        self, table: sql.Composable, queries: QuerySet, id_column: str = "id", embedding_column: str = "embedding"
    ) -> Searchable:
        k = self._settings.search.k + (queries.truth.excluded is not None)
        return Searchable(table, self._settings.index.opclass, k, id_column, embedding_column)

    def _index_spec(self) -> IndexSpec:
        wanted = self._settings.index
        return IndexSpec(
            TARGET_TABLE, wanted.lists, wanted.opclass, self._settings.dimension, wanted.maintenance_work_mem_mib
        )

    def _memory_checks(self, taken: Inventory) -> tuple[Evidence, ...]:
        spec, available = self._index_spec(), self._available_mib()
        memory = ivfflat_build_memory(spec.lists, taken.rows, spec.dimension, max(1, taken.table_bytes // 8192))
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

    def _available_mib(self) -> int | None:
        # Only the local databases share this machine's memory.
        return available_memory_mib() if self._settings.target.dsn is None else None

    def _copy_evidence(self, copied: CopyResult) -> tuple[Evidence, ...]:
        return (
            Evidence(
                "rows sent",
                Source.MEASURED,
                copied.rows,
                "rows",
                note=f"{copied.rows_kept:,} were there already, proven by their checksums",
            ),
            Evidence(
                "rate of the copy",
                Source.MEASURED,
                round(copied.rows_per_second),
                "rows/s",
                note=f"{copied.bytes / 2**20:,.0f} MiB in {copied.seconds:.1f} s, "
                f"{self._settings.copy_.workers} workers, snapshot at LSN {copied.lsn}",
            ),
        )

    def _show(self, rows: Sequence[Evidence], caption: str) -> Table:
        self._run.add(*rows)
        return evidence_table(rows, caption)

    def _taken_inventory(self) -> Inventory:
        if self._inventory is None:
            raise GateFailed("the source was not read yet: run the cell that takes the inventory first")
        return self._inventory

    def _taken_index(self) -> BuiltIndex:
        if self._index is None or not self._evaluations:
            raise GateFailed("nothing was measured yet: run the cells that build and measure first")
        return self._index


def _rows_in(connection: psycopg.Connection, table: str) -> int | None:
    if connection.execute("SELECT to_regclass(%s)", [table]).fetchone() == (None,):
        return None
    row = connection.execute(sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(table))).fetchone()
    return int(row[0]) if row else 0
