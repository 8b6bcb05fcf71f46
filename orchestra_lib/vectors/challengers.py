"""What else could serve: halfvec, HNSW, bits with re-ranking, ScaNN, each in the same units as the IVFFlat index.

What rounding to halfvec or bits loses is counted before anything is built, so a form that cannot reach the target costs
one pass over the rows and no build.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from psycopg import sql

from orchestra_lib.database import connect
from orchestra_lib.errors import GateFailed, ParameterError
from orchestra_lib.vectors.evaluate import QuerySet
from orchestra_lib.vectors.forms import Effort, Form, Method, Storage, hnsw, ivfflat, scann
from orchestra_lib.vectors.geometry import Geometry
from orchestra_lib.vectors.halving import Halved, Trial, halve
from orchestra_lib.vectors.learning import Learning
from orchestra_lib.vectors.measured import clears, find_effort
from orchestra_lib.vectors.quantised import NO_RERANK_FROM, StoredOrder, stored_order
from orchestra_lib.vectors.truth import exact_neighbours, stream_vectors

_FEWEST_SAMPLE, _MOST_SAMPLE = 2_000, 50_000
_SAMPLE_SHARE = 8
_FIRST_EF_SEARCH = 40
_MOST_RERANKED_PER_ROW = 40
_HNSW_ROWS_PER_SECOND = 500.0  # what a build is thought to do before any was timed: slow, so that the budget is kept


@dataclass
class Challengers:
    """The forms that are tried against the best IVFFlat index. ``storages`` and ``methods`` name those to look at."""

    learning: Learning
    geometry: Callable[[], Geometry]
    rows: int
    most_mib: int | None
    methods: tuple[str, ...]
    storages: tuple[str, ...]

    def run(self) -> None:
        """Try each, as far as the budget goes; why one was not tried is noted."""
        half = self._loss(Storage.HALFVEC) if "halfvec" in self.storages else None
        if half is not None and "ivfflat" in self.methods:
            self._halfvec_lists(half)
        if "hnsw" in self.methods:
            self._hnsw(half)
            if "bit" in self.storages:
                self._bits()
        if "scann" in self.methods:
            self._scann()

    def _loss(self, storage: Storage) -> StoredOrder | None:
        """Where the stored order puts the true neighbours of the queries that are not kept for a certificate."""
        learning = self.learning
        if not learning.has_room(f"what {storage} loses", 0.0):
            return None

        def work() -> list[list[int]]:
            learning.progress(f"counting what {storage} loses")
            geometry = self.geometry()
            with connect(learning.address, role="target") as connection:
                table = sql.Identifier(learning.bench.table)
                found = stored_order(geometry, storage, stream_vectors(connection, table, geometry.dimension))
            ranks: list[list[int]] = found.ranks.tolist()
            return ranks

        ranks = learning.journal.once(f"order of {storage}", list[list[int]], work)
        return StoredOrder(storage, np.asarray(ranks, dtype=np.int64))

    def _rerank(self, loss: StoredOrder) -> tuple[bool, int | None, str]:
        """Whether the stored form can reach the target at all, how many rows to re-rank for it, and a remark."""
        k, own = self.learning.goals.k, self.learning.queries.own_ids is not None
        alone = loss.recall(k + own)
        if loss.storage is not Storage.BIT and alone.value >= NO_RERANK_FROM:
            return True, None, f"{alone.value:.4f} of the neighbours stay in place, nothing is re-ranked"
        # Half of what may be missed is left to the index.
        wanted = (1 + self.learning.goals.recall_target) / 2
        found = loss.smallest_rerank(wanted, min(self.rows, _MOST_RERANKED_PER_ROW * k))
        if found is None:
            return False, None, ""
        return True, max(found, k + own), f"{alone.value:.3f} of the neighbours stay in place, {found} rows re-ranked"

    def _halfvec_lists(self, loss: StoredOrder) -> None:
        best = self.learning.best
        possible, rerank, note = self._rerank(loss)
        if not possible or best is None or best.form.method is not Method.IVFFLAT or best.form.lists is None:
            return
        form = ivfflat(best.form.lists, Storage.HALFVEC)
        self._try(form, Effort(best.effort.value, rerank), best.made_seconds or 0.0, note)

    def _bits(self) -> None:
        loss = self._loss(Storage.BIT)
        if loss is None:
            return
        possible, rerank, note = self._rerank(loss)
        form = hnsw(storage=Storage.BIT)
        if not possible or rerank is None:
            self.learning.skipped.append(
                f"{form.label} was not built: even {_MOST_RERANKED_PER_ROW * self.learning.goals.k} re-ranked rows do "
                "not hold enough of the neighbours"
            )
            return
        if rerank > 1_000:
            self.learning.skipped.append(f"{form.label} was not built: {rerank} rows would have to be re-ranked")
            return
        self._try(form, Effort(max(_FIRST_EF_SEARCH, rerank), rerank), self.rows / _HNSW_ROWS_PER_SECOND / 4, note)

    def _hnsw(self, half: StoredOrder | None) -> None:
        """HNSW by successive halving, of halfvec where that loses nothing: half the size, and faster to build."""
        rerank, storage = None, Storage.VECTOR
        if half is not None:
            possible, rerank, _ = self._rerank(half)
            storage = Storage.HALFVEC if possible and rerank is None else Storage.VECTOR
        fewest = min(_FEWEST_SAMPLE, max(1, self.rows // 2))
        first_rows = max(fewest, min(_MOST_SAMPLE, self.rows // _SAMPLE_SHARE))
        needed = self.learning.bench.needed_mib(hnsw(storage=storage))
        if self.most_mib is not None and needed > self.most_mib:
            self.learning.skipped.append(
                f"HNSW was not built: its graph takes {needed:,} MiB while it is built, {self.most_mib:,} are there"
            )
            return
        first_seconds = first_rows / _HNSW_ROWS_PER_SECOND
        if not self.learning.has_room("HNSW", first_seconds):
            return
        won = self._halved(storage, first_rows)
        if won is None:
            self.learning.skipped.append("HNSW: no graph on a sample reached the recall target")
            return
        self._try(won.form, Effort(won.ef_search), won.build_seconds, f"{len(won.trials)} graphs on samples")

    def _halved(self, storage: Storage, first_rows: int) -> Halved | None:
        spent: list[float] = []

        def trial(form: Form, rows: int) -> Trial:
            found = self.learning.journal.once(
                f"graph of {rows} rows: {form.label}", Trial, lambda: self._trial(form, rows)
            )
            spent.append(found.build_seconds * self.rows / rows)
            return found

        # The full build must still fit after the next sample.
        return halve(trial, self.rows, first_rows, self.learning.goals.k, storage, lambda: self._fits(spent))

    def _fits(self, full_builds: list[float]) -> bool:
        return self.learning.left_seconds() > 1.5 * min(full_builds, default=0.0)

    def _trial(self, form: Form, rows: int) -> Trial:
        learning = self.learning
        bench = learning.bench.build_on_sample(form, rows, learning.saying(f"{form.label} on {rows:,} rows"))
        numbers = learning.parts.validate
        vectors = learning.vectors(numbers)
        own = tuple(learning.queries.own_ids[number] for number in numbers) if learning.queries.own_ids else None
        with connect(learning.address, role="target") as connection:
            truth = exact_neighbours(
                connection, sql.Identifier(bench.table), vectors, learning.goals.k, learning.goals.opclass, own
            )
            target = learning.bench.searchable(bench)
            queries = QuerySet(vectors, None, truth)
            guess = Effort(max(_FIRST_EF_SEARCH, learning.goals.k + 1))
            found = find_effort(connection, target, queries, guess, learning.goals.recall_target)
        reached = clears(found.recalls, learning.goals.recall_target)
        return Trial(form, rows, found.effort.value if reached else None, found.p95_ms.value, bench.made_seconds)

    def _scann(self) -> None:
        with connect(self.learning.address, role="target") as connection:
            row = connection.execute("SELECT 1 FROM pg_extension WHERE extname = 'alloydb_scann'").fetchone()
        if row is None:
            self.learning.skipped.append("ScaNN was not tried: this server has no extension alloydb_scann")
            return
        leaves = max(1, round(np.sqrt(self.rows)))
        self._try(scann(leaves), Effort(max(1, leaves // 100)), 0.0, "leaves by the square root of the rows")

    def _try(self, form: Form, guess: Effort, seconds: float, note: str) -> None:
        learning = self.learning
        if not learning.journal.knows(f"measured: {form.label}") and not learning.has_room(form.label, seconds):
            return
        try:
            learning.contest(learning.learn(form, guess, note=note))
        except (GateFailed, ParameterError) as refused:
            learning.skipped.append(f"{form.label} was not built: {refused}")
