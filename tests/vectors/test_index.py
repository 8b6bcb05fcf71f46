"""Building the index: checked first, read back, repeatable, and the setting that searches then have."""

from __future__ import annotations

import pytest
from psycopg import sql
from stores import fill

from orchestra_lib.database import connect
from orchestra_lib.errors import GateFailed
from orchestra_lib.vectors.forms import ivfflat
from orchestra_lib.vectors.index import IndexSpec, build_index, drop_others, serving_index, vector_indexes

TABLE = sql.Identifier("memories")


def spec(lists, mib=None):
    return IndexSpec("memories", ivfflat(lists), "vector_cosine_ops", 1536, mib)


def built(pair, wanted, available_mib=None):
    return build_index(pair.target, wanted, available_mib, lambda words: None)


def test_the_index_is_built_and_read_back(pair):
    fill(pair.target, 500)
    index = built(pair, spec(10))
    assert (index.name, index.form) == ("memories_embedding_ivfflat_10", ivfflat(10))
    assert index.build_seconds > 0
    assert index.size_bytes >= 500 * 8192, "a 1536-dimensional vector fills a page"
    with connect(pair.target) as connection:
        live = serving_index(connection, TABLE)
    assert (live.name, live.form, live.opclass) == (index.name, ivfflat(10), "vector_cosine_ops")
    assert (live.valid, live.dimension, live.size_bytes) == (True, 1536, index.size_bytes)


def test_an_index_that_is_there_is_kept(pair):
    fill(pair.target, 300)
    built(pair, spec(10))
    assert built(pair, spec(10)).build_seconds is None


def test_other_lists_replace_the_index_so_that_two_never_share_a_column(pair):
    fill(pair.target, 300)
    built(pair, spec(10))
    built(pair, spec(20))
    assert drop_others(pair.target, spec(20)) == ("memories_embedding_ivfflat_10",)
    with connect(pair.target) as connection:
        names = connection.execute("SELECT indexname FROM pg_indexes WHERE indexname LIKE '%ivfflat%'").fetchall()
    assert names == [("memories_embedding_ivfflat_20",)]


def test_too_little_memory_is_refused_before_the_build_with_the_number(pair):
    fill(pair.target, 300)
    with pytest.raises(GateFailed, match=r"200 lists needs maintenance_work_mem of \d+ MiB.*allows 1"):
        built(pair, spec(200, mib=1))
    with pytest.raises(GateFailed, match="this machine has 2 MiB"):
        built(pair, spec(200), available_mib=2)
    with connect(pair.target) as connection:
        assert serving_index(connection, TABLE) is None


def test_an_index_of_that_name_that_is_another_one_is_made_anew(pair):
    fill(pair.target, 300)
    with connect(pair.target) as connection:
        connection.execute(
            "CREATE INDEX memories_embedding_ivfflat_10 ON memories USING ivfflat (embedding vector_l2_ops) "
            "WITH (lists = 10)"
        )
    assert built(pair, spec(10)).build_seconds is not None
    with connect(pair.target) as connection:
        assert serving_index(connection, TABLE).opclass == "vector_cosine_ops"


def test_an_interrupt_ends_a_concurrent_build_on_the_server_and_the_next_one_clears_up(pair):
    fill(pair.target, 300)

    def interrupt(words):
        raise KeyboardInterrupt

    with connect(pair.target, autocommit=False) as writer:
        writer.execute("UPDATE memories SET content = 'x' WHERE id = 'id-00000000'")  # the build waits for it
        with pytest.raises(KeyboardInterrupt):
            build_index(pair.target, spec(10), None, interrupt, concurrently=True)
        writer.rollback()
    with connect(pair.target) as connection:
        assert connection.execute("SELECT count(*) FROM pg_stat_progress_create_index").fetchone() == (0,)
        assert [index.valid for index in vector_indexes(connection, TABLE)] == [False]
        assert serving_index(connection, TABLE) is None
    build_index(pair.target, spec(10), None, lambda words: None, concurrently=True)
    with connect(pair.target) as connection:
        assert [index.valid for index in vector_indexes(connection, TABLE)] == [True]
