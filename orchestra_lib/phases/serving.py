"""The index that serves a table: put in the place of another, given the effort that it needs, certified as it stands.

A rebuild's centroids differ from those of the index that was tried, so it comes in with one notch more effort than
its like needed, and is then given the least that it needs itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import psycopg
from psycopg import sql

from orchestra_lib.bench.statistics import Estimate
from orchestra_lib.database import Address, connect
from orchestra_lib.errors import DataError, ParameterError
from orchestra_lib.evidence import Bound, Evidence, Source
from orchestra_lib.memory.source import SourceTable
from orchestra_lib.phases.delivery import Delivery, Parts, delivered, sufficient_effort
from orchestra_lib.phases.queries import corpus_queries, judging_queries
from orchestra_lib.phases.tuning import IndexTuning
from orchestra_lib.rehearsal import Corpus
from orchestra_lib.settings import Settings
from orchestra_lib.vectors.certificate import (
    Certificate,
    Conditions,
    Subject,
    attempts,
    bounded_recall,
    certify,
    finds_enough,
)
from orchestra_lib.vectors.evaluate import QuerySet
from orchestra_lib.vectors.filtered import filtered_queries, find_filtered_effort
from orchestra_lib.vectors.forms import EXACT, Effort, Form
from orchestra_lib.vectors.goals import Queries, split
from orchestra_lib.vectors.index import IndexSpec, serving_index
from orchestra_lib.vectors.measured import measure, one_notch_up
from orchestra_lib.vectors.recheck import require_exact
from orchestra_lib.vectors.search import Searchable
from orchestra_lib.vectors.session_defaults import persist, searched_now
from orchestra_lib.vectors.swap import Swapped, swap
from orchestra_lib.vectors.swap_journal import Promise
from orchestra_lib.vectors.truth_cache import cached_neighbours

_LOAD_SESSIONS = 2


@dataclass(frozen=True)
class Found:
    """What an index finds with an effort, on queries that chose nothing."""

    effort: Effort
    recall: Estimate
    finds_enough: bool


class Serving:
    """The vector index of one table at one address. ``corpus`` has the rehearsal's questions, None elsewhere.

    ``load_seconds`` is how long a load runs that certifies; None: as the settings say.
    """

    def __init__(
        self,
        settings: Settings,
        address: Address,
        table: str,
        tuning: IndexTuning,
        corpus: Corpus | None,
        load_seconds: float | None = None,
    ) -> None:
        self._settings, self._memory = settings, settings.memory
        self._load_seconds = load_seconds or settings.memory.tuning.load_seconds
        self._address, self._table, self._tuning, self._corpus = address, table, tuning, corpus

    def queries(self) -> Queries:
        """The queries that the index is judged by."""
        wanted = self._memory
        return judging_queries(
            self._address, self._table, wanted.dimension, wanted.corpus.queries, self._corpus, wanted.tuning.replay
        )

    def parts(self) -> Parts:
        """The queries with their exact neighbours on the table as it is now: those that choose, and the test part.

        Raises DataError when the server's own exact scan of the same rows has other neighbours for some of them.
        """
        wanted, queries = self._memory, self.queries()
        table, opclass = sql.Identifier(self._table), wanted.index.opclass
        with connect(self._address, role="target") as session:
            # One snapshot for both: on a table that is written to, two would differ without anybody being wrong.
            session.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            with session.transaction():
                truth = cached_neighbours(session, table, queries.vectors, wanted.search.k, opclass, queries.own_ids)
                require_exact(session, table, truth, queries.vectors, opclass)
        asks_corpus = self._corpus is not None and wanted.tuning.replay is None
        answers = corpus_queries(self._corpus)[1] if self._corpus is not None and asks_corpus else None
        shares = split(len(queries))

        def part(numbers: list[int]) -> QuerySet:
            own = tuple(answers[number] for number in numbers) if answers is not None else None
            return QuerySet(queries.vectors[numbers], own, truth.take(numbers))

        # Fewer queries choose than certify: their wider interval is the margin that the certificate needs.
        return Parts(part(shares.validate.tolist()), part(shares.test.tolist()))

    def spec(self, form: Form) -> IndexSpec:
        """An index of this form as the settings want it."""
        wanted = self._memory.index
        return IndexSpec(self._table, form, wanted.opclass, self._memory.dimension, wanted.maintenance_work_mem_mib)

    def searchable(self, form: Form, queries: Parts, only: str | None = None) -> Searchable:
        """What a search of the table by an index of this form is."""
        k = self._memory.search.k + (queries.reporting.truth.excluded is not None)
        return Searchable(
            sql.Identifier(self._table),
            self._memory.index.opclass,
            k,
            form,
            dimension=self._memory.dimension,
            only=only,
        )

    def swapped(
        self, form: Form, effort: Effort, queries: Parts, journal_path: Path, progress: Callable[[str], None]
    ) -> Swapped:
        """Put an index of this form in the place of those that are there, while the table is searched and written.

        It is certified beside the old one with one notch more than ``effort``, one query after another; what it
        stands under load is seen once it is alone. Raises GateFailed, with everything undone, when it is not certified.
        """
        roomy = one_notch_up(form, effort)
        alone = replace(self._tuning.goals(()), offered_per_second=None, filters=())

        def judged(name: str) -> Certificate:
            subject = Subject(self._address, self.searchable(form, queries, only=name), name, roomy, roomy)
            return certify(subject, queries.reporting, alone, self._conditions())

        return swap(
            self._address,
            self.spec(form),
            roomy,
            judged,
            journal_path=journal_path,
            available_mib=self._tuning.available_mib(),
            progress=progress,
            # The settings name what the application can search: see memory.tuning.storages.
            application_follows=form.storage.value in self._memory.tuning.storages,
            promise=self._promise(queries, progress),
        )

    def effort(self, form: Form, queries: Parts, guess: Effort | None = None) -> Effort:
        """The least effort of the index as it stands that clears the recall target on the queries that choose."""
        with connect(self._address, role="target") as session:
            return sufficient_effort(
                session, self.searchable(form, queries), queries, self._memory.search.recall_target, guess
            )

    def certified(self, form: Form, index: str | None, effort: Effort, notch: Effort, queries: Parts) -> Certificate:
        """The certificate of the index as it stands, at the offered load. Raises DataError when it is not read."""
        filtered = self._filtered(form, effort, queries)
        subject = Subject(self._address, self.searchable(form, queries), index, effort, notch, filtered)
        return certify(subject, queries.reporting, self._tuning.goals(()), self._conditions())

    def delivery(self, form: Form, effort: Effort, queries: Parts, when: str, where: str) -> Delivery:
        """What a search delivers now, one after another."""
        with connect(self._address, role="target") as session:
            return delivered(session, self.searchable(form, queries), queries, effort, when, where)

    def todays(self, address: Address, source: SourceTable, queries: Parts) -> Delivery:
        """What today's store delivers, searched in the same way, with the effort that its own index needs."""
        with connect(address, role="source") as session:
            present = serving_index(session, source.table, source.embedding_column)
            searchable = replace(
                self.searchable(present.form if present else EXACT, queries),
                table=source.table,
                id_column=source.id_column,
                embedding_column=source.embedding_column,
            )
            effort = sufficient_effort(session, searchable, queries, self._memory.search.recall_target)
            return delivered(session, searchable, queries, effort, "before", "source")

    def settled(self, index: str, form: Form, effort: Effort, queries: Parts) -> Found:
        """What an index finds, beside others, with this effort or with the more that it needs to find enough.

        More is the least that suffices on the queries that choose, or one notch above that, as for a certificate.
        """
        target = self.searchable(form, queries, only=index)
        with connect(self._address, role="target") as session:
            found = self._found(session, target, effort, effort, queries)
            if found.finds_enough:
                return found
            least = sufficient_effort(session, target, queries, self._memory.search.recall_target, effort)
            begin = replace(least, value=max(least.value, effort.value))
            return self._found(session, target, begin, one_notch_up(form, begin), queries)

    def persisted(self, form: Form, effort: Effort) -> tuple[Evidence, ...]:
        """Make the effort every new session's own, and read it back from one; nothing for an exact search."""
        setting = form.effort_setting
        if form == EXACT or setting is None:
            return ()
        found = persist(self._address, form.settings(effort))
        return (
            Evidence(
                f"{setting} that a new session has",
                Source.OBSERVED,
                int(found[setting]),
                "",
                Bound("==", effort.value),
                command=f"psql -c 'SHOW {setting}'",
            ),
        )

    def _found(
        self, session: psycopg.Connection, target: Searchable, effort: Effort, notch: Effort, queries: Parts
    ) -> Found:
        wanted = self._memory.search.recall_target
        tried = attempts(lambda at: measure(session, target, queries.reporting, at), effort, notch, wanted)
        recall = bounded_recall(tried[-1].recalls)
        return Found(tried[-1].effort, recall, finds_enough(recall, wanted))

    def _promise(self, queries: Parts, progress: Callable[[str], None]) -> Promise | None:
        """What a rollback has to bring back of that which serves now. What cannot be searched promises nothing."""
        wanted = self._memory
        with connect(self._address, role="target") as session:
            form, effort = searched_now(session, sql.Identifier(self._table), wanted.search.k)
            try:
                found = self._found(session, self.searchable(form, queries), effort, effort, queries)
            except (DataError, ParameterError) as error:
                progress(f"what serves now cannot be measured, so a rollback would bring it back as it is: {error}")
                return None
        replay = wanted.tuning.replay
        return Promise(wanted.search.recall_target, self.queries().origin, replay) if found.finds_enough else None

    def _filtered(self, form: Form, effort: Effort, queries: Parts) -> dict[str, Effort]:
        """The efforts of searches that are filtered by a column, found on the queries that choose."""
        if form == EXACT:
            return {}
        target, wanted = self.searchable(form, queries), self._memory
        efforts = {}
        with connect(self._address, role="target") as session:
            for column in wanted.tuning.filters:
                filtered = filtered_queries(session, target, queries.choosing, wanted.search.k, column)
                efforts[column] = find_filtered_effort(session, target, filtered, effort, wanted.search.recall_target)
        return efforts

    def _conditions(self) -> Conditions:
        return Conditions(self._load_seconds, _LOAD_SESSIONS, None)
