"""What a phase stands on: those of phase 1's resources that its own need, and those that it uses by name."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from orchestra_lib.blueprint.infrastructure import infrastructure
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
    """The same resources without what they hold: only whether they are there matters, and who pays does not."""
    return tuple(replace(one, body={}, needs=()) for one in resources if one.kind != "billing")
