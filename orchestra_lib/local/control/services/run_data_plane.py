"""What the control plane and the data plane of Cloud Run, its builds and its gateways say to each other.

At ``/_local/run`` the data plane asks what there has to be, makes it so, and reports the operations that wait for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from orchestra_lib.local.control import operations, policies_above
from orchestra_lib.local.control.kinds import Body
from orchestra_lib.local.control.operations import Record
from orchestra_lib.local.control.services import iamcredentials, run_addresses
from orchestra_lib.local.run import presence, program

if TYPE_CHECKING:
    from orchestra_lib.local.control.control import ControlPlane
    from orchestra_lib.local.control.store import Stored

INVOKE = "run.routes.invoke"
_AWAITED = frozenset(
    {
        "builds.create",
        "builds.retry",
        "gateways.create",
        "gateways.patch",
        "services.create",
        "services.patch",
        "triggers.run",
    }
)
_SERVICES = ("run/", "apigateway/", "cloudbuild/")
_ACCOUNTS = "projects/-/serviceAccounts/"


def is_wanted(control: ControlPlane) -> bool:
    """Whether a data plane serves, or starts when it has to."""
    return presence.wanted(control.directory) is not None


def awaits(control: ControlPlane, method: str) -> bool:
    """Whether a method's operation waits for the data plane, which is started if it does not run."""
    return method in _AWAITED and program.wake(control.directory)


def wanted(control: ControlPlane, _given: Body) -> Body:
    """Everything that has to be, as of one moment: services, gateways, and operations that wait."""
    run_addresses.forget_gone(control)
    open_ones = [record for prefix in _SERVICES for record in control.store.open_operations(prefix)]
    return {
        "services": [_service(control, row) for row in control.store.below("run/", "run/services")],
        "gateways": [
            gateway
            for row in control.store.below("apigateway/", "apigateway/gateways")
            if (gateway := _gateway(control, row)) is not None
        ],
        "operations": [_operation(control, record) for record in open_ones if record.get("awaits")],
        "changing": [record["target"].split("/", 1)[1] for record in open_ones],
    }


def report(control: ControlPlane, given: Body) -> Body:
    """The data plane has done its part of an operation (``key``) or could not (``error``); or it wants a token."""
    if minted := given.get("mint"):
        return _minted(control, minted)
    operations.release(control, given["key"], given.get("error"), given.get("outcome"))
    operations.settle(control, control.clock())
    return {}


def _minted(control: ControlPlane, asked: Body) -> Body:
    """What a metadata server gives: an access token or, for an audience, an identity token."""
    now = control.clock()
    if audience := asked.get("audience"):
        return {"token": iamcredentials.id_token(control, asked["email"], audience, now)}
    return {"token": iamcredentials.access_token(control, asked["email"], asked["seconds"], now)}


def _service(control: ControlPlane, row: Stored) -> Body:
    if row.body.get("uri", "").startswith("https://"):  # made while no data plane was wanted
        run_addresses.show_in(control, row.key, row.body)
        control.store.put(row.key, row.body)
    parts = (*row.body.get("traffic", ()), *row.body.get("trafficStatuses", ()))
    reached = ("", *_tags(parts)) if "uri" in row.body else ()
    addresses = {tag: run_addresses.address_of(control, row.key, tag) for tag in reached}
    revisions = control.store.children(row.key, "run/revisions")
    return {
        **row.body,
        "projectNumber": control.projects.number(row.key.split("/")[2]),
        "revisions": [{**one.body, "digest": one.hidden.get("digest", "")} for one in revisions],
        "addresses": addresses,
        "tagUrls": [run_addresses.url_of(control, row.key, tag) for tag in addresses],
        "invokers": sorted(policies_above.members_with(control, row.key, INVOKE)),
    }


def _tags(parts: tuple[Body, ...]) -> list[str]:
    return list(dict.fromkeys(part["tag"] for part in parts if part.get("tag")))


def _gateway(control: ControlPlane, row: Stored) -> Body | None:
    """A gateway with its config; None while its config has gone."""
    record = control.store.open_operation_on(row.key)
    body = (record or {}).get("after") or row.body
    config = control.find(f"apigateway/{control.projects.normal(body['apiConfig'])}")
    if config is None or not config.body.get("openapiDocuments"):
        return None
    return {
        "name": row.body["name"],
        "config": config.key.split("/", 1)[1],
        "document": config.body["openapiDocuments"][0]["document"]["contents"],
        "service_account": config.body["gatewayServiceAccount"].removeprefix(_ACCOUNTS),
        "address": run_addresses.address_of(control, row.key),
    }


def _operation(control: ControlPlane, record: Record) -> dict[str, Any]:
    row = control.find(record["target"])
    is_build = record["effect"] == "build" and row is not None
    return {
        "key": record["key"],
        "subject": record["target"].split("/", 1)[1],
        "build": row.body if is_build and row else None,
    }
