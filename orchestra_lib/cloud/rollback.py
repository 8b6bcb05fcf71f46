"""Undoing and watching: the plan that brings back what the journal says was there, and what has drifted since."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from orchestra_lib.cloud.client import Client
from orchestra_lib.cloud.discovery import has_method, method, without_output_only
from orchestra_lib.cloud.journal import Journal, RecordedChange
from orchestra_lib.cloud.kinds import KINDS
from orchestra_lib.cloud.plan import CloudPlan, Step, comparison, fixed_fields, make_plan, read_live, refuse_destruction
from orchestra_lib.cloud.resource import Live, Resource
from orchestra_lib.plan import Verb


def rollback_plan(
    client: Client, journal: Journal, since_run: str | None = None, may_destroy: Collection[str] = ()
) -> CloudPlan:
    """As :func:`undoing_plan`. Raises GateFailed for data that would be destroyed and ``may_destroy`` does not name."""
    plan = undoing_plan(client, journal, since_run)
    refuse_destruction(plan.steps, may_destroy)
    return plan


def undoing_plan(client: Client, journal: Journal, since_run: str | None = None) -> CloudPlan:
    """The plan that undoes the journal's changes, or those since a run began, whatever data goes with them.

    What was created is deleted; what was changed gets back the fields that were changed; what was adopted is left
    alone. Where the live state is what it was before, nothing is planned, so that asking twice does nothing.
    """
    histories = _histories(journal, since_run)
    live = read_live(client, [_asking(changes) for changes in histories.values()])
    steps = [_undone(changes, live[key]) for key, changes in histories.items()]
    return CloudPlan(tuple(step for step in steps if step is not None), {})


def drift(client: Client, journal: Journal) -> CloudPlan:
    """What differs now from what was applied last: a plan whose every change is a drift. Reads only."""
    last = {change.wanted.key: change.wanted for change in journal.changes if not change.is_open}
    applied = journal.applied()
    resources = [_standalone(resource, applied) for key, resource in last.items() if key in applied]
    return make_plan(client, resources, applied, may_destroy={one.id for one in resources})


def _histories(journal: Journal, since_run: str | None) -> dict[str, list[RecordedChange]]:
    """Our changes of each resource in their order; what was adopted or refused is not ours until we change it."""
    changes = list(journal.changes)
    if since_run is not None:
        first = next((index for index, change in enumerate(changes) if change.run_id == since_run), len(changes))
        changes = changes[first:]
    found: dict[str, list[RecordedChange]] = {}
    for change in changes:
        if change.may_have_happened:
            found.setdefault(change.wanted.key, []).append(change)
    # What we made and deleted again is nothing to undo, and what is there by now is somebody else's.
    return {key: own for key, own in found.items() if own[0].before is not None or journal.is_ours(key)}


def _asking(changes: list[RecordedChange]) -> Resource:
    return changes[-1].wanted


def _undone(changes: list[RecordedChange], live: Live | None) -> Step | None:
    last, before = changes[-1].wanted, changes[0].before
    needs = tuple(dict.fromkeys(need for change in changes for need in change.wanted.all_needs))
    if before is None:
        return None if live is None else Step(replace(last, needs=needs), Verb.DELETE, live)
    kind = KINDS[last.kind]
    if live is None:
        if kind.create is None:
            return None  # it came with its project and is gone with it
        return Step(replace(last, body=_created_again(changes, before), needs=needs), Verb.CREATE, None)
    old = _writable(last, before)
    remade = any(change.verb is Verb.CREATE for change in changes)
    touched = (*old, *last.body) if remade else [name for change in changes for name in change.fields]
    touched = [name for name in touched if name not in kind.create_only]
    kept = {name: value for name, value in last.body.items() if name in kind.identity}
    body = {**kept, **{name: old[name] for name in touched if name in old}}
    # What we have put into a field beside what was there goes again, such as one label of several.
    ours = {name: value for change in changes for name, value in change.wanted.body.items() if name in touched}
    cleared = {name: ours.get(name) if name in body else live.body.get(name) for name in touched}
    diffs = comparison(kind, {}).differences(body, live.body, cleared)
    if not diffs:
        return None
    in_place = not {diff.field for diff in diffs} & fixed_fields(kind)
    wanted = replace(last, body=body if in_place else _created_again(changes, before), needs=needs)
    return Step(wanted, Verb.UPDATE if in_place else Verb.REPLACE, live, diffs, cleared)


def _created_again(changes: Sequence[RecordedChange], before: Mapping[str, Any]) -> dict[str, Any]:
    """A body to make it with as it was. What is given at creation only is given as it was the last time."""
    create_only = KINDS[changes[-1].wanted.kind].create_only
    given = {name: value for one in changes for name, value in one.wanted.body.items() if name in create_only}
    old = _writable(changes[-1].wanted, before)
    return {name: value for name, value in old.items() if name not in create_only} | given


def _writable(wanted: Resource, body: Mapping[str, Any]) -> dict[str, Any]:
    """A live body as it can be sent again."""
    kind = KINDS[wanted.kind]
    body = {name: _without(value, kind.generated) for name, value in body.items()}
    call = f"{kind.collection}.get"
    if kind.access in ("standard", "service account", "project") and has_method(kind.api, call):
        return without_output_only(kind.api, str(method(kind.api, call).response), body)
    return dict(body)


def _without(value: Any, names: Collection[str]) -> Any:
    if isinstance(value, Mapping):
        return {name: _without(item, names) for name, item in value.items() if name not in names}
    return [_without(item, names) for item in value] if isinstance(value, list) else value


def _standalone(resource: Resource, among: Mapping[str, Any]) -> Resource:
    """The resource without needs that the journal does not know as applied."""
    needs = tuple(need for need in resource.all_needs if need in among)
    return replace(resource, needs=needs)
