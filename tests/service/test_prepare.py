"""Making the API's role and what confines it, on a table that others use meanwhile."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from service.serving import DIMENSION
from stores import Pair

from orchestra_lib.memory.schema import create_table
from orchestra_lib.service import schema

ROLE = "orchestra_prepare_tests"  # a role is the whole server's, and other databases of it have the usual one

ROWS = """
INSERT INTO memories (
    id, user_id, agent_id, session_id, persona, item_type, content, embedding, embedding_model, created_at, updated_at
)
SELECT n::text, 'ann', 'agent', 'session', 'Cherry', 'note', 'rain', array_fill(0.1, ARRAY[%s])::vector, 'test/1',
       now(), now()
FROM generate_series(1, 500) n
"""
WAITING = "SELECT count(*) > 0 FROM pg_locks WHERE NOT granted AND pid = %s"


@pytest.mark.parametrize("is_repeated", [False, True])
def test_a_vacuum_that_is_under_way_is_waited_for_and_waits_for_nothing(pair: Pair, is_repeated: bool):
    """ANALYZE stands for autovacuum: both hold the same lock and then write into the table's row in pg_class."""
    with (
        psycopg.connect(pair.target, autocommit=True) as owner,
        psycopg.connect(pair.target) as vacuum,
        psycopg.connect(pair.target, autocommit=True) as reader,
        ThreadPoolExecutor(1) as pool,
    ):
        owner.execute(create_table(dimension=DIMENSION))
        if is_repeated:
            schema.prepare(owner, table="memories", role=ROLE)
        owner.execute(ROWS, [DIMENSION])  # of an empty table nothing new can be told
        vacuum.execute(
            "LOCK TABLE memories, orchestra_api.idempotency_keys IN SHARE UPDATE EXCLUSIVE MODE"
            if is_repeated
            else "LOCK TABLE memories IN SHARE UPDATE EXCLUSIVE MODE"
        )
        preparing = pool.submit(schema.prepare, owner, table="memories", role=ROLE)
        deadline = time.monotonic() + 20
        while reader.execute(WAITING, [owner.info.backend_pid]).fetchone() == (False,):
            assert time.monotonic() < deadline, "nobody waits for the vacuum"
        vacuum.execute("ANALYZE memories")
        vacuum.commit()
        preparing.result(timeout=20)
        assert schema.is_prepared(owner, table="memories", role=ROLE)
        schema.withdraw(owner, table="memories", role=ROLE)
