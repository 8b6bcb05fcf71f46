"""The unmodified AlloyDB connector, with psycopg, against the local AlloyDB."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import psutil
import psycopg
import pytest
from alloydb_planes import OPERATOR_PASSWORD, SERVICE_ACCOUNT, soon
from google.cloud.alloydbconnector import Connector
from google.oauth2.credentials import Credentials
from psycopg.sql import SQL

from orchestra_lib.bench.load import Load, run_load
from orchestra_lib.bench.sql_load import SqlRequests
from orchestra_lib.cloud import database
from orchestra_lib.errors import TargetUnreachable
from orchestra_lib.local import postgres
from orchestra_lib.local.alloydb import program
from orchestra_lib.local.control import process

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cluster(planes):
    return planes.cluster()


@pytest.fixture(scope="module")
def primary(cluster):
    return cluster.instance(alloydb__iam_authentication="on")


@pytest.fixture(scope="module")
def other_cluster(planes):
    """A second cluster, for tests that change flags, stop and kill."""
    return planes.cluster()


@pytest.fixture(scope="module")
def other(other_cluster):
    return other_cluster.instance()


def one(connection: psycopg.Connection, statement: str):
    return connection.execute(statement).fetchone()[0]


# --- sessions -----------------------------------------------------------------------------------------------------


def test_pgvector_works_through_the_connector(connect, primary):
    with connect(primary) as connection:
        connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
        assert one(connection, "SELECT '[1,2]'::vector <=> '[2,1]'::vector") == pytest.approx(0.2)
        assert one(connection, "SHOW server_version_num").startswith("16")


def test_two_sessions_at_once_see_each_other(connect, primary):
    first, second = connect(primary), connect(primary)
    first.execute("CREATE TABLE seen AS SELECT 42 AS n")
    assert one(second, "SELECT n FROM seen") == 42
    assert one(first, "SELECT pg_backend_pid()") != one(second, "SELECT pg_backend_pid()")


def test_a_new_database_has_pgvector_too(connect, planes, primary):
    connect(primary).execute("CREATE DATABASE orchestra")
    plane = planes.start()
    with (
        database.connector(
            Credentials(planes.token), endpoint=plane.endpoint, ca_file=Path(plane.ca_file)
        ) as connector,
        database.connect_instance(
            primary, "postgres", "orchestra", through=connector, password=OPERATOR_PASSWORD
        ) as connection,
    ):
        assert one(connection, "SELECT '[3,4]'::vector <-> '[0,0]'::vector") == 5


def test_megabytes_pass_unaltered_in_both_directions(connect, primary):
    connection = connect(primary)
    connection.execute("CREATE TABLE bytes (n int, data bytea)")
    rows = [(number, os.urandom(200_000)) for number in range(50)]
    with connection.cursor().copy("COPY bytes FROM STDIN (FORMAT binary)") as copy:
        copy.set_types(["int4", "bytea"])
        for row in rows:
            copy.write_row(row)
    assert connection.execute("SELECT * FROM bytes ORDER BY n").fetchall() == rows


def test_a_client_that_breaks_off_leaves_no_session_behind(connect, primary):
    watcher, leaver = connect(primary), connect(primary)
    pid = one(leaver, "SELECT pg_backend_pid()")
    leaver.execute("BEGIN")
    leaver.close()
    deadline = time.monotonic() + 5
    while one(watcher, f"SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}") and time.monotonic() < deadline:
        time.sleep(0.02)
    assert one(watcher, f"SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}") == 0


def test_a_proxy_of_the_environment_is_not_asked(planes, connect, primary, monkeypatch):
    plane = planes.start()
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "internal.example")
    monkeypatch.setenv("no_grpc_proxy", "")
    with database.connector(
        Credentials(planes.token), endpoint=plane.endpoint, ca_file=Path(plane.ca_file)
    ) as connector:
        connect(primary, through=connector)
    assert os.environ["no_grpc_proxy"] == "internal.example,127.0.0.1"  # noqa: SIM112 - as gRPC spells it


# --- users --------------------------------------------------------------------------------------------------------


def test_a_wrong_password_and_an_unknown_user_are_refused_by_the_server(connect, primary):
    for user in ("postgres", "nobody"):
        with pytest.raises(TargetUnreachable, match=f'password authentication failed for user "{user}"'):
            connect(primary, user, "wrong")


def test_a_built_in_user_logs_in_with_its_password_until_it_is_deleted(connect, planes, cluster, primary):
    cluster.user("loader", password="first", databaseRoles=["alloydbsuperuser"])
    with connect(primary, "loader", "first") as connection:
        connection.execute("CREATE TABLE kept (n int)")
    planes.call("PATCH", f"{cluster.name}/users/loader?updateMask=password", {"password": "second"})
    with pytest.raises(TargetUnreachable, match="password authentication failed"):
        connect(primary, "loader", "first")
    connect(primary, "loader", "second")
    planes.call("DELETE", f"{cluster.name}/users/loader")
    with pytest.raises(TargetUnreachable, match=r"password authentication failed|not permitted to log in"):
        connect(primary, "loader", "second")
    assert one(connect(primary), "SELECT tableowner FROM pg_tables WHERE tablename = 'kept'") == "loader"


def test_a_password_that_was_changed_in_sql_stays(connect, cluster, primary):
    cluster.user("changer", password="before")
    with connect(primary, "changer", "before") as connection:
        connection.execute("ALTER ROLE changer PASSWORD 'after'")
    cluster.user("another", password="x")  # users are brought up to date again
    connect(primary, "another", "x")
    connect(primary, "changer", "after")


def test_the_administrator_is_no_superuser(connect, primary):
    connection = connect(primary)
    assert one(connection, "SELECT rolsuper FROM pg_roles WHERE rolname = current_user") is False
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute("COPY (SELECT 1) TO PROGRAM 'cat'")
    connection.execute("CREATE ROLE made_in_sql LOGIN REPLICATION PASSWORD 'x'")
    connect(primary, "made_in_sql", "x")


def test_alloydbs_own_role_is_refused(connect, primary):
    with pytest.raises(TargetUnreachable, match='role "alloydbadmin" is AlloyDB\'s own'):
        connect(primary, "alloydbadmin", "x")


def test_a_user_with_a_role_that_does_not_exist_is_refused_with_the_reason_and_harms_no_other(
    connect, cluster, primary
):
    cluster.user("odd", password="x", databaseRoles=["no_such_role"])
    with pytest.raises(TargetUnreachable, match=r'"odd".* could not be made: role "no_such_role" does not exist'):
        connect(primary, "odd", "x")
    connect(primary)


def test_passwords_are_kept_nowhere(planes, cluster):
    password = "a password to look for"
    cluster.user("secretive", password=password)
    found = [
        path
        for path in planes.directory.rglob("*")
        if path.is_file() and "base" not in path.parts and password.encode() in path.read_bytes()
    ]
    assert found == []


# --- IAM ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def iam_users(planes, cluster):
    cluster.user(planes.operator, userType="ALLOYDB_IAM_USER", databaseRoles=["alloydbsuperuser"])
    cluster.user(SERVICE_ACCOUNT.removesuffix(".gserviceaccount.com"), userType="ALLOYDB_IAM_USER")


def test_an_iam_user_logs_in_automatically(connect, planes, primary, iam_users):
    with connect(primary, planes.operator, None) as connection:
        assert one(connection, "SELECT current_user") == planes.operator
        assert one(connection, "SELECT pg_has_role('alloydbiamuser', 'MEMBER')")


def test_an_iam_user_logs_in_with_its_token_as_the_password(connect, planes, primary, iam_users):
    with connect(primary, planes.operator, planes.token) as connection:
        assert one(connection, "SELECT current_user") == planes.operator


def test_a_load_reaches_the_instance_from_its_own_processes(planes, primary, iam_users):
    plane = planes.start()
    credentials = Credentials(planes.token)
    with database.connector(credentials, endpoint=plane.endpoint, ca_file=Path(plane.ca_file)) as connector:
        address = database.InstanceDial(primary, planes.operator, "postgres", connector)
        requests = SqlRequests(address, SQL("SELECT %s::int"), [[1]], wanted_rows=1)
        run = run_load(Load(50, 0.2, seed=0, workers=2), requests)
    assert run.failures == {}
    assert run.short_answers == 0


def test_a_service_account_logs_in_under_its_short_name_and_no_other(planes, connect, primary, iam_users):
    plane = planes.start()
    credentials = Credentials(planes.service_account_token)
    with database.connector(credentials, endpoint=plane.endpoint, ca_file=Path(plane.ca_file)) as connector:
        short = SERVICE_ACCOUNT.removesuffix(".gserviceaccount.com")
        assert one(connect(primary, short, None, through=connector), "SELECT current_user") == short
        with pytest.raises(TargetUnreachable, match=f'token is that of "{SERVICE_ACCOUNT}"'):
            connect(primary, planes.operator, None, through=connector)


def test_a_built_in_user_cannot_log_in_by_iam(connect, primary):
    with pytest.raises(TargetUnreachable, match='"postgres" is no IAM user of this cluster'):
        connect(primary, "postgres", None)


def test_iam_users_are_refused_while_the_flag_is_off(connect, planes, other_cluster, other):
    other_cluster.user(planes.operator, userType="ALLOYDB_IAM_USER")
    with pytest.raises(TargetUnreachable, match=r"set its database flag alloydb\.iam_authentication to on"):
        connect(other, planes.operator, None)
    other_cluster.set_flags(other, alloydb__iam_authentication="on")
    connect(other, planes.operator, None)


# --- tokens -------------------------------------------------------------------------------------------------------


def test_the_admin_service_refuses_a_wrong_token(connect, planes, primary):
    plane = planes.start()
    with (
        database.connector(Credentials("wrong"), endpoint=plane.endpoint, ca_file=Path(plane.ca_file)) as connector,
        pytest.raises(TargetUnreachable, match=r"401 .*invalid authentication"),
    ):
        connect(primary, through=connector)


def test_the_metadata_exchange_refuses_a_wrong_token(connect, planes, primary):
    plane = planes.start()
    right, wrong = Credentials(planes.token), Credentials("wrong", expiry=database._NEVER)
    with (
        Connector(credentials=right, db_credentials=wrong, alloydb_api_endpoint=plane.endpoint) as connector,
        pytest.raises(TargetUnreachable, match=r"Metadata Exchange request has failed.*UNAUTHENTICATED"),
    ):
        connect(primary, through=connector)


# --- flags and the life of an instance ----------------------------------------------------------------------------


def test_flags_are_set_in_the_server_and_changed_without_ending_sessions_where_that_is_possible(connect, planes):
    cluster = planes.cluster()
    instance = cluster.instance(work_mem="8192", alloydb__logical_decoding="on")
    session = connect(instance)
    assert (one(session, "SHOW work_mem"), one(session, "SHOW wal_level")) == ("8MB", "logical")
    cluster.set_flags(instance, work_mem="16384", alloydb__logical_decoding="on")
    assert one(connect(instance), "SHOW work_mem") == "16MB"
    assert one(session, "SELECT 1") == 1
    cluster.set_flags(instance, max_connections="50")
    changed = connect(instance)
    assert [one(changed, f"SHOW {name}") for name in ("max_connections", "wal_level", "work_mem")] == [
        "50", "replica", "4MB",
    ]  # fmt: skip
    with pytest.raises(psycopg.OperationalError):
        one(session, "SELECT 1")


def test_a_flag_that_the_server_does_not_take_is_said_and_can_be_put_right(connect, other_cluster, other):
    connect(other)
    other_cluster.set_flags(other, timezone="Mars/Olympus")
    for _ in range(2):
        with pytest.raises(TargetUnreachable, match='invalid value for parameter "TimeZone": "Mars/Olympus"'):
            connect(other)
    other_cluster.set_flags(other, enable_google_adaptive_autovacuum="off")  # AlloyDB's own, without effect here
    connect(other)


def test_a_deleted_instance_is_not_found_and_its_data_is_gone_when_it_is_made_again(connect, planes):
    cluster = planes.cluster()
    instance = cluster.instance()
    session = connect(instance)
    session.execute("CREATE TABLE lost (n int)")
    planes.call("DELETE", instance)
    # Just now it may still be answered for, or be going; soon nobody listens, and the connector asks anew.
    with pytest.raises(
        TargetUnreachable, match=r"NOT_FOUND|not exist|stopped taking connections|nobody listens|reset by peer"
    ):
        connect(instance)
    soon(lambda: not cluster.data(instance).exists())
    with pytest.raises(TargetUnreachable, match=r"404 .*not found"):
        connect(instance)
    with pytest.raises(psycopg.OperationalError):
        one(session, "SELECT 1")
    assert cluster.instance() == instance
    assert one(connect(instance), "SELECT count(*) FROM pg_tables WHERE tablename = 'lost'") == 0


def test_the_longest_names_are_served_and_leave_nothing_when_deleted(connect, planes):
    cluster = planes.cluster(name="c" * 63)
    instance = cluster.instance("i" * 63)
    assert one(connect(instance), "SELECT 1") == 1
    sockets = Path(postgres.running(cluster.data(instance)).socket_directory)
    planes.call("DELETE", instance)
    soon(lambda: not cluster.data(instance).exists() and not sockets.exists())


def test_another_version_of_postgresql_is_refused(connect, planes):
    instance = planes.cluster("POSTGRES_15").instance()
    with pytest.raises(TargetUnreachable, match="runs POSTGRES_15, and the local AlloyDB serves POSTGRES_16 only"):
        connect(instance)


def test_a_stopped_instance_takes_no_connections_and_has_its_data_when_it_runs_again(
    connect, planes, other_cluster, other
):
    connect(other).execute("CREATE TABLE kept_stopped AS SELECT 42 AS n")
    planes.call("PATCH", f"{other}?updateMask=activationPolicy", {"activationPolicy": "NEVER"})
    soon(lambda: postgres.running(other_cluster.data(other)) is None)
    with pytest.raises(TargetUnreachable, match="nobody listens"):
        connect(other)
    with pytest.raises(TargetUnreachable, match="is STOPPED; wait until it is READY"):
        connect(other)
    planes.call("PATCH", f"{other}?updateMask=activationPolicy", {"activationPolicy": "ALWAYS"})
    assert one(connect(other), "SELECT n FROM kept_stopped") == 42


def test_the_data_plane_may_be_killed_and_started_again_under_the_same_connector(connect, planes, other):
    before = planes.start()
    connect(other).execute("CREATE TABLE kept_killed AS SELECT 42 AS n")
    os.kill(before.pid, signal.SIGKILL)
    psutil.wait_procs([psutil.Process(before.pid)] if psutil.pid_exists(before.pid) else [], timeout=5)
    assert program.status(planes.directory) is None
    with pytest.raises(TargetUnreachable, match="nobody listens at its address"):
        connect(other)
    after = planes.start()
    assert (after.endpoint, after.ca_file) == (before.endpoint, before.ca_file)
    assert one(connect(other), "SELECT n FROM kept_killed") == 42


def test_without_the_control_plane_nobody_new_comes_in_and_sessions_go_on(connect, planes, primary):
    session = connect(primary)
    process.down(planes.state)
    try:
        with pytest.raises(TargetUnreachable, match="the local control plane does not answer"):
            connect(primary)
        assert one(session, "SELECT 1") == 1
    finally:
        process.up(planes.state, latency="0")
    connect(primary)


def test_down_stops_the_servers_and_up_finds_their_data(connect, planes, other_cluster, other):
    connect(other).execute("CREATE TABLE kept_down AS SELECT 42 AS n")
    stopped = program.down(planes.directory)
    assert stopped[0] == "alloydb"
    assert other_cluster.data(other).name in stopped
    assert postgres.running(other_cluster.data(other)) is None
    planes.start()
    assert one(connect(other), "SELECT n FROM kept_down") == 42
