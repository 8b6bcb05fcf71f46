"""An index from given centroids: it finds what they say, has the pages that CREATE INDEX makes, and can be stopped."""

from __future__ import annotations

import numpy as np
import psycopg
import pytest
from psycopg import sql
from searched_table import DIMENSION, make_table_of_topics

from orchestra_lib.database import connect
from orchestra_lib.errors import DataError, GateFailed, ParameterError
from orchestra_lib.vectors import seeded
from orchestra_lib.vectors.evaluate import QuerySet
from orchestra_lib.vectors.forms import Effort, Storage, ivfflat
from orchestra_lib.vectors.geometry import read_geometry
from orchestra_lib.vectors.index import IndexSpec, build_index, vector_indexes
from orchestra_lib.vectors.ivf import virtual_index
from orchestra_lib.vectors.measured import measure
from orchestra_lib.vectors.search import Searchable
from orchestra_lib.vectors.seeded import build_seeded
from orchestra_lib.vectors.truth import exact_neighbours

pytestmark = pytest.mark.slow

ROWS, QUERIES, LISTS, K = 3_000, 60, 50, 10


@pytest.fixture(params=["vector_cosine_ops", "vector_ip_ops", "vector_l2_ops"])
def opclass(request):
    return request.param


def spec_of(lists=LISTS, opclass="vector_cosine_ops", storage=Storage.VECTOR, **more):
    return IndexSpec("seeded", ivfflat(lists, storage), opclass, DIMENSION, **more)


def made(conninfo, centroids, spec, progress=lambda _: None):
    return build_seeded(conninfo, spec, "memories", centroids, None, progress)


def virtual(connection, queries, opclass):
    table = sql.Identifier("memories")
    truth = exact_neighbours(connection, table, queries, K, opclass)
    geometry = read_geometry(connection, table, queries, truth, opclass, sample_rows=2 * ROWS)
    return virtual_index(geometry, LISTS, 0), truth


@pytest.mark.parametrize("storage", [Storage.VECTOR, Storage.HALFVEC])
def test_it_finds_what_the_virtual_index_of_its_centroids_says(pair, opclass, storage):
    queries = make_table_of_topics(pair.target, ROWS, QUERIES)
    with connect(pair.target) as connection:
        index, truth = virtual(connection, queries, opclass)
        spec = spec_of(opclass=opclass, storage=storage)
        made(pair.target, index.centroids, spec)
        for probes in (1, 3, 8):
            target = Searchable(sql.Identifier("seeded"), opclass, K, spec.form, dimension=DIMENSION)
            found = measure(connection, target, QuerySet(queries, None, truth), Effort(probes))
            alike = np.isclose(found.recalls, index.recall(probes))
            assert alike.mean() > 0.9, "a row between two lists may go to the other one by rounding"


def test_it_has_all_rows_and_the_size_of_what_create_index_makes(pair):
    queries = make_table_of_topics(pair.target, ROWS, QUERIES)
    with connect(pair.target) as connection:
        index, _ = virtual(connection, queries, "vector_cosine_ops")
        found = made(pair.target, index.centroids, spec_of())
        same = connection.execute(
            "SELECT (SELECT count(*) FROM seeded JOIN memories USING (id, embedding)), (SELECT count(*) FROM seeded)"
        ).fetchone()
        present = vector_indexes(connection, sql.Identifier("seeded"))
    assert same == (ROWS, ROWS)
    assert [one.name for one in present] == [found.index.name]
    usual = build_index(pair.target, IndexSpec("memories", ivfflat(LISTS), "vector_cosine_ops", DIMENSION), None, print)
    assert found.index.size_bytes == pytest.approx(usual.size_bytes, rel=0.1)
    assert found.index.memory == usual.memory, "the memory that is told is that of CREATE INDEX"
    least, most = found.create_seconds
    assert 0 < least < most


def test_it_replaces_what_had_its_name_and_takes_tables_with_constraints(pair):
    queries = make_table_of_topics(pair.target, ROWS, QUERIES)
    with connect(pair.target) as connection:
        index, _ = virtual(connection, queries, "vector_cosine_ops")
        for _ in range(2):
            made(pair.target, index.centroids, spec_of())
        assert connection.execute("SELECT count(*) FROM seeded").fetchone() == (ROWS,)


def test_centroids_that_are_the_same_are_no_obstacle(pair):
    make_table_of_topics(pair.target, ROWS, QUERIES)
    centroids = np.ones((LISTS, DIMENSION), dtype=np.float32) / np.sqrt(DIMENSION, dtype=np.float32)
    assert made(pair.target, centroids, spec_of()).index.size_bytes > 0


def test_what_does_not_fit_is_refused_before_anything_is_made(pair):
    make_table_of_topics(pair.target, ROWS, QUERIES)
    centroids = np.ones((LISTS, DIMENSION), dtype=np.float32)
    with pytest.raises(ParameterError, match="do not fit IVFFlat with 49 lists"):
        made(pair.target, centroids, spec_of(49))
    with pytest.raises(GateFailed, match="needs maintenance_work_mem"):
        made(pair.target, centroids, spec_of(maintenance_work_mem_mib=1))
    with connect(pair.target) as connection:
        assert connection.execute("SELECT to_regclass('seeded')").fetchone() == (None,)
        connection.execute("DELETE FROM memories")
    with pytest.raises(DataError, match="holds no row"):
        made(pair.target, centroids, spec_of())


def test_an_interrupt_lets_no_further_part_be_inserted(pair, monkeypatch):
    queries = make_table_of_topics(pair.target, ROWS, QUERIES)
    monkeypatch.setattr(seeded, "_DISTANCES_AT_ONCE", 1)
    fill = seeded._fill
    with psycopg.connect(pair.target) as other, connect(pair.target) as connection:

        def fill_while_it_is_locked(*arguments):
            other.execute("LOCK TABLE seeded IN SHARE MODE")
            return fill(*arguments)

        def interrupt(words):
            if words.startswith("inserting"):
                other.commit()
                raise KeyboardInterrupt

        monkeypatch.setattr(seeded, "_fill", fill_while_it_is_locked)
        index, _ = virtual(connection, queries, "vector_cosine_ops")
        with pytest.raises(KeyboardInterrupt):
            made(pair.target, index.centroids, spec_of(), interrupt)
        (rows,) = connection.execute("SELECT count(*) FROM seeded").fetchone()
    assert rows < ROWS / 4, "the statements that were under way, and no others"


def test_a_session_that_fails_ends_the_others_and_is_told(pair, monkeypatch):
    queries = make_table_of_topics(pair.target, ROWS, QUERIES)
    plant = seeded._plant

    def plant_and_refuse_rows(connection, *arguments):
        plant(connection, *arguments)
        connection.execute("ALTER TABLE seeded ADD CHECK (id IS NULL)")  # centroids have none

    monkeypatch.setattr(seeded, "_plant", plant_and_refuse_rows)
    with connect(pair.target) as connection:
        index, _ = virtual(connection, queries, "vector_cosine_ops")
        with pytest.raises(psycopg.errors.CheckViolation):
            made(pair.target, index.centroids, spec_of())
