"""What is there already under the names of the plan, and what the services say to what is not there yet."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from orchestra_lib.cloud import access
from orchestra_lib.cloud.client import Client
from orchestra_lib.cloud.kinds import KINDS
from orchestra_lib.cloud.place import Place
from orchestra_lib.cloud.plan import CloudPlan, Step
from orchestra_lib.cloud.resource import resolve
from orchestra_lib.errors import OrchestraError
from orchestra_lib.plan import Verb
from orchestra_lib.preflight.check import Check, judged, none_of, noted

NAMES, CREATES = "names", "creates"
_AT_ONCE = 8
_CHECK_SECONDS = 60.0
_FEW = 5
_KNOWN_LATER = frozenset({"run service"})
"""Kinds whose phase finds out by itself what they are made of: the image is built first."""


def name_checks(place: Place, plan: CloudPlan, ours: Collection[str]) -> Iterator[Check]:
    """Whether the names of the plan are free, ours, or taken by what can be adopted.

    ``ours`` are the keys that the journals know.
    """
    yield _project(place, plan)
    there = [step for step in plan.steps if step.live and step.wanted.kind not in ("project", "billing")]
    replaced = [
        f"{step.wanted.kind} {step.name}: {step.as_change().detail}" for step in plan.steps if step.verb is Verb.REPLACE
    ]
    remedy = "rename it in the parameter file, or delete what is in the way" if replaced else ""
    yield none_of(NAMES, "resources in the way, that would have to be replaced", place.source, replaced, remedy)
    foreign = [
        step for step in there if step.key not in ours and step.wanted.kind not in ("service", "roles", "audit logs")
    ]
    if foreign:
        names = ", ".join(f"{step.wanted.kind} {step.name}" for step in foreign[:_FEW])
        more = f" and {len(foreign) - _FEW} more" if len(foreign) > _FEW else ""
        note = f"{names}{more}; adopted, changed to what is wanted, and left alone by a rollback"
        yield noted(NAMES, "resources that others have made", place.source, len(foreign), note=note)


def _project(place: Place, plan: CloudPlan) -> Check:
    claim = f"the project's id {place.project} is free or ours"
    step = next(step for step in plan.steps if step.wanted.kind == "project")
    if step.live is None:
        note = "no project of that id shows to us: it is free, or somebody else's, which Google does not tell apart"
        return noted(NAMES, claim, place.source, "not there", note=note)
    parent = f"organizations/{place.organization}"
    found = str(step.live.body.get("parent", "nothing"))
    return judged(
        NAMES,
        claim,
        place.source,
        found == parent,
        f"it lies under {found}" + ("" if found == parent else f", not {parent}"),
    )


def create_checks(client: Client, place: Place, plan: CloudPlan) -> Iterator[Check]:
    """Every create that the service checks without making it, where all that it needs is there.

    An answer means "not refused": how deep a service looks is not documented.
    """
    known = [step for step in plan.steps if step.verb is Verb.CREATE and _can_be_asked(step.wanted.kind)]
    ready = [step for step in known if _is_ready(step, plan)]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        answers = list(pool.map(lambda step: _refusal(client, step, plan), ready))
    refused = [(step, words) for step, words in zip(ready, answers, strict=True) if words]
    for step, words in refused:
        yield judged(CREATES, f"{step.wanted.kind} {step.name} would be made", place.source, False, words)
    note = f"{len(ready)} checked by the services, which means not refused"
    if len(ready) < len(known):
        note += f"; {len(known) - len(ready)} need what is not there yet"
    yield none_of(CREATES, "creates that a service refuses", place.source, [step.key for step, _ in refused], note)


def _can_be_asked(kind: str) -> bool:
    return kind not in _KNOWN_LATER and access.can_validate(KINDS[kind])


def _is_ready(step: Step, plan: CloudPlan) -> bool:
    live = plan.live()
    return all(live.get(key) for key in step.wanted.all_needs)


def _refusal(client: Client, step: Step, plan: CloudPlan) -> str:
    wanted = replace(step.wanted, body=resolve(step.wanted.body, plan.live()))
    try:
        answer = access.validate(client, wanted)
        if access.is_operation(answer):
            client.finish(KINDS[wanted.kind].api, f"check {wanted.key}", answer, _CHECK_SECONDS)
    except OrchestraError as error:
        return str(error)
    return ""
