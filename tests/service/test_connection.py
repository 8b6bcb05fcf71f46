"""The service on AlloyDB: through the unmodified connector, logged in by IAM, in a role that is taken on."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from alloydb_planes import SERVICE_ACCOUNT, Cluster, Planes
from google.oauth2.credentials import Credentials
from service.serving import DIMENSION, ROLE, tokens_file

from orchestra_lib.cloud import database
from orchestra_lib.memory.schema import create_table
from orchestra_lib.service import schema
from orchestra_lib.service.connection import through
from orchestra_lib.service.sessions import SEARCHING, Session, Sessions, Spent
from orchestra_lib.service.settings import ServiceSettings

LOGIN = SERVICE_ACCOUNT.removesuffix(".gserviceaccount.com")


@pytest.fixture
def cluster(planes: Planes) -> Iterator[Cluster]:
    """A cluster whose ``postgres``, no superuser, has prepared a store for the API's service account."""
    planes.start()
    made = planes.cluster()
    made.instance(alloydb__iam_authentication="on")
    made.user(LOGIN, userType="ALLOYDB_IAM_USER", databaseRoles=["alloydbiamuser"])
    with made.session() as connection:
        connection.execute("SET SESSION AUTHORIZATION postgres")
        connection.execute(create_table(dimension=DIMENSION))
        schema.prepare(connection, table="memories", role=ROLE, login=LOGIN)
    yield made
    planes.call("DELETE", f"{made.name}?force=true")


def test_sessions_with_an_instance_work_in_the_role_and_are_lent_again(
    planes: Planes, cluster: Cluster, tmp_path: Path
):
    settings = ServiceSettings(
        instance=cluster.primary, database_user=LOGIN, dimension=DIMENSION, tokens_file=str(tokens_file(tmp_path)),
        pool_max=2, pool_timeout_seconds=20, statement_timeout_seconds=20,
    )  # fmt: skip
    plane = planes.start()

    async def use(connector) -> tuple[list[tuple], dict[str, int]]:
        sessions = Sessions(settings, through(connector, cluster.primary, LOGIN, "postgres"))
        await sessions.open()
        try:
            found = [await sessions.run("ada", who, Spent(), repeatable=True) for _ in range(3)]
            return found, sessions.numbers()
        finally:
            await sessions.close()

    async def who(session: Session) -> tuple:
        asked = await session.execute(
            "SELECT session_user::text, current_user::text, current_setting('orchestra.user_id'),"
            " current_setting('enable_seqscan'), (SELECT count(*) FROM memories),"
            # The extension is loaded by its first use, and takes on what was set for it before.
            " '[1]'::vector <-> '[1]'::vector, current_setting('hnsw.max_scan_tuples')"
        )
        return await asked.fetchone()

    with database.connector(
        Credentials(planes.service_account_token), endpoint=plane.endpoint, ca_file=Path(plane.ca_file)
    ) as connector:
        found, numbers = asyncio.run(use(connector))
    assert found == [(LOGIN, ROLE, "ada", "off", 0, 0.0, SEARCHING["hnsw.max_scan_tuples"])] * 3
    assert numbers["connections_num"] <= 2
