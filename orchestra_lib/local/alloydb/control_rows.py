"""What the control plane does for the data plane: addresses, client certificates, and passwords that are never kept.

Functions for the rows of ``control.services.alloydb``; they run inside the control plane's process.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from orchestra_lib.errors import ParameterError, TargetUnreachable
from orchestra_lib.local.alloydb import passwords, places
from orchestra_lib.local.alloydb.authority import Authority
from orchestra_lib.local.alloydb.roles import FIRST_USER, GROUP_OF_ADMINISTRATORS
from orchestra_lib.local.control.faults import Fault, bad_field
from orchestra_lib.local.control.kinds import Body, not_found

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestra_lib.local.control.call import Call
    from orchestra_lib.local.control.control import ControlPlane
    from orchestra_lib.local.control.store import Stored

BUILT_IN, IAM_USER = "ALLOYDB_BUILT_IN", "ALLOYDB_IAM_USER"

# --- instances ----------------------------------------------------------------------------------------------------


def give_address(control: ControlPlane, key: str, body: Body) -> None:
    """An instance that is ready has a loopback address of its own."""
    if "ipAddress" in body:
        return
    taken = {
        str(row.body.get("ipAddress")) for row in control.store.below("alloydb/", "alloydb/instances") if row.key != key
    }
    try:
        body["ipAddress"] = places.free_address(control.directory, taken)
    except TargetUnreachable as error:
        raise Fault("RESOURCE_EXHAUSTED", str(error)) from error


def connection_info(call: Call) -> Body:
    """Where connectors find an instance."""
    key = call.key.removesuffix("/connectionInfo")
    row = call.control.find(key)
    if row is None:
        raise not_found(call.control, key)
    return {
        "name": call.path,
        "instanceUid": row.body["uid"],
        **{name: row.body[name] for name in ("ipAddress", "publicIpAddress") if name in row.body},
    }


# --- clusters -----------------------------------------------------------------------------------------------------


def generate_client_certificate(call: Call) -> Body:
    """A certificate for the caller's public key, signed by the cluster's authority."""
    if call.control.find(call.key) is None:
        raise not_found(call.control, call.key)
    if not call.body.get("publicKey"):
        raise bad_field("public_key", "Required field 'public_key' is missing; the local AlloyDB takes no CSR.")
    directory = places.cluster_directory(call.control.directory, call.path)
    authority = Authority.open(directory / "authority", call.path)
    seconds = call.body.get("certDuration", "").removesuffix("s")
    try:
        chain = authority.client_certificate(
            call.body["publicKey"],
            timedelta(seconds=float(seconds)) if seconds else None,
            metadata_exchange=bool(call.body.get("useMetadataExchange")),
        )
    except ParameterError as error:
        raise bad_field("public_key", str(error)) from error
    return {"pemCertificateChain": list(chain), "caCert": authority.pem}


def seal_initial_user(call: Call, body: Body, before: Body | None) -> None:
    """Keep the verifier instead of the initial user's password; what was known of an earlier cluster is forgotten."""
    initial = body.get("initialUser")
    if initial and initial.get("password"):
        user = initial.setdefault("user", FIRST_USER)
        initial["password"] = passwords.verifier(user, initial["password"])
    if before is None and not call.validate_only:
        passwords.forget_all(call.control.directory, body["name"])


def take_initial_user(control: ControlPlane, key: str, body: Body) -> None:
    """A cluster that is ready hands its initial user to the data plane."""
    initial = body.pop("initialUser", None)
    if not initial or not initial.get("password"):
        return
    cluster, user = key.split("/", 1)[1], initial["user"]
    passwords.keep(control.directory, cluster, user, initial["password"])
    if user != FIRST_USER:
        control.store.put(f"{key}/users/{user}", _built_in_user(cluster, user))


# --- users --------------------------------------------------------------------------------------------------------


def first_user(_control: ControlPlane, parent: str) -> Mapping[str, Body]:
    """The user that every cluster has."""
    return {FIRST_USER: _built_in_user(parent.split("/", 1)[1], FIRST_USER)}


def check_user(_call: Call, body: Body, _before: Body | None) -> None:
    """The data plane knows users with a password and IAM users."""
    kind = body.get("userType", BUILT_IN)
    if kind not in (BUILT_IN, IAM_USER):
        raise bad_field("user.user_type", f"The local AlloyDB has no users of type {kind}; use {IAM_USER}.")
    if kind == IAM_USER and body.get("password"):
        raise bad_field("user.password", f"A user of type {IAM_USER} has no password.")


def seal_password(_call: Call, body: Body, _before: Body | None) -> None:
    """Keep the verifier instead of the password."""
    if body.get("password"):
        body["password"] = passwords.verifier(_user(body["name"]), body["password"])


def take_password(control: ControlPlane, key: str, body: Body) -> None:
    """Hand a new password to the data plane."""
    if verifier := body.pop("password", None):
        passwords.keep(control.directory, _cluster(key), _user(key), verifier)


def forget_password(call: Call, row: Stored) -> None:
    """A user that is deleted has no password any more."""
    if not call.validate_only:
        passwords.forget(call.control.directory, _cluster(row.key), _user(row.key))


def users_of(control: ControlPlane, cluster: str) -> dict[str, Body]:
    """The users of a cluster (a key), by id."""
    return {row.key.rpartition("/")[2]: row.body for row in control.rows_in(f"{cluster}/users")}


def give_users(control: ControlPlane, cluster: str, users: Mapping[str, Body]) -> None:
    """Users that came with a cluster's data: that of another one, or of a backup."""
    for identifier, body in users.items():
        key = f"{cluster}/users/{identifier}"
        control.store.put(key, {**body, "name": key.split("/", 1)[1]})


def _built_in_user(cluster: str, user: str) -> Body:
    name = f"{cluster}/users/{user}"
    return {"name": name, "userType": BUILT_IN, "databaseRoles": [GROUP_OF_ADMINISTRATORS]}


def _user(key: str) -> str:
    return key.rpartition("/users/")[2]


def _cluster(key: str) -> str:
    return key.split("/", 1)[1].rpartition("/users/")[0]
