"""Live state against what is wanted: what would be created, updated, replaced or kept. Reads only."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

from orchestra_lib.cloud import access
from orchestra_lib.cloud.client import Client, Snapshot
from orchestra_lib.cloud.diff import Comparison, FieldDiff
from orchestra_lib.cloud.discovery import has_method, immutable_fields, method, without_output_only
from orchestra_lib.cloud.kinds import KINDS, Kind
from orchestra_lib.cloud.resource import UNKNOWN, JsonFile, Live, Ref, Resource, Text, references, resolve
from orchestra_lib.errors import GateFailed, ParameterError
from orchestra_lib.evidence import canonical_json
from orchestra_lib.plan import Change, Plan, Verb

_READERS = 16
_LONGEST_SUMMARY = 160


@dataclass(frozen=True)
class Step:
    """One resource of a plan: what is to happen to it, what there is, and the fields in which they differ.

    ``applied`` is the body that was applied last: what it has and ``wanted`` has not is to go.
    """

    wanted: Resource
    verb: Verb
    live: Live | None
    diffs: tuple[FieldDiff, ...] = ()
    applied: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """The resource's key."""
        return self.wanted.key

    @property
    def name(self) -> str:
        """The resource's name for people: short, with the place that tells it from others of its name."""
        place = _place(self.wanted)
        return f"{_short_member(self.wanted.id)} ({place})" if place else _short_member(self.wanted.id)

    def as_change(self) -> Change:
        """The step as a row of a runbook's plan."""
        before = {diff.path: diff.before for diff in self.diffs} or None
        after: object = {diff.path: diff.after for diff in self.diffs} or None
        told = [str(diff) for diff in self.diffs]
        if self.live is None:
            after = resolve(self.wanted.body, {})
            told = [summary] if (summary := _summary(self.wanted.body)) else []
        return Change(self.verb, self.wanted.kind, self.name, "; ".join((*told, *self._left_alone())), before, after)

    def _left_alone(self) -> tuple[str, ...]:
        """Which fields are given at creation only, in words."""
        names = ", ".join(sorted(KINDS[self.wanted.kind].create_only.intersection(self.wanted.body)))
        if not names or self.verb is Verb.DELETE:
            return ()
        is_made = self.verb in (Verb.CREATE, Verb.REPLACE)
        return (f"{names}: given {'now, and only now' if is_made else 'at creation only, left as found'}",)


@dataclass(frozen=True)
class CloudPlan:
    """The steps in dependency order, and how their values are compared."""

    steps: tuple[Step, ...]
    aliases: Mapping[str, str]

    def as_plan(self) -> Plan:
        """The plan that is shown and approved: its digest covers the changes and the live state they were made from."""
        return Plan(
            tuple(step.as_change() for step in self.steps),
            {step.key: _live_digest(step, self.aliases) for step in self.steps},
        )

    def project_number(self) -> str:
        """The number of the plan's project. Raises GateFailed while it does not exist."""
        for step in self.steps:
            if step.wanted.kind == "project" and step.live:
                return str(step.live.body["projectNumber"])
        raise GateFailed("the project does not exist yet, and so has no number: apply the plan first")

    def live(self) -> dict[str, Live | None]:
        """What there is, by key."""
        return {step.key: step.live for step in self.steps}


def make_plan(
    client: Client,
    resources: Sequence[Resource],
    applied: Mapping[str, Mapping[str, Any]] | None = None,
    may_destroy: Collection[str] = (),
) -> CloudPlan:
    """Read the live state in parallel and compare it with what is wanted.

    ``applied`` holds the body of each resource as it was applied last, by key: fields that are wanted no more are then
    cleared. Raises GateFailed when a resource that holds data would be replaced and ``may_destroy`` does not name it,
    ParameterError when the resources depend on one that is not there or in a circle.
    """
    ordered = in_dependency_order(resources)
    live = read_live(client, ordered)
    has_project = any(one.kind == "project" for one in ordered)
    aliases = _aliases(ordered, live) if has_project else aliases_around(client, ordered)
    steps: dict[str, Step] = {}
    for wanted in ordered:
        step = _step(wanted, live, (applied or {}).get(wanted.key), aliases)
        if step.verb is Verb.UPDATE and _replaced_with_its_need(step, steps):
            step = replace(step, verb=Verb.REPLACE)
        steps[wanted.key] = step
    plan = CloudPlan(tuple(steps.values()), aliases)
    refuse_destruction(plan.steps, may_destroy)
    return plan


def refuse_destruction(steps: Sequence[Step], may_destroy: Collection[str]) -> None:
    """Raise GateFailed when a step would destroy data that nobody named."""
    named = [step for step in steps if step.verb in (Verb.REPLACE, Verb.DELETE) and KINDS[step.wanted.kind].holds_data]
    refused = sorted((step for step in named if step.wanted.id not in may_destroy), key=lambda step: step.key)
    if refused:
        lines = tuple(f"{one.verb.value} {one.wanted.kind} {one.wanted.id}" for one in refused)
        raise GateFailed(
            f"the plan would destroy what these hold: {'; '.join(lines)}. If that is meant, say so by their names: "
            f"may_destroy {' '.join(one.wanted.id for one in refused)}",
            lines,
        )


def in_dependency_order(resources: Sequence[Resource]) -> tuple[Resource, ...]:
    """The resources, each after what it needs, else in the order given. Raises ParameterError when that cannot be."""
    by_key = {resource.key: resource for resource in resources}
    if len(by_key) < len(resources):
        twice = next(one.key for one in resources if by_key[one.key] is not one)
        raise ParameterError(f"the blueprint names {twice} twice")
    done: dict[str, Resource] = {}
    open_: list[str] = []

    def visit(resource: Resource) -> None:
        if resource.key in done:
            return
        if resource.key in open_:
            raise ParameterError(f"the blueprint goes round in a circle: {' needs '.join((*open_, resource.key))}")
        open_.append(resource.key)
        for key in resource.all_needs:
            if key not in by_key:
                raise ParameterError(f"{resource.key} needs {key}, which the blueprint does not have")
            visit(by_key[key])
        open_.pop()
        done[resource.key] = resource

    for resource in resources:
        visit(resource)
    return tuple(done.values())


def read_live(client: Client, resources: Sequence[Resource]) -> dict[str, Live | None]:
    """What there is of each resource, by key, read in parallel.

    What lies in a project, or belongs to a service, that does not exist or is not enabled yet cannot exist either and
    is not asked for.
    """
    snapshot, live = Snapshot(client), dict[str, Live | None]()
    closed: set[str] = set()  # projects, and services of projects, in which there is nothing to read
    for kind_name in ("project", "service"):
        for wanted in (one for one in resources if one.kind == kind_name):
            live[wanted.key] = None if _is_closed(wanted, closed) else access.read(snapshot, wanted)
            closed |= _closes(wanted, live[wanted.key])
    rest = [replace(one, body=resolve(one.body, live)) for one in resources if one.key not in live]
    with ThreadPoolExecutor(_READERS) as pool:
        found = pool.map(
            lambda one: None if _is_closed(one, closed) or _is_nameless(one) else access.read(snapshot, one), rest
        )
        live.update(zip((one.key for one in rest), found, strict=True))
    return live


def aliases_around(client: Client, resources: Sequence[Resource]) -> dict[str, str]:
    """Other names of the projects in which the resources lie, read now."""
    ids = {one.parent.split("/")[1] for one in resources if one.parent.startswith("projects/")}
    projects = [Resource("project", "", name) for name in sorted(ids)]
    return _aliases(projects, {one.key: access.read(client, one) for one in projects})


def alias_of(wanted: Resource, live: Live | None) -> dict[str, str]:
    """The other name of a project that is there; nothing for what is no project.

    Services answer with the project's number where they were given its id.
    """
    if wanted.kind != "project" or live is None or not live.body.get("name"):
        return {}
    return {str(live.body["name"]): f"projects/{wanted.id}"}


def comparison(kind: Kind, aliases: Mapping[str, str]) -> Comparison:
    """How two bodies of a kind are compared."""
    return Comparison(aliases, kind.sets, kind.create_only)


def differences(
    kind: Kind,
    aliases: Mapping[str, str],
    wanted: Mapping[str, Any],
    live: Mapping[str, Any],
    applied: Mapping[str, Any] | None = None,
) -> tuple[FieldDiff, ...]:
    """What is not as it is wanted, and that a resource is there whose creation has not come to its end."""
    found = comparison(kind, aliases).differences(wanted, live, applied)
    if kind.complete_with and not live.get(kind.complete_with):
        return (*found, FieldDiff(kind.complete_with, None, "set"))
    return found


def fixed_fields(kind: Kind) -> frozenset[str]:
    """The fields of a kind that cannot be changed in place: by the document, and by the table."""
    fixed = kind.fixed | ({kind.complete_with} if kind.complete_with else frozenset())
    if kind.update is None or not has_method(kind.api, f"{kind.collection}.{kind.update}"):
        return fixed
    schema = method(kind.api, f"{kind.collection}.{kind.update}").request
    return fixed | (immutable_fields(kind.api, schema) if schema and kind.access == "standard" else frozenset())


def _place(wanted: Resource) -> str:
    """Where a resource lies, if that says more than its project: a region, or the resource that a policy is of."""
    *_, collection, last = wanted.parent.split("/")
    return "" if collection in ("projects", "organizations", "services") or last == "global" else _short_member(last)


def _short_member(name: str) -> str:
    return re.sub(r"^serviceAccount:|@[\w-]+\.iam\.gserviceaccount\.com$", "", name)


def _summary(body: Mapping[str, Any]) -> str:
    """What a new resource is to be, on one line: its plain fields, and what its lists hold."""
    shown = (f"{name} {_flat(value)}" for name, value in body.items() if isinstance(value, str | int | float | list))
    line = "; ".join(shown).replace("roles/", "")
    return line if len(line) <= _LONGEST_SUMMARY else f"{line[: _LONGEST_SUMMARY - 1]}…"


def _flat(value: Any) -> str:
    if isinstance(value, Mapping):
        return " ".join(map(_flat, value.values()))
    if isinstance(value, list | tuple):
        return ", ".join(map(_flat, value))
    if isinstance(value, Ref | Text | JsonFile):
        return UNKNOWN
    text = str(value)
    return text.rsplit("/", 1)[1] if text.startswith("projects/") else text


def _is_closed(wanted: Resource, closed: Collection[str]) -> bool:
    project = f"projects/{wanted.parent.split('/')[1]}" if wanted.parent.startswith("projects/") else ""
    # Which APIs are enabled can be read whether or not Service Usage is one of them.
    return project in closed or (wanted.kind != "service" and f"{project} {KINDS[wanted.kind].service}" in closed)


def _is_nameless(wanted: Resource) -> bool:
    """Whether what says which resource it is holds a value that is not known before another one exists."""
    return any(wanted.body.get(name) == UNKNOWN for name in KINDS[wanted.kind].identity)


def _closes(wanted: Resource, live: Live | None) -> set[str]:
    if wanted.kind == "project":
        return set() if live else {f"projects/{wanted.id}"}
    return set() if live else {f"{wanted.parent} {wanted.id}"}


def _aliases(resources: Sequence[Resource], live: Mapping[str, Live | None]) -> dict[str, str]:
    """Other names of the projects among the resources."""
    return {other: name for wanted in resources for other, name in alias_of(wanted, live.get(wanted.key)).items()}


def _step(
    wanted: Resource, live: Mapping[str, Live | None], applied: Mapping[str, Any] | None, aliases: Mapping[str, str]
) -> Step:
    there, kind = live[wanted.key], KINDS[wanted.kind]
    if there is None:
        if kind.create is None:
            # It comes with its project; what it will hold then is not known yet.
            return Step(wanted, Verb.UPDATE, None)
        return Step(wanted, Verb.CREATE, None)
    fixed = fixed_fields(kind)
    found = differences(kind, aliases, resolve(wanted.body, live), there.body, applied)
    # Nothing is made anew for a value that is not known yet: the plan after this one will know it.
    diffs = tuple(diff for diff in found if not (diff.after == UNKNOWN and diff.field in fixed))
    if not diffs:
        return Step(wanted, Verb.KEEP, there)
    in_place = kind.update is not None and not {diff.field for diff in diffs} & fixed
    return Step(wanted, Verb.UPDATE if in_place else Verb.REPLACE, there, diffs, applied or {})


def _replaced_with_its_need(step: Step, steps: Mapping[str, Step]) -> bool:
    replaced = {key for key in step.wanted.all_needs if key in steps and steps[key].verb is Verb.REPLACE}
    named = {name for name, value in step.wanted.body.items() if any(ref.key in replaced for ref in references(value))}
    return bool(named & fixed_fields(KINDS[step.wanted.kind]))


def _live_digest(step: Step, aliases: Mapping[str, str]) -> str | None:
    """SHA-256 of the live body without what changes by itself, or None where there is nothing."""
    if step.live is None:
        return None
    kind, body = KINDS[step.wanted.kind], step.live.body
    body = {name: value for name, value in body.items() if name not in kind.create_only}
    call = f"{kind.collection}.get"
    if kind.access in ("standard", "service account", "project") and has_method(kind.api, call):
        body = without_output_only(kind.api, str(method(kind.api, call).response), body)
    return hashlib.sha256(canonical_json(Comparison(aliases).canonical(body)).encode()).hexdigest()
