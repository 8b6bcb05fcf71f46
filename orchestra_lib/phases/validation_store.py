"""The store's part of runbook 06: search, retrieval and the stream, measured once more by what phases 3 and 4 call."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
from psycopg import sql

from orchestra_lib.assistant import report as assistant_report
from orchestra_lib.assistant.context import RETRIEVED, pack, shortlist
from orchestra_lib.assistant.retrieval import Store, retrieve
from orchestra_lib.assistant.tokens import TokenRatio
from orchestra_lib.bench.statistics import quantile
from orchestra_lib.blueprint.assistant import section
from orchestra_lib.database import Address, connect
from orchestra_lib.evidence import Bound, Evidence, Source
from orchestra_lib.memory.cutover_journal import CutoverJournal
from orchestra_lib.memory.source import source_table
from orchestra_lib.move import TARGET_TABLE
from orchestra_lib.phases.assistant_settings import SettingsInForce
from orchestra_lib.phases.cloud_work import CloudWork
from orchestra_lib.phases.index_journals import tuning_journal
from orchestra_lib.phases.memory_load import WRITTEN_BY_A_REHEARSAL, RehearsalLoad
from orchestra_lib.phases.memory_stores import Stores
from orchestra_lib.phases.memory_stream import CATCH_UP_RATE, StreamSteps
from orchestra_lib.phases.report import certificate_evidence, delivery_evidence, load_text
from orchestra_lib.phases.serving import Serving
from orchestra_lib.phases.tuning import IndexTuning
from orchestra_lib.rehearsal import Corpus
from orchestra_lib.runbook import Runbook
from orchestra_lib.settings.model import BaselineValue
from orchestra_lib.validation.targets import Side, Target
from orchestra_lib.vectors.forms import EXACT
from orchestra_lib.vectors.index import LiveIndex, serving_index
from orchestra_lib.vectors.session_defaults import searched_now

_USUAL_BUDGET_TOKENS = 2_000
_ABOUT = TokenRatio(4.0, 4.0, 0)  # Google's rule of thumb: packing's time does not depend on the exact ratio
BACKLOG_SECONDS = 60.0
"""How long the stream is paused where nobody piles rows up for it, so that there is something to catch up with."""
_WRITERS_ON_TARGET = "target"
_MOST_QUESTIONS = 200
"""That a retrieval is timed with: enough for a p95 with both ends."""
_REHEARSED_LOAD_SECONDS = 4.0
_TABLE = sql.Identifier(TARGET_TABLE)


def stated(baseline: BaselineValue) -> Side:
    """Today's figure as the parameters have it, without an interval."""
    value = baseline.value
    return Side(value, value, value, Source(baseline.source), "as the parameters state it")


class StoreAgain:
    """The memory store of phase 3, measured again. ``corpus`` has the rehearsal's questions, None elsewhere."""

    def __init__(self, run: Runbook, stores: Stores, address: Address, corpus: Corpus | None) -> None:
        self._run, self._settings = run, run.settings
        self._stores, self._address, self._corpus = stores, address, corpus
        tuning = IndexTuning(run, TARGET_TABLE, tuning_journal(run.settings))
        seconds = run.settings.memory.tuning.load_seconds
        # A rehearsal's load is a reading, and its gate one query at a time: it need not take as long.
        seconds = min(seconds, _REHEARSED_LOAD_SECONDS) if run.rehearsal else seconds
        self._serving = Serving(run.settings, address, TARGET_TABLE, tuning, corpus, seconds)

    # --- what there is ------------------------------------------------------------------------------------------------

    def index(self) -> LiveIndex | None:
        """The vector index that serves."""
        with connect(self._address, role="target") as session:
            return serving_index(session, _TABLE)

    def rows(self) -> int:
        """Rows of the store."""
        with connect(self._address, role="target") as session:
            row = session.execute(sql.SQL("SELECT count(*) FROM {}").format(_TABLE)).fetchone()
        return int(row[0]) if row else 0

    def live_side(self) -> str:
        """Which side the writers write on, by the journal of the cutovers."""
        return CutoverJournal(self._stores.journal("cutover")).live() or "source"

    def clear_left(self) -> None:
        """Delete the pile of a measurement that was killed: it copies vectors, and with it every recall is another.

        It goes from the source, and the stream brings the deletions. Raises TargetUnreachable when that does not.
        """
        writer = RehearsalLoad(self._stores)
        if not writer.is_wanted or self.live_side() == _WRITERS_ON_TARGET:
            return
        cleared = writer.clear()
        if not cleared and not self.left():
            return
        with self._run.step("clear what was left"):
            steps = StreamSteps(self._stores, writer, self._corpus)
            steps.go_on()
            steps.drain()
            steps.stop()  # in a rehearsal it rests
        self._run.note(f"{cleared:,} rows that a measurement had left which was cut off were deleted from both stores")

    # --- measuring ----------------------------------------------------------------------------------------------------

    def search(self, hardware: str, load: str) -> tuple[Target, Target, tuple[Evidence, ...]]:
        """Vector search and its recall: today's store and the target, then the target under the offered load."""
        memory, store = self._settings.memory, self._settings.memory.source
        queries = self._serving.parts()
        with connect(self._stores.source.address, role="source") as session:
            theirs = source_table(session, store.table, store.columns)
        before = self._serving.todays(self._stores.source.address, theirs, queries)
        with connect(self._address, role="target") as session:
            form, effort = searched_now(session, _TABLE, memory.search.k)
        index = self.index() if form != EXACT else None
        certified = self._serving.certified(form, index.name if index else None, effort, effort, queries)
        after = self._serving.delivery(form, effort, queries, "after", "target")
        rows = (
            *certificate_evidence(certified, after, self._settings),
            *delivery_evidence((before, after), self._settings),
        )
        under = f"p95 {certified.warm.p95_ms} ms {load_text(certified.warm)}"
        how = f"{form.label}, effort {effort}, one client, warm; {under}"
        was = f"today's store, {before.form.label}, effort {before.effort}, searched in the same way"
        found, least = certified.recall, 1.0 if certified.recall.value == 1 else certified.recall.low
        latency = Target(
            "vector search, p95",
            "ms",
            Bound("<", self._settings.targets.vector_search_p95_ms),
            Side.of(after.p95_ms, Source.MEASURED, how),
            Side.of(before.p95_ms, Source.MEASURED, was),
            hardware,
            load,
        )
        recall = Target(
            f"recall@{memory.search.k}",
            "",
            Bound(">=", memory.search.recall_target),
            Side(found.value, least, found.high, Source.MEASURED, f"{found.samples} queries, effort {effort}"),
            Side.of(before.recall, Source.MEASURED, was),
            hardware,
            load,
            best=1.0,
        )
        return latency, recall, rows

    def retrieval(self, work: CloudWork, hardware: str, load: str) -> tuple[Target, tuple[Evidence, ...]]:
        """Reading the candidates of a question and packing them into a context, with the settings in force."""
        target, before = self._settings.targets.memory_retrieval_p95_ms, self._settings.baseline.memory_retrieval_ms
        blank = Target("memory retrieval, p95", "ms", Bound("<", target), None, stated(before), hardware, load)
        wanted = section(self._settings)
        in_force = SettingsInForce(work, wanted).live() or {}
        budget = int(in_force.get("context-tokens") or wanted.context.tokens or _USUAL_BUDGET_TOKENS)
        order = in_force.get("context-order", RETRIEVED)
        vectors = self._serving.queries().vectors[:_MOST_QUESTIONS]
        asks_corpus = self._corpus is not None and self._settings.memory.tuning.replay is None
        # Logged queries are vectors without words: they are packed in the order in which they are found.
        texts = [query.text for query in self._corpus.queries] if self._corpus and asks_corpus else [""] * len(vectors)
        store = Store(TARGET_TABLE, self._settings.memory.index.opclass, wanted.context.candidates)
        with connect(self._address, role="memory") as session:
            found = retrieve(session, store, vectors, range(len(vectors)))
        taken = []
        for number in range(len(found.milliseconds)):
            place = number % len(vectors)
            began = time.perf_counter()
            pack(shortlist(texts[place], found.memories[place]), order, budget, _ABOUT)
            taken.append((time.perf_counter() - began) * 1e3)
        packing = np.asarray(taken)
        rows = assistant_report.retrieval_evidence(found, packing, target, f"{budget:,} tokens, {order}")
        side = Side.of(quantile(found.milliseconds + packing, 0.95), Source.MEASURED, f"one client, warm; {found.way}")
        return replace(blank, now=side), rows

    def stream(self, hardware: str, load: str) -> tuple[Target, tuple[Evidence, ...]]:
        """A short real run: rows are piled up on the source, the stream catches up, and they are deleted again."""
        bound = Bound(">=", self._settings.targets.sync_records_per_second)
        before = stated(self._settings.baseline.sync_records_per_second)
        blank = Target("synchronization", "records/s", bound, None, before, hardware, load)
        if self.live_side() == _WRITERS_ON_TARGET:
            over = "it is over: since the cutover the writers write on the target, and the stream goes the other way"
            return replace(blank, missing=over), (Evidence(CATCH_UP_RATE, Source.ASSUMED, "not measured", note=over),)
        if not self._settings.memory.stream.live:
            still = "the store stands still (live = False): nothing is streamed"
            row = Evidence(CATCH_UP_RATE, Source.MISSING, None, "rows/s", blank.bound, note=still)
            return replace(blank, missing=still), (row,)
        writer = RehearsalLoad(self._stores)
        steps, seen = StreamSteps(self._stores, writer, self._corpus), len(self._run.evidence)
        try:
            if not writer.is_wanted and steps.stop():
                time.sleep(BACKLOG_SECONDS)  # the slot keeps what the application writes meanwhile
            steps.start()
            steps.catch_up()
        finally:
            if writer.is_wanted:
                writer.clear()
                steps.drain()
            if self._settings.environment.kind == "local":
                steps.stop()
            else:
                steps.resume()  # an interrupt may have come while it was stopped
        row = next(one for one in self._run.evidence[seen:] if one.claim == CATCH_UP_RATE)
        if not isinstance(row.value, int | float):
            gate = Evidence(row.claim, Source.MISSING, None, "rows/s", blank.bound, note=row.note)
            return replace(blank, missing=row.note), (gate,)
        side = Side(row.value, row.value, row.value, row.source, row.note)
        unjudged = "" if row.target else "a rehearsal shares its cores with both databases"
        return replace(blank, now=side, unjudged=unjudged), ()

    def left(self) -> int:
        """Rows of a pile that are still on the target."""
        with connect(self._address, role="target") as session:
            row = session.execute(
                sql.SQL("SELECT count(*) FROM {} WHERE {}").format(_TABLE, WRITTEN_BY_A_REHEARSAL)
            ).fetchone()
        return int(row[0]) if row else 0
