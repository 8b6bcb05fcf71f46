"""What an administrator who logs in by IAM may do, and the flags that a migration sets, as AlloyDB has them."""

from __future__ import annotations

import time

import psycopg
import pytest

from orchestra_lib.local.alloydb import local_door

pytestmark = pytest.mark.slow

FLAGS = {
    "alloydb__iam_authentication": "on",
    "alloydb__logical_decoding": "on",
    "maintenance_work_mem": "262144",
    "max_replication_slots": "20",
    "max_wal_senders": "22",
    "max_wal_size": "2048",
    "wal_sender_timeout": "30000",
}


@pytest.fixture(scope="module")
def cluster(planes):
    found = planes.cluster()
    found.instance(**FLAGS)
    found.user(planes.operator, userType="ALLOYDB_IAM_USER", databaseRoles=["alloydbsuperuser"])
    found.user("app", password="x")
    return found


@pytest.fixture
def administrator(planes, cluster):
    with cluster.session(user=planes.operator) as session:
        yield session


def test_flags_arrive_in_the_server(administrator):
    def shown(name):
        return administrator.execute(f"SHOW {name}").fetchone()[0]

    assert shown("wal_level") == "logical"
    values = {name: shown(name) for name in ("maintenance_work_mem", "max_wal_size", "wal_sender_timeout")}
    assert values == {"maintenance_work_mem": "256MB", "max_wal_size": "2GB", "wal_sender_timeout": "30s"}
    assert (shown("max_replication_slots"), shown("max_wal_senders")) == ("20", "22")


def test_an_administrator_makes_databases_roles_schemas_extensions_and_publications(administrator):
    for statement in (
        "CREATE DATABASE own",
        "CREATE ROLE made_by_iam NOLOGIN",
        "CREATE EXTENSION IF NOT EXISTS vector",
        "CREATE SCHEMA orchestra",
        "CREATE TABLE orchestra.t (id int PRIMARY KEY, v vector(3))",
        "CREATE PUBLICATION everything FOR TABLE orchestra.t",
        "GRANT SELECT ON orchestra.t TO made_by_iam",
        "REVOKE SELECT ON orchestra.t FROM made_by_iam",
        "DROP SCHEMA orchestra CASCADE",
        "DROP DATABASE own",
    ):
        administrator.execute(statement)
    assert not administrator.execute("SELECT rolsuper FROM pg_roles WHERE rolname = current_user").fetchone()[0]


def test_an_administrator_ends_the_sessions_of_others_and_not_those_of_alloydb(connect, cluster, administrator):
    other = connect(cluster.primary, "app", "x")
    pid = other.execute("SELECT pg_backend_pid()").fetchone()[0]
    assert administrator.execute("SELECT pg_terminate_backend(%s, 5000)", (pid,)).fetchone()[0]
    with pytest.raises(psycopg.OperationalError):
        other.execute("SELECT 1")
    with cluster.session() as alloydbs:
        pid = alloydbs.execute("SELECT pg_backend_pid()").fetchone()[0]
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            administrator.execute("SELECT pg_terminate_backend(%s)", (pid,))


def replication_session(planes, cluster) -> psycopg.pq.PGconn:
    found = local_door.ask(planes.directory, cluster.primary)
    address = f"host={found['socket_directory']} user={planes.operator} dbname=postgres replication=database"
    return psycopg.pq.PGconn.connect(address.encode())


def test_a_user_that_was_let_replicate_streams_changes_over_the_socket(planes, connect, cluster, administrator):
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        administrator.execute("SELECT pg_create_logical_replication_slot('refused', 'pgoutput')")
    connect(cluster.primary).execute(f'ALTER USER "{planes.operator}" WITH REPLICATION')
    administrator.execute("CREATE TABLE streamed (id int PRIMARY KEY)")
    administrator.execute("CREATE PUBLICATION streamed FOR TABLE streamed")
    stream = replication_session(planes, cluster)
    try:
        made = stream.exec_(b"CREATE_REPLICATION_SLOT streamed LOGICAL pgoutput EXPORT_SNAPSHOT")
        assert made.status == psycopg.pq.ExecStatus.TUPLES_OK, made.error_message
        administrator.execute("INSERT INTO streamed VALUES (42)")
        start = b"START_REPLICATION SLOT streamed LOGICAL 0/0 (proto_version '2', publication_names 'streamed')"
        assert stream.exec_(start).status == psycopg.pq.ExecStatus.COPY_BOTH
        kinds = []
        while b"I" not in kinds:
            length, message = stream.get_copy_data(0)
            assert length > 0
            kinds.append(bytes(message[25:26]) if message[:1] == b"w" else b"")
    finally:
        stream.finish()
    drop = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE NOT active"
    while administrator.execute(drop).fetchone() is None:
        time.sleep(0.02)


def test_a_reader_that_never_answers_does_not_hold_up_a_restart(planes, connect, cluster, administrator):
    connect(cluster.primary).execute(f'ALTER USER "{planes.operator}" WITH REPLICATION')
    administrator.execute("SELECT pg_create_logical_replication_slot('silent', 'pgoutput')")
    stream = replication_session(planes, cluster)
    start = b"START_REPLICATION SLOT silent LOGICAL 0/0 (proto_version '2', publication_names 'none')"
    assert stream.exec_(start).status == psycopg.pq.ExecStatus.COPY_BOTH
    started = time.monotonic()
    planes.done("POST", f"{cluster.primary}:restart", {})
    stream.finish()
    assert time.monotonic() - started < 20


def test_who_is_granted_an_iam_users_role_still_needs_a_password(planes, connect, cluster):
    connect(cluster.primary).execute(f'GRANT "{planes.operator}" TO app')
    with pytest.raises(psycopg.OperationalError, match="no password supplied"):
        cluster.session(user="app")
