"""What a phase stands on: those of phase 1's resources that its own need, and those that it uses by name."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from orchestra_lib.blueprint.infrastructure import infrastructure
from orchestra_lib.cloud.kinds import KINDS
from orchestra_lib.cloud.resource import Resource
from orchestra_lib.settings import Settings


def foundation(settings: Settings, resources: Iterable[Resource], also: Iterable[str] = ()) -> tuple[Resource, ...]:
    """Phase 1's resources that these need, directly or through others, and those of the keys ``also`` with theirs.

    As phase 1 wants them, in its order. Raises ParameterError as :func:`infrastructure` does, and KeyError for a key in
    ``also`` that phase 1 has not.
    """
    first = infrastructure(settings)
    known = {one.key: one for one in first}
    open_ = [need for one in resources for need in one.all_needs if need in known]
    open_ += [known[key].key for key in also]
    found = set[str]()
    while open_:
        key = open_.pop()
        if key not in found:
            found.add(key)
            open_ += known[key].all_needs
    return tuple(one for one in first if one.key in found)


def presence(resources: Iterable[Resource]) -> tuple[Resource, ...]:
    """The same resources with no more than what says which they are: only whether they are there matters.

    Who pays is not looked at.
    """
    return tuple(replace(one, body=_identity(one), needs=()) for one in resources if one.kind != "billing")


def _identity(resource: Resource) -> dict[str, Any]:
    return {name: value for name, value in resource.body.items() if name in KINDS[resource.kind].identity}
