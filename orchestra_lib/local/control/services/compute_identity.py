"""What every compute resource gets from the service: kind, id, links, times, fingerprints, references as URLs."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from typing import TYPE_CHECKING, Any

from orchestra_lib.local.control import references
from orchestra_lib.local.control.call import Call, compute_timestamp, digits
from orchestra_lib.local.control.catalog import Schema
from orchestra_lib.local.control.faults import Fault
from orchestra_lib.local.control.kinds import Body
from orchestra_lib.local.control.operation_styles import COMPUTE_BASE

if TYPE_CHECKING:
    from orchestra_lib.local.control.control import ControlPlane

_SET_LATER = re.compile(r"can only be added or modified by the\s*setLabels\s*method")
_FINGERPRINT_NEEDED = re.compile(
    r"fingerprint\s+must\s+be\s+provided|must\s+always\s+provide\s+an\s+up-to-date\s+fingerprint"
)
_SEPARATE_FINGERPRINTS = ("metadata", "tags")
_WHILE_CREATING = ("CREATING", "RESERVING", "PROVISIONING", "PENDING")
_READY = ("READY", "RESERVED", "RUNNING", "ACTIVE")
_RESOURCE = re.compile(r"^projects/[^/]+/(global|(regions|zones)/[^/]+)/[A-Za-z0-9]+/[^/]+$")
# Addresses and subnetworks inside of a router stay as the caller wrote them.
_LINKS_AS_SENT = ("nats.",)


def stamp(call: Call, key: str, body: Body, before: Body | None) -> None:
    """Complete a body that is to be kept. Raises Fault for a stale fingerprint or a malformed link."""
    schema = call.control.schema(call.api, key)
    if before is None and _set_later(schema):
        body.pop("labels", None)
    _link(call, key, body)
    if before is not None and call.control.compares_etags:
        _require_fingerprint(call, schema, body.get("fingerprint"), before.get("fingerprint"))
    identify(schema, key, body, before or {}, call.now)


def identify(schema: Schema, key: str, body: Body, old: Body, now: float) -> None:
    """Fill what tells one resource from all others; ``old`` is what was there before, or empty."""
    has, path = schema.properties, key.split("/", 1)[1]
    parts = path.split("/")
    filled = {
        "kind": has["kind"].schema.get("default") if "kind" in has else None,
        "id": old.get("id") or digits(f"{key} {now}", 19),
        "creationTimestamp": old.get("creationTimestamp") or compute_timestamp(now),
        "selfLink": f"{COMPUTE_BASE}/{path}",
        "region": f"{COMPUTE_BASE}/{'/'.join(parts[:4])}" if parts[2] == "regions" else None,
        "zone": f"{COMPUTE_BASE}/{'/'.join(parts[:4])}" if parts[2] == "zones" else None,
    }
    filled["selfLinkWithId"] = f"{COMPUTE_BASE}/{'/'.join(parts[:-1])}/{filled['id']}"
    body.update({name: value for name, value in filled.items() if value and name in has})
    _set_fingerprints(schema, body)
    if not old and (creating := _status(schema, _WHILE_CREATING)):
        body["status"] = creating


def ready(control: ControlPlane, key: str, body: Body) -> None:
    """The end of a create: ``status`` says that the resource is there."""
    api = control.catalog.apis["compute", "v1"]
    schema = control.schema(api, key)
    now_ready = _status(schema, _READY)
    if now_ready and body.get("status") in (None, *_WHILE_CREATING):
        body["status"] = now_ready


def fingerprint(value: Any) -> str:
    """What compute calls the state of a value: eight bytes in base64."""
    return base64.b64encode(hashlib.sha256(json.dumps(value, sort_keys=True).encode()).digest()[:8]).decode()


def stale_fingerprint(words: str = "Supplied fingerprint does not match current metadata fingerprint.") -> Fault:
    """412 for an update that does not know the present state."""
    return Fault("CONDITION_NOT_MET", words)


def url(key: str) -> str:
    """The link of the resource of a key."""
    return f"{COMPUTE_BASE}/{key.split('/', 1)[1]}"


def key_of_url(control: ControlPlane, value: str, project: str | None) -> str:
    """The key of what a link names, whole or partial."""
    return references.key_of(control, "compute", value, project)


def invalid(field: str, value: Any, why: str) -> Fault:
    """400 for the value of a field, in compute's words."""
    return Fault("INVALID_ARGUMENT", f"Invalid value for field 'resource.{field}': '{value}'. {why}")


def _require_fingerprint(call: Call, schema: Schema, given: str | None, current: str | None) -> None:
    """Raise Fault (412) for an update that does not know the present state, or has to say it and does not."""
    known = schema.properties.get("fingerprint")
    must = known is not None and bool(_FINGERPRINT_NEEDED.search(known.schema.get("description", "")))
    missing = must and call.method.name in ("patch", "update") and "fingerprint" not in call.body
    if missing or (given and given != current):
        raise stale_fingerprint("Invalid fingerprint.")


def _set_fingerprints(schema: Schema, body: Body) -> None:
    if "labelFingerprint" in schema.properties:
        body["labelFingerprint"] = fingerprint(body.get("labels", {}))
    for name in _SEPARATE_FINGERPRINTS:
        if name in schema.properties and isinstance(body.get(name), dict):
            body[name]["fingerprint"] = fingerprint({**body[name], "fingerprint": None})
    if "fingerprint" in schema.properties:
        body["fingerprint"] = fingerprint({**body, "fingerprint": None})


def _set_later(schema: Schema) -> bool:
    labels = schema.properties.get("labels")
    return labels is not None and bool(_SET_LATER.search(labels.schema.get("description", "")))


def _status(schema: Schema, names: tuple[str, ...]) -> str | None:
    known = schema.properties.get("status")
    enum = known.schema.get("enum", ()) if known else ()
    return next((name for name in names if name in enum), None)


def _link(call: Call, key: str, body: Body) -> None:
    """Write whole URLs where the caller may have written parts of them."""
    for field in call.control.kind(key).references:
        if not field.startswith(_LINKS_AS_SENT):
            _link_field(call, body, field.split("."), field)


def _link_field(call: Call, value: Any, steps: list[str], field: str) -> None:
    if isinstance(value, list):
        for item in value:
            _link_field(call, item, steps, field)
        return
    if not isinstance(value, dict) or steps[0] not in value:
        return
    if len(steps) > 1:
        _link_field(call, value[steps[0]], steps[1:], field)
        return
    found = value[steps[0]]
    value[steps[0]] = (
        [_whole(call, one, field) for one in found] if isinstance(found, list) else _whole(call, found, field)
    )


def _whole(call: Call, value: str, field: str) -> str:
    if not value or ("/compute/" not in value and "//" in value):
        return value  # a resource of another service
    key = key_of_url(call.control, value, call.project)
    if not _RESOURCE.match(key.split("/", 1)[1]):
        raise invalid(field, value, "The URL is malformed.")
    return url(key)
