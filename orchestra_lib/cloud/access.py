"""How each kind of resource is read and changed: one standard way, and a few for what is no resource of its own.

A change answers what the service answered: an operation to wait for, or anything else when it is done already.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from orchestra_lib.cloud.client import Client, Snapshot
from orchestra_lib.cloud.discovery import has_field, method
from orchestra_lib.cloud.home_disks import disk_path, home_disk
from orchestra_lib.cloud.kinds import KINDS, Kind
from orchestra_lib.cloud.refusals import NOT_VISIBLE, CloudRefused
from orchestra_lib.cloud.resource import Live, Resource

Answer = dict[str, Any]
_DELETED = ("DELETED", "DELETE_REQUESTED")
_WRITES_OF_A_POLICY = 8
_policy_locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)


@dataclass(frozen=True)
class Reached:
    """A resource on its way to a service. ``request_id`` is the same for every attempt of one change.

    ``validate_only``: the service checks the change and does not make it.
    """

    client: Client | Snapshot
    wanted: Resource
    request_id: str = ""
    validate_only: bool = False

    @property
    def kind(self) -> Kind:
        """The row of its kind."""
        return KINDS[self.wanted.kind]

    def call(
        self, verb: str, path: str, body: Mapping[str, Any] | None = None, query: Mapping[str, str] | None = None
    ) -> Answer:
        """Call a method of the kind's collection, with the request id where the method takes one."""
        method_id, sent = f"{self.kind.collection}.{verb}", dict(query or {})
        if self.request_id and "requestId" in method(self.kind.api, method_id).parameters:
            sent["requestId"] = self.request_id
        if self.validate_only:
            sent["validateOnly"] = "true"
        return self.client.call(self.kind.api, method_id, path, body=body, query=sent)


def read(client: Client | Snapshot, wanted: Resource) -> Live | None:
    """The live resource, or None where there is none. Raises CloudRefused when it may not be read."""
    return _way(wanted).read(Reached(client, wanted))


def create(client: Client, wanted: Resource, request_id: str) -> Answer:
    """Create the resource with its body."""
    return _way(wanted).create(Reached(client, wanted, request_id))


def can_validate(kind: Kind) -> bool:
    """Whether the service checks a create without carrying it out, by ``validateOnly``."""
    plain = kind.access == "standard" and kind.create is not None and not kind.undelete
    return plain and "validateOnly" in method(kind.api, f"{kind.collection}.{kind.create}").parameters


def validate(client: Client, wanted: Resource) -> Answer:
    """Have the service check a create; nothing is made. Raises ValueError for a kind that :func:`can_validate` denies.

    Raises CloudRefused for what it refuses. How much a service looks at is its own affair: an answer means "not
    refused", no more.
    """
    if not can_validate(KINDS[wanted.kind]):
        raise ValueError(f"{wanted.kind} cannot be checked without being made")
    return _way(wanted).create(Reached(client, wanted, validate_only=True))


def update(client: Client, wanted: Resource, live: Live, fields: Iterable[str], request_id: str) -> Answer:
    """Give the named top-level fields the body's values, and clear those that it lacks."""
    return _way(wanted).update(Reached(client, wanted, request_id), live, sorted(fields))


def delete(client: Client, wanted: Resource, live: Live, request_id: str) -> Answer:
    """Delete the resource."""
    return _way(wanted).delete(Reached(client, wanted, request_id), live)


def is_operation(answer: Mapping[str, Any]) -> bool:
    """Whether an answer is a long-running operation."""
    return answer.get("kind") == "compute#operation" or "/operations/" in f"/{answer.get('name', '')}"


class Standard:
    """Resources with a path: get, create, patch and delete, as the discovery document has them."""

    def path(self, at: Reached) -> str:
        """The resource's path, where its id is ours to choose."""
        return f"{self.collection_path(at)}/{at.wanted.id}"

    def collection_path(self, at: Reached) -> str:
        """Where it is created and listed."""
        return f"{at.wanted.parent}/{at.kind.path_segment}"

    def read(self, at: Reached) -> Live | None:
        """The live resource; a soft-deleted one counts as absent."""
        body = self._found(at) if at.kind.found_by else self._got(at)
        if body is None or _is_deleted(body):
            return None
        return Live(self._name_of_found(at, body) if at.kind.found_by else self.path(at), body)

    def create(self, at: Reached) -> Answer:
        """Create it; one that was deleted a while ago is brought back and changed to what is wanted."""
        if at.kind.undelete and _is_deleted(self._got(at) or {}):
            return self._bring_back(at)
        query = dict(at.kind.extra)
        if at.kind.id_parameter:
            query[at.kind.id_parameter] = at.wanted.id
        verb, path = str(at.kind.create), self.collection_path(at)
        if method(at.kind.api, f"{at.kind.collection}.{verb}").path.endswith(f":{verb}"):
            path = f"{path}:{verb}"
        return at.call(verb, path, self._new_body(at), query)

    def update(self, at: Reached, live: Live, fields: list[str]) -> Answer:
        """Patch the named fields, under the version that was read where the resource has one."""
        known = method(at.kind.api, f"{at.kind.collection}.{at.kind.update}")
        sent: Answer = {name: at.wanted.body.get(name) for name in fields}
        for version in ("etag", "fingerprint"):
            if version in live.body and has_field(at.kind.api, str(known.request), version):
                sent[version] = live.body[version]
        query = dict(at.kind.extra)
        if at.kind.wrapped:
            sent = {at.kind.wrapped: sent, "updateMask": ",".join(fields)}
        elif "updateMask" in known.parameters:
            query["updateMask"] = ",".join(fields)
        elif not at.kind.api.startswith("compute."):
            sent = {**live.body, **sent}  # without a mask this PATCH replaces the whole
        return at.call(str(at.kind.update), live.name, sent, query)

    def delete(self, at: Reached, live: Live) -> Answer:
        """Delete it. Raises CloudRefused for what only goes with what it lies in."""
        if at.kind.delete is None:
            words = f"a {at.kind.name} cannot be deleted by itself: it goes with {at.wanted.parent}, which is to stay"
            raise CloudRefused(words, status=409, reason="deletedWithItsParent")
        return at.call(at.kind.delete, live.name, query=dict(at.kind.extra_of_delete))

    def _got(self, at: Reached) -> Answer | None:
        return _unless_absent(lambda: at.call("get", self.path(at), query=dict(at.kind.extra_of_get)))

    def _found(self, at: Reached) -> Answer | None:
        """The one resource of the collection whose field has the wanted value."""
        found = [item for item in self._all(at) if item.get(str(at.kind.found_by)) == at.wanted.id]
        if len(found) > 1:
            names = ", ".join(str(item.get("name")) for item in found)
            raise CloudRefused(
                f"{len(found)} of {self.collection_path(at)} have the {at.kind.found_by} {at.wanted.id!r} ({names}); "
                "which one is meant cannot be known: delete or rename all but one",
                status=409,
                reason="ambiguous",
            )
        return found[0] if found else None

    def _all(self, at: Reached) -> list[Answer]:
        items: list[Answer] = []
        query: dict[str, str] = {}
        while True:
            page = at.call("list", self.collection_path(at), query=query)
            items += next((value for value in page.values() if isinstance(value, list)), [])
            if not page.get("nextPageToken"):
                return items
            query = {"pageToken": page["nextPageToken"]}

    def _name_of_found(self, at: Reached, body: Mapping[str, Any]) -> str:
        name = str(body["name"])
        return name if "/" in name else f"{self.collection_path(at)}/{body['id']}"

    def _new_body(self, at: Reached) -> Answer:
        content = dict(at.wanted.body)
        if at.kind.wrapped:
            return {str(at.kind.id_field): at.wanted.id, at.kind.wrapped: content}
        if at.kind.found_by:
            content[at.kind.found_by] = at.wanted.id
        elif at.kind.id_field:
            content[at.kind.id_field] = self.path(at) if at.kind.whole_name else at.wanted.id
        return content

    def _bring_back(self, at: Reached) -> Answer:
        answer = at.call("undelete", f"{self.path(at)}:undelete", {})
        if isinstance(at.client, Client) and is_operation(answer):
            at.client.finish(at.kind.api, f"undelete {self.path(at)}", answer, at.kind.timeout_seconds)
        live = self.read(at)
        return answer if live is None or not at.wanted.body else self.update(at, live, sorted(at.wanted.body))


class ProjectAccess(Standard):
    """Projects lie nowhere; an unknown one answers 403, so that nobody learns which there are."""

    def read(self, at: Reached) -> Live | None:
        """The project, with its number in a field of its own: the API has it in the name alone."""
        live = super().read(at)
        if live is None:
            return None
        return Live(live.name, {**live.body, "projectNumber": str(live.body["name"]).removeprefix("projects/")})

    def collection_path(self, at: Reached) -> str:
        """All projects lie in one collection, whatever their parent."""
        return "projects"

    def _got(self, at: Reached) -> Answer | None:
        try:
            return super()._got(at)
        except CloudRefused as error:
            if error.status == 403 and error.reason != "SERVICE_DISABLED":
                return None
            raise


class ServiceAccountAccess(Standard):
    """Service accounts: the name is the e-mail address that the id becomes."""

    def path(self, at: Reached) -> str:
        """By e-mail address."""
        project = at.wanted.parent.removeprefix("projects/")
        return f"{self.collection_path(at)}/{at.wanted.id}@{project}.iam.gserviceaccount.com"


class BillingAccess(Standard):
    """The link of a project to a billing account: it is always there, and may be empty."""

    def read(self, at: Reached) -> Live | None:
        """The link as it is."""
        path = f"{at.wanted.parent}/billingInfo"
        return Live(path, at.call("getBillingInfo", path))

    def update(self, at: Reached, live: Live, fields: list[str]) -> Answer:
        """Link the project to another account, or to none."""
        return at.call("updateBillingInfo", live.name, {"billingAccountName": at.wanted.body.get("billingAccountName")})


class ServiceAccess(Standard):
    """An API of a project: it exists when it is enabled."""

    def read(self, at: Reached) -> Live | None:
        """The API, if it is enabled. All states of a project are read in one call for each page of 200."""
        query = {"filter": "state:ENABLED", "pageSize": "200"}
        while True:
            page = at.call("list", self.collection_path(at), query=query)
            if any(row["name"].endswith(f"/{at.wanted.id}") for row in page.get("services", ())):
                return Live(self.path(at), {})
            if not page.get("nextPageToken"):
                return None
            query["pageToken"] = page["nextPageToken"]

    def create(self, at: Reached) -> Answer:
        """Enable it."""
        return at.call("enable", f"{self.path(at)}:enable", {})

    def delete(self, at: Reached, live: Live) -> Answer:
        """Disable it; refused while another enabled API needs it."""
        return at.call("disable", f"{live.name}:disable", {})


class PeeringAccess(Standard):
    """The private connection of a network to a service producer: one for each pair, found by the network."""

    def read(self, at: Reached) -> Live | None:
        """The connection of the wanted network, if it has one."""
        network, path = str(at.wanted.body["network"]), f"{at.wanted.parent}/connections"
        answer = _unless_absent(lambda: at.call("list", path, query={"network": network})) or {}
        for row in answer.get("connections", ()):
            if row["network"].rsplit("/", 1)[1] == network.rsplit("/", 1)[1]:
                return Live(f"{path}/{row['peering']}", row)
        return None

    def create(self, at: Reached) -> Answer:
        """Connect."""
        return at.call("create", f"{at.wanted.parent}/connections", at.wanted.body)

    def update(self, at: Reached, live: Live, fields: list[str]) -> Answer:
        """Give the connection other ranges; its network stands in the body, its name matters to nobody."""
        return at.call(
            "patch",
            f"{at.wanted.parent}/connections/-",
            at.wanted.body,
            {"updateMask": "reservedPeeringRanges", "force": "true"},
        )

    def delete(self, at: Reached, live: Live) -> Answer:
        """Disconnect."""
        return at.call("deleteConnection", live.name, {"consumerNetwork": live.body["network"]})


class PolicyAccess(Standard):
    """A part of a resource's IAM policy: the policy is read, changed and written back under its etag."""

    def read(self, at: Reached) -> Live | None:
        """The part of the policy that the resource is about; None when the policy has none of it."""
        policy = _unless_absent(lambda: self._policy(at))
        part = self.part(policy, at.wanted) if policy else {}
        return Live(f"{at.wanted.parent}:{at.wanted.id}", part) if part else None

    def create(self, at: Reached) -> Answer:
        """Add the part."""
        return self._write(at, at.wanted.body)

    def update(self, at: Reached, live: Live, fields: list[str]) -> Answer:
        """Make the part what the body says."""
        return self._write(at, at.wanted.body)

    def delete(self, at: Reached, live: Live) -> Answer:
        """Take the part out."""
        return self._write(at, {})

    def part(self, policy: Answer, wanted: Resource) -> Answer:
        """What a policy holds of the wanted part."""
        raise NotImplementedError

    def changed(self, policy: Answer, wanted: Resource, body: Mapping[str, Any]) -> Answer:
        """The policy with another part."""
        raise NotImplementedError

    def request(self, policy: Answer) -> Answer:
        """The body of ``setIamPolicy``."""
        return {"policy": policy}

    def _policy(self, at: Reached) -> Answer:
        known = method(at.kind.api, f"{at.kind.collection}.getIamPolicy")
        return at.call("getIamPolicy", f"{at.wanted.parent}:getIamPolicy", {} if known.request else None)

    def _write(self, at: Reached, body: Mapping[str, Any]) -> Answer:
        with _policy_locks[at.wanted.parent]:  # changes of this process queue here; others' are met by the etag
            for attempt in range(1, _WRITES_OF_A_POLICY + 1):
                changed = self.changed(self._policy(at), at.wanted, body)
                try:
                    at.call("setIamPolicy", f"{at.wanted.parent}:setIamPolicy", self.request(changed))
                except CloudRefused as error:
                    if not error.is_conflict or attempt == _WRITES_OF_A_POLICY:
                        raise
                else:
                    break
        return {}


class RolesAccess(PolicyAccess):
    """The roles of one member on one resource, those under conditions aside: ``{"roles": [...]}``."""

    def part(self, policy: Answer, wanted: Resource) -> Answer:
        """The roles that the member holds; the member too where it is not the resource's id."""
        member = wanted.body.get("member", wanted.id)
        held = [row["role"] for row in policy.get("bindings", ()) if _is_plain(row) and member in row["members"]]
        named = {"member": member} if "member" in wanted.body else {}
        return {**named, "roles": sorted(held)} if held else {}

    def changed(self, policy: Answer, wanted: Resource, body: Mapping[str, Any]) -> Answer:
        """The policy in which the member holds the body's roles and no others."""
        member, wants = wanted.body.get("member", wanted.id), set(body.get("roles", ()))
        bindings = [dict(row) for row in policy.get("bindings", ())]
        for row in (row for row in bindings if _is_plain(row)):
            others = [other for other in row["members"] if other != member]
            row["members"] = [*others, member] if row["role"] in wants else others
        there = {row["role"] for row in bindings if _is_plain(row)}
        bindings += [{"role": role, "members": [member]} for role in sorted(wants - there)]
        return {**policy, "bindings": [row for row in bindings if row["members"]]}


class GrantAccess(PolicyAccess):
    """One role of one member, whose other roles are left alone: ``{"member": ..., "role": ...}``. For people."""

    def part(self, policy: Answer, wanted: Resource) -> Answer:
        """The member and the role, if the member holds it."""
        member, role = wanted.body["member"], wanted.body["role"]
        held = any(
            _is_plain(row) and row["role"] == role and member in row["members"] for row in policy.get("bindings", ())
        )
        return {"member": member, "role": role} if held else {}

    def changed(self, policy: Answer, wanted: Resource, body: Mapping[str, Any]) -> Answer:
        """The policy in which the member holds the role, or with an empty body does not."""
        member, role = wanted.body["member"], wanted.body["role"]
        bindings = [dict(row) for row in policy.get("bindings", ())]
        ours = next((row for row in bindings if _is_plain(row) and row["role"] == role), None)
        if ours is None:
            ours = {"role": role, "members": []}
            bindings.append(ours)
        others = [other for other in ours["members"] if other != member]
        ours["members"] = [*others, member] if body else others
        return {**policy, "bindings": [row for row in bindings if row["members"]]}


class AuditLogsAccess(PolicyAccess):
    """Which audit logs a service writes, without exempted members: ``{"logTypes": [...]}``."""

    def part(self, policy: Answer, wanted: Resource) -> Answer:
        """The log types that are on."""
        for row in policy.get("auditConfigs", ()):
            if row["service"] == wanted.id:
                return {"logTypes": [entry["logType"] for entry in row["auditLogConfigs"]]}
        return {}

    def changed(self, policy: Answer, wanted: Resource, body: Mapping[str, Any]) -> Answer:
        """The policy in which these types are on and no others."""
        others = [row for row in policy.get("auditConfigs", ()) if row["service"] != wanted.id]
        types = [{"logType": name} for name in body.get("logTypes", ())]
        mine = [{"service": wanted.id, "auditLogConfigs": types}] if types else []
        return {**policy, "auditConfigs": [*others, *mine]}

    def request(self, policy: Answer) -> Answer:
        """With a mask: without one the audit configuration of a policy stays as it was."""
        return {"policy": policy, "updateMask": "bindings,etag,auditConfigs"}


class HomeScheduleAccess(Standard):
    """Which snapshot schedules a workstation's home disk has: ``{"schedules": [...]}``, by their names.

    The parent is the region, the id that of the workstation.
    """

    def read(self, at: Reached) -> Live | None:
        """Those of the wanted schedules that the disk has; None when it has none, or does not exist yet."""
        disk = home_disk(at.client, at.wanted.parent, at.wanted.id)
        attached = {path.rsplit("/", 1)[1] for path in (disk or {}).get("resourcePolicies", ())}
        ours = sorted(attached.intersection(at.wanted.body["schedules"]))
        return Live(disk_path(disk), {"schedules": ours}) if disk and ours else None

    def create(self, at: Reached) -> Answer:
        """Attach the schedules."""
        disk = home_disk(at.client, at.wanted.parent, at.wanted.id)
        if disk is None:
            words = f"the home disk of workstation {at.wanted.id} is not to be found under {at.wanted.parent}"
            raise CloudRefused(words, status=404, reason=NOT_VISIBLE, transient=True)
        return self._change(at, disk_path(disk), "addResourcePolicies", at.wanted.body["schedules"])

    def update(self, at: Reached, live: Live, fields: list[str]) -> Answer:
        """Attach the schedules that it lacks."""
        lacking = [name for name in at.wanted.body["schedules"] if name not in live.body["schedules"]]
        return self._change(at, live.name, "addResourcePolicies", lacking)

    def delete(self, at: Reached, live: Live) -> Answer:
        """Take the schedules off; the disk and its snapshots stay."""
        return self._change(at, live.name, "removeResourcePolicies", at.wanted.body["schedules"])

    def _change(self, at: Reached, disk: str, verb: str, names: Iterable[str]) -> Answer:
        schedules = [f"{at.wanted.parent}/resourcePolicies/{name}" for name in names]
        return at.call(verb, f"{disk}/{verb}", {"resourcePolicies": schedules})


_WAYS: Mapping[str, Standard] = {
    "standard": Standard(),
    "project": ProjectAccess(),
    "billing": BillingAccess(),
    "service": ServiceAccess(),
    "peering": PeeringAccess(),
    "service account": ServiceAccountAccess(),
    "roles": RolesAccess(),
    "grant": GrantAccess(),
    "audit logs": AuditLogsAccess(),
    "home schedule": HomeScheduleAccess(),
}


def _way(wanted: Resource) -> Standard:
    return _WAYS[KINDS[wanted.kind].access]


def _unless_absent(call: Any) -> Answer | None:
    try:
        answer: Answer = call()
    except CloudRefused as error:
        if error.is_absence:
            return None
        raise
    return answer


def _is_plain(binding: Mapping[str, Any]) -> bool:
    return "condition" not in binding


def _is_deleted(body: Mapping[str, Any]) -> bool:
    return any(body.get(name) in _DELETED for name in ("state", "lifecycleState"))
