"""The projects: known by id and by number, and whether a service is enabled in them.

A project is a stored resource of ``cloudresourcemanager``; its number lies beside it, hidden. In the permissive mode
of tests, a project begins to exist when a call names it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestra_lib.local.control.call import digits, project_position, timestamp

if TYPE_CHECKING:
    from orchestra_lib.local.control.control import ControlPlane

COLLECTION = "cloudresourcemanager/projects"
ENABLED_FROM_THE_START = frozenset({"logging", "monitoring", "serviceusage", "storage"})
"""What a new project has enabled, of the services here. https://cloud.google.com/service-usage/docs/enabled-service"""


class Projects:
    """Finds projects by id or number. Everything lies in the store."""

    def __init__(self, control: ControlPlane) -> None:
        self._control = control
        self._numbers: dict[str, str] = {}
        self._last_named = ""

    def load(self) -> None:
        """Read the numbers of all projects; called within the transaction of a request, after what it rolled back."""
        found = self._control.store.below(f"{COLLECTION}/", COLLECTION, even_deleted=True)
        self._numbers = {row.key.rsplit("/", 1)[1]: str(row.hidden["number"]) for row in found}

    def number(self, project_id: str) -> str:
        """The number of a project; a project that does not exist yet has the number that it would get."""
        return self._numbers.get(project_id) or (project_id if project_id.isdigit() else digits(project_id, 12))

    def id(self, id_or_number: str) -> str:
        """The id of a project given by id or number; what is unknown comes back as it is."""
        if not id_or_number.isdigit():
            return id_or_number
        return next((id for id, number in self._numbers.items() if number == id_or_number), id_or_number)

    def exists(self, project_id: str) -> bool:
        """Whether the project exists, deleted or not."""
        return project_id in self._numbers

    def normal(self, path: str) -> str:
        """A path with the project's id in the place of its number."""
        parts = path.split("/")
        position = project_position(parts)
        if position:
            parts[position] = self.id(parts[position])
        return "/".join(parts)

    def numbered(self, path: str) -> str:
        """A path with the project's number in the place of its id."""
        parts = path.split("/")
        if parts[0] == "projects" and len(parts) > 1:
            parts[1] = self.number(parts[1])
        return "/".join(parts)

    def create(self, project_id: str, now: float, *, number: str | None = None, parent: str | None = None) -> None:
        """Write a new, active project below the organisation (or another parent)."""
        number = number or digits(project_id, 12)
        body = {
            "projectId": project_id,
            "displayName": project_id,
            "state": "ACTIVE",
            "parent": parent or f"organizations/{self._control.organization.id}",
            "createTime": timestamp(now),
            "updateTime": timestamp(now),
        }
        self._control.store.put(f"{COLLECTION}/{project_id}", body, {"number": number})
        self._numbers[project_id] = number

    def adopt(self, id_or_number: str, now: float) -> str:
        """The id of the project that a call names, made to exist; only in the permissive mode.

        A number that nobody knows is that of the project that was named last: recordings speak of one project by
        its id and by its number, and do not say which number belongs to it.
        """
        project_id = self.id(id_or_number)
        if not self.exists(project_id):
            if project_id.isdigit() and self._renumber(self._last_named, project_id):
                project_id = self._last_named
            else:
                self.create(project_id, now)
        self._last_named = project_id
        return project_id

    def _renumber(self, project_id: str, number: str) -> bool:
        """Give a project the number that a caller knows; False if there is none, or a caller knew another one."""
        row = self._control.store.get(f"{COLLECTION}/{project_id}", even_deleted=True)
        if row is None or row.hidden.get("number_was_given"):
            return False
        self._control.store.put(row.key, row.body, {**row.hidden, "number": number, "number_was_given": True})
        self._numbers[project_id] = number
        return True

    def enabled(self, project_id: str, service: str) -> bool:
        """Whether the project has the service (``alloydb``) enabled."""
        if self._control.permissive:
            return True
        row = self._control.store.get(f"serviceusage/projects/{project_id}/services/{service}.googleapis.com")
        return row.body.get("state") == "ENABLED" if row else service in ENABLED_FROM_THE_START
