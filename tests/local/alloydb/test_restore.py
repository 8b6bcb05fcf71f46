"""Backups and restores are real: exact to the row, finished after a crash, refused where they cannot be."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import pytest
from alloydb_planes import Cluster, OperationFailed, soon

from orchestra_lib.local.alloydb import places

pytestmark = pytest.mark.slow


def rows(cluster) -> list[int]:
    with cluster.session() as connection:
        return [n for (n,) in connection.execute("SELECT n FROM written ORDER BY n")]


def insert(cluster, *numbers: int) -> None:
    with cluster.session() as connection:
        connection.cursor().executemany("INSERT INTO written VALUES (%s)", [(n,) for n in numbers])


@pytest.fixture(scope="module")
def source(planes):
    cluster = planes.cluster()
    cluster.instance(alloydb__iam_authentication="on")
    cluster.user(planes.operator, userType="ALLOYDB_IAM_USER", databaseRoles=["alloydbsuperuser"])
    with cluster.session() as connection:
        connection.execute("CREATE TABLE written (n int)")
    return cluster


def test_a_point_in_time_between_two_writes_is_restored_to_the_row_with_its_users(planes, connect, source):
    insert(source, 1, 2)
    time.sleep(0.025)
    between = datetime.now(UTC)
    time.sleep(0.025)
    insert(source, 3)
    restored = source.restored_at(between)
    restored.instance(alloydb__iam_authentication="on")
    assert rows(restored) == [1, 2]
    with connect(restored.primary, planes.operator, None) as connection:
        assert connection.execute("SELECT current_user").fetchone() == (planes.operator,)
    connect(restored.primary)
    insert(restored, 9)
    assert (rows(restored), rows(source)) == ([1, 2, 9], [1, 2, 3])


def test_a_backup_has_the_rows_of_its_time_and_a_size_and_goes_with_its_deletion(planes, source):
    before = rows(source)
    parent = source.name.rpartition("/clusters/")[0]
    backup = planes.done("POST", f"{parent}/backups?backupId=kept", {"clusterName": source.name})
    assert 20 << 20 < int(backup["sizeBytes"]) < 200 << 20
    insert(source, 4)
    restored = source.restored(backupSource={"backupName": backup["name"]})
    planes.done("DELETE", backup["name"])
    restored.instance()
    assert rows(restored) == before
    place = places.backup(planes.directory, backup["uid"])
    soon(lambda: not place.exists())


def test_before_the_earliest_point_nothing_is_restored(planes, source):
    cluster = planes.call("GET", source.name)
    earliest = datetime.fromisoformat(cluster["continuousBackupInfo"]["earliestRestorableTime"])
    assert earliest > datetime.fromisoformat(cluster["createTime"]), "nothing was there before the server started"
    with pytest.raises(Exception, match="The point in time has to be between"):
        source.restored_at(earliest - timedelta(milliseconds=1))


def test_a_data_plane_that_is_killed_within_a_restore_finishes_it_later(planes, source):
    with source.session() as connection:
        connection.execute(
            "CREATE TABLE bulk AS SELECT n, repeat('x', 1000) AS filler FROM generate_series(1, 20000) n"
        )
    expected = rows(source)
    parent = source.name.rpartition("/clusters/")[0]
    body = {
        "clusterId": "killed-within",
        "cluster": {"networkConfig": {"network": "projects/alloydb-tests/global/networks/default"}},
        "continuousBackupSource": {
            "cluster": source.name,
            "pointInTime": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
        },
    }
    operation = planes.begin("POST", f"{parent}/clusters:restore", body)
    uid = planes.call("GET", f"{parent}/clusters/killed-within")["uid"]
    storage = places.storage(planes.directory, uid)
    while not (storage / "restored.part" / "recovery.signal").exists():
        time.sleep(0.002)
    planes.kill()
    assert not (storage / "restored").exists()
    planes.start()
    answer = planes.call("GET", operation)
    assert "error" not in answer
    restored = Cluster(planes, f"{parent}/clusters/killed-within")
    restored.instance()
    assert rows(restored) == expected


def test_without_continuous_backup_nothing_is_archived_and_with_it_again_a_new_chain_begins(planes, source):
    storage = places.storage(planes.directory, planes.call("GET", source.name)["uid"])
    archived = sorted(storage.glob("chains/*/log/*"))
    for enabled in (False, True):
        body = {"continuousBackupConfig": {"enabled": enabled}}
        planes.done("PATCH", f"{source.name}?updateMask=continuousBackupConfig", body)
        with source.session() as connection:
            connection.execute("INSERT INTO written VALUES (5)")
            connection.execute("SELECT pg_switch_wal()")
        if not enabled:
            with pytest.raises(Exception, match=r"Continuous backup of cluster .* is not enabled"):
                source.restored_at(datetime.now(UTC))
            assert sorted(storage.glob("chains/*/log/*")) == archived
    soon(lambda: len([*storage.glob("chains/*/base/backup.json")]) == 2)


def test_a_source_that_cannot_be_asked_any_more_is_said(planes, source):
    insert(source, 6)
    moment = datetime.now(UTC)
    planes.done("DELETE", source.primary)
    with pytest.raises(OperationFailed, match=r"archived log of its source ends before .*could not be asked"):
        source.restored_at(moment)
