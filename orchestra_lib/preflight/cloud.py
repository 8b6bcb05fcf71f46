"""All that Google Cloud, or the local target, can be asked before anything is changed, in the order of need."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from orchestra_lib.checks import checks, forbidden
from orchestra_lib.cloud.client import Client
from orchestra_lib.cloud.place import Place
from orchestra_lib.cloud.plan import CloudPlan, make_plan
from orchestra_lib.cloud.posture import posture
from orchestra_lib.cloud.resource import Resource
from orchestra_lib.cloud.target import Target
from orchestra_lib.errors import OrchestraError, ParameterError
from orchestra_lib.evidence import Source, Verdict
from orchestra_lib.preflight.check import Check, guarded, judged, noted
from orchestra_lib.preflight.existing import CREATES, NAMES, create_checks, name_checks
from orchestra_lib.preflight.facts import AREA as FACTS
from orchestra_lib.preflight.facts import Standing, read_facts
from orchestra_lib.preflight.identity import AREA as IDENTITY
from orchestra_lib.preflight.identity import identity_checks
from orchestra_lib.preflight.parameters import fact_checks
from orchestra_lib.preflight.services import AREA as SERVICES
from orchestra_lib.preflight.services import service_checks
from orchestra_lib.preflight.wanted import made_by_us, wanted
from orchestra_lib.rules import LIVE
from orchestra_lib.settings import Settings

PLAN, LIMITS, POSTURE = "plan", "organisation", "posture"
_NO_PLAN = CloudPlan((), {})
_FIRST_KINDS = ("project", "billing", "service")


def cloud_checks(target: Target, settings: Settings, document: Mapping[str, Any], where: str) -> tuple[Check, ...]:
    """Evidence for everything that can be read now. Changes nothing; what refuses to be read is a failed row."""
    place = Place.of(settings, target)
    identity = guarded(
        IDENTITY, "the target answers", place.source, lambda: identity_checks(target, place.project, place.source)
    )
    if any(row.evidence.verdict is Verdict.FAIL for row in identity):
        told = "left out, because nothing answers us"
        return (*identity, noted(IDENTITY, "every further check", place.source, told))
    client = Client(target)
    looked = _look(client, settings, place.source)
    rows = [*identity, *looked.rows]
    rows += guarded(LIMITS, "the organisation can be asked", place.source, lambda: _limits(client, place, looked.plan))
    if not looked.plan.steps:
        return tuple(rows)
    for area, claim, found in (
        (SERVICES, "the services can be asked", lambda: _services(client, settings, place, looked.plan)),
        (NAMES, "what is there can be read", lambda: name_checks(place, looked.plan, made_by_us(settings))),
        (
            FACTS,
            "zones, quotas and policies can be read",
            lambda: _facts(client, settings, place, looked, document, where),
        ),
        (CREATES, "creates can be checked", lambda: create_checks(client, place, looked.plan)),
        (POSTURE, "the project's roles, keys and firewall can be read", lambda: _posture(client, place, looked.plan)),
    ):
        rows += guarded(area, claim, place.source, found)
    return tuple(rows)


@dataclass(frozen=True)
class _Looked:
    """The plan of all phases or, where something cannot be read, of the project and its services alone.

    ``left_out`` are then the others: nothing is known of what there is of them.
    """

    plan: CloudPlan
    left_out: tuple[Resource, ...] = ()
    rows: tuple[Check, ...] = ()


def _look(client: Client, settings: Settings, source: Source) -> _Looked:
    try:
        resources = wanted(settings)
    except ParameterError:
        return _Looked(_NO_PLAN)  # what is left open is a row already
    claim = "the live state of the plan can be read"
    try:
        plan = make_plan(client, resources)
    except OrchestraError as error:
        failed = judged(PLAN, claim, source, False, str(error))
        first = [one for one in resources if one.kind in _FIRST_KINDS]
        try:
            return _Looked(make_plan(client, first), tuple(one for one in resources if one not in first), (failed,))
        except OrchestraError:
            return _Looked(_NO_PLAN, resources, (failed,))
    told = f"{len(plan.steps)} resources of the phases with a blueprint"
    return _Looked(plan, (), (judged(PLAN, claim, source, True, told),))


def _limits(client: Client, place: Place, plan: CloudPlan) -> Iterator[Check]:
    for row in checks(client, place, plan):
        yield Check(LIMITS, row)


def _services(client: Client, settings: Settings, place: Place, plan: CloudPlan) -> Iterator[Check]:
    standing = Standing.of(plan)
    if settings.services is None or settings.regions is None:
        return
    planned = sorted({name for names in settings.services.model_dump().values() for name in names})
    if not standing.project_exists:
        told = "one read of each, once the project is there"
        yield noted(SERVICES, "services of the plan", place.source, len(planned), "services", told)
        return
    yield from service_checks(client, place, settings.regions.primary, planned, standing.enabled)


def _facts(
    client: Client, settings: Settings, place: Place, looked: _Looked, document: Mapping[str, Any], where: str
) -> Iterator[Check]:
    asked = {str(read.key) for rule in LIVE for read in rule.reads.values() if read.live and read.place == "policies"}
    facts = read_facts(client, settings, place, looked.plan, asked)
    yield from facts.checks(place.source)
    yield from fact_checks(document, LIVE, where, facts.live, place.source)
    for row in forbidden(looked.left_out, facts.live.policies or {}, place.source):
        yield Check(LIMITS, row)


def _posture(client: Client, place: Place, plan: CloudPlan) -> Iterator[Check]:
    """Of a project that is there; one that will be made is checked by the phase that makes it."""
    there = [step.wanted for step in plan.steps if step.live]
    needed = {"iam", "compute"}
    if needed <= Standing.of(plan).enabled:
        for row in posture(client, place, there):
            yield Check(POSTURE, row)
