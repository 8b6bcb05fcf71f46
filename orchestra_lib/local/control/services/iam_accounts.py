"""IAM's service accounts and their keys. https://cloud.google.com/iam/docs/service-account-overview

Accounts are kept by e-mail address; their unique id and the project ``-`` lead to the same row. A deleted one moves to
a collection of its own, by unique id, so that another may take its address.
"""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Mapping
from typing import Any

from orchestra_lib.local.control import constraints, standard
from orchestra_lib.local.control.call import Call, digits
from orchestra_lib.local.control.faults import Fault, bad_field
from orchestra_lib.local.control.kinds import Body, Handler, Kind, already_exists
from orchestra_lib.local.control.store import Stored

_KEPT_FOR_SECONDS = 30 * 24 * 3600
_ACCOUNTS, _DELETED = "iam/serviceAccounts", "iam/deletedServiceAccounts"
_ACCOUNT_ID = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_PROJECT_OF_ADDRESS = re.compile(r"@([a-z0-9-]+)\.iam\.gserviceaccount\.com$")
_DEFAULT_SUFFIX = "-compute@developer.gserviceaccount.com"


def address(control: Any, project: str, account: str) -> tuple[str, str]:
    """The project and the e-mail address of an account that is named by address or unique id."""
    if account.isdigit():
        rows = control.store.below("iam/projects/", _ACCOUNTS)
        found = next((row for row in rows if row.body["uniqueId"] == account), None)
        return (found.key.split("/")[2], found.body["email"]) if found else (project, account)
    owner = _PROJECT_OF_ADDRESS.search(account)
    if project == "-" and owner:
        return owner[1], account
    if project == "-" and account.endswith(_DEFAULT_SUFFIX):
        return control.projects.id(account.removesuffix(_DEFAULT_SUFFIX)), account
    return project, account


def _default_accounts(control: Any, parent: str) -> Mapping[str, Body]:
    """The account that Compute Engine makes when it is enabled. https://cloud.google.com/compute/docs/access"""
    project = parent.rsplit("/", 1)[-1]
    if not control.projects.exists(project) or not control.projects.enabled(project, "compute"):
        return {}
    email = f"{control.projects.number(project)}{_DEFAULT_SUFFIX}"
    body = {"displayName": "Compute Engine default service account"}
    return {email: _identified(body, project, email, f"1{digits(email, 20)}")}


def _identified(body: Body, project: str, email: str, unique_id: str) -> Body:
    body["name"] = f"projects/{project}/serviceAccounts/{email}"
    body |= {"projectId": project, "uniqueId": unique_id, "email": email, "oauth2ClientId": unique_id}
    return body


def _email(call: Call, _body: Body) -> str:
    account_id = str(call.body.get("accountId", ""))
    if not 6 <= len(account_id) <= 30:
        message = f'The account ID "{account_id}" does not have a length between 6 and 30.'
        raise bad_field("account_id", message)
    if not _ACCOUNT_ID.fullmatch(account_id):
        message = f'The account ID "{account_id}" does not match the pattern {_ACCOUNT_ID.pattern}.'
        raise bad_field("account_id", message)
    return f"{account_id}@{call.project}.iam.gserviceaccount.com"


def _fill_account(call: Call, body: Body, before: Body | None) -> None:
    email = body["name"].rsplit("/", 1)[1]
    unique_id = before["uniqueId"] if before else f"1{digits(f'{email} {call.now}', 20)}"
    _identified(body, str(call.project), email, unique_id)


def _account(call: Call) -> Stored:
    row = call.control.find(call.key)
    if row is not None:
        return row
    named = call.path.rsplit("/", 1)[1]
    for deleted in call.control.store.below("iam/projects/", _DELETED):
        if named in (deleted.body["email"], deleted.body["uniqueId"]):
            raise Fault("NOT_FOUND", f"Service account {call.path} does not exist.")
    raise Fault("NOT_FOUND", "Unknown service account")


def _get_account(call: Call) -> Body:
    row = _account(call)
    return call.control.shown(call.api, row.key, row.body)


def _delete_account(call: Call) -> Body:
    row, store = _account(call), call.control.store
    unique_id = row.body["uniqueId"]
    built_in = store.get(row.key) is None
    store.put(f"iam/projects/{call.project}/{_DELETED.split('/')[1]}/{unique_id}", row.body, {"deletedAt": call.now})
    store.remove(row.key)
    if built_in or call.path.endswith(_DEFAULT_SUFFIX):
        store.put(row.key, row.body)
        store.mark_deleted(row.key, call.now)
    return {}


def _undelete_account(call: Call) -> Body:
    """Bring an account back by its unique id, within 30 days and unless its address was taken again."""
    control, unique_id = call.control, call.path.rsplit("/", 1)[1]
    deleted = next(
        (
            row
            for row in control.store.below("iam/projects/", _DELETED)
            if unique_id in (row.body["uniqueId"], row.body["email"])
            and call.now - row.hidden["deletedAt"] < _KEPT_FOR_SECONDS
        ),
        None,
    )
    if deleted is None:
        raise Fault("NOT_FOUND", "Unknown service account")
    key = f"{deleted.key.rpartition('/')[0].rpartition('/')[0]}/serviceAccounts/{deleted.body['email']}"
    if control.find(key):
        raise already_exists(control, key)
    control.store.remove(deleted.key)
    control.store.put(key, deleted.body)
    return {"restoredAccount": control.shown(call.api, key, deleted.body)}


def _disable_account(call: Call) -> Body:
    row = _account(call)
    call.control.store.put(row.key, {**row.body, "disabled": True})
    return {}


def _enable_account(call: Call) -> Body:
    row = _account(call)
    call.control.store.put(row.key, {name: value for name, value in row.body.items() if name != "disabled"})
    return {}


# --- keys of service accounts -------------------------------------------------------------------------------------


def _google_keys(control: Any, parent: str) -> Mapping[str, Body]:
    """The key pair that Google keeps for every account."""
    account = control.find(parent)
    if account is None:
        return {}
    key_id = f"{int(digits(parent, 38)):040x}"
    born = control.find(f"cloudresourcemanager/projects/{account.body['projectId']}").body["createTime"]
    body = {
        "name": f"{account.body['name']}/keys/{key_id}",
        "validAfterTime": born,
        "validBeforeTime": f"{int(born[:4]) + 2}{born[4:]}",
        "keyAlgorithm": "KEY_ALG_RSA_2048",
        "keyOrigin": "GOOGLE_PROVIDED",
        "keyType": "SYSTEM_MANAGED",
    }
    return {key_id: body}


def _create_key(call: Call) -> Body:
    """Refused: the organisation enforces the constraint, as new organisations do.

    https://cloud.google.com/resource-manager/docs/secure-by-default-organizations
    """
    _require_account_of_keys(call)
    message = "Key creation is not allowed on this service account."
    raise _forbidden_key(call, "iam.disableServiceAccountKeyCreation", message)


def _upload_key(call: Call) -> Body:
    account = _require_account_of_keys(call)
    constraint = "constraints/iam.disableServiceAccountKeyUpload"
    message = f"Constraint `{constraint}` violated for service account {account} attempting to upload public key."
    raise _forbidden_key(call, "iam.disableServiceAccountKeyUpload", message)


def _require_account_of_keys(call: Call) -> str:
    account = call.path.partition("/keys")[0]
    if call.control.find(f"iam/{account}") is None:
        raise Fault("NOT_FOUND", "Unknown service account")
    return account


def _forbidden_key(call: Call, constraint: str, message: str) -> Fault:
    full_name = f"constraints/{constraint}"
    policy = constraints.effective(call, str(call.project), full_name)
    if policy is not None and not policy.enforced:
        return standard.unsupported(call)
    account = call.path.partition("/keys")[0]
    email = urllib.parse.quote(account.rsplit("/", 1)[1], safe="")
    violation = {"type": full_name, "subject": f"{account}?configvalue={email}", "description": message}
    detail = {"@type": "type.googleapis.com/google.rpc.PreconditionFailure", "violations": [violation]}
    return Fault("FAILED_PRECONDITION", message, details=[detail])


def _list_keys(call: Call) -> Body:
    wanted = call.repeated.get("keyTypes", [])
    answer = standard.list_(call)
    keys = [key for key in answer.get("keys", []) if not wanted or key["keyType"] in wanted]
    return {"keys": keys} if keys else {}


def _refuse_google_key(call: Call) -> Body:
    _require_account_of_keys(call)
    if call.control.find(call.key) is None:
        raise Fault("NOT_FOUND", f"Service account key {call.path.rsplit('/', 1)[1]} does not exist.")
    raise Fault("FAILED_PRECONDITION", "System-managed keys of service accounts cannot be changed or deleted.")


KINDS = (
    Kind(
        "serviceAccounts",
        new_id=_email,
        fill=_fill_account,
        built_in=_default_accounts,
        not_found="Unknown service account",
        exists="Service account {id} already exists within project projects/{project}.",
    ),
    Kind("serviceAccounts/keys", built_in=_google_keys, not_found="Service account key {id} does not exist."),
)
METHODS: Mapping[str, Handler] = {
    "serviceAccounts.get": _get_account,
    "serviceAccounts.delete": _delete_account,
    "serviceAccounts.undelete": _undelete_account,
    "serviceAccounts.disable": _disable_account,
    "serviceAccounts.enable": _enable_account,
    "iam.projects.serviceAccounts.keys.create": _create_key,
    "iam.projects.serviceAccounts.keys.upload": _upload_key,
    "iam.projects.serviceAccounts.keys.list": _list_keys,
    "iam.projects.serviceAccounts.keys.delete": _refuse_google_key,
    "iam.projects.serviceAccounts.keys.disable": _refuse_google_key,
    "iam.projects.serviceAccounts.keys.enable": _refuse_google_key,
}
"""Handlers by id."""
