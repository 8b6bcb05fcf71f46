"""What follows from the control plane's state for each server, and who may follow whom: no server, no disk."""

from __future__ import annotations

import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestra_lib.local.alloydb import backups, chains, histories
from orchestra_lib.local.alloydb.control_client import Cluster, Instance, Operation, Snapshot
from orchestra_lib.local.alloydb.roles import User
from orchestra_lib.local.alloydb.wanted import wanted_of
from orchestra_lib.local.postgres import ControlData

A, B, C = (f"projects/p/locations/l{n}/clusters/{n}" for n in "abc")


def cluster(name: str, primary: str = "") -> Cluster:
    return Cluster(name, f"uid of {name}", "READY", primary, True, (User(f"user of {name}"),), None)


def instance(of: str, kind: str, name: str = "i") -> Instance:
    return Instance(f"{of}/instances/{name}", f"uid of {of} {name}", kind, "READY", "127.0.0.9", {}, "POSTGRES_16")


def change(method: str, target: str, primary: str, *, failover: bool = True, failed: bool = False) -> Operation:
    return Operation("key", f"clusters.{method}", target, primary, failover, True, failed)


def snapshot(*operations: Operation) -> Snapshot:
    """A has a read pool, and B and C follow it."""
    instances = [instance(A, "PRIMARY"), instance(A, "READ_POOL", "pool"), instance(B, "SECONDARY")]
    instances.append(instance(C, "SECONDARY"))
    clusters = [cluster(A), cluster(B, A), cluster(C, A)]
    return Snapshot({one.name: one for one in clusters}, {one.name: one for one in instances}, {}, operations)


def shape(found: Snapshot) -> dict[str, tuple[str, str | None]]:
    """Each instance's role and upstream, by cluster; read pools have a P behind it."""
    return {
        name.split("/")[5] + ("P" if name.endswith("pool") else ""): (
            one.role,
            one.upstream and one.upstream.split("/")[5],
        )
        for name, one in wanted_of(found).items()
    }


BEFORE = {"a": ("PRIMARY", None), "aP": ("READ_POOL", "a"), "b": ("SECONDARY", "a"), "c": ("SECONDARY", "a")}


def test_secondaries_and_read_pools_follow():
    assert shape(snapshot()) == BEFORE
    assert wanted_of(snapshot())[f"{A}/instances/i"].followers == (
        f"{A}/instances/pool", f"{B}/instances/i", f"{C}/instances/i",
    )  # fmt: skip


def test_a_switchover_that_waits_counts_already_and_the_others_follow_the_heir():
    after = {"a": ("SECONDARY", "b"), "aP": ("READ_POOL", "a"), "b": ("PRIMARY", None), "c": ("SECONDARY", "b")}
    assert shape(snapshot(change("switchover", B, A))) == after
    assert shape(snapshot(change("switchover", B, A, failed=True))) == BEFORE


def test_a_promotion_leaves_the_others_where_they_are():
    after = {**BEFORE, "b": ("PRIMARY", None)}
    assert shape(snapshot(change("promote", B, A, failover=False))) == after


def test_only_a_promotion_with_failover_does_without_the_old_primary():
    for operation, expected in (
        (change("promote", B, A), True),
        (change("promote", B, A, failover=False), False),
        (change("switchover", B, A), False),
    ):
        assert wanted_of(snapshot(operation))[f"{B}/instances/i"].is_failover is expected


def test_a_follower_has_the_users_of_its_primary_until_the_operation_has_ended():
    found = wanted_of(snapshot(change("switchover", B, A)))
    assert {one.users_of for one in found.values()} == {A}


def test_a_follower_whose_primary_has_no_instance_follows_nobody():
    full = snapshot()
    rest = {name: one for name, one in full.instances.items() if not name.startswith(A)}
    assert shape(Snapshot(full.clusters, rest, {}, ())) == {"b": ("SECONDARY", None), "c": ("SECONDARY", None)}


# --- histories ----------------------------------------------------------------------------------------------------

positions = st.integers(1, 1 << 40)


def stopped(state: str, timeline: int, *, checkpoint: int = 0, recovered_until: int = 0) -> ControlData:
    return ControlData(state, "1", timeline, checkpoint, recovered_until)


@given(positions, positions, positions)
def test_a_stopped_server_may_follow_if_the_new_timeline_began_after_its_last_record(checkpoint, left_at, now):
    history = [(1, left_at), (2, max(left_at, now))]
    assert histories.is_part_of(stopped("shut down", 1, checkpoint=checkpoint), history) is (checkpoint < left_at)
    follower = stopped("shut down in recovery", 1, recovered_until=checkpoint)
    assert histories.is_part_of(follower, history) is (checkpoint <= left_at)


@given(positions)
def test_a_server_that_was_killed_or_is_of_another_timeline_may_not(position):
    history = [(1, position), (3, position + 9)]
    assert not histories.is_part_of(stopped("in production", 1, checkpoint=0), history)
    assert not histories.is_part_of(stopped("shut down", 2, checkpoint=0), history)


# --- chains -------------------------------------------------------------------------------------------------------


@given(st.lists(st.floats(1, 1e9), unique=True, max_size=5), st.floats(0, 2e9))
def test_the_latest_base_backup_before_the_moment_is_taken(tmp_path_factory, times, moment):
    storage = tmp_path_factory.mktemp("storage")
    for number, time in enumerate(times):
        base = backups.base_of(chains.chain_of(storage, str(number)))
        base.mkdir(parents=True)
        backups.write_note(base, backups.Note(time, 1))
    chains.log_of(chains.chain_of(storage, "unfinished")).mkdir(parents=True)
    fitting = [time for time in times if time <= moment]
    found = chains.reaching(storage, moment)
    assert (found is None) is (not fitting)
    assert found is None or times[int(found.name)] == max(fitting)
    assert chains.earliest(storage) == min(times, default=None)


@pytest.mark.parametrize("name", ["plain", "with space", "quo'te", "per%cent"])
def test_the_archive_command_copies_once_and_refuses_another_file_of_that_name(tmp_path, name):
    chain = tmp_path / name
    chains.log_of(chain).mkdir(parents=True)
    segment = tmp_path / "segment"
    segment.write_text("first")

    def archived() -> int:
        command = chains.archive_command(chain).replace("%f", "000000010000000000000001").replace("%p", str(segment))
        return subprocess.run(command.replace("%%", "%"), shell=True).returncode

    assert (archived(), archived()) == (0, 0)
    segment.write_text("other")
    assert archived() != 0
    kept = chains.log_of(chain)
    assert [(file.name, file.read_text()) for file in kept.iterdir()] == [("000000010000000000000001", "first")]
