"""``export terraform``: what the journals of an environment say was made, read back live and written for Terraform."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from orchestra_lib import settings
from orchestra_lib.cloud.client import Client
from orchestra_lib.cloud.discovery import method, without_output_only
from orchestra_lib.cloud.journal import Event, Journal, RecordedChange
from orchestra_lib.cloud.kinds import KINDS, Kind
from orchestra_lib.cloud.plan import Step, make_plan
from orchestra_lib.cloud.resource import Live, Resource
from orchestra_lib.cloud.target import connect
from orchestra_lib.cloud.terraform import folder
from orchestra_lib.cloud.terraform.convert import convert
from orchestra_lib.cloud.terraform.render import Origin, Source, render
from orchestra_lib.errors import GateFailed, ParameterError
from orchestra_lib.paths import journal_path
from orchestra_lib.plan import Verb
from orchestra_lib.settings import Settings

_ANY_PHASE = "[0-9][0-9]"


@dataclass(frozen=True)
class Export:
    """What was written: the folder, how many resources, and how many of them have something that is not said."""

    directory: Path
    resources: int
    incomplete: int


@dataclass(frozen=True)
class _Recorded:
    """One resource that journals say exists: as it was last applied, with every field ever asked for, and by whom."""

    wanted: Resource
    ever_asked_for: frozenset[str]
    is_adopted: bool


def export_terraform(directory: Path, environment: str, phase: str | None = None) -> Export:
    """Write the export of an environment, of one phase or of all that have a journal.

    Raises ParameterError when there is no journal or the folder is somebody else's, GateFailed when changes in a
    journal have no end or nothing of it exists, TargetUnreachable when the live state cannot be read.
    """
    loaded = settings.load(environment)
    paths = _journals(loaded, phase)
    return export_journals(directory, loaded, paths, Client(connect(loaded)))


def export_journals(directory: Path, loaded: Settings, paths: Mapping[str, Path], client: Client) -> Export:
    """Write the export of these journals, by phase, as :func:`export_terraform` does."""
    sources = [_source(phase, path) for phase, path in sorted(paths.items())]
    journals = [Journal(source.path) for source in sources]
    _refuse_open_changes(journals)
    origin, live = _read(client, loaded, _recorded(journals), sources)
    converted = convert(live)
    if not converted:
        names = ", ".join(str(source.path) for source in sources)
        raise GateFailed(f"nothing that {names} says was made exists any more: there is nothing to export")
    origin = replace(origin, failed=_failed(journals))
    folder.write(directory, render(converted, origin))
    return Export(directory, len(converted), sum(bool(one.notes) for one in converted))


def _journals(loaded: Settings, phase: str | None) -> dict[str, Path]:
    """Where the journals lie, by phase."""
    name, local = loaded.environment.name, loaded.environment.kind == "local"
    pattern = journal_path(name, phase or _ANY_PHASE, local=local)
    paths = {path.name.split(".")[-2]: path for path in pattern.parent.glob(pattern.name)}
    if not paths:
        raise ParameterError(
            f"environment {name} has no journal of {f'phase {phase}' if phase else 'any phase'} ({pattern}): "
            "nothing was applied, so there is nothing to export"
        )
    return paths


def _source(phase: str, path: Path) -> Source:
    return Source(phase, path, hashlib.sha256(path.read_bytes()).hexdigest(), _runs(Journal(path)))


def _runs(journal: Journal) -> tuple[str, ...]:
    return tuple(dict.fromkeys(change.run_id for change in journal.changes))


def _refuse_open_changes(journals: Sequence[Journal]) -> None:
    for journal in journals:
        keys = [change.wanted.key for change in journal.open_changes()]
        if keys:
            raise GateFailed(
                f"{journal.path} has {len(keys)} changes of which nobody wrote how they ended ({', '.join(keys[:3])}): "
                "run the phase again, which finds out, then export"
            )


def _failed(journals: Sequence[Journal]) -> tuple[str, ...]:
    """The resources whose last change failed, and why."""
    last = {change.wanted.key: change for journal in journals for change in journal.changes}
    return tuple(f"{key}: {one.message}" for key, one in sorted(last.items()) if one.event is Event.FAILED)


def _recorded(journals: Sequence[Journal]) -> list[_Recorded]:
    """What exists by the journals, each resource once: a later phase's word counts."""
    found: dict[str, _Recorded] = {}
    for journal in journals:
        applied = journal.applied()
        histories: dict[str, list[RecordedChange]] = {}
        for change in journal.changes:
            if change.event in (Event.DONE, Event.ADOPTED):
                histories.setdefault(change.wanted.key, []).append(change)
        for key, body in applied.items():
            history = histories[key]
            wanted = replace(history[-1].wanted, body=body)
            asked_for = frozenset(name for change in history for name in change.wanted.body)
            adopted = all(change.event is Event.ADOPTED for change in history)
            found[key] = _Recorded(wanted, asked_for, adopted)
    return list(found.values())


def _read(
    client: Client, loaded: Settings, recorded: Sequence[_Recorded], sources: Sequence[Source]
) -> tuple[Origin, list[tuple[Resource, Live]]]:
    """What there is of it now, and what has to be said about the difference."""
    keys = {one.wanted.key for one in recorded}
    resources = [
        replace(one.wanted, needs=tuple(need for need in one.wanted.all_needs if need in keys)) for one in recorded
    ]
    plan = make_plan(client, resources, may_destroy={one.id for one in resources})
    by_key = {one.wanted.key: one for one in recorded}
    there = [step for step in plan.steps if step.live is not None]
    live = [(_as_it_is(step, by_key[step.key], plan.aliases), step.live) for step in there if step.live]
    project, regions = loaded.project, loaded.regions
    if project is None or regions is None:
        raise ParameterError(f"environment {loaded.environment.name} names no project or no regions")
    origin = Origin(
        loaded.environment.name,
        loaded.environment.kind,
        project.id,
        regions.primary,
        tuple(sources),
        adopted=tuple(sorted(step.key for step in there if by_key[step.key].is_adopted)),
        gone=tuple(sorted(step.key for step in plan.steps if step.live is None)),
        drifted=tuple(
            sorted(f"{one.key}: {one.as_change().detail}" for one in there if one.verb in (Verb.UPDATE, Verb.REPLACE))
        ),
    )
    return origin, live


def _as_it_is(step: Step, recorded: _Recorded, aliases: Mapping[str, str]) -> Resource:
    """The resource with its last body, and what earlier ones asked for as it is now: a rollback's body is a part."""
    body: dict[str, Any] = dict(step.wanted.body)
    if step.live:
        missing = recorded.ever_asked_for - set(body)
        body |= {name: step.live.body[name] for name in missing if name in step.live.body}
        body |= _given_later(KINDS[step.wanted.kind], body, step.live.body)
    if step.wanted.kind == "peering":
        # The API takes the project's number; the provider's import id and argument have its id.
        project, _, network = str(body["network"]).partition("/global/")
        body["network"] = f"{aliases.get(project, project)}/global/{network}"
    return replace(step.wanted, body=body)


def _given_later(kind: Kind, body: Mapping[str, Any], live: Mapping[str, Any]) -> dict[str, Any]:
    """What the journal knows as it was at creation only, as it is now."""
    if not kind.create_only:
        return {}
    shown = without_output_only(kind.api, str(method(kind.api, f"{kind.collection}.get").response), live)
    return {name: shown[name] for name in kind.create_only if name in body and name in shown}
