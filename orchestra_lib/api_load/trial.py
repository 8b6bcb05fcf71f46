"""A revision to try something on: under a tag, with no share of the traffic, and gone from the service afterwards."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from orchestra_lib.api_load.in_flight import concurrency_for
from orchestra_lib.blueprint.api import in_flight_limit
from orchestra_lib.rollout.service import RunService, Share, revision_name

_LIMIT = "ORCHESTRA_API_MAX_IN_FLIGHT"


@contextmanager
def tagged_revision(service: RunService, template: Mapping[str, Any], tag: str) -> Iterator[tuple[str, str]]:
    """Yield the address of the tag and the revision's name, once an instance is ready.

    At the end the traffic and the tags are as they were. Raises CloudRefused when the revision does not start.
    """
    before = service.shares()
    revision = revision_name(service.id, template)
    try:
        service.deploy(template, revision, [*before, Share(revision, 0, tag)])
        yield service.uri(tag), revision
    finally:
        service.direct(before)


def with_scaling(template: Mapping[str, Any], *, concurrency: int, least: int, most: int) -> dict[str, Any]:
    """A template with another concurrency and number of instances; the service's own limit goes with the first."""
    containers = [_limited(container, in_flight_limit(concurrency)) for container in template["containers"]]
    return {
        **template,
        "containers": containers,
        "maxInstanceRequestConcurrency": concurrency,
        "scaling": {"minInstanceCount": least, "maxInstanceCount": most},
    }


def with_room_for(template: Mapping[str, Any], in_flight: int) -> dict[str, Any]:
    """A template of one instance that refuses nothing up to so many requests at once, for a sweep."""
    return with_scaling(template, concurrency=concurrency_for(in_flight), least=1, most=1)


def _limited(container: Mapping[str, Any], limit: int) -> dict[str, Any]:
    others = [one for one in container.get("env", ()) if one["name"] != _LIMIT]
    return {**container, "env": [*others, {"name": _LIMIT, "value": str(limit)}]}
