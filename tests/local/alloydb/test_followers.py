"""Followers are real: they have the primary's rows, read only, take its place, and give it back without losing one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime

import psutil
import psycopg
import pytest
from alloydb_planes import soon

from orchestra_lib.local import postgres

pytestmark = pytest.mark.slow


def one(connection: psycopg.Connection, statement: str):
    return connection.execute(statement).fetchone()[0]


def count(cluster, instance: str = "primary") -> int:
    with cluster.session(instance) as connection:
        return one(connection, "SELECT count(*) FROM writes")


def write(cluster, rows: int) -> None:
    with cluster.session() as connection:
        connection.execute(f"INSERT INTO writes SELECT n, repeat('x', 500) FROM generate_series(1, {rows}) n")


def kill(cluster) -> None:
    """End the cluster's server without a chance to say good-bye."""
    pid = postgres.running(cluster.data(cluster.primary)).pid
    family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    os.kill(pid, signal.SIGKILL)
    for process in family[1:]:
        process.kill()
    psutil.wait_procs(family, timeout=5)
    assert postgres.running(cluster.data(cluster.primary)) is None


@pytest.fixture(scope="module")
def primary(planes):
    cluster = planes.cluster()
    cluster.instance(alloydb__iam_authentication="on")
    with cluster.session() as connection:
        connection.execute("CREATE TABLE writes (n int, filler text)")
    return cluster


@pytest.fixture(scope="module")
def secondary(primary):
    write(primary, 10)
    return primary.secondary()


def test_a_secondary_has_the_primarys_rows_and_takes_none(primary, secondary):
    write(primary, 1_000)
    written = count(primary)
    with secondary.session() as connection:
        soon(lambda: one(connection, "SELECT count(*) FROM writes") == written)
        assert one(connection, "SELECT pg_is_in_recovery()")
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            connection.execute("INSERT INTO writes VALUES (0, '')")


def test_the_primarys_users_log_in_at_the_secondary(planes, connect, primary, secondary):
    primary.user(planes.operator, userType="ALLOYDB_IAM_USER", databaseRoles=["alloydbsuperuser"])
    with connect(primary.primary, planes.operator, None) as connection:
        connection.execute("CREATE TABLE seen_by_users AS SELECT 1 AS n")
    secondary.set_flags(secondary.primary, alloydb__iam_authentication="on")
    with connect(secondary.primary, planes.operator, None) as connection:
        soon(lambda: one(connection, "SELECT count(*) FROM pg_tables WHERE tablename = 'seen_by_users'") == 1)
    connect(secondary.primary)


def test_a_read_pool_follows_its_cluster(primary):
    primary.instance("pool", kind="READ_POOL")
    write(primary, 5)
    written = count(primary)
    soon(lambda: count(primary, "pool") == written)
    primary.planes.done("DELETE", f"{primary.name}/instances/pool")
    with primary.session() as connection:
        slots = "SELECT count(*) FROM pg_replication_slots WHERE slot_type = 'physical' AND NOT active"
        soon(lambda: one(connection, slots) == 0)


def test_a_switchover_there_and_back_loses_no_row(planes, primary, secondary):
    write(primary, 20_000)
    written = count(primary)
    planes.done("POST", f"{secondary.name}:switchover", {})
    assert count(secondary) == written
    write(secondary, 100)
    soon(lambda: count(primary) == written + 100)
    with primary.session() as connection, pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        connection.execute("INSERT INTO writes VALUES (0, '')")
    timeline = "SELECT timeline_id FROM pg_control_checkpoint()"
    data = primary.data(primary.primary)
    born = (data / "PG_VERSION").stat().st_ino
    planes.done("POST", f"{primary.name}:switchover", {})
    write(primary, 10)
    assert count(primary) == written + 110
    soon(lambda: count(secondary) == written + 110)
    moment = datetime.now(UTC)
    write(primary, 5)
    assert (data / "PG_VERSION").stat().st_ino == born, "nothing was copied anew"
    with primary.session() as connection:
        connection.execute("CHECKPOINT")
        assert one(connection, timeline) == 3
    restored = primary.restored_at(moment)  # from a base backup and a log that are older than both switchovers
    restored.instance()
    assert count(restored) == written + 110


def test_a_promoted_secondary_goes_its_own_way_with_the_users_of_its_primary(planes, connect, primary):
    third = primary.secondary("europe-west1")
    written = count(primary)
    planes.done("POST", f"{third.name}:promote", {})
    assert count(third) == written
    write(third, 7)
    write(primary, 3)
    assert (count(third), count(primary)) == (written + 7, written + 3)
    assert one(connect(third.primary), "SELECT current_user") == "postgres"
    with primary.session() as connection:
        soon(lambda: one(connection, "SELECT count(*) FROM pg_replication_slots WHERE NOT active") == 0)


def test_a_secondary_takes_over_from_a_primary_that_was_killed_and_that_one_follows_then(planes, primary, secondary):
    written = count(primary)
    with secondary.session() as connection:
        soon(lambda: one(connection, "SELECT count(*) FROM writes") == written)
    kill(primary)
    planes.done("POST", f"{secondary.name}:promote", {"failover": True}, "v1beta")
    assert postgres.running(primary.data(primary.primary)) is None or count(primary) >= written
    write(secondary, 50)
    assert count(secondary) == written + 50
    soon(lambda: count(primary) == written + 50, 20)
    planes.done("POST", f"{primary.name}:switchover", {})
    write(primary, 1)
    assert count(primary) == written + 51


def test_a_data_plane_that_is_killed_within_a_switchover_finishes_it_later(planes, primary, secondary):
    written = count(primary)
    soon(lambda: count(secondary) == written)
    operation = planes.begin("POST", f"{secondary.name}:switchover", {})
    soon(lambda: postgres.running(primary.data(primary.primary)) is None)
    planes.kill()
    planes.start()
    assert "error" not in planes.call("GET", operation)
    write(secondary, 5)
    soon(lambda: count(primary) == written + 5)
    planes.done("POST", f"{primary.name}:switchover", {})
    assert count(primary) == written + 5


def test_the_command_tells_where_an_instance_listens(planes, primary, secondary):
    environment = {**os.environ, "ORCHESTRA_STATE_DIR": str(planes.state)}
    for cluster, role in ((primary, "PRIMARY"), (secondary, "SECONDARY")):
        command = [sys.executable, "-m", "orchestra_lib", "local", "instance", cluster.primary, "--json"]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
        found = json.loads(done.stdout)
        assert (found["instance"], found["role"]) == (cluster.primary, role)
        where = f"host={found['socket_directory']} port={found['port']} user={planes.operator} dbname=postgres"
        with psycopg.connect(where) as connection:
            assert one(connection, "SELECT current_user") == planes.operator
            assert psutil.Process(found["pid"]).name() == "postgres"
    command = [*command[:5], f"{primary.name}/instances/none"]
    refused = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert (refused.returncode, "was not found" in refused.stderr) == (3, True)


def test_a_restart_and_a_failover_start_the_server_again(planes, primary):
    before = postgres.running(primary.data(primary.primary))
    for verb, body in (("restart", {}), ("failover", {}), ("injectFault", {"faultType": "STOP_VM"})):
        planes.done("POST", f"{primary.primary}:{verb}", body)
        after = postgres.running(primary.data(primary.primary))
        assert after.pid != before.pid
        before = after
    assert count(primary) > 0


def test_a_secondary_takes_over_from_a_primary_that_was_deleted(planes, primary, secondary):
    written = count(primary)
    soon(lambda: count(secondary) == written)
    planes.done("DELETE", primary.primary)
    planes.done("POST", f"{secondary.name}:promote", {"failover": True}, "v1beta")
    write(secondary, 1)
    assert count(secondary) == written + 1
