"""What the data plane asks the control plane: what there has to be, and what it reports. Dataclasses of one look."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orchestra_lib.local.control_calls import ControlCalls

_EXCHANGE = "_local/run"
_SECRETS = "secretmanager/v1"
_TOKEN_SECONDS = 3600
READY, PENDING, FAILED = "CONDITION_SUCCEEDED", "CONDITION_PENDING", "CONDITION_FAILED"


@dataclass(frozen=True)
class Revision:
    """One revision. ``name`` is its short name, ``container`` the one that serves, as the API has it."""

    service: str
    name: str
    uid: str
    state: str
    """Of its condition ``Ready``."""
    containers: tuple[Mapping[str, Any], ...]
    digest: str
    """``sha256:…`` of the image as it was when the revision was made; empty if there was none."""
    service_account: str
    least: int
    """Instances that are kept."""
    most: int
    concurrency: int
    timeout_seconds: float
    volumes: bool

    @property
    def container(self) -> Mapping[str, Any]:
        """The container that receives requests."""
        return next((one for one in self.containers if "ports" in one), self.containers[0])


@dataclass(frozen=True)
class Target:
    """A share of the traffic, or a tag. ``revision`` is a short name, empty for the latest one that is ready."""

    revision: str
    percent: int
    tag: str


@dataclass(frozen=True)
class Service:
    """A service as the data plane needs it. Names of revisions are short, its own is full."""

    name: str
    uid: str
    project_number: str
    revisions: Mapping[str, Revision]
    latest_created: str
    latest_ready: str
    asked: tuple[Target, ...]
    """Where traffic is to go."""
    routed: tuple[Target, ...]
    """Where it goes since the last change that succeeded."""
    least: int
    """Instances that are kept for the whole service, by the shares of the traffic."""
    addresses: Mapping[str, str]
    """Loopback addresses by tag; that of the service itself by the empty one."""
    audiences: frozenset[str]
    invokers: frozenset[str]
    """Members that may call it, as policies name them."""
    checks_invokers: bool


@dataclass(frozen=True)
class Gateway:
    """A gateway with what its config says. ``document`` is an OpenAPI document in base64."""

    name: str
    config: str
    document: str
    service_account: str
    address: str


@dataclass(frozen=True)
class Operation:
    """An operation that waits for a report. ``subject`` is the full name of what it is about, ``build`` a build."""

    key: str
    subject: str
    build: Mapping[str, Any] | None


@dataclass(frozen=True)
class Snapshot:
    """What the control plane wants there to be, as of one moment."""

    services: Mapping[str, Service]
    gateways: Mapping[str, Gateway]
    operations: tuple[Operation, ...]
    changing: frozenset[str]
    """The full names of what an operation is open on, whether it waits for us or not."""

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to do."""
        return not (self.services or self.gateways or self.operations)


class ControlClient(ControlCalls):
    """The calls that Cloud Run's data plane makes."""

    def snapshot(self) -> Snapshot:
        """Everything that has to be."""
        found = self.call("GET", _EXCHANGE)
        return Snapshot(
            {body["name"]: _service(body) for body in found["services"]},
            {body["name"]: Gateway(**body) for body in found["gateways"]},
            tuple(Operation(**body) for body in found["operations"]),
            frozenset(found["changing"]),
        )

    def report(self, operation: str, error: str | None, outcome: Mapping[str, Any] | None = None) -> None:
        """Say that the data plane has done its part of an operation, or why it could not."""
        self.call("POST", _EXCHANGE, body={"key": operation, "error": error, "outcome": outcome})

    def access_token(self, email: str) -> tuple[str, int]:
        """A token of a service account, and how many seconds it is good for. Raises ControlFault."""
        return self._minted({"email": email, "seconds": _TOKEN_SECONDS}), _TOKEN_SECONDS

    def id_token(self, email: str, audience: str) -> str:
        """A service account's identity for an audience. Raises ControlFault."""
        return self._minted({"email": email, "audience": audience})

    def secret(self, version: str, email: str) -> str:
        """The base64 value of a version of a secret, read as a service account. Raises ControlFault."""
        token, _ = self.access_token(email)
        return str(self.call("GET", f"{_SECRETS}/{version}:access", token=token)["payload"]["data"])

    def _minted(self, asked: Mapping[str, Any]) -> str:
        return str(self.call("POST", _EXCHANGE, body={"mint": asked})["token"])


def _service(body: Mapping[str, Any]) -> Service:
    name, scaling = body["name"], body.get("scaling", {})
    revisions = [_revision(name, revision) for revision in body["revisions"]]
    return Service(
        name=name,
        uid=body["uid"],
        project_number=body["projectNumber"],
        revisions={revision.name: revision for revision in revisions},
        latest_created=_short(body.get("latestCreatedRevision", "")),
        latest_ready=_short(body.get("latestReadyRevision", "")),
        asked=_targets(body.get("traffic", ())),
        routed=_targets(body.get("trafficStatuses", ())),
        least=scaling.get("minInstanceCount", 0),
        addresses=body["addresses"],
        audiences=frozenset((*body.get("urls", ()), *body.get("customAudiences", ()), *body["tagUrls"])),
        invokers=frozenset(body["invokers"]),
        checks_invokers=not body.get("invokerIamDisabled", False),
    )


def _revision(service: str, body: Mapping[str, Any]) -> Revision:
    scaling = body.get("scaling", {})
    states = {one["type"]: one["state"] for one in body.get("conditions", ())}
    return Revision(
        service=service,
        name=_short(body["name"]),
        uid=body["uid"],
        state=states.get("Ready", ""),
        containers=tuple(body["containers"]),
        digest=body["digest"],
        service_account=body["serviceAccount"],
        least=scaling.get("minInstanceCount", 0),
        most=scaling.get("maxInstanceCount", 100),
        concurrency=body.get("maxInstanceRequestConcurrency", 80),
        timeout_seconds=float(body.get("timeout", "300s").removesuffix("s")),
        volumes=bool(body.get("volumes")),
    )


def _targets(parts: Any) -> tuple[Target, ...]:
    return tuple(
        Target(_short(part.get("revision", "")), part.get("percent", 0), part.get("tag", "")) for part in parts
    )


def _short(name: str) -> str:
    return name.rsplit("/", 1)[-1]
