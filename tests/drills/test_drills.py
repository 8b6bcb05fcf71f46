"""The drills on the local AlloyDB: exact to the row, and cleared away by the next run when they were cut off."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from alloydb_planes import Cluster, Planes
from google.oauth2.credentials import Credentials
from psycopg import sql
from state_portrait import database_portrait, state_hash
from stores import fill

from orchestra_lib.cloud.client import Client
from orchestra_lib.cloud.refusals import CloudRefused
from orchestra_lib.cloud.target import Target
from orchestra_lib.drills import point_in_time, switchover
from orchestra_lib.drills.clusters import Clusters
from orchestra_lib.drills.journal import DrillJournal
from orchestra_lib.drills.point_in_time import Restorable, point_in_time_drill
from orchestra_lib.drills.switchover import Regions, switchover_drill
from orchestra_lib.errors import GateFailed
from orchestra_lib.evidence import Evidence, Source, Verdict
from orchestra_lib.local.alloydb import local_door

pytestmark = pytest.mark.slow

ROWS = 120
TABLE = sql.Identifier("memories")

Address = Callable[[str], str]


@pytest.fixture(scope="module")
def clusters(planes: Planes) -> Clusters:
    return Clusters(Client(Target("local", planes.url, Credentials(planes.token))))


@pytest.fixture(scope="module")
def address(planes: Planes) -> Address:
    def reached(instance: str) -> str:
        found = local_door.ask(planes.directory, instance)
        return f"host={found['socket_directory']} port={found['port']} user=alloydbadmin dbname=postgres"

    return reached


@pytest.fixture(scope="module")
def live(planes: Planes, address: Address) -> Cluster:
    """A cluster with a memory table in it."""
    cluster = planes.cluster()
    cluster.instance()
    fill(address(cluster.primary), ROWS)
    return cluster


@pytest.fixture
def journal(tmp_path: Path) -> DrillJournal:
    return DrillJournal(tmp_path / "journal.jsonl")


def red(rows: tuple[Evidence, ...]) -> list[str]:
    return [str(row) for row in rows if row.verdict not in (Verdict.PASS, Verdict.NOTED)]


def quiet(_words: str) -> None: ...


def tables(cluster: Cluster) -> set[str]:
    with cluster.session() as session:
        return {name for (name,) in session.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")}


# --- a restore to a moment --------------------------------------------------------------------------------------------


def restorable(live: Cluster, address: Address) -> Restorable:
    return Restorable(live.name, live.primary, f"{live.name}-drill", address)


def test_a_restore_brings_back_the_rows_of_the_moment_and_leaves_nothing_behind(
    live: Cluster, clusters: Clusters, address: Address, journal: DrillJournal
) -> None:
    found = point_in_time_drill(clusters, restorable(live, address), TABLE, journal, quiet)
    assert red(found.evidence(Source.REHEARSED)) == []
    assert (found.missing, found.extra, found.changed) == (0, 0, 0)
    assert found.table_restored.rows == ROWS
    assert clusters.get(f"{live.name}-drill") is None
    assert tables(live) == {"memories"}
    assert journal.open(point_in_time.DRILL) is None


def test_the_state_of_a_moment_is_the_state_of_what_is_restored_to_it(
    live: Cluster, clusters: Clusters, address: Address
) -> None:
    """The strategy's procedure for the memory: point-in-time recovery with transaction logs."""
    before = database_portrait(address(live.primary))
    with live.session() as session:
        moment = session.execute("SELECT pg_sleep(0.2), clock_timestamp(), pg_sleep(0.2)").fetchone()[1]
        session.execute("CREATE TABLE accident AS SELECT id FROM memories")
        session.execute("UPDATE memories SET content = 'overwritten' WHERE id < 'id-00000050'")
        session.execute("DELETE FROM memories WHERE id > 'id-00000100'")
    damaged = database_portrait(address(live.primary))
    restored = f"{live.name}-before"
    try:
        instance = clusters.restore(live.name, live.primary, restored, moment)
        assert state_hash(database_portrait(address(instance))) == state_hash(before)
        assert state_hash(damaged) != state_hash(before)
        assert database_portrait(address(live.primary)) == damaged, "what is live is not touched"
    finally:
        clusters.delete(restored)
        with live.session() as session:
            session.execute("DROP TABLE accident")
            session.execute("TRUNCATE memories")
        fill(address(live.primary), ROWS)


def test_a_restored_cluster_that_a_killed_drill_has_left_is_deleted_by_the_next_run(
    live: Cluster, clusters: Clusters, journal: DrillJournal
) -> None:
    left = f"{live.name}-drill"
    journal.begin(point_in_time.DRILL, {"cluster": left})
    live.planes.cluster(name=left.rpartition("/")[2])
    assert clusters.get(left) is not None
    assert point_in_time.clear(clusters, journal) == left
    assert clusters.get(left) is None
    assert point_in_time.clear(clusters, journal) is None


def test_a_drill_that_was_killed_before_its_restore_began_has_left_nothing_to_delete(
    live: Cluster, clusters: Clusters, journal: DrillJournal
) -> None:
    journal.begin(point_in_time.DRILL, {"cluster": f"{live.name}-drill"})
    assert point_in_time.clear(clusters, journal) == f"{live.name}-drill"
    assert journal.open(point_in_time.DRILL) is None


def test_a_cluster_of_that_name_that_no_drill_has_made_is_not_touched(
    live: Cluster, clusters: Clusters, address: Address, journal: DrillJournal
) -> None:
    somebodys = live.planes.cluster(name=f"{live.name.rpartition('/')[2]}-drill")
    with pytest.raises(GateFailed, match=f"{somebodys.name} is there already, and no drill"):
        point_in_time_drill(clusters, restorable(live, address), TABLE, journal, quiet)
    assert clusters.get(somebodys.name) is not None
    assert clusters.delete(somebodys.name)


def test_a_restore_that_is_refused_leaves_nothing_behind(
    live: Cluster, clusters: Clusters, address: Address, journal: DrillJournal
) -> None:
    wanted = Restorable(live.name, live.primary, f"{live.name.rpartition('/')[0]}/Not-A-Name", address)
    with pytest.raises(CloudRefused):
        point_in_time_drill(clusters, wanted, TABLE, journal, quiet)
    assert tables(live) == {"memories"}
    assert journal.open(point_in_time.DRILL) is None


# --- the other region -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def other(live: Cluster) -> Cluster:
    return live.secondary()


def test_the_other_region_takes_over_with_every_row_and_gives_back(
    live: Cluster, other: Cluster, clusters: Clusters, address: Address, journal: DrillJournal
) -> None:
    with live.session() as session:  # what a restore drill leaves that is killed between its rows
        session.execute("CREATE TABLE orchestra_drill (number int)")
    regions = Regions(live.name, live.primary, other.name, other.primary, address)
    found = switchover_drill(clusters, regions, TABLE, journal, quiet)
    assert red(found.evidence(Source.REHEARSED)) == []
    assert (found.there.region, found.back.region) == ("us-east1", "us-central1")
    assert [found.before.rows, found.there.table.rows, found.back.table.rows] == [ROWS] * 3
    assert (clusters.get(live.name) or {})["clusterType"] == "PRIMARY"
    assert tables(live) == {"memories"}
    assert journal.open(switchover.DRILL) is None


def test_a_switchover_that_a_killed_drill_has_left_is_undone_by_the_next_run(
    live: Cluster, other: Cluster, clusters: Clusters, journal: DrillJournal
) -> None:
    journal.begin(switchover.DRILL, {"primary": live.name})
    clusters.switch_over(other.name)
    assert (clusters.get(live.name) or {})["clusterType"] == "SECONDARY"
    assert switchover.clear(clusters, journal) == live.name
    assert (clusters.get(live.name) or {})["clusterType"] == "PRIMARY"
    with live.session() as session:
        session.execute("UPDATE memories SET version = version + 1")
    assert switchover.clear(clusters, journal) is None
