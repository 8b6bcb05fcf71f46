"""Cloud Run's services and worker pools: a change of their template makes a revision, and traffic goes to revisions.

https://cloud.google.com/run/docs/managing/revisions and https://cloud.google.com/run/docs/rollouts-rollbacks-traffic-migration
"""

from __future__ import annotations

import hashlib
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestra_lib.local.control import checks
from orchestra_lib.local.control.call import Call, timestamp
from orchestra_lib.local.control.faults import Fault, bad_field
from orchestra_lib.local.control.kinds import Body, Each, fill_missing
from orchestra_lib.local.control.operations import Record
from orchestra_lib.local.control.services import artifactregistry, run_addresses, run_data_plane
from orchestra_lib.local.control.services import run_templates as templates
from orchestra_lib.local.control.shapes import etag_of
from orchestra_lib.local.control.store import Stored

if TYPE_CHECKING:
    from orchestra_lib.local.control.control import ControlPlane

_PORT = 8080
_LONGEST_REQUEST_SECONDS = 3600
_MOST_CONCURRENT = 1000
_TAG_SEPARATOR = "---"
_TAG = "[a-z]([a-z0-9-]{0,44}[a-z0-9])?"
_PROBE = {"failureThreshold": 1, "periodSeconds": 240, "timeoutSeconds": 240}
_ACTIONS = frozenset({"grpc", "httpGet", "tcpSocket"})
_TRAFFIC, _INSTANCES = "TRAFFIC_TARGET_ALLOCATION_TYPE", "INSTANCE_SPLIT_ALLOCATION_TYPE"

SERVICE_DEFAULTS: Body = {
    "ingress": "INGRESS_TRAFFIC_ALL",
    "launchStage": "GA",
    "template": {
        "timeout": "300s",
        "scaling": {"maxInstanceCount": 100},
    },
}
POOL_DEFAULTS: Body = {
    "launchStage": "GA",
    "scaling": {"manualInstanceCount": 1},
    "template": {"containers": Each({"resources": {"limits": templates.LIMITS}})},
}


@dataclass(frozen=True)
class Division:
    """How something is divided among revisions: the field, its statuses, and the words of its types."""

    field: str
    statuses: str
    prefix: str

    @property
    def latest(self) -> str:
        """To whatever revision is the latest that is ready."""
        return f"{self.prefix}_LATEST"

    @property
    def fixed(self) -> str:
        """To a revision that is named."""
        return f"{self.prefix}_REVISION"


TRAFFIC = Division("traffic", "trafficStatuses", _TRAFFIC)
SPLITS = Division("instanceSplits", "instanceSplitStatuses", _INSTANCES)


# --- services -----------------------------------------------------------------------------------------------------


def check_service(call: Call, body: Body, _before: Body | None) -> None:
    """Raise Fault (400) for a service that could not be rolled out."""
    template = body["template"]
    templates.check_template(template, "template", body)
    limits = {**templates.LIMITS, **_first(template).get("resources", {}).get("limits", {})}
    concurrency = template.get("maxInstanceRequestConcurrency", 0)
    if not 0 <= concurrency <= _MOST_CONCURRENT:
        raise bad_field("template.max_instance_request_concurrency", f"Use 1 to {_MOST_CONCURRENT}, not {concurrency}.")
    if concurrency > 1 and templates.cpus(limits["cpu"]) < 1:
        raise bad_field("template.max_instance_request_concurrency", "Less than 1 CPU serves one request at a time.")
    seconds = float(template.get("timeout", "300s").removesuffix("s"))
    if not 0 < seconds <= _LONGEST_REQUEST_SECONDS:
        raise bad_field("template.timeout", f"A request takes at most {_LONGEST_REQUEST_SECONDS}s, not {seconds:g}s.")
    scaling = template.get("scaling", {})
    most = scaling.get("maxInstanceCount") or SERVICE_DEFAULTS["template"]["scaling"]["maxInstanceCount"]
    if scaling.get("minInstanceCount", 0) > most:
        raise bad_field("template.scaling", f"The least number of instances is greater than the greatest, {most}.")
    _check_division(call, body, TRAFFIC)


def fill_service(call: Call, body: Body, before: Body | None) -> None:
    """The ports and probes of the container that serves, the revision to come, the traffic and the addresses."""
    template = body["template"]
    serving = _first(template)
    for container in template["containers"]:
        # Who says anything of the resources says it of the CPU too: it is allocated always unless it is to idle.
        container.setdefault("resources", {"cpuIdle": True, "startupCpuBoost": True})
        fill_missing(container["resources"], {"limits": templates.LIMITS})
    if not any("ports" in container for container in template["containers"]):
        serving["ports"] = [{"name": "http1", "containerPort": _PORT}]
    for container in template["containers"]:
        for port in container.get("ports", ()):
            fill_missing(port, {"name": "http1", "containerPort": _PORT})
            container.setdefault("startupProbe", dict(_PROBE))
            if not _ACTIONS & container["startupProbe"].keys():
                container["startupProbe"]["tcpSocket"] = {"port": port["containerPort"]}
    if not template.get("maxInstanceRequestConcurrency"):
        small = templates.cpus(serving["resources"]["limits"].get("cpu", "1")) < 1
        template["maxInstanceRequestConcurrency"] = 1 if small else 80
    _complete(call, body, before, TRAFFIC)
    name = body["name"].rsplit("/", 1)[1]
    mark = hashlib.sha256(f"{call.project}/{call.location}".encode()).hexdigest()[:10]
    hosts = (
        f"{name}-{call.project_number}.{call.location}.run.app",
        f"{name}-{mark}-{_abbreviated(call.location)}.a.run.app",
    )
    if body.get("defaultUriDisabled"):
        body.pop("uri", None)
        body.pop("urls", None)
        return
    body["urls"] = [f"https://{host}" for host in hosts]
    body["uri"] = body["urls"][1]
    if run_data_plane.is_wanted(call.control) and not call.validate_only:
        run_addresses.show_in(call.control, f"{call.service}/{body['name']}", body)


def finish_service(control: ControlPlane, key: str, body: Body) -> None:
    """A service that is ready serves its latest revision, or what its traffic says."""
    _roll_out(control, key, body, TRAFFIC)
    body["conditions"] = [templates.condition(control, name) for name in ("RoutesReady", "ConfigurationsReady")]
    for status in body["trafficStatuses"]:
        if status.get("tag") and "uri" in body:
            status["uri"] = body["uri"].replace("https://", f"https://{status['tag']}{_TAG_SEPARATOR}", 1)
    if run_data_plane.is_wanted(control):
        run_addresses.show_in(control, key, body)


def fail_service(control: ControlPlane, record: Record) -> None:
    """A roll-out that failed leaves the service, with its traffic where it was, and the revision with the reason."""
    key, message = record["target"], record["error"]["message"]
    row = control.store.get(key)
    if row is None:
        return
    body = dict(row.body)
    body.pop("reconciling", None)
    body["terminalCondition"] = templates.condition(control, "Ready", templates.FAILED, message)
    revision = control.store.get(_latest_created(key, body))
    if revision is not None and _state(revision.body) == templates.PENDING:
        condition = templates.condition(control, "Ready", templates.FAILED, message)
        condition["revisionReason"] = "HEALTH_CHECK_CONTAINER_ERROR"
        control.store.put(revision.key, {**revision.body, "conditions": [condition]})
    control.store.put(key, body)


def _first(template: Body) -> Body:
    """The container that receives requests: the one with a port, or the first."""
    containers: list[Body] = template["containers"]
    return next((one for one in containers if "ports" in one), containers[0])


def _abbreviated(region: str) -> str:
    """``uc`` for ``us-central1``, as it stands in the older form of an address."""
    geography, _, rest = region.partition("-")
    return f"{geography[0]}{rest[:1]}"


# --- worker pools -------------------------------------------------------------------------------------------------


def check_pool(call: Call, body: Body, _before: Body | None) -> None:
    """Raise Fault (400) for a worker pool that could not be rolled out."""
    templates.check_template(body["template"], "template", body)
    _check_division(call, body, SPLITS)


def fill_pool(call: Call, body: Body, before: Body | None) -> None:
    """The revision to come and the split of the instances."""
    _complete(call, body, before, SPLITS)


def finish_pool(control: ControlPlane, key: str, body: Body) -> None:
    """A worker pool that is ready runs its latest revision, or what its splits say."""
    _roll_out(control, key, body, SPLITS)


# --- what both do -------------------------------------------------------------------------------------------------


def _check_division(call: Call, body: Body, division: Division) -> None:
    parts = body.get(division.field, [])
    percent = sum(part.get("percent", 0) for part in parts)
    if parts and percent != 100:
        raise bad_field(division.field, f"The percentages have to sum to 100, not to {percent}.")
    tags = [part["tag"] for part in parts if part.get("tag")]
    if len(tags) != len(set(tags)):
        raise bad_field(division.field, f"A tag names one revision alone: {', '.join(sorted(tags))}.")
    for index, part in enumerate(parts):
        if not 0 <= part.get("percent", 0) <= 100:
            raise bad_field(f"{division.field}[{index}].percent", f"Use 0 to 100, not {part['percent']}.")
        if part.get("tag") and not checks.matches(_TAG, part["tag"]):
            raise bad_field(f"{division.field}[{index}].tag", f"Tag '{part['tag']}' does not match {_TAG}.")
        named = part.get("revision", "")
        if part.get("type") == division.fixed and not named:
            raise bad_field(f"{division.field}[{index}].revision", "A target of this type names a revision.")
        if part.get("type") == division.latest and named:
            raise bad_field(f"{division.field}[{index}].revision", "A target of type LATEST names no revision.")
        if (
            named
            and named != body["template"].get("revision")
            and call.control.find(_revision_key(call, named)) is None
        ):
            raise Fault("FAILED_PRECONDITION", f"Revision '{named}' is not found; {division.field} cannot go to it.")


def _revision_key(call: Call, named: str) -> str:
    owner = call.key if call.segments[-1] not in ("services", "workerPools") else f"{call.key}/new"
    return f"{owner}/revisions/{named.rsplit('/', 1)[-1]}"


def _check_revision_name(call: Call, body: Body, before: Body | None) -> None:
    """Raise Fault for a name that does not begin with the owner's (400), or that another template has (409)."""
    named, owner = body["template"].get("revision"), body["name"].rsplit("/", 1)[1]
    if not named:
        return
    if not named.startswith(f"{owner}-"):
        raise bad_field("template.revision", f"The name of a revision begins with '{owner}-', not like '{named}'.")
    if before and _is_new(call, body, before) and call.control.find(_revision_key(call, named)):
        raise Fault("ALREADY_EXISTS", f"Revision named '{named}' with different configuration already exists.")


def _is_new(call: Call, body: Body, before: Body | None) -> bool:
    """Whether the body wants a revision that there is not yet. What the caller left out does not count."""
    if before is None or call.flag("forceNewRevision"):
        return True
    wanted, present = ({**one["template"], "revision": ""} for one in (body, before))
    renamed = body["template"].get("revision", "") not in ("", before["latestCreatedRevision"].rsplit("/", 1)[1])
    return renamed or wanted != present


def _complete(call: Call, body: Body, before: Body | None, division: Division) -> None:
    template = body["template"]
    fill_missing(template, {"serviceAccount": templates.service_account(call)})
    templates.complete_containers(template)
    _check_revision_name(call, body, before)
    for part in body.get(division.field, ()):
        fill_missing(part, {"type": division.fixed if part.get("revision") else division.latest})
    if not body.get(division.field):
        body[division.field] = [{"type": division.latest, "percent": 100}]
    if _is_new(call, body, before):
        name = body["name"].rsplit("/", 1)[1]
        chosen = template.get("revision") or f"{name}-{int(body['generation']):05d}-{templates.suffix(3)}"
        body["latestCreatedRevision"] = f"{body['name']}/revisions/{chosen}"
        if division is TRAFFIC and not call.validate_only and run_data_plane.is_wanted(call.control):
            _put_pending(call.control, f"{call.service}/{body['name']}", body)
    templates.observe_validated(call, body)


def _roll_out(control: ControlPlane, key: str, body: Body, division: Division) -> None:
    latest = _latest_created(key, body)
    row = control.store.get(latest)
    if row is None:
        control.store.put(latest, _revision(control, key, body, templates.SUCCEEDED))
    elif _state(row.body) == templates.PENDING:
        control.store.put(latest, {**row.body, "conditions": [templates.condition(control, "Ready")]})
    # One that failed stays so: what then succeeded was a change of the traffic alone.
    if row is None or _state(row.body) != templates.FAILED:
        body["latestReadyRevision"] = body["latestCreatedRevision"]
    body["terminalCondition"] = templates.condition(control, "Ready")
    body[division.statuses] = [dict(part) for part in body[division.field]]


def _put_pending(control: ControlPlane, key: str, body: Body) -> None:
    """The revision that the data plane is to start, with the image that its tag means now."""
    image = _first(body["template"])["image"]
    hidden = {"digest": artifactregistry.digest_of(control, image)}
    control.store.put(_latest_created(key, body), _revision(control, key, body, templates.PENDING), hidden)


def _latest_created(key: str, body: Body) -> str:
    return f"{key}/revisions/{body['latestCreatedRevision'].rsplit('/', 1)[1]}"


def _state(revision: Body) -> str:
    return next((str(one["state"]) for one in revision["conditions"] if one["type"] == "Ready"), "")


def _revision(control: ControlPlane, key: str, body: Body, state: str) -> Body:
    now = timestamp(control.clock())
    owner = "service" if key.split("/")[-2] == "services" else "workerPool"
    revision: dict[str, Any] = {
        **{name: value for name, value in body["template"].items() if name != "revision"},
        "name": body["latestCreatedRevision"],
        "uid": str(uuid.uuid4()),
        "generation": "1",
        "observedGeneration": "1",
        "createTime": now,
        "updateTime": now,
        "creator": body["lastModifier"],
        "launchStage": body["launchStage"],
        owner: body["name"],
        "conditions": [templates.condition(control, "Ready", state)],
    }
    revision["etag"] = etag_of(revision)
    return revision


def before_delete_revision(call: Call, row: Stored) -> None:
    """Raise Fault (400) for a revision that is the latest or that something goes to."""
    owner = call.control.find(row.key.rpartition("/revisions/")[0])
    if owner is None:
        return
    name = row.key.rsplit("/", 1)[1]
    parts = owner.body.get("traffic", owner.body.get("instanceSplits", []))
    if owner.body["latestCreatedRevision"].endswith(f"/{name}"):
        raise Fault("FAILED_PRECONDITION", f"Revision '{name}' is the latest one and cannot be deleted.")
    if any(part.get("revision", "").rsplit("/", 1)[-1] == name for part in parts):
        raise Fault("FAILED_PRECONDITION", f"Revision '{name}' is in use and cannot be deleted.")
