"""What a phase stands on: looked for, and in a rehearsal made where it is missing, as phase 1 would have made it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from orchestra_lib.cloud.client import Client
from orchestra_lib.cloud.journal import Journal
from orchestra_lib.cloud.place import Place
from orchestra_lib.cloud.plan import CloudPlan, Step, make_plan
from orchestra_lib.cloud.resource import Resource
from orchestra_lib.evidence import Bound, Evidence
from orchestra_lib.plan import Verb

_FEW = 3


def foundation_check(place: Place, foundation: Sequence[Resource], plan: CloudPlan, *, applying: bool) -> Evidence:
    """Whether everything of phase 1 that a phase stands on is there; a plan alone may be made without it."""
    live = plan.live()
    missing = [one for one in foundation if live.get(one.key) is None]
    note = f"{len(foundation)} looked for"
    if missing:
        note = f"{_named(missing)}: run 01_infrastructure first"
    return Evidence(_CLAIM, place.source, len(missing), "", Bound("==", 0) if applying else None, note=note)


def rehearsal_check(place: Place, foundation: Sequence[Resource], missing: CloudPlan) -> Evidence:
    """The same in a rehearsal, which makes what is missing: a reading."""
    wanted = [step.wanted for step in missing.steps if step.verb is not Verb.KEEP]
    note = f"{len(foundation)} looked for"
    if wanted:
        note = f"{_named(wanted)}: the rehearsal makes them first, in the journal of phase 1"
    return Evidence(_CLAIM, place.source, len(wanted), note=note)


def missing_foundation(client: Client, foundation: Sequence[Resource], journal: Journal) -> CloudPlan:
    """The plan that makes what is missing of a foundation and leaves alone what is there, as wanted or not.

    ``foundation`` as phase 1 wants it, and phase 1's journal. Reads only.
    """
    whole = make_plan(client, foundation, journal.applied(), may_destroy={one.id for one in foundation})
    return CloudPlan(tuple(step if _is_missing(step) else _kept(step) for step in whole.steps), whole.aliases)


_CLAIM = "resources of phase 1 that this phase stands on and that are missing"


def _is_missing(step: Step) -> bool:
    if step.wanted.kind == "billing":
        return step.live is None or not step.live.body.get("billingAccountName")
    return step.live is None


def _kept(step: Step) -> Step:
    return replace(step, verb=Verb.KEEP, diffs=())


def _named(resources: Sequence[Resource]) -> str:
    names = ", ".join(f"{one.kind} {one.id}" for one in resources[:_FEW])
    return f"{names}{' and more' if len(resources) > _FEW else ''}"
