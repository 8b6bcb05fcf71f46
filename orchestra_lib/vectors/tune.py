"""Choosing the index by measurement: predicted for every number of lists at once, built once, certified.

Recall of an IVFFlat index depends only on how far down a query's order of lists its true neighbours lie. That is plain
counting on measured ranks, without a build. Only the latency needs a real index, and one is enough: it is linear in
the pages read.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

from psycopg import sql

from orchestra_lib.bench.fingerprint import TableFingerprint, table_fingerprint
from orchestra_lib.database import Address, connect
from orchestra_lib.errors import DataError
from orchestra_lib.vectors.candidate import Candidate
from orchestra_lib.vectors.certificate import Certificate, Conditions, Subject, certify
from orchestra_lib.vectors.challengers import Challengers
from orchestra_lib.vectors.filtered import filtered_queries, find_filtered_effort
from orchestra_lib.vectors.forecast import feasible_lists
from orchestra_lib.vectors.forms import EXACT, Effort, Method, Storage
from orchestra_lib.vectors.geometry import Geometry, read_geometry
from orchestra_lib.vectors.goals import Goals, Queries, split
from orchestra_lib.vectors.index import serving_index
from orchestra_lib.vectors.kmeans import training_rows
from orchestra_lib.vectors.learning import Learning, OutOfTime, candidate
from orchestra_lib.vectors.lists_choice import ListsChoice
from orchestra_lib.vectors.measured import measure, one_notch_up
from orchestra_lib.vectors.search import Searchable
from orchestra_lib.vectors.selection import page_points
from orchestra_lib.vectors.table_profile import profile
from orchestra_lib.vectors.truth_cache import cached_neighbours
from orchestra_lib.vectors.tuning import PagePoint, Profile, Tuning
from orchestra_lib.vectors.tuning_journal import TuningJournal, question
from orchestra_lib.vectors.workbench import Bench, workbench

ENOUGH = 0.6
"""An exact scan within this share of the p95 budget needs no index beside it."""
_EXACT_QUERIES, _FEW_EXACT_QUERIES = 30, 3
_MOST_MS_OF_FEW = 2_000.0  # a table whose scan takes longer needs an index, however exactly that is timed
_ROWS_FOR_SIZES = 50_000
_CERTIFICATE_SECONDS = 5.0  # beside the load itself
_TOLD_SHARE = 0.2  # of the time left, for each of those that are told of before other methods are tried
_WORKERS_PER_QUERY = 4  # sessions that offer the load, for each query that is under way on average


@dataclass(frozen=True)
class Options:
    """How a tuning goes about it.

    ``methods`` and ``storages`` say which challengers are looked at; ``seeds`` how many times k-means is repeated for
    the best number of lists, since a rebuild differs from the one before. ``available_mib`` is the memory of the
    machine that runs the server, None when that is not this machine. ``restart`` restarts that server, for cold
    figures; None where it is not ours. ``load_seconds`` is how long a load runs for the certificate; ``certify`` False
    leaves the certificate to the caller, who has the test queries then. All others say which effort suffices then, and
    else a part of them: its wider interval is the margin that a certificate wants. ``told_lists`` are numbers of lists
    that people ask about: they are computed where there is time, so that it can be told what they would do.
    """

    methods: tuple[str, ...] = ("exact", "ivfflat", "hnsw", "scann")
    storages: tuple[str, ...] = ("vector", "halfvec", "bit")
    seeds: int = 2
    available_mib: int | None = None
    restart: Callable[[], object] | None = None
    load_seconds: float = 20.0
    certify: bool = True
    told_lists: tuple[int, ...] = (2_000, 4_000)
    seed: int = 0


def tune(
    address: Address,
    table: str,
    queries: Queries,
    goals: Goals,
    *,
    journal_path: Path | None,
    options: Options,
    progress: Callable[[str], None],
) -> Tuning:
    """Choose how ``table`` (columns id, embedding and those that are filtered by) is to be searched, and certify it.

    The table itself is only read: what is built is built on unlogged copies that go at the end. A run that was
    interrupted, or whose budget ended, returns what it knows; the next one goes on from the journal.
    Raises DataError for too few queries or an empty table, GateFailed when no build fits the memory.
    """
    deadline = time.monotonic() + goals.budget_seconds
    parts = split(len(queries), options.seed)
    if not options.certify:
        parts = replace(parts, validate=parts.untested)
    with connect(address, role="target") as connection:
        fingerprint = table_fingerprint(connection, sql.Identifier(table))
    if not fingerprint.rows:
        raise DataError(f"the table {table} holds no row: there is nothing to tune for")
    digest = question(fingerprint.digest, goals, queries, parts)
    journal = TuningJournal(journal_path, digest)
    progress(f"copying {fingerprint.rows:,} rows to build on")
    own = queries.own_ids
    with ExitStack() as stack:
        copies = workbench(
            address,
            table,
            digest,
            goals,
            queries.vectors.shape[1],
            available_mib=options.available_mib,
            own_rows=own is not None,
        )
        bench = journal.timed("a copy to build on", lambda: stack.enter_context(copies))
        progress("computing the exact neighbours")
        with connect(address, role="target") as connection:
            truth = journal.timed(
                "exact neighbours",
                lambda: cached_neighbours(
                    connection, sql.Identifier(bench.table), queries.vectors, goals.k, goals.opclass, own
                ),
            )
        reserve = _reserve_seconds(goals, options)
        learning = Learning(address, table, queries, parts, truth, goals, bench, journal, progress, deadline, reserve)
        return _Run(learning, fingerprint, options).outcome()


@dataclass
class _Run:
    """One tuning on its way: what is filled in step by step, and stays when it is interrupted."""

    learning: Learning
    fingerprint: TableFingerprint
    options: Options
    before: Candidate | None = None
    asked: list[Candidate] = field(default_factory=list)
    certificate: Certificate | None = None
    is_exact_enough: bool = False
    probes_by_seed: dict[int, int | None] = field(default_factory=dict)
    _geometry: Geometry | None = None
    _lists: ListsChoice | None = None

    def outcome(self) -> Tuning:
        """Work through the steps and say what came of them."""
        interrupted = False
        profile_ = self._profile()
        try:
            self._within_budget(self._choose)
            if self.options.certify:
                self.learning.reserve_seconds = 0.0  # this is what it was kept for
                self._within_budget(self._certify)
        except KeyboardInterrupt:
            interrupted = True
            self.learning.skipped.append("it was interrupted: the next run goes on from the journal")
        return self._tuning(profile_, interrupted)

    def _within_budget(self, part: Callable[[], None]) -> None:
        try:
            part()
        except OutOfTime as ended:
            self.learning.skipped.append(str(ended))

    def _choose(self) -> None:
        learning = self.learning
        if "exact" in self.options.methods:
            self._exact()
            if self.is_exact_enough and not learning.goals.lists:
                return
        present = self._present()
        if "ivfflat" in self.options.methods:
            self._lists = ListsChoice(learning, self.geometry, self.fingerprint.rows, self._most_mib())
            self._lists.run(present)
            self.asked = [self._lists.ask(lists) for lists in learning.goals.lists]
            self._lists.tell(self.options.told_lists, _TOLD_SHARE)
        Challengers(
            learning,
            self.geometry,
            self.fingerprint.rows,
            self._most_mib(),
            self.options.methods,
            self.options.storages,
        ).run()
        if self._lists is not None and learning.best is not None and learning.best.form.method is Method.IVFFLAT:
            self.probes_by_seed = self._lists.probes_by_seed(self.options.seeds)
        if self._lists is not None:
            self._lists.tell(self.options.told_lists)

    def geometry(self) -> Geometry:
        """Read what virtual indexes are computed from, once."""
        if self._geometry is None:
            learning = self.learning
            learning.progress("reading a sample of the rows")
            numbers = learning.parts.untested
            most = max(
                feasible_lists(
                    self.fingerprint.rows,
                    learning.queries.vectors.shape[1],
                    Storage.VECTOR,
                    self._most_mib(),
                    learning.goals.inserts_per_second,
                    learning.goals.lists,
                )
            )
            with connect(learning.address, role="target") as connection:
                self._geometry = learning.journal.timed(
                    "a sample of the rows",
                    lambda: read_geometry(
                        connection,
                        sql.Identifier(learning.bench.table),
                        learning.vectors(numbers),
                        learning.truth.take(numbers.tolist()),
                        learning.goals.opclass,
                        sample_rows=training_rows(most) + _ROWS_FOR_SIZES,
                        seed=self.options.seed,
                    ),
                )
        return self._geometry

    def _profile(self) -> Profile:
        learning = self.learning
        if not learning.journal.knows("profile"):
            self.geometry()  # a step of its own

        def work() -> Profile:
            with connect(learning.address, role="target") as connection:
                return profile(connection, learning.table, self.fingerprint, self.geometry().sample)

        return learning.journal.once("profile", Profile, work)

    def _most_mib(self) -> int | None:
        limits = [self.learning.goals.memory_limit_mib, self.options.available_mib]
        return min((limit for limit in limits if limit is not None), default=None)

    def _exact(self) -> None:
        """Time the exact scan: without an index nothing is lost, and small tables need none."""
        learning = self.learning
        bench = learning.bench.exact(EXACT)

        def work() -> Candidate:
            learning.progress("timing the exact scan")
            target, numbers = learning.bench.searchable(bench), learning.parts.validate
            with connect(learning.address, role="target") as connection:
                found = measure(connection, target, learning.part(numbers[:_FEW_EXACT_QUERIES]), Effort(1))
                if found.milliseconds.sum() < _MOST_MS_OF_FEW:
                    found = measure(connection, target, learning.part(numbers[:_EXACT_QUERIES]), Effort(1))
            return candidate(found, EXACT, bench, learning.goals, None, "reads every row")

        exact = learning.journal.once("measured: exact", Candidate, work)
        learning.candidates[EXACT] = exact
        self.is_exact_enough = exact.best_p95_ms <= ENOUGH * learning.goals.p95_ms
        learning.contest(exact)

    def _present(self) -> tuple[Searchable, int] | None:
        """The live index, measured with the settings that a new session has; it serves the cost model too."""
        learning = self.learning
        with connect(learning.address, role="target") as connection:
            live = serving_index(connection, sql.Identifier(learning.table))
            if live is None or live.opclass not in (None, learning.goals.opclass):
                return None
            target = Searchable(
                sql.Identifier(learning.table),
                learning.goals.opclass,
                learning.goals.k + (learning.queries.own_ids is not None),
                live.form,
                dimension=learning.queries.vectors.shape[1],
            )
            effort = live.form.usual_effort(learning.goals.k)
            if live.form.effort_setting:
                connection.execute("SELECT '[1]'::vector <=> '[1]'::vector")  # loads the library and its settings
                row = connection.execute("SELECT current_setting(%s)", [live.form.effort_setting]).fetchone()
                effort = replace(effort, value=int(row[0])) if row else effort
            bench = Bench(learning.table, live.name, live.form, 0.0, None, live.size_bytes, 0)

            def work() -> Candidate:
                learning.progress(f"measuring the present index: {live.form.label}")
                queries = learning.part(learning.parts.validate)
                found = measure(connection, target, queries, effort, passes=2)
                return replace(
                    candidate(found, live.form, bench, learning.goals, None, "the present index at its present effort"),
                    made_seconds=None,
                    build_memory_mib=None,
                )

            self.before = learning.journal.once(f"present: {live.name} at {effort}", Candidate, work)
        usable = live.form.method is Method.IVFFLAT and live.form.storage is Storage.VECTOR and live.form.lists
        return (target, live.form.lists) if usable and live.form.lists else None

    def _certify(self) -> None:
        learning = self.learning
        best = learning.best
        if best is None or not best.reaches:
            return
        name = f"certificate: {best.form.label} at {best.effort}"

        def work() -> Certificate:
            learning.progress(f"certifying {best.form.label}")
            bench = learning.bench.exact(EXACT) if best.form == EXACT else learning.built(best.form)
            subject = Subject(
                learning.address,
                learning.bench.searchable(bench),
                bench.index,
                best.effort,
                one_notch_up(best.form, best.effort),
                self._filtered(bench, best),
            )
            return certify(subject, learning.part(learning.parts.test), learning.goals, self._conditions(best))

        self.certificate = learning.journal.once(
            name, Certificate, work, stands=lambda known: not known.missed_only_time
        )

    def _filtered(self, bench: Bench, best: Candidate) -> dict[str, Effort]:
        """The efforts of filtered searches, found on the validation queries; none where no index is read."""
        learning = self.learning
        if bench.index is None:
            return {}
        target, queries = learning.bench.searchable(bench), learning.part(learning.parts.validate)
        efforts = {}
        with connect(learning.address, role="target") as connection:
            for column in learning.goals.filters:
                learning.progress(f"finding the effort of searches that are filtered by {column}")
                filtered = filtered_queries(connection, target, queries, learning.goals.k, column)
                efforts[column] = find_filtered_effort(
                    connection, target, filtered, best.effort, learning.goals.recall_target
                )
        return efforts

    def _conditions(self, best: Candidate) -> Conditions:
        under_way = (self.learning.goals.offered_per_second or 0.0) * best.best_p95_ms / 1e3
        workers = max(2, min(32, round(_WORKERS_PER_QUERY * under_way)))
        return Conditions(self.options.load_seconds, workers, self.options.restart, self.options.seed)

    def _tuning(self, profile_: Profile, interrupted: bool) -> Tuning:
        learning, lists = self.learning, self._lists
        has_model = lists is not None and lists.is_fitted
        growth: tuple[PagePoint, ...] = ()
        if lists is not None and lists.indexes and has_model:
            growth = page_points(lists.indexes, lists.needs, lists.model, self.fingerprint.rows)
        predicted = [
            lists.predicted(number)
            for number in sorted(lists.indexes if lists else ())
            if lists is not None and lists.is_only_predicted(number)
        ]
        return Tuning(
            goals=learning.goals,
            profile=profile_,
            candidates=(*self._with_predictions(), *predicted),
            chosen=learning.best,
            reason=self._reason(),
            asked=tuple(self.asked),
            before=self.before,
            model=lists.model if lists is not None and has_model else None,
            model_error=lists.model.error_relative if lists is not None and has_model else None,
            growth=growth,
            certificate=self.certificate,
            no_index_needed=self.is_exact_enough,
            skipped=tuple(learning.skipped),
            steps=tuple(learning.journal.steps),
            interrupted=interrupted,
        )

    def _with_predictions(self) -> list[Candidate]:
        """What was measured, beside what the model, fitted meanwhile, would have said."""
        lists, found = self._lists, []
        for one in self.learning.candidates.values():
            known = one.form.lists if one.form.storage is Storage.VECTOR and one.form.method is Method.IVFFLAT else None
            if lists is not None and known in lists.indexes and lists.is_fitted:
                value = lists.model.quantile_ms(lists.indexes[known][0], one.effort.value, 0.95)
                found.append(replace(one, predicted_p95_ms=value))
            else:
                found.append(one)
        return found

    def _reason(self) -> str:
        best, goals = self.learning.best, self.learning.goals
        if best is None:
            return "nothing was measured before the end"
        if not best.reaches:
            return f"nothing reaches recall {goals.recall_target}; {best.form.label} comes nearest of what was measured"
        others = [one for one in self.learning.candidates.values() if one.reaches and one.form != best.form]
        second = min(others, key=lambda one: one.best_p95_ms, default=None)
        words = [f"{best.form.label} at effort {best.effort} has p95 {best.best_p95_ms:.2f} ms"]
        if self.is_exact_enough and best.form == EXACT:
            words.append(f"within {ENOUGH:.0%} of the {goals.p95_ms:g} ms that are allowed: no index is needed")
        if second is not None:
            words.append(f"the next best, {second.form.label}, {second.best_p95_ms:.2f} ms")
        needs = [probes for probes in self.probes_by_seed.values() if probes is not None]
        if len(needs) > 1:
            words.append(f"another k-means seed would need {min(needs)} to {max(needs)} probes on the same queries")
        return "; ".join(words)


def _reserve_seconds(goals: Goals, options: Options) -> float:
    """What is kept of the budget for the certificate."""
    if not options.certify:
        return 0.0
    states = 3 if options.restart else 1
    load = options.load_seconds * states if goals.offered_per_second else 0.0
    return min(load + _CERTIFICATE_SECONDS, goals.budget_seconds / 2)
