"""Warm, cold and after a restart, on a real server and a real disk."""

from __future__ import annotations

import tempfile
from pathlib import Path

import psutil
import psycopg
import pytest
from pgvector.psycopg import register_vector
from stores import fill

from orchestra_lib.bench.page_cache import cached_share, drop
from orchestra_lib.bench.states import Cache, after_restart, cold, warm

RELATIONS = ["memories", "memories_pkey"]


def file_system(path: Path) -> str:
    """The kind of file system that a path is on."""
    mounts = {Path(part.mountpoint): part.fstype for part in psutil.disk_partitions(all=True)}
    return next(mounts[folder] for folder in (path, *path.parents) if folder in mounts)


needs_disk = pytest.mark.skipif(
    file_system(Path(tempfile.gettempdir())) == "tmpfs", reason="temporary files are in memory here: they have no cache"
)


@pytest.fixture(scope="module")
def store(own_server):
    fill(own_server.conninfo, 400)
    with psycopg.connect(own_server.conninfo, autocommit=True) as connection:
        connection.execute("CHECKPOINT")
    yield own_server
    with psycopg.connect(own_server.conninfo, autocommit=True) as connection:
        connection.execute("DROP TABLE memories")


def read_blocks(conninfo: str) -> int:
    """How many pages outside of its buffers the server has to read for a scan of every vector."""
    with psycopg.connect(conninfo, autocommit=True) as connection:
        register_vector(connection)
        row = connection.execute(
            "EXPLAIN (ANALYZE, BUFFERS, FORMAT json) SELECT sum(vector_norm(embedding)) FROM memories"
        ).fetchone()
    return row[0][0]["Plan"]["Shared Read Blocks"]


@needs_disk
def test_cold_means_neither_the_server_nor_the_operating_system_has_it(store):
    warm(store.conninfo, RELATIONS, lambda: read_blocks(store.conninfo))
    found = cold(store.conninfo, RELATIONS, store.restart)
    assert found.is_reached, found.missing
    assert found.os_cached_share <= 0.01
    assert read_blocks(store.conninfo) > 400, "vectors lie in TOAST, each on a page or two of its own"


def test_warm_means_that_nothing_has_to_be_read_from_the_disk(store):
    cold(store.conninfo, RELATIONS, store.restart)
    passes = []
    found = warm(store.conninfo, RELATIONS, lambda: passes.append(read_blocks(store.conninfo)))
    assert found.state is Cache.WARM
    assert len(passes) == 1
    assert found.os_cached_share == 1.0
    assert len(found.missing) == 1, "this server has no pg_prewarm, and that is said"
    assert "pg_prewarm is not installed" in found.missing[0]


def test_after_a_restart_the_operating_system_still_has_what_the_server_lost(store):
    warm(store.conninfo, RELATIONS, lambda: read_blocks(store.conninfo))
    found = after_restart(store.conninfo, RELATIONS, store.restart)
    assert found.is_reached
    assert found.os_cached_share == 1.0
    assert read_blocks(store.conninfo) > 400


def test_a_server_that_is_not_ours_to_restart_is_not_called_cold(store):
    found = cold(store.conninfo, RELATIONS, None)
    assert not found.is_reached
    assert "cannot be restarted from here" in found.missing[0]


def test_a_relation_that_is_not_there_is_not_passed_over(store):
    with pytest.raises(psycopg.errors.UndefinedTable):
        warm(store.conninfo, ["memorie"], lambda: None)


def test_a_role_that_may_not_read_files_is_told(store):
    with psycopg.connect(store.conninfo, autocommit=True) as connection:
        connection.execute("CREATE ROLE reader LOGIN; GRANT SELECT ON memories TO reader")
    try:
        found = warm(f"{store.conninfo} user=reader", RELATIONS, lambda: None)
    finally:
        with psycopg.connect(store.conninfo, autocommit=True) as connection:
            connection.execute("DROP OWNED BY reader; DROP ROLE reader")
    assert "this role may not read the server's files" in found.missing[0]


@needs_disk
def test_the_share_of_a_file_that_is_in_memory_is_seen(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(bytes(1 << 20))
    empty = tmp_path / "empty"
    empty.touch()
    assert cached_share([file, empty]) == 1.0
    drop([file, empty])
    assert cached_share([file, empty]) == 0.0
    with file.open("rb") as opened:
        opened.read(4096)
    assert 0.0 < cached_share([file]) < 1.0, "what was read, and what was read ahead"
    assert cached_share([]) is None
