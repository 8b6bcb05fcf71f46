"""What rules may know of Google Cloud beyond the settings: zones, quotas, policies, flags, read in parallel."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from orchestra_lib.cloud.client import Client, Snapshot
from orchestra_lib.cloud.place import Place
from orchestra_lib.cloud.plan import CloudPlan
from orchestra_lib.cloud.refusals import CloudRefused
from orchestra_lib.evidence import Source
from orchestra_lib.preflight.check import Check, judged, noted
from orchestra_lib.rules import CONSTRAINTS, Policy
from orchestra_lib.rules.facts import LiveFacts
from orchestra_lib.settings import Settings

AREA = "facts"
_AT_ONCE = 8


@dataclass(frozen=True)
class Standing:
    """How far the environment is: whether its project is there, and which services it has enabled."""

    project_exists: bool
    enabled: frozenset[str]

    @classmethod
    def of(cls, plan: CloudPlan) -> Standing:
        """As a plan that was just made has found it."""
        live = [step for step in plan.steps if step.live]
        services = (step.wanted.id.removesuffix(".googleapis.com") for step in live if step.wanted.kind == "service")
        return cls(any(step.wanted.kind == "project" for step in live), frozenset(services))


@dataclass(frozen=True)
class Facts:
    """What was read, and for each thing that could not be read, why."""

    live: LiveFacts
    regions: Mapping[str, bool]
    unread: Mapping[str, str]

    def checks(self, source: Source) -> Iterator[Check]:
        """The regions that are there or are not, and what could not be read."""
        for region, there in self.regions.items():
            yield judged(AREA, f"the region {region} is there", source, there, "" if there else "correct regions.*")
        for why in dict.fromkeys(self.unread.values()):
            names = [name.replace("_", " ") for name, reason in self.unread.items() if reason == why]
            yield noted(AREA, ", ".join(names), source, "not read", note=why)


def read_facts(client: Client, settings: Settings, place: Place, plan: CloudPlan, constraints: Iterable[str]) -> Facts:
    """Everything that can be read now; what cannot is left out with the reason, and no rule is judged by it.

    ``constraints``: those beyond the plan's own that a rule asks for, without ``constraints/``.
    """
    standing, reader = Standing.of(plan), _Reader(Snapshot(client), settings, place)
    ids = sorted({*(one.id for one in CONSTRAINTS), *constraints})
    parent = f"projects/{place.project}" if standing.project_exists else f"organizations/{place.organization}"
    jobs: dict[str, Callable[[], Any]] = {"policies": lambda: reader.policies(parent, ids)}
    later = {}
    for name, service, read in (
        ("accelerator_types", "compute", reader.accelerator_types),
        ("machine_types", "compute", reader.machine_types),
        ("quota_left", "compute", reader.quota_left),
        ("regions", "compute", reader.regions),
        ("database_flags", "alloydb", reader.database_flags),
    ):
        if service in standing.enabled:
            jobs[name] = read
        else:
            later[name] = f"{service} is not enabled in {place.project} yet: phase 1 does it, run this again after it"
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        results = dict(zip(jobs, pool.map(_or_refusal, jobs.values()), strict=True))
    read_: dict[str, Any] = {name: value for name, value in results.items() if not isinstance(value, CloudRefused)}
    unread = {name: str(value) for name, value in results.items() if isinstance(value, CloudRefused)}
    regions = read_.pop("regions", {})
    return Facts(LiveFacts(**read_, **_there(plan)), regions, {**later, **unread})


def _there(plan: CloudPlan) -> dict[str, Any]:
    """The cluster and the configuration of the workstations as they are; empty where there are none."""
    names = {"workstation cluster": "workstation_cluster", "workstation configuration": "workstation_configuration"}
    return {
        names[step.wanted.kind]: step.live.body if step.live else {} for step in plan.steps if step.wanted.kind in names
    }


def _or_refusal(read: Callable[[], Any]) -> Any:
    try:
        return read()
    except CloudRefused as error:
        return error


class _Reader:
    """Each method is one fact. Raises CloudRefused when it may not be read."""

    def __init__(self, client: Snapshot, settings: Settings, place: Place) -> None:
        self._client, self._settings, self._project = client, settings, f"projects/{place.project}"
        regions = settings.regions
        self._regions: tuple[str, ...] = (regions.primary, regions.secondary) if regions else ()

    def policies(self, parent: str, ids: Iterable[str]) -> Mapping[str, Policy]:
        collection = parent.split("/", maxsplit=1)[0]
        found = {}
        for constraint in ids:
            path = f"{parent}/policies/{constraint}:getEffectivePolicy"
            method_id = f"orgpolicy.{collection}.policies.getEffectivePolicy"
            try:
                found[constraint] = Policy.from_json(self._client.call("orgpolicy.v2", method_id, path))
            except CloudRefused as error:
                if not error.is_absence:  # a constraint that this organisation does not know forbids nothing
                    raise
        return found

    def accelerator_types(self) -> Mapping[str, frozenset[str]]:
        return self._by_zone("acceleratorTypes", {})

    def machine_types(self) -> Mapping[str, frozenset[str]]:
        """Of the machines that are planned alone: a zone has some hundreds."""
        wanted = self._settings.workstations
        machines = sorted({wanted.development.machine_type, wanted.boost.machine_type}) if wanted else ()
        found: dict[str, frozenset[str]] = {}
        for machine in machines:
            for zone, names in self._by_zone("machineTypes", {"filter": f"name = {machine}"}).items():
                found[zone] = found.get(zone, frozenset()) | names
        return found

    def quota_left(self) -> Mapping[str, float]:
        project = self._client.call("compute.v1", "compute.projects.get", self._project)
        region = self._client.call("compute.v1", "compute.regions.get", f"{self._project}/regions/{self._regions[0]}")
        rows = (*project.get("quotas", ()), *region.get("quotas", ()))
        return {str(row["metric"]): float(row["limit"]) - float(row["usage"]) for row in rows}

    def regions(self) -> Mapping[str, bool]:
        answer = self._client.call("compute.v1", "compute.regions.list", f"{self._project}/regions")
        there = {str(row["name"]) for row in answer.get("items", ())}
        return {region: region in there for region in self._regions}

    def database_flags(self) -> Mapping[str, Mapping[str, Any]]:
        """The flags of the version that is planned."""
        path = f"{self._project}/locations/{self._regions[0]}/supportedDatabaseFlags"
        method_id, query = "alloydb.projects.locations.supportedDatabaseFlags.list", {"pageSize": "1000"}
        alloydb = self._settings.memory.alloydb
        rows: list[Mapping[str, Any]] = []
        while True:
            page = self._client.call("alloydb.v1", method_id, path, query=query)
            rows += page.get("supportedDatabaseFlags", ())
            if not page.get("nextPageToken"):
                break
            query = {**query, "pageToken": page["nextPageToken"]}
        return {
            str(row["flagName"]): row
            for row in rows
            if alloydb is None
            or alloydb.database_version in row.get("supportedDbVersions", (alloydb.database_version,))
        }

    def _by_zone(self, collection: str, query: Mapping[str, str]) -> dict[str, frozenset[str]]:
        method_id, found = f"compute.{collection}.aggregatedList", dict[str, frozenset[str]]()
        asked = dict(query)
        while True:
            page = self._client.call("compute.v1", method_id, f"{self._project}/aggregated/{collection}", query=asked)
            for scope, row in page.get("items", {}).items():
                zone = scope.removeprefix("zones/")
                found[zone] = found.get(zone, frozenset()) | {str(one["name"]) for one in row.get(collection, ())}
            if not page.get("nextPageToken"):
                return found
            asked = {**query, "pageToken": page["nextPageToken"]}
