"""A Cloud Run service as a rollout sees it: its revisions, which of them gets how much of the traffic, its addresses.

https://cloud.google.com/run/docs/rollouts-rollbacks-traffic-migration
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestra_lib.cloud.client import Client
from orchestra_lib.errors import GateFailed
from orchestra_lib.evidence import canonical_json

WHOLE = 100
_API, _COLLECTION = "run.v2", "run.projects.locations.services"
_TIMEOUT_SECONDS = 600.0  # a startup probe waits for 240 s at most, and an image is pulled before it
_BY_REVISION = "TRAFFIC_TARGET_ALLOCATION_TYPE_REVISION"
_DIGITS, _RANDOM_DIGITS = 8, 4  # a revision's name has at most 63 characters, a service's 49


@dataclass(frozen=True)
class Share:
    """A revision's part of the traffic in percent, and the tag under which it has an address of its own."""

    revision: str
    percent: int
    tag: str = ""


def revision_name(service: str, template: Mapping[str, Any]) -> str:
    """A name for a new revision of a template.

    It tells which template the revision is of, and no two are alike: one that failed to start is tried again under
    another name.
    """
    return f"{service}-{_digest(template)}-{uuid.uuid4().hex[:_RANDOM_DIGITS]}"


def told(percents: Mapping[str, int]) -> str:
    """Who gets how much of the traffic, in words."""
    return ", ".join(f"{percent} % to {revision}" for revision, percent in percents.items()) or "to nobody"


def is_revision_of(revision: str, template: Mapping[str, Any]) -> bool:
    """Whether a revision was made from this template, by its name."""
    return revision.rpartition("-")[0].endswith(f"-{_digest(template)}")


class RunService:
    """One service, by its full name ``projects/…/locations/…/services/…``. Changes wait until they are in effect.

    Everything raises CloudRefused for what Google Cloud refuses, TargetUnreachable when it does not answer.
    """

    def __init__(self, client: Client, name: str) -> None:
        self._client = client
        self.name = name

    @property
    def id(self) -> str:
        """The last part of the name."""
        return self.name.rsplit("/", 1)[1]

    def body(self) -> dict[str, Any]:
        """The service as it is."""
        return self._client.call(_API, f"{_COLLECTION}.get", self.name)

    def uri(self, tag: str = "") -> str:
        """The address of the service, or that of a tag. Raises GateFailed for a tag that there is not."""
        body = self.body()
        if not tag:
            return str(body["uri"])
        found = [str(part["uri"]) for part in body.get("trafficStatuses", ()) if part.get("tag") == tag]
        if not found:
            raise GateFailed(f"{self.id} has no revision with the tag {tag}: direct traffic with it first")
        return found[0]

    def shares(self) -> tuple[Share, ...]:
        """Where the traffic goes, by revision; "the latest" by its name."""
        body = self.body()
        latest = str(body.get("latestReadyRevision", ""))
        return tuple(
            Share(_last(str(part.get("revision") or latest)), int(part.get("percent", 0)), str(part.get("tag", "")))
            for part in body.get("trafficStatuses", ())
        )

    def percents(self) -> dict[str, int]:
        """How much of the traffic each revision gets, in percent; those that get none are left out."""
        found: dict[str, int] = {}
        for share in self.shares():
            if share.percent:
                found[share.revision] = found.get(share.revision, 0) + share.percent
        return found

    def serving(self) -> str:
        """The one revision that gets everything. Raises GateFailed when it is divided."""
        percents = self.percents()
        if len(percents) != 1:
            _, project, _, region, *_ = self.name.split("/")
            where = f"--region {region} --project {project}"
            raise GateFailed(
                f"the traffic of {self.id} goes {told(percents)}: send all of it to one revision first: "
                f"gcloud run services update-traffic {self.id} --to-revisions NAME={WHOLE} {where}"
            )
        return next(iter(percents))

    def environment(self, revision: str) -> dict[str, str]:
        """The plain variables of a revision's container, by name."""
        found = self._client.call(_API, f"{_COLLECTION}.revisions.get", f"{self.name}/revisions/{revision}")
        return {one["name"]: str(one.get("value", "")) for one in found["containers"][0].get("env", ())}

    def deploy(self, template: Mapping[str, Any], revision: str, shares: Sequence[Share]) -> None:
        """Make a revision with this name and direct the traffic, and wait until its startup probe has passed."""
        body = {"template": {**template, "revision": revision}, "traffic": _traffic(shares)}
        self._patch(f"deploy {revision}", body)

    def direct(self, shares: Sequence[Share]) -> None:
        """Direct the traffic."""
        wanted = ", ".join(f"{share.percent} % to {share.revision}" for share in shares)
        self._patch(f"direct {wanted}", {"traffic": _traffic(shares)})

    def _patch(self, what: str, body: Mapping[str, Any]) -> None:
        operation = self._client.call(
            _API, f"{_COLLECTION}.patch", self.name, body=body, query={"updateMask": ",".join(body)}
        )
        self._client.finish(_API, f"{self.id}: {what}", operation, _TIMEOUT_SECONDS)


def _traffic(shares: Sequence[Share]) -> list[dict[str, Any]]:
    return [
        {
            "type": _BY_REVISION,
            "revision": one.revision,
            "percent": one.percent,
            **({"tag": one.tag} if one.tag else {}),
        }
        for one in shares
    ]


def _digest(template: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical_json(template).encode()).hexdigest()[:_DIGITS]


def _last(name: str) -> str:
    return name.rsplit("/", 1)[-1]
