"""What a service does beyond the standard methods: rows of data and a few functions, one :class:`Service` a module."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from orchestra_lib.local.control import places
from orchestra_lib.local.control.catalog import snake
from orchestra_lib.local.control.faults import Fault

if TYPE_CHECKING:
    from orchestra_lib.local.control.call import Call
    from orchestra_lib.local.control.control import ControlPlane
    from orchestra_lib.local.control.operations import Style
    from orchestra_lib.local.control.store import Stored

Body = dict[str, Any]
Handler = Callable[["Call"], Body]
"""Answers one method."""
Effect = Callable[["ControlPlane", dict[str, Any]], None]
"""Does the work of an operation (given as its record) at its end; raises Fault when it fails."""


@dataclass(frozen=True)
class Kind:
    """One kind of resource. Everything has a meaning when left out; a row says only what differs.

    Words may hold ``{path}``, ``{numbered}`` (the path with the project's number), ``{id}``, ``{parent}`` (the
    parent's id), ``{project}``, ``{number}``, ``{location}`` and ``{noun}`` (``health_check``).
    """

    collection: str
    """The last collection of the path: ``clusters``; ``serviceAccounts/keys`` where the last alone is ambiguous."""

    # --- what a create or an update adds and refuses ---
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """Fill what the caller left out, at every depth."""
    fill: Callable[[Call, Body, Body | None], None] | None = None
    """Adds what is computed: the call, the body that is to be kept, what was there before (None when created)."""
    check: Callable[[Call, Body, Body | None], None] | None = None
    """Raises Fault for what the schema cannot say."""
    finish: Callable[[ControlPlane, str, Body], None] | None = None
    """Changes the body (of that key) when a create or update has ended."""
    fail: Callable[[ControlPlane, dict[str, Any]], None] | None = None
    """Leaves what a failed create or update (given as its operation's record) leaves, in the place of the usual."""
    show: Callable[[ControlPlane, str, str, Body], Body] | None = None
    """The last word on what a caller sees: key, API version, body."""
    optional: frozenset[str] = frozenset()
    """Fields that the document calls required and the service does not."""
    mutable: frozenset[str] = frozenset()
    """Fields that the document calls immutable and the service lets change."""
    references: Mapping[str, str] = field(default_factory=dict)
    """Fields that name a resource that has to exist, with its service: ``{"networkConfig.network": "compute"}``."""
    applied_at_once: bool = False
    """Whether an update shows before its operation has ended."""

    # --- identity ---
    new_id: Callable[[Call, Body], str] | None = None
    """The id of a new resource, where it is neither in the query nor in ``name``."""
    id_pattern: str | None = None
    number_in_name: bool = False
    """Whether ``name`` holds the project's number instead of its id."""
    short_name: bool = False
    """Whether ``name`` is the id alone."""
    built_in: Callable[[ControlPlane, str], Mapping[str, Body]] | None = None
    """What exists below a parent (a key) without having been created: id to body. What is stored goes first."""
    upsert: bool = False
    """Whether an update of what does not exist creates it."""

    # --- life ---
    states: tuple[str, str, str, str] | None = None
    """``state`` while creating, when ready, while updating, while deleting; None takes them from the enum."""
    etag: bool = True
    uid: bool = True
    operation_done: bool = False
    """Whether the operation has ended in the first answer."""
    before_delete: Callable[[Call, Stored], None] | None = None
    in_use: str = ""
    """Who refuses to delete what another resource references: ``call``, ``operation`` or nobody."""
    children_block: bool = False
    """Whether a delete is refused while something lies below, unless ``force`` is given."""
    delete_answers: str = "empty"
    """``empty`` or ``resource``: what the operation of a delete gives back."""
    soft_delete: str | None = None
    """The ``state`` of a deleted resource that can still be seen; taken from the enum where there is an undelete."""
    quota: str | None = None
    """The metric that counts these resources: ``NETWORKS``."""

    # --- words ---
    not_found: str = "Resource '{path}' was not found"
    exists: str = "Resource '{path}' already exists"
    busy: str = "unable to queue the operation"
    in_use_words: str = "Resource '{path}' is already being used by '{user}'"


@dataclass(frozen=True)
class Service:
    """One service: its kinds, its custom methods and the shape of its operations."""

    name: str
    kinds: tuple[Kind, ...] = ()
    every: Kind = Kind("")
    """The row of the collections that have none."""
    one_path: Callable[[ControlPlane, str], str] | None = None
    """The one path by which a resource is kept, for a path that a call names: some resources have several."""
    methods: Mapping[str, Handler] = field(default_factory=dict)
    """Custom methods by short id (``clusters.promote``) or, where that is ambiguous, by the document's whole id."""
    outside: frozenset[str] = frozenset()
    """Those of them that run outside the request's transaction: they take long and write nothing, or they keep a part
    of what they refuse and see to that themselves."""
    effects: Mapping[str, Effect] = field(default_factory=dict)
    """What an operation's end does, by the name that ``operations.start`` was given."""
    awaits: Callable[[ControlPlane, str], bool] | None = None
    """Whether the operation of a method (by short id) waits until a data plane has done its part."""
    data_plane: Mapping[str, Callable[[ControlPlane, Body], Body]] = field(default_factory=dict)
    """What the service's data plane asks (``GET``) and reports (``POST``) at ``/_local/<service>``."""
    operations: Style | None = None
    """None: named by location, with the full metadata."""
    stamp: Callable[[Call, str, Body, Body | None], None] | None = None
    """Adds what every resource of the service has (call, key, body, what was there before)."""
    merge_patch: bool = False
    """Whether PATCH is a JSON merge patch instead of an update with a mask."""
    permissions: Mapping[str, str] = field(default_factory=dict)
    """IAM permissions that are not called like their method, by short id."""
    not_in_projects: bool = False
    """Whether the service works without being enabled in the project that is spoken of."""

    @cached_property
    def rows(self) -> Mapping[str, Kind]:
        """The kinds by collection."""
        return {kind.collection: kind for kind in self.kinds}

    def kind(self, path: str) -> Kind:
        """The row of the resource at a path."""
        parts = path.split("/")
        collection = parts[-2] if len(parts) > 1 else parts[-1]
        owner = f"{parts[-4]}/{collection}" if len(parts) > 3 else collection
        return self.rows.get(owner) or self.rows.get(collection) or _COMMON.get(collection) or self.every


_COMMON = {"locations": Kind("locations", built_in=places.locations)}
"""Rows of what every service has."""


@dataclass(frozen=True)
class Each:
    """In ``defaults``: what is missing is filled in each item of the list that is there."""

    defaults: Mapping[str, Any]


def fill_missing(body: Body, defaults: Mapping[str, Any]) -> None:
    """Add what is missing, at every depth; nothing that is there is changed."""
    for name, value in defaults.items():
        if isinstance(value, Each):
            for item in body.get(name, ()):
                fill_missing(item, value.defaults)
        elif name not in body:
            body[name] = _without_each(value)
        elif isinstance(value, dict) and isinstance(body[name], dict):
            fill_missing(body[name], value)


def _without_each(value: Any) -> Any:
    """A default of its own; of a list that is not there, no item can be filled."""
    if isinstance(value, Mapping):
        return {name: _without_each(inner) for name, inner in value.items() if not isinstance(inner, Each)}
    return list(value) if isinstance(value, list | tuple) else value


def worded(control: ControlPlane, words: str, key: str, **more: str) -> str:
    """The words of a row about the resource of a key."""
    path = key.split("/", 1)[1]
    parts = path.split("/")
    project = parts[parts.index("projects") + 1] if "projects" in parts[:-1] else ""
    place = next((parts[parts.index(w) + 1] for w in ("locations", "regions", "zones") if w in parts[:-1]), "global")
    return words.format(
        path=path,
        numbered=control.projects.numbered(path),
        id=parts[-1],
        parent=parts[-3] if len(parts) > 2 else "",
        project=project,
        number=control.projects.number(project) if project else "",
        location=place,
        noun=snake(re.sub("(?<!s)s$", "", re.sub("(ss|x|ch)es$", r"\1", re.sub("ies$", "y", parts[-2]))))
        if len(parts) > 1
        else "",
        **more,
    )


def not_found(control: ControlPlane, key: str) -> Fault:
    """404 in the service's words."""
    return Fault("NOT_FOUND", worded(control, control.kind(key).not_found, key))


def already_exists(control: ControlPlane, key: str) -> Fault:
    """409 in the service's words."""
    return Fault("ALREADY_EXISTS", worded(control, control.kind(key).exists, key))
