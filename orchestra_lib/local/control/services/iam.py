"""IAM: service accounts, roles, workload identity pools, deny policies. https://cloud.google.com/iam/docs/reference/rest"""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Mapping
from typing import Any

from orchestra_lib.local.control import standard
from orchestra_lib.local.control.call import Call, timestamp
from orchestra_lib.local.control.faults import Fault, bad_field
from orchestra_lib.local.control.kinds import Body, Kind, Service
from orchestra_lib.local.control.operation_styles import below_target
from orchestra_lib.local.control.operations import Record, Style
from orchestra_lib.local.control.pages import page
from orchestra_lib.local.control.services import iam_accounts, iam_roles
from orchestra_lib.local.control.store import Stored

_KEPT_FOR_SECONDS = 30 * 24 * 3600
_ATTACHMENT = re.compile(r"^policies/(.+)/(denypolicies)(/.*)?$")
_ATTACHED_PROJECT = re.compile(r"^(cloudresourcemanager\.googleapis\.com%2Fprojects%2F)([^%]+)$")
# Issuers whose tokens anybody can get: a provider has to say whose it takes.
# https://cloud.google.com/iam/docs/workload-identity-federation-with-deployment-pipelines#conditions
_SHARED_ISSUERS = ("https://token.actions.githubusercontent.com", "https://gitlab.com", "https://app.terraform.io")
_CLAIM = re.compile(r"\b(assertion|attribute|google)\.")
_CREDENTIALS = ("aws", "oidc", "saml", "x509")


# --- paths --------------------------------------------------------------------------------------------------------


def _one_path(control: Any, path: str) -> str:
    if "/operations/" in path:
        return path
    attached = _ATTACHMENT.match(path)
    if attached:
        return f"policies/{_attachment(control, attached[1])}/{attached[2]}{attached[3] or ''}"
    parts = path.split("/")
    if parts[0] == "projects" and parts[2:3] == ["serviceAccounts"] and len(parts) > 3:
        parts[1], parts[3] = iam_accounts.address(control, parts[1], parts[3])
    return "/".join(parts)


def _attachment(control: Any, given: str) -> str:
    """An attachment point with the project's id in it, its slashes quoted."""
    quoted = urllib.parse.quote(urllib.parse.unquote(given), safe="")
    found = _ATTACHED_PROJECT.match(quoted)
    if not found:
        return quoted
    named = found[2]
    project = control.projects.adopt(named, control.clock()) if control.permissive else control.projects.id(named)
    return f"{found[1]}{project}"


# --- roles --------------------------------------------------------------------------------------------------------


def _predefined(control: Any, parent: str) -> Mapping[str, Body]:
    return iam_roles.predefined(control) if parent == "iam" else {}


def _fill_role(_call: Call, body: Body, _before: Body | None) -> None:
    if body.get("stage") == "ALPHA":  # the zero of its enum, which is not written
        del body["stage"]
    body.pop("deleted", None)


def _list_roles(call: Call) -> Body:
    answer = standard.list_(call)
    return {**answer, "roles": _viewed(answer["roles"], call.query.get("view"))} if "roles" in answer else answer


def _viewed(roles: list[Body], view: str | None) -> list[Body]:
    """Lists say what a role includes only when asked for all of it."""
    if view == "FULL":
        return roles
    return [{name: value for name, value in role.items() if name != "includedPermissions"} for role in roles]


def _grantable_roles(call: Call) -> Body:
    roles, token = _page(call, list(iam_roles.predefined(call.control).values()))
    answer: Body = {"roles": _viewed(roles, call.body.get("view"))}
    return {**answer, "nextPageToken": token} if token else answer


def _testable_permissions(call: Call) -> Body:
    permissions, token = _page(call, [{"name": name, "stage": "GA"} for name in iam_roles.testable(call.control)])
    answer: Body = {"permissions": permissions}
    return {**answer, "nextPageToken": token} if token else answer


def _page(call: Call, items: list[Body]) -> tuple[list[Body], str]:
    return page(items, {name: str(call.body[name]) for name in ("pageSize", "pageToken") if name in call.body})


# --- workload identity pools --------------------------------------------------------------------------------------


def _check_pool(_call: Call, body: Body, _before: Body | None) -> None:
    for name, longest in (("displayName", 32), ("description", 256)):
        if len(body.get(name, "")) > longest:
            raise bad_field(name, f"{name} cannot exceed {longest} characters, '{body[name]}' has {len(body[name])}.")
    if body.get("mode") == "SYSTEM_TRUST_DOMAIN":
        raise bad_field("mode", "Pools in mode SYSTEM_TRUST_DOMAIN are made by Google Cloud alone.")


def _check_provider(call: Call, body: Body, before: Body | None) -> None:
    _check_pool(call, body, before)
    kinds = [name for name in _CREDENTIALS if name in body]
    if len(kinds) != 1:
        raise bad_field("provider_config", f"Exactly one of {', '.join(_CREDENTIALS)} has to be set, not {kinds}.")
    if before and kinds[0] not in before:
        raise bad_field("provider_config", "The kind of a provider cannot be changed.")
    if kinds[0] in ("oidc", "saml") and "google.subject" not in body.get("attributeMapping", {}):
        raise bad_field("attribute_mapping", "The attribute mapping must include google.subject.")
    if kinds[0] == "oidc":
        _check_issuer(body)


def _check_issuer(body: Body) -> None:
    issuer = body["oidc"]["issuerUri"]
    if not issuer.startswith("https://"):
        raise bad_field("oidc.issuer_uri", f"The issuer URI has to start with https://, '{issuer}' does not.")
    shared = issuer.rstrip("/").startswith(_SHARED_ISSUERS)
    if shared and not _CLAIM.search(body.get("attributeCondition", "")):
        raise bad_field("attribute_condition", _NO_CONDITION)


_NO_CONDITION = (
    "The attribute condition must reference one of the provider's claims. For more information, see "
    "https://cloud.google.com/iam/docs/workload-identity-federation-with-deployment-pipelines#conditions"
)


def _expire(call: Call, row: Stored) -> None:
    row.body["expireTime"] = timestamp(call.now + _KEPT_FOR_SECONDS)


def _federation(collection: str, **more: Any) -> Kind:
    """A kind whose deleted resources are seen for 30 days."""
    return Kind(
        collection,
        number_in_name=True,
        states=("ACTIVE", "ACTIVE", "ACTIVE", "DELETED"),
        before_delete=_expire,
        delete_answers="resource",
        not_found="Requested entity was not found.",
        exists="Requested entity already exists",
        **more,
    )


# --- deny policies ------------------------------------------------------------------------------------------------


def _deny_name(control: Any, path: str) -> str:
    """A deny policy's path with the project's number in its attachment point."""
    parts = path.split("/")
    found = _ATTACHED_PROJECT.match(parts[1])
    if found:
        parts[1] = f"{found[1]}{control.projects.number(found[2])}"
    return "/".join(parts)


def _fill_deny_policy(call: Call, body: Body, _before: Body | None) -> None:
    body["kind"] = "DenyPolicy"
    body["name"] = _deny_name(call.control, body["name"])


def _get_deny_policy(call: Call) -> Body:
    if call.control.find(call.key) is None:
        raise Fault("NOT_FOUND", f'Policy "{_deny_name(call.control, call.path)}" not found.')
    return standard.get(call)


def _list_deny_policies(call: Call) -> Body:
    """Lists leave the rules out."""
    answer = standard.list_(call)
    for policy in answer.get("policies", []):
        policy.pop("rules", None)
    return answer


# --- operations ---------------------------------------------------------------------------------------------------


def _operation_name(call: Call, target: str) -> str:
    name = below_target(call, target)
    return _deny_name(call.control, name) if name.startswith("policies/") else name


def _metadata(_control: Any, record: Record) -> Body:
    if record["version"] == "v2":
        at = timestamp(record["started"])
        return {"@type": "type.googleapis.com/google.iam.v2.PolicyOperationMetadata", "createTime": at}
    return {"@type": "type.googleapis.com/google.iam.v1.WorkloadIdentityPoolOperationMetadata"}


SERVICE = Service(
    name="iam",
    one_path=_one_path,
    kinds=(
        *iam_accounts.KINDS,
        Kind(
            "roles",
            fill=_fill_role,
            built_in=_predefined,
            not_found="The role named {path} was not found.",
            exists="A role named {path} already exists.",
        ),
        _federation("workloadIdentityPools", check=_check_pool),
        _federation("providers", check=_check_provider),
        Kind(
            "denypolicies",
            fill=_fill_deny_policy,
            operation_done=True,
            delete_answers="resource",
            mutable=frozenset({"name", "uid"}),  # written again as they were
            not_found='Policy "{path}" not found.',
            exists='Policy "{path}" already exists.',
        ),
    ),
    methods={
        **iam_accounts.METHODS,
        "roles.list": _list_roles,
        "roles.queryGrantableRoles": _grantable_roles,
        "permissions.queryTestablePermissions": _testable_permissions,
        "policies.createPolicy": standard.create,
        "policies.get": _get_deny_policy,
        "policies.listPolicies": _list_deny_policies,
    },
    operations=Style(_operation_name, _metadata),
    permissions={
        **{f"keys.{verb}": f"iam.serviceAccountKeys.{verb}" for verb in ("create", "delete", "get", "list")},
        **{f"keys.{verb}": f"iam.serviceAccountKeys.{verb}" for verb in ("disable", "enable")},
        "keys.upload": "iam.serviceAccountKeys.create",
        **{
            f"providers.{verb}": f"iam.workloadIdentityPoolProviders.{permission}"
            for verb, permission in (
                ("create", "create"),
                ("delete", "delete"),
                ("get", "get"),
                ("list", "list"),
                ("patch", "update"),
                ("undelete", "undelete"),
            )
        },
        "policies.createPolicy": "iam.denypolicies.create",
        "policies.delete": "iam.denypolicies.delete",
        "policies.get": "iam.denypolicies.get",
        "policies.listPolicies": "iam.denypolicies.list",
        "policies.update": "iam.denypolicies.update",
        "serviceAccounts.patch": "iam.serviceAccounts.update",
    },
)
