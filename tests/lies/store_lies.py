"""Lies about the memory store: rows that are not there, an index that does not answer, and numbers nobody measured."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from unittest import mock

import memory_stores
import numpy as np
import psycopg
from lie import Lie, World, said
from psycopg import sql
from searched_table import COSINE, TABLE, build, make_table_of_topics, searchable
from stores import fill

from orchestra_lib.bench import load as loading
from orchestra_lib.bench.samples import load_run
from orchestra_lib.database import connect
from orchestra_lib.phases import serving
from orchestra_lib.phases.memory import MemoryPhase
from orchestra_lib.phases.serving import Serving
from orchestra_lib.phases.tuning import IndexTuning
from orchestra_lib.runbook import Runbook
from orchestra_lib.vectors import certificate
from orchestra_lib.vectors.certificate import Certificate, Conditions, Subject, certify
from orchestra_lib.vectors.evaluate import QuerySet
from orchestra_lib.vectors.forms import Effort, ivfflat
from orchestra_lib.vectors.goals import Goals, Queries
from orchestra_lib.vectors.search import SearchRun, search
from orchestra_lib.vectors.truth import Truth, exact_neighbours

ROWS = 300
FORM = ivfflat(40)
GOALS = Goals(0.9, 500.0, 10, COSINE, None, 60.0)
CONDITIONS = Conditions(1.0, 2, None)


def empty_target(world: World) -> str:
    with _copied(world) as phase:
        _on(world.stores.target, "TRUNCATE memories")
        return said(phase.verify)


def rows_changed_after_the_check(world: World) -> str:
    with _copied(world) as phase:
        phase.verify()
        _on(world.stores.target, "UPDATE memories SET content = content || '!' WHERE id < 'id-00000003'")
        phase.read_back()
        return said(phase._run.verify)


def row_lost_after_the_check(world: World) -> str:
    with _copied(world) as phase:
        phase.verify()
        _on(world.stores.target, "DELETE FROM memories WHERE id = 'id-00000007'")
        phase.read_back()
        return said(phase._run.verify)


def index_that_is_not_there(world: World) -> str:
    subject, queries = _indexed(world)
    _on(world.stores.target, f"DROP INDEX {subject.index}")
    return said(lambda: certify(subject, queries, GOALS, CONDITIONS))


def index_of_another_answers(world: World) -> str:
    subject, queries = _indexed(world)
    return said(lambda: certify(replace(subject, index="memories_embedding_best"), queries, GOALS, CONDITIONS))


def index_judged_by_itself(world: World) -> str:
    """The truth is what the index itself finds, so that it finds everything."""

    def from_the_index(session, table, queries, k, opclass, own_ids=None) -> Truth:
        found = search(session, searchable(FORM), queries, Effort(1))
        true = exact_neighbours(session, table, queries, k, opclass)
        return replace(true, ids=found.ids, distances=tuple(tuple(range(len(ids))) for ids in found.ids))

    with mock.patch.object(serving, "cached_neighbours", from_the_index):
        return _parts(world)


def kept_truth_of_other_rows(world: World) -> str:
    """The truth was right, of the table as it was before the nearest rows were taken out of its file."""

    def poorer(session, table, queries, k, opclass, own_ids=None) -> Truth:
        true = exact_neighbours(session, table, queries, k + 1, opclass)
        return replace(
            true, ids=tuple(ids[1:] for ids in true.ids), distances=tuple(row[1:] for row in true.distances), k=k
        )

    with mock.patch.object(serving, "cached_neighbours", poorer):
        return _parts(world)


def benchmark_that_sleeps(world: World) -> str:
    subject, queries = _indexed(world)

    def sleeps(_connection, _target, vectors, effort) -> SearchRun:
        time.sleep(0.01)
        return SearchRun(effort, tuple(() for _ in vectors), np.full(len(vectors), 1.0), subject.index, subject.index)

    with mock.patch.object(certificate, "search", sleeps):
        return _reasons(certify(subject, queries, GOALS, CONDITIONS))


def latencies_re_based(world: World) -> str:
    """The generator takes the moment of sending for the intended one: nobody ever waits."""

    def re_based(_due, seconds, time_limit_ms, samples):
        kept = sorted(samples)
        return load_run(np.asarray([one.sent for one in kept]), seconds, time_limit_ms, kept)

    subject, queries = _indexed(world)
    with mock.patch.object(loading, "load_run", re_based):
        return said(lambda: certify(subject, queries, replace(GOALS, offered_per_second=40.0), CONDITIONS))


def few_probes_for_speed(world: World) -> str:
    subject, queries = _indexed(world)
    fast = replace(subject, effort=Effort(1), notch=Effort(1))
    return _reasons(certify(fast, queries, replace(GOALS, recall_target=0.99), CONDITIONS))


LIES = (
    Lie("the target table is empty", "key ranges differ from the source", empty_target, needs_stores=True),
    Lie("rows are changed on the target after they were compared", "rows that differ at the end of the run: 3 rows",
        rows_changed_after_the_check, needs_stores=True),
    Lie("a row is lost on the target after it was compared", "rows that differ at the end of the run: 1 rows",
        row_lost_after_the_check, needs_stores=True),
    Lie("an index is certified that is not there", "the plan reads the whole table", index_that_is_not_there,
        needs_stores=True),
    Lie("an index is certified while another one answers", "the certificate is for memories_embedding_best, but",
        index_of_another_answers, needs_stores=True),
    Lie("an index is judged by its own answers", "what the index is to be judged by is not the truth",
        index_judged_by_itself, needs_stores=True),
    Lie("the truth that was kept lacks the nearest rows", "what the index is to be judged by is not the truth",
        kept_truth_of_other_rows, needs_stores=True),
    Lie("the benchmark sleeps and asks nothing", "answers had fewer rows than there are while they were timed",
        benchmark_that_sleeps, needs_stores=True),
    Lie("the load generator re-bases its latencies", "the schedule was re-based", latencies_re_based,
        needs_stores=True),
    Lie("speed is bought with recall", "does not clear 0.99", few_probes_for_speed, needs_stores=True),
)  # fmt: skip


@contextmanager
def _copied(world: World) -> Iterator[MemoryPhase]:
    """The memory phase after its copy of a store that stands still."""
    memory_stores.write_parameters(world.home / "parameters", world.stores)
    fill(world.stores.source, ROWS)
    try:
        phase = MemoryPhase(Runbook.open("03_memory", environment="local", lists=8, live=False))
        phase.inventory()
        phase._run.preflight(phase.checks())
        phase.copy()
        yield phase
    finally:
        memory_stores.clear(world.stores)


def _indexed(world: World) -> tuple[Subject, QuerySet]:
    """A table with an index, as it is to be certified, and held-out queries with their exact neighbours."""
    target = world.stores.target
    asked = make_table_of_topics(target, 2_000, 60)
    name = build(target, FORM)
    with connect(target) as connection:
        truth = exact_neighbours(connection, TABLE, asked, GOALS.k, GOALS.opclass)
    return Subject(target, searchable(FORM), name, Effort(10), Effort(13)), QuerySet(asked, None, truth)


def _parts(world: World) -> str:
    """What is said when queries and truth are taken for the certificate."""
    subject, queries = _indexed(world)
    memory_stores.write_parameters(world.home / "parameters", world.stores)
    run = Runbook.open("08_vector_tuning", environment="local")
    asked = Serving(run.settings, subject.address, "memories", IndexTuning(run, "memories", world.home / "j"), None)
    given = Queries(queries.vectors, None, "questions of the test")
    with mock.patch.object(asked, "queries", return_value=given):
        return said(asked.parts)


def _reasons(found: Certificate) -> str:
    return "" if found.holds else "\n".join(found.reasons)


def _on(conninfo: str, statement: str) -> None:
    with psycopg.connect(conninfo, autocommit=True) as connection:
        connection.execute(sql.SQL(statement))
