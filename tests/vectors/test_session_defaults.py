"""What new sessions begin with: persisted, read back from one, hidden by a role or a pool, and taken away again."""

from __future__ import annotations

import psycopg
import psycopg.conninfo
import pytest

from orchestra_lib.database import connect
from orchestra_lib.errors import DataError
from orchestra_lib.vectors.session_defaults import LOADS_THE_LIBRARY, defaults, hiding, older_sessions, persist

PROBES = "ivfflat.probes"


def shown(conninfo):
    with connect(conninfo) as connection:
        connection.execute(LOADS_THE_LIBRARY)
        return connection.execute(f"SHOW {PROBES}").fetchone()[0]


def test_a_default_reaches_new_sessions_and_none_takes_it_away(pair):
    assert persist(pair.target, {PROBES: "37"}) == {PROBES: "37"}
    assert shown(pair.target) == "37"
    assert persist(pair.target, {PROBES: None}) == {PROBES: "1"}
    assert shown(pair.target) == "1"
    with connect(pair.target) as connection:
        assert defaults(connection, [PROBES, "hnsw.ef_search"]) == {PROBES: None, "hnsw.ef_search": None}


def test_a_value_that_the_extension_does_not_know_is_refused_by_the_server(pair):
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="outside the valid range"):
        persist(pair.target, {PROBES: "0"})


def test_a_pool_that_sets_its_own_is_found_by_the_session_that_reads_back(pair):
    pooled = psycopg.conninfo.make_conninfo(pair.target, options=f"-c {PROBES}=2")
    with pytest.raises(DataError, match=r"a new session has ivfflat.probes = 2 .* its connection string or its pool"):
        persist(pooled, {PROBES: "37"})


def test_a_roles_own_setting_is_told_with_what_takes_it_away(pair):
    with connect(pair.target) as connection:
        user = connection.info.user
        connection.execute(f"ALTER ROLE {user} IN DATABASE {connection.info.dbname} SET {PROBES} = 3")
        remedy = f"ALTER ROLE {user} IN DATABASE {connection.info.dbname} RESET {PROBES}"
        assert hiding(connection, [PROBES]) == [f"role {user} has its own {PROBES}=3 ({remedy})"]
        with pytest.raises(DataError, match=f"has {PROBES} = 3 in place of what was persisted; role {user}"):
            persist(pair.target, {PROBES: "37"})
        connection.execute(remedy)
        assert hiding(connection, [PROBES]) == []


def test_sessions_that_are_older_than_a_moment_are_counted(pair):
    with connect(pair.target) as asking, connect(pair.target):
        moment = asking.execute("SELECT clock_timestamp()").fetchone()[0]
        with connect(pair.target):
            assert older_sessions(asking, moment) == 1
