"""What the control plane answers for the data plane, over its REST interface."""

from __future__ import annotations

import json
import urllib.error
from pathlib import Path

import pytest

from orchestra_lib.errors import TargetUnreachable
from orchestra_lib.local.alloydb import passwords, places


@pytest.fixture(scope="module")
def cluster(planes):
    return planes.cluster()


def refusal(error: pytest.ExceptionInfo[urllib.error.HTTPError]) -> tuple[int, str]:
    return error.value.code, json.loads(error.value.read())["error"]["message"]


def test_each_instance_that_is_ready_has_a_loopback_address_of_its_own(planes, cluster):
    names = [cluster.instance("first"), cluster.instance("second", "READ_POOL")]
    bodies = [planes.call("GET", name) for name in names]
    addresses = {body["ipAddress"] for body in bodies}
    assert len(addresses) == 2
    assert all(address.startswith("127.") for address in addresses)
    found = planes.call("GET", f"{names[0]}/connectionInfo", version="v1beta")
    assert (found["ipAddress"], found["instanceUid"]) == (bodies[0]["ipAddress"], bodies[0]["uid"])


def test_an_address_is_kept_when_the_instance_changes(planes):
    cluster = planes.cluster()
    name = cluster.instance()
    before = planes.call("GET", name)["ipAddress"]
    cluster.set_flags(name, work_mem="8192")
    assert planes.call("GET", name)["ipAddress"] == before


@pytest.mark.parametrize(("method", "path"), [("GET", "/instances/none/connectionInfo"), ("GET", "/instances/none")])
def test_what_is_not_there_is_not_found(planes, cluster, method, path):
    with pytest.raises(urllib.error.HTTPError) as error:
        planes.call(method, f"{cluster.name}{path}", version="v1beta")
    assert refusal(error) == (404, f"Resource '{cluster.name}/instances/none' was not found")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({}, "Required field 'public_key' is missing"),
        ({"publicKey": "no key"}, "not a PEM public key"),
        ({"publicKey": 5}, "TYPE_STRING"),
    ],
)
def test_a_certificate_wants_a_public_key(planes, cluster, body, reason):
    with pytest.raises(urllib.error.HTTPError) as error:
        planes.call("POST", f"{cluster.name}:generateClientCertificate", body)
    code, message = refusal(error)
    assert (code, reason in message) == (400, True), message


def test_the_first_user_is_there_and_no_password_is_shown(planes, cluster):
    cluster.user("shown", password="hidden")
    users = planes.call("GET", f"{cluster.name}/users")["users"]
    assert {user["name"].rpartition("/")[2] for user in users} == {"postgres", "shown"}
    assert not any("password" in user for user in users)
    assert "initialUser" not in planes.call("GET", cluster.name)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"userType": "ALLOYDB_IAM_GROUP"}, "has no users of type ALLOYDB_IAM_GROUP; use ALLOYDB_IAM_USER"),
        ({"userType": "ALLOYDB_IAM_USER", "password": "x"}, "has no password"),
    ],
)
def test_users_that_could_not_log_in_are_refused(cluster, body, reason):
    with pytest.raises(urllib.error.HTTPError) as error:
        cluster.user("refused", **body)
    code, message = refusal(error)
    assert (code, reason in message) == (400, True), message


def test_passwords_of_a_deleted_cluster_do_not_live_on(planes):
    cluster = planes.cluster()
    cluster.user("former", password="x")
    assert set(passwords.verifiers(planes.directory, cluster.name)) == {"postgres", "former"}
    planes.call("DELETE", f"{cluster.name}?force=true")
    parent, _, name = cluster.name.rpartition("/clusters/")
    planes.call(
        "POST", f"{parent}/clusters?clusterId={name}", {"networkConfig": {"network": "projects/p/global/networks/n"}}
    )
    assert passwords.verifiers(planes.directory, cluster.name) == {}


def test_another_name_of_the_initial_user_is_a_user(planes):
    parent = "projects/alloydb-tests/locations/us-east1/clusters"
    body = {"initialUser": {"user": "root", "password": "x"}, "network": "projects/p/global/networks/n"}
    planes.call("POST", f"{parent}?clusterId=other", body)
    assert planes.call("GET", f"{parent}/other/users/root")["databaseRoles"] == ["alloydbsuperuser"]


# --- places -------------------------------------------------------------------------------------------------------


def test_addresses_are_given_out_once_until_there_are_none():
    taken: set[str] = set()
    for _ in range(places.FIRST_HOST, places.LAST_HOST + 1):
        address = places.free_address(Path("/somewhere"), taken)
        assert address not in taken
        taken.add(address)
    with pytest.raises(TargetUnreachable, match="has an AlloyDB instance; delete one"):
        places.free_address(Path("/somewhere"), taken)
    freed = min(taken)
    assert places.free_address(Path("/somewhere"), taken - {freed}) == freed


def test_two_control_planes_do_not_share_addresses():
    networks = {places.free_address(Path(f"/somewhere/{n}"), ()).rpartition(".")[0] for n in range(20)}
    assert len(networks) == 20
    assert not networks & {"127.0.0", "127.0.1"}
