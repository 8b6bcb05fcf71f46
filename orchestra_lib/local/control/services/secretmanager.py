"""Secret Manager: secrets and their versions. https://cloud.google.com/secret-manager/docs/reference/rest

The data of a version lies beside it, hidden; only ``access`` shows it. ``latest`` is the highest version, whatever its
state, and a secret may give its versions names.
"""

from __future__ import annotations

import base64
from typing import Any

from orchestra_lib.local.control import shapes, standard
from orchestra_lib.local.control.call import Call, timestamp
from orchestra_lib.local.control.faults import Fault, bad_field
from orchestra_lib.local.control.kinds import Body, Handler, Kind, Service, not_found
from orchestra_lib.local.control.store import Stored

_LARGEST_BYTES = 65_536
_CASTAGNOLI = 0x82F63B78
_NOT_FOUND, _EXISTS = "Secret [{numbered}] not found.", "Secret [{numbered}] already exists."


def _one_path(control: Any, path: str) -> str:
    """A version's path with its number in the place of ``latest`` or of an alias."""
    parent, found, rest = path.partition("/versions/")
    if not found:
        return path
    named, slash, more = rest.partition("/")
    secret = control.find(f"secretmanager/{parent}")
    aliases = secret.body.get("versionAliases", {}) if secret else {}
    number = str(_highest(control, parent)) if named == "latest" else str(aliases.get(named, named))
    return f"{parent}/versions/{number}{slash}{more}"


def _highest(control: Any, secret: str) -> int:
    rows = control.store.children(f"secretmanager/{secret}", "secretmanager/versions")
    return max((_number(row.key) for row in rows), default=0)


def _number(key: str) -> int:
    return int(key.rsplit("/", 1)[1])


# --- secrets ------------------------------------------------------------------------------------------------------


def _fill_secret(call: Call, body: Body, _before: Body | None) -> None:
    ttl = body.pop("ttl", None)
    if ttl:
        body["expireTime"] = timestamp(call.now + float(ttl.removesuffix("s")))


def _check_secret(call: Call, body: Body, before: Body | None) -> None:
    if "locations" not in call.segments and not body.get("replication") and not before:
        raise bad_field(
            "secret.replication", "The replication policy of a secret has to be set: automatic or userManaged."
        )
    if body.get("rotation") and not body.get("topics"):
        raise bad_field("secret.topics", "A secret that is rotated needs a topic to say so.")


# --- versions -----------------------------------------------------------------------------------------------------


def _add_version(call: Call) -> Body:
    secret = call.control.find(call.key)
    if secret is None:
        raise not_found(call.control, call.key)
    payload = call.body.get("payload", {})
    data = _data(payload)
    given = payload.get("dataCrc32c")
    if given is not None and int(given) != crc32c(data):
        raise bad_field("payload.data_crc32c", f"The checksum of the data is {crc32c(data)}, not {given}.")
    number = call.control.store.next_number(f"secret {call.key} {secret.body['createTime']}")
    key = f"{call.key}/versions/{number}"
    body: Body = {
        "name": f"{call.control.projects.numbered(call.path)}/versions/{number}",
        "createTime": call.time,
        "state": "ENABLED",
        "replicationStatus": _replicated(secret.body.get("replication", {})),
    }
    if given is not None:
        body["clientSpecifiedPayloadChecksum"] = True
    return _kept(call, key, body, {"data": base64.b64encode(data).decode()})


def _data(payload: Body) -> bytes:
    text = payload.get("data", "").replace("-", "+").replace("_", "/")
    data = base64.b64decode(text + "=" * (-len(text) % 4))
    if not 1 <= len(data) <= _LARGEST_BYTES:
        raise bad_field("payload.data", f"The data of a secret has 1 to {_LARGEST_BYTES} bytes, not {len(data)}.")
    return data


def _replicated(replication: Body) -> Body:
    managed = replication.get("userManaged")
    if managed is None:
        return {"automatic": {}}
    return {"userManaged": {"replicas": [{"location": replica["location"]} for replica in managed.get("replicas", [])]}}


def crc32c(data: bytes) -> int:
    """The checksum that Secret Manager uses. https://datatracker.ietf.org/doc/html/rfc3720#appendix-B.4"""
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = (value >> 1) ^ (_CASTAGNOLI if value & 1 else 0)
    return value ^ 0xFFFFFFFF


def _kept(call: Call, key: str, body: Body, hidden: Body | None = None) -> Body:
    body["etag"] = shapes.etag_of(body)
    call.control.store.put(key, body, hidden)
    return call.control.shown(call.api, key, body, enums_as_numbers=call.enums_as_numbers)


def _version(call: Call) -> Stored:
    row = call.control.find(call.key)
    if row is None:
        raise not_found(call.control, call.key)
    return row


def _access(call: Call) -> Body:
    row = _version(call)
    if row.body["state"] != "ENABLED":
        raise Fault("FAILED_PRECONDITION", f"Secret Version [{row.body['name']}] is in {row.body['state']} state.")
    data = row.hidden["data"]
    return {"name": row.body["name"], "payload": {"data": data, "dataCrc32c": str(crc32c(base64.b64decode(data)))}}


def _to_state(state: str) -> Handler:
    def handler(call: Call) -> Body:
        row = _version(call)
        standard.require_etag(call, row, call.body.get("etag"))
        if row.body["state"] == "DESTROYED" and state != "DESTROYED":
            raise Fault("FAILED_PRECONDITION", f"Secret Version [{row.body['name']}] is in DESTROYED state.")
        body = {name: value for name, value in row.body.items() if name != "scheduledDestroyTime"}
        return _kept(call, row.key, {**body, "state": state})

    return handler


def _destroy(call: Call) -> Body:
    """At once or, where the secret says so, after a while in which the version is disabled."""
    row = _version(call)
    standard.require_etag(call, row, call.body.get("etag"))
    if row.body["state"] == "DESTROYED":
        return call.control.shown(call.api, row.key, row.body, enums_as_numbers=call.enums_as_numbers)
    secret = call.control.find(row.key.partition("/versions/")[0])
    delay = secret.body.get("versionDestroyTtl") if secret else None
    if delay and "scheduledDestroyTime" not in row.body:
        at = timestamp(call.now + float(delay.removesuffix("s")))
        return _kept(call, row.key, {**row.body, "state": "DISABLED", "scheduledDestroyTime": at})
    body = {name: value for name, value in row.body.items() if name != "scheduledDestroyTime"}
    return _kept(call, row.key, {**body, "state": "DESTROYED", "destroyTime": call.time}, {})


def _list_versions(call: Call) -> Body:
    """Newest first."""
    answer = standard.list_(call)
    answer.get("versions", []).sort(key=lambda version: _number(version["name"]), reverse=True)
    return answer


SERVICE = Service(
    name="secretmanager",
    one_path=_one_path,
    every=Kind("", number_in_name=True, not_found=_NOT_FOUND, exists=_EXISTS),
    kinds=(
        Kind(
            "secrets",
            number_in_name=True,
            check=_check_secret,
            fill=_fill_secret,
            id_pattern="[A-Za-z0-9_-]{1,255}",
            not_found=_NOT_FOUND,
            exists=_EXISTS,
        ),
        Kind("versions", number_in_name=True, not_found="Secret Version [{numbered}] not found."),
    ),
    methods={
        "secrets.addVersion": _add_version,
        "versions.access": _access,
        "versions.list": _list_versions,
        "versions.enable": _to_state("ENABLED"),
        "versions.disable": _to_state("DISABLED"),
        "versions.destroy": _destroy,
    },
    permissions={"secrets.addVersion": "secretmanager.versions.add"},
)
