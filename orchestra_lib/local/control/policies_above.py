"""Who has a permission on a resource: by its own policy, its project's, and those of folders and organisation above.

https://cloud.google.com/iam/docs/resource-hierarchy-access-control
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from orchestra_lib.local.control.projects import COLLECTION

if TYPE_CHECKING:
    from orchestra_lib.local.control.control import ControlPlane


def members_with(control: ControlPlane, key: str, permission: str) -> set[str]:
    """The members, as policies name them, that a role with the permission is granted to without a condition."""
    return {
        member
        for place in (key, *_above(control, key))
        for binding in (control.store.policy(place) or {}).get("bindings", ())
        if not binding.get("condition") and _includes(control, binding["role"], permission)
        for member in binding.get("members", ())
    }


def _above(control: ControlPlane, key: str) -> Iterator[str]:
    project = control.store.get(f"{COLLECTION}/{key.split('/')[2]}")
    if project is None:
        return
    yield project.key
    parent = project.body.get("parent", "")
    while parent:
        yield f"cloudresourcemanager/{parent}"
        folder = control.store.get(f"cloudresourcemanager/{parent}")
        parent = folder.body.get("parent", "") if folder and parent.startswith("folders/") else ""


def _includes(control: ControlPlane, role: str, permission: str) -> bool:
    """A role by its name: predefined (``roles/run.invoker``) or one of a project's or the organisation's own."""
    found = control.find(f"iam/{role}")
    return (
        found is not None and not found.body.get("deleted") and permission in found.body.get("includedPermissions", ())
    )
