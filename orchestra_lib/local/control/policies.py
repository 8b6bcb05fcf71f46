"""IAM policies of resources: get, set with etag and version, test permissions. https://cloud.google.com/iam/docs/policies"""

from __future__ import annotations

import zlib
from typing import Any

from orchestra_lib.local.control import shapes
from orchestra_lib.local.control.call import Call
from orchestra_lib.local.control.faults import Fault, bad_field
from orchestra_lib.local.control.kinds import Body, not_found

_EMPTY_ETAG = "ACAB"  # what a policy that was never set has on Google Cloud
_WITH_CONDITIONS = 3
_CONCURRENT = "There were concurrent policy changes. Please retry the whole read-modify-write with exponential backoff."


def get_policy(call: Call) -> Body:
    """The policy; bindings with a condition only to callers who ask for version 3, their role renamed for others."""
    _require_resource(call)
    policy = current(call)
    if _requested_version(call) >= _WITH_CONDITIONS or not _conditional(policy):
        return policy
    return {**policy, "version": 1, "bindings": [_without_condition(binding) for binding in policy["bindings"]]}


def set_policy(call: Call) -> Body:
    """Replace the policy. Raises Fault (ABORTED) when its etag is not the present one."""
    _require_resource(call)
    body = call.body or {}
    # Compute's older methods take the policy's fields beside the policy.
    given: Body = dict(body.get("policy") or {key: body[key] for key in ("bindings", "etag") if key in body})
    before = current(call)
    if call.control.compares_etags and given.get("etag") and given["etag"] != before["etag"]:
        raise Fault("ABORTED", _CONCURRENT)
    for index, binding in enumerate(given.get("bindings", [])):
        if not binding.get("role"):
            raise bad_field(f"policy.bindings[{index}].role", f"Role is required: policy.bindings[{index}].role.")
    if _conditional(given) and given.get("version") != _WITH_CONDITIONS:
        raise bad_field(
            "policy.version",
            "Specified policy version (" + str(given.get("version", 1)) + ") cannot be less than 3: it has conditions.",
        )
    bindings = [{**binding} for binding in given.get("bindings", []) if binding.get("members")]
    policy: Body = {"version": _WITH_CONDITIONS if _conditional(given) else 1}
    if bindings:
        policy["bindings"] = bindings
    if given.get("auditConfigs"):
        policy["auditConfigs"] = given["auditConfigs"]
    number = call.control.store.next_number(f"policy {call.key}")
    policy["etag"] = shapes.etag_of({**policy, "number": number})
    call.control.store.put_policy(call.key, policy)
    return policy


def test_permissions(call: Call) -> Body:
    """Those of the given permissions that the caller has."""
    _require_resource(call)
    asked = (call.body or {}).get("permissions", [])
    held = [name for name in asked if not call.control.injected.lacks(call.caller, name, call.path)]
    return {"permissions": held} if held else {}


def current(call: Call) -> Body:
    """The policy as it is kept; of a resource that was never given one, an empty one."""
    return call.control.store.policy(call.key) or {"etag": _EMPTY_ETAG}


def _require_resource(call: Call) -> None:
    known = call.control.catalog_knows(call.key)
    if known and call.control.find(call.key) is None:
        raise not_found(call.control, call.key)


def _requested_version(call: Call) -> int:
    body = call.body if isinstance(call.body, dict) else {}
    in_body = (body.get("options") or {}).get("requestedPolicyVersion")
    in_query = call.query.get("options.requestedPolicyVersion") or call.query.get("optionsRequestedPolicyVersion")
    text = str(in_body or in_query or 1)
    return int(text) if text.isdigit() else 1


def _conditional(policy: Body) -> bool:
    return any(binding.get("condition") for binding in policy.get("bindings", []))


def _without_condition(binding: dict[str, Any]) -> dict[str, Any]:
    if not binding.get("condition"):
        return binding
    mark = f"{zlib.crc32(str(binding['condition']).encode()):08x}"
    return {"role": f"{binding['role']}_withcond_{mark}", "members": binding["members"]}


METHODS = {"getIamPolicy": get_policy, "setIamPolicy": set_policy, "testIamPermissions": test_permissions}
