"""Resources that name other resources: finding what a field refers to, and who refers to a resource."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from orchestra_lib.local.control.kinds import Body, Kind, not_found

if TYPE_CHECKING:
    from orchestra_lib.local.control.control import ControlPlane

_HOST = re.compile(r"^(https?:)?//[^/]+/")
_VERSION = re.compile(r"^(compute/)?v\d\w*/")
_PARTIAL = ("global", "regions", "zones", "locations")
# What something was once made from: it has to be there then, and may go afterwards.
_ORIGINS = ("sourceDisk", "sourceSnapshot", "sourceImage")


def key_of(control: ControlPlane, service: str, value: str, project: str | None) -> str:
    """The store's key of what a field names: a whole URL, a path, or a path without the project."""
    path = _VERSION.sub("", _HOST.sub("", value))
    if path.split("/", 1)[0] in _PARTIAL and project:
        path = f"projects/{project}/{path}"
    return f"{service}/{control.projects.normal(path)}"


def require_existing(control: ControlPlane, kind: Kind, body: Body, before: Body | None, project: str | None) -> None:
    """Raise Fault (404, in the words of the missing one's service) for a new reference to nothing."""
    old = keys_in(control, kind, before or {}, project)
    for key in keys_in(control, kind, body, project):
        if key not in old and control.catalog_knows(key) and control.find(key) is None:
            raise not_found(control, key)


def users_of(control: ControlPlane, key: str) -> Iterator[str]:
    """The keys of the resources in the same project that refer to a resource."""
    service, _, path = key.partition("/")
    project = path.split("/")[1] if path.startswith("projects/") else None
    for row in control.store.below(f"{service}/projects/{project}/"):
        kind = control.kind(row.key)
        if row.key != key and kind.references and key in _keys_used(control, kind, row.body, project):
            yield row.key


def _keys_used(control: ControlPlane, kind: Kind, body: Body, project: str | None) -> list[str]:
    used = {field: service for field, service in kind.references.items() if field.rsplit(".", 1)[-1] not in _ORIGINS}
    return keys_in(control, replace(kind, references=used), body, project)


def keys_in(control: ControlPlane, kind: Kind, body: Body, project: str | None) -> list[str]:
    """The keys of everything that a body refers to."""
    return [
        key_of(control, service, value, project)
        for field, service in kind.references.items()
        for value in _values(body, field.split("."))
        if isinstance(value, str) and value
    ]


def _values(value: Any, steps: list[str]) -> Iterator[Any]:
    """What stands at a field; a list on the way means each of its items."""
    if isinstance(value, list):
        for item in value:
            yield from _values(item, steps)
    elif not steps:
        yield value
    elif isinstance(value, Mapping) and steps[0] in value:
        yield from _values(value[steps[0]], steps[1:])
