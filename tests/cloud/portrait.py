"""What a project looks like but for chosen ids, numbers and times: two that were built alike look alike."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from planes import Plane, is_there, steady

from orchestra_lib.cloud.refusals import CloudRefused

# Collections whose ids the service chooses; what a person sees is the name.
_CHOSEN_ID = re.compile(r"/(alertPolicies|notificationChannels|uptimeCheckConfigs|budgets|triggers)/([^/]+)$")
_DRAWN_ANEW = (
    (re.compile(r"/conditions/\d+"), "/conditions/N"),
    (re.compile(r"projects/\w+-tp/"), "projects/TENANT/"),
    (re.compile(r"\[20[^\]]+\]: "), ""),
)


def portrait(plane: Plane, project: str) -> list[str]:
    """One line a resource, a role that somebody holds and an enabled API. What exists twice is there twice."""
    number = _number(plane, project)
    about = re.compile(rf"\b({re.escape(project)}|{number})\b" if number else rf"\b{re.escape(project)}\b")
    mine = {
        key: body
        for key, body in plane.resources().items()
        if is_there(key, body) and not key.startswith("serviceusage/") and about.search(f"{key} {json.dumps(body)}")
    }
    lines = [json.dumps([key, steady(body)], sort_keys=True) for key, body in mine.items()]
    for key, policy in plane.policies().items():
        if key in mine:
            lines += [json.dumps([f"policy of {key}", part], sort_keys=True) for part in _parts(policy)]
    if f"cloudresourcemanager/projects/{project}" in mine:
        lines += _enabled(plane, project)
    names = _names(mine)
    return sorted(about.sub("PROJECT", _plain(line, names)) for line in lines)


def _enabled(plane: Plane, project: str) -> list[str]:
    """The enabled APIs by name, those too that come with a project and that nobody has written down."""
    query = {"filter": "state:ENABLED", "pageSize": "200"}
    path = f"projects/{project}/services"
    found = plane.client().call("serviceusage.v1", "serviceusage.services.list", path, query=query)
    return [f"enabled {service['name'].rsplit('/', 1)[1]}" for service in found.get("services", ())]


def _parts(policy: Mapping[str, Any]) -> Iterator[Any]:
    for binding in policy.get("bindings", ()):
        yield {**binding, "members": sorted(binding["members"])}
    yield from policy.get("auditConfigs", ())


def _number(plane: Plane, project: str) -> str | None:
    try:
        found = plane.client().call(
            "cloudresourcemanager.v3", "cloudresourcemanager.projects.get", f"projects/{project}"
        )
    except CloudRefused:
        return None
    return str(found["name"]).removeprefix("projects/")


def _names(resources: Mapping[str, Any]) -> dict[str, str]:
    found = {}
    for key, body in resources.items():
        match = _CHOSEN_ID.search(key)
        if match:
            found[match[2]] = f"<{body.get('displayName') or body.get('name')}>"
    return found


def _plain(line: str, names: Mapping[str, str]) -> str:
    for chosen, name in names.items():
        line = line.replace(chosen, name)
    for pattern, instead in _DRAWN_ANEW:
        line = pattern.sub(instead, line)
    return line
