"""Which services a project has enabled. https://cloud.google.com/service-usage/docs/reference/rest"""

from __future__ import annotations

import re
from typing import Any

from orchestra_lib.local.control import filters, operations
from orchestra_lib.local.control.call import Call, digits
from orchestra_lib.local.control.faults import Fault, bad_field
from orchestra_lib.local.control.kinds import Body, Service
from orchestra_lib.local.control.operation_styles import bare
from orchestra_lib.local.control.operations import Record, Style
from orchestra_lib.local.control.pages import page

_HOST = re.compile(r"^[a-z][a-z0-9-]*\.googleapis\.com$")
_MOST_AT_ONCE = 20
# Cost nothing by themselves: every other service wants a billing account behind the project.
_WITHOUT_BILLING = frozenset(
    {
        "cloudbilling",
        "cloudresourcemanager",
        "iam",
        "iamcredentials",
        "logging",
        "monitoring",
        "orgpolicy",
        "serviceusage",
        "sts",
    }
)


def _get(call: Call) -> Body:
    return _shown(call, call.path.rsplit("/", 1)[1])


def _list(call: Call) -> Body:
    """Every service that can be told of, enabled or not, filtered by ``state:ENABLED``."""
    project = str(call.project)
    matches = filters.compiled(call.query.get("filter", ""))
    prefix = f"serviceusage/projects/{project}/services/"
    stored = {row.key.removeprefix(prefix) for row in call.control.store.below(prefix)}
    hosts = stored | {f"{name}.googleapis.com" for name in call.control.catalog.services}
    rows = [body for host in sorted(hosts) if matches(body := _shown(call, host))]
    shown, token = page(rows, call.query)
    return {**({"services": shown} if shown else {}), **({"nextPageToken": token} if token else {})}


def _batch_get(call: Call) -> Body:
    return {"services": [_shown(call, name.rsplit("/", 1)[1]) for name in call.repeated.get("names", [])]}


def _enable(call: Call) -> Body:
    return _change(call, [call.path.rsplit("/", 1)[1]], "ENABLED", batch=False)


def _batch_enable(call: Call) -> Body:
    hosts = list((call.body or {}).get("serviceIds", ()))
    if not 0 < len(hosts) <= _MOST_AT_ONCE:
        raise bad_field("service_ids", f"The number of services must be between 1 and {_MOST_AT_ONCE}.")
    return _change(call, hosts, "ENABLED", batch=True)


def _disable(call: Call) -> Body:
    return _change(call, [call.path.rsplit("/", 1)[1]], "DISABLED", batch=False)


def _change(call: Call, hosts: list[str], state: str, *, batch: bool) -> Body:
    project = str(call.project)
    unknown = [host for host in hosts if not _HOST.match(host)]
    if unknown:
        raise Fault(
            "PERMISSION_DENIED",
            f"Not found or permission denied for service(s): {', '.join(unknown)}.",
            reason="SERVICE_CONFIG_NOT_FOUND_OR_PERMISSION_DENIED",
        )
    if state == "ENABLED":
        _require_billing(call, project, hosts)
    word = "Enable" if state == "ENABLED" else "Disable"
    services = [{**_shown(call, host), "state": state} for host in hosts]
    kind = f"type.googleapis.com/google.api.serviceusage.{call.api.version}"
    answer = (
        {"@type": f"{kind}.BatchEnableServicesResponse", "services": services}
        if batch
        else {"@type": f"{kind}.{word}ServiceResponse", "service": services[0]}
    )
    return operations.start(
        call,
        f"serviceusage/projects/{project}/services/{hosts[0]}",
        word.lower(),
        message_type=f"{kind}.Service",
        effect="change",
        answer=answer,
        after={"project": project, "hosts": hosts, "state": state},
    )


def _require_billing(call: Call, project: str, hosts: list[str]) -> None:
    charged = [host for host in hosts if host.removesuffix(".googleapis.com") not in _WITHOUT_BILLING]
    row = call.control.store.get(f"cloudbilling/projects/{project}/billingInfo")
    if charged and not call.control.permissive and not (row and row.body.get("billingAccountName")):
        number = call.control.projects.number(project)
        raise Fault(
            "FAILED_PRECONDITION",
            f"Billing account for project '{number}' is not found. Billing must be enabled for activation of "
            f"service(s) '{','.join(charged)}' to proceed.",
        )


def _take_effect(control: Any, record: Record) -> None:
    after = record["after"]
    for host in after["hosts"]:
        control.store.put(f"serviceusage/projects/{after['project']}/services/{host}", {"state": after["state"]})


def _generate_identity(call: Call) -> Body:
    """The service agent of a service. It exists from then on."""
    host = call.path.rsplit("/", 1)[1]
    name, number = host.removesuffix(".googleapis.com"), call.project_number
    identity = {
        "@type": "type.googleapis.com/google.api.serviceusage.v1beta1.ServiceIdentity",
        "email": f"service-{number}@gcp-sa-{name}.iam.gserviceaccount.com",
        "uniqueId": digits(f"{host} {number}", 21),
    }
    kind = "type.googleapis.com/google.api.serviceusage.v1beta1.ServiceIdentity"
    return operations.start(call, call.key, "generate", message_type=kind, effect="none", answer=identity, ended=True)


def _shown(call: Call, host: str) -> Body:
    project = str(call.project)
    number = call.control.projects.number(project)
    row = call.control.store.get(f"serviceusage/projects/{project}/services/{host}")
    permissive_default = call.control.permissive and row is None
    enabled = not permissive_default and call.control.projects.enabled(project, host.removesuffix(".googleapis.com"))
    body: Body = {
        "name": f"projects/{number}/services/{host}",
        "config": {"name": host, "title": _title(call, host)},
        "state": "ENABLED" if enabled and (row is None or row.body["state"] == "ENABLED") else "DISABLED",
    }
    if row or enabled:
        body["parent"] = f"projects/{number}"
    return body


def _title(call: Call, host: str) -> str:
    name = host.removesuffix(".googleapis.com")
    titles = [api.title for (service, _), api in call.control.catalog.apis.items() if service == name]
    return titles[-1] if titles else f"{name} API"


def _metadata(_control: Any, record: Record) -> Body | None:
    if record["ended"] is None and record["verb"] == "enable":
        return None
    return {"@type": "type.googleapis.com/google.protobuf.Empty", "value": {}}


SERVICE = Service(
    name="serviceusage",
    methods={
        "services.get": _get,
        "services.list": _list,
        "services.batchGet": _batch_get,
        "services.enable": _enable,
        "services.batchEnable": _batch_enable,
        "services.disable": _disable,
        "services.generateServiceIdentity": _generate_identity,
    },
    effects={"change": _take_effect},
    operations=Style(bare("acat.p2"), _metadata),
    permissions={
        "services.batchEnable": "serviceusage.services.enable",
        "services.batchGet": "serviceusage.services.get",
    },
    not_in_projects=True,
)
