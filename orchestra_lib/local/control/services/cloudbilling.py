"""Billing accounts, and which project is billed to which. https://cloud.google.com/billing/docs/reference/rest"""

from __future__ import annotations

from typing import Any

from orchestra_lib.local.control.call import Call
from orchestra_lib.local.control.faults import Fault
from orchestra_lib.local.control.kinds import Body, Kind, Service
from orchestra_lib.local.control.pages import page

_DENIED = "The caller does not have permission"


def _accounts(control: Any, _parent: str) -> dict[str, Body]:
    own = control.organization
    account = {
        "name": f"billingAccounts/{own.billing_account}",
        "open": True,
        "displayName": f"{own.display_name} billing",
        "masterBillingAccount": "",
        "parent": f"organizations/{own.id}",
        "currencyCode": "USD",
    }
    return {own.billing_account: account}


def _info(call: Call) -> Body:
    return _shown(call, _project(call))


def _shown(call: Call, project: str) -> Body:
    row = call.control.store.get(f"cloudbilling/projects/{project}/billingInfo")
    account = row.body["billingAccountName"] if row else ""
    return {
        "name": f"projects/{project}/billingInfo",
        "projectId": project,
        "billingAccountName": account,
        "billingEnabled": bool(account),
    }


def _set_info(call: Call) -> Body:
    project, account = _project(call), str((call.body or {}).get("billingAccountName", ""))
    if account and call.control.find(f"cloudbilling/{account}") is None and not call.control.permissive:
        raise Fault("PERMISSION_DENIED", _DENIED)
    call.control.store.put(f"cloudbilling/projects/{project}/billingInfo", {"billingAccountName": account})
    return _info(call)


def _billed(call: Call) -> Body:
    """The projects that are billed to an account."""
    account = call.path.removesuffix("/projects")
    if call.control.find(f"cloudbilling/{account}") is None:
        raise Fault("PERMISSION_DENIED", _DENIED)
    prefix = "cloudbilling/projects/"
    rows = call.control.store.below(prefix)
    found = [row.key.removeprefix(prefix).split("/")[0] for row in rows if row.body["billingAccountName"] == account]
    shown, token = page([_shown(call, project) for project in sorted(found)], call.query)
    return {**({"projectBillingInfo": shown} if shown else {}), **({"nextPageToken": token} if token else {})}


def _project(call: Call) -> str:
    project = str(call.project)
    if not call.control.projects.exists(project):
        raise Fault("PERMISSION_DENIED", _DENIED)
    return project


SERVICE = Service(
    name="cloudbilling",
    kinds=(Kind("billingAccounts", built_in=_accounts, not_found=_DENIED),),
    methods={
        "projects.getBillingInfo": _info,
        "projects.updateBillingInfo": _set_info,
        "projects.list": _billed,
    },
    permissions={
        "billingAccounts.get": "billing.accounts.get",
        "billingAccounts.list": "billing.accounts.list",
        "projects.list": "billing.resourceAssociations.list",
        "projects.getBillingInfo": "resourcemanager.projects.get",
        "projects.updateBillingInfo": "resourcemanager.projects.createBillingAssignment",
    },
    not_in_projects=True,
)
