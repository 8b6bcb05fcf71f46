"""The control plane: what a request goes through, and what there is to find.

A request is matched to a method, its caller is made known, what is due is done, then the method runs in one
transaction. https://cloud.google.com/apis/docs/overview
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestra_lib.local.control import (
    admission,
    checks,
    endings,
    operation_methods,
    operation_styles,
    operations,
    places,
    standard,
)
from orchestra_lib.local.control.call import Call, project_in
from orchestra_lib.local.control.catalog import Api, Method, Schema, whole
from orchestra_lib.local.control.faults import Fault
from orchestra_lib.local.control.injected import Injected
from orchestra_lib.local.control.kinds import Body, Kind, Service
from orchestra_lib.local.control.operations import Latency, Record, Style
from orchestra_lib.local.control.policies import METHODS as POLICY_METHODS
from orchestra_lib.local.control.projects import Projects
from orchestra_lib.local.control.services import SERVICES
from orchestra_lib.local.control.store import Store, Stored, split
from orchestra_lib.local.control.tokens import Tokens


@dataclass(frozen=True)
class Organization:
    """What exists before anybody creates anything: the organisation, its billing account, its administrator."""

    id: str = "873291114285"
    display_name: str = "cherry-ai.example"
    billing_account: str = "01A2B3-C4D5E6-F70819"
    operator: str = "user@example.com"


class ControlPlane:
    """Everything behind the socket. ``directory`` holds its state; ``token`` None means the permissive mode of tests.

    In that mode nobody needs a token, and projects that a call names exist with everything enabled.
    """

    def __init__(
        self,
        directory: Path,
        *,
        token: str | None,
        latency: Latency,
        organization: Organization | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.directory = directory
        self.permissive = token is None
        self.latency = latency
        self.organization = organization or Organization()
        self.clock = clock
        self.catalog = whole()
        self.services: Mapping[str, Service] = SERVICES
        self.store = Store(directory / "control.sqlite")
        self.tokens = Tokens(self.store, self.organization.operator, token)
        self.injected = Injected()
        self.writes: Counter[str] = Counter()
        self.projects = Projects(self)
        self._lock = threading.RLock()
        with self.writing():
            self.projects.load()

    @property
    def compares_etags(self) -> bool:
        """Whether an update has to know the present etag. Recordings that tests replay have theirs masked."""
        return not self.permissive

    def close(self) -> None:
        """Close the store."""
        self.store.close()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """The store for oneself, in one transaction."""
        with self._lock:
            try:
                with self.store.transaction():
                    yield
            except BaseException:
                self.projects.load()
                raise

    # --- methods --------------------------------------------------------------------------------------------------

    def run(self, call: Call) -> Body:
        """Carry out a call. Raises Fault."""
        handler = self._handler(call.method)
        if handler is None:
            raise standard.unsupported(call)
        # Apart from the rest: a project that was named stays, also when the call then fails.
        with self.writing():
            self._locate(call)
        rows = call.rows
        if call.method.short_id in rows.outside or call.method.id in rows.outside:
            with self.writing():
                admission.check(call)
            return handler(call)
        with self.writing():
            admission.check(call)
            remembered = _request_id(call)
            if remembered and (answer := self.store.answered(remembered)) is not None:
                return dict(answer)
            rows_before = self.store.rows_written
            result = handler(call)
            if remembered:
                self.store.remember(remembered, result)
            # A call that is only checked leaves the operation that answers it, and nothing else.
            if self.store.rows_written != rows_before and not call.validate_only:
                self.writes[call.method.id] += 1
            return result

    def take_fault(self, method_id: str, service: str) -> str | Fault | None:
        """What a test wants to happen to this call; uses it up."""
        with self._lock:
            return self.injected.take(method_id, service)

    def inject(self, wanted: Injected) -> None:
        """Set what is to go wrong from now on, in the place of what was set."""
        with self._lock:
            self.injected = wanted

    def state(self) -> Body:
        """What there is, for tests: resources and operations by key, what is set to go wrong, and what was written.

        ``writes`` counts the calls that changed something, by method, since the server started.
        """
        self.settle(self.clock())
        with self.writing():
            return {
                "organization": f"organizations/{self.organization.id}",
                "resources": {
                    row.key: row.body
                    for row in self.store.below("", even_deleted=True)
                    if row.key.split("/", 1)[0] in self.services
                },
                "operations": {record["key"]: operations.shown(self, record) for record in self.store.operations("")},
                "injected": self.injected.model_dump(),
                "writes": dict(self.writes),
            }

    def settle(self, now: float) -> None:
        """Do what has fallen due."""
        with self.writing():
            operations.settle(self, now)

    def _handler(self, method: Method) -> Callable[[Call], Body] | None:
        own = self.services[method.api.service].methods
        found = own.get(method.id) or own.get(method.short_id)
        if found:
            return found
        if operation_methods.is_about_operations(method):
            return operation_methods.handler(method)
        if method.name in POLICY_METHODS:
            return POLICY_METHODS[method.name]
        plain = not method.verb or method.name == "undelete"
        return standard.METHODS.get(method.name) if plain else None

    def _locate(self, call: Call) -> None:
        """Give the path its one form, with the project's id; in the permissive mode make that project exist."""
        named = project_in(call.path)
        asks_for_project = call.service == "cloudresourcemanager" and call.method.short_id == "projects.get"
        if named and self.permissive and not asks_for_project:
            project = self.projects.adopt(named, call.now)
            call.path = self.projects.normal(call.path.replace(f"projects/{named}", f"projects/{project}", 1))
        else:
            call.path = self.projects.normal(call.path)
        if call.rows.one_path:
            call.path = call.rows.one_path(self, call.path)

    # --- what there is --------------------------------------------------------------------------------------------

    def find(self, key: str, *, even_deleted: bool = False) -> Stored | None:
        """The resource of a key: stored, or built in."""
        row = self.store.get(key, even_deleted=True)
        if row is not None:
            return row if even_deleted or row.deleted_at is None else None
        built_in = self.kind(key).built_in
        if built_in is None:
            return None
        parent, _, identifier = split(key)
        body = built_in(self, parent).get(identifier)
        return Stored(key, dict(body), {}) if body is not None else None

    def rows_in(self, collection_key: str, *, even_deleted: bool = False) -> list[Stored]:
        """The resources of a collection, by key."""
        parent, _, collection = collection_key.rpartition("/")
        service = collection_key.split("/", 1)[0]
        rows = self.store.children(parent, f"{service}/{collection}", even_deleted=True)
        found = {row.key: row for row in rows}
        built_in = self.kind(f"{collection_key}/any").built_in
        if built_in is not None:
            for place in places.meant_by(parent):
                for identifier, body in built_in(self, place).items():
                    key = f"{place}/{collection}/{identifier}"
                    found.setdefault(key, Stored(key, dict(body), {}))
        return [found[key] for key in sorted(found) if even_deleted or found[key].deleted_at is None]

    def kind(self, key: str) -> Kind:
        """The row of the resource of a key."""
        service, _, path = key.partition("/")
        return self.services[service].kind(path)

    def style(self, service: str) -> Style:
        """The shape of a service's operations."""
        return self.services[service].operations or operation_styles.STANDARD

    def schema(self, api: Api, key: str) -> Schema:
        """The schema of the resource of a key, in one version of the API. Raises Fault (501) if there is none."""
        name = self.catalog.resource_schema(api, key.split("/", 1)[1])
        if name is None:
            raise Fault("UNIMPLEMENTED", f"{api.title} {api.version} describes no resource at '{key}'.")
        return api.schema(name)

    def api_of(self, key: str) -> Api | None:
        """The newest version of the service that knows the resource of a key."""
        service, _, path = key.partition("/")
        versions = [api for (name, _), api in self.catalog.apis.items() if name == service]
        return next((api for api in reversed(versions) if self.catalog.resource_schema(api, path)), None)

    def catalog_knows(self, key: str) -> bool:
        """Whether resources of this kind are served here, so that a missing one is really missing."""
        return key.split("/", 1)[0] in self.catalog.services and self.api_of(key) is not None

    def shown(self, api: Api, key: str, body: Mapping[str, Any], *, enums_as_numbers: bool = False) -> Body:
        """A resource as one version of the API shows it."""
        kind = self.kind(key)
        given = kind.show(self, key, api.version, dict(body)) if kind.show else body
        return checks.shown(api, self.schema(api, key).name, given, enums_as_numbers=enums_as_numbers)

    def shown_resource(self, service: str, version: str, key: str) -> Body | None:
        """The resource of a key as an operation shows it; None when it is gone."""
        row = self.find(key, even_deleted=True)
        return self.shown(self.catalog.apis[service, version], key, row.body) if row else None

    # --- data planes ----------------------------------------------------------------------------------------------

    def awaits(self, method: Method) -> bool:
        """Whether the operation of a method ends only after a data plane has done its part."""
        awaited = self.services[method.api.service].awaits
        return awaited is not None and awaited(self, method.short_id)

    def exchange(self, service: str, http_method: str, given: Body) -> Body | None:
        """What a service's own data plane is told, or tells; None where the service has none."""
        handler = self.services[service].data_plane.get(http_method) if service in self.services else None
        if handler is None:
            return None
        self.settle(self.clock())
        with self.writing():
            return handler(self, given)

    # --- the ends of operations -----------------------------------------------------------------------------------

    def effect(self, record: Record) -> None:
        """Do what the end of an operation does. Raises Fault when it fails."""
        own = self.services[record["service"]].effects
        (own.get(record["effect"]) or endings.EFFECTS[record["effect"]])(self, record)

    def effect_failed(self, record: Record) -> None:
        """Leave what a failed operation leaves."""
        endings.failed(self, record)


def _request_id(call: Call) -> str:
    """What tells a repeated request from a new one; empty if the caller gave nothing. https://google.aip.dev/155"""
    in_body = call.body.get("requestId") if isinstance(call.body, dict) else None
    given = None if call.validate_only else call.query.get("requestId") or in_body
    return f"{call.method.id} {call.path} {given}" if given else ""
