"""What a phase wants to exist, and what there is: plain values, no I/O."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from orchestra_lib.evidence import canonical_json

UNKNOWN = "(known after apply)"


@dataclass(frozen=True)
class Ref:
    """In a body: a value of another resource that only exists once that resource does, such as its generated name."""

    key: str
    field: str = "name"


@dataclass(frozen=True)
class Text:
    """In a body: a text with a ``{}`` for each of its references, such as a name that holds the project's number."""

    template: str
    refs: tuple[Ref, ...]

    def __post_init__(self) -> None:
        if self.template.count("{}") != len(self.refs):
            raise ValueError(
                f"{self.template!r} has {self.template.count('{}')} places for {len(self.refs)} references"
            )


@dataclass(frozen=True)
class JsonFile:
    """In a body: the bytes of a JSON document, in base64. The document may hold references."""

    document: Mapping[str, Any]


@dataclass(frozen=True)
class Resource:
    """One wanted resource: its kind (a row of ``kinds``), where it lives, its id, and the fields that we care about.

    ``body`` is in the JSON form of Google's REST interface; fields that are left out are left to the service.
    ``needs`` are keys of resources that have to exist before this one; every :class:`Ref` in the body is one too.
    """

    kind: str
    parent: str
    id: str
    body: Mapping[str, Any] = field(default_factory=dict)
    needs: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """What names the resource in plans and journals, whatever id the service chose for it."""
        return f"{self.kind}:{self.parent}/{self.id}"

    @property
    def all_needs(self) -> tuple[str, ...]:
        """``needs`` and the keys of all references, each once."""
        return tuple(dict.fromkeys((*self.needs, *(ref.key for ref in references(self.body)))))


@dataclass(frozen=True)
class Live:
    """A resource as it is: the name that the service knows it by, and its whole body."""

    name: str
    body: Mapping[str, Any]


def references(value: Any) -> Iterator[Ref]:
    """Every :class:`Ref` in a body, at any depth, those of a :class:`Text` and a :class:`JsonFile` too."""
    if isinstance(value, Ref):
        yield value
    elif isinstance(value, Text):
        yield from value.refs
    elif isinstance(value, JsonFile):
        yield from references(value.document)
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from references(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from references(item)


def resolve(value: Any, known: Mapping[str, Live | None]) -> Any:
    """The body with each :class:`Ref` replaced by its value, or :data:`UNKNOWN` while it does not exist.

    A :class:`Text` and a :class:`JsonFile` are unknown as a whole while one of their references is.
    """
    if isinstance(value, JsonFile):
        is_open = any(resolve(ref, known) == UNKNOWN for ref in references(value))
        return UNKNOWN if is_open else _in_base64(resolve(value.document, known))
    if isinstance(value, Text):
        parts = [resolve(ref, known) for ref in value.refs]
        return UNKNOWN if UNKNOWN in parts else value.template.format(*parts)
    if isinstance(value, Ref):
        live = known.get(value.key)
        return UNKNOWN if live is None else live.name if value.field == "name" else live.body.get(value.field, UNKNOWN)
    if isinstance(value, Mapping):
        return {name: resolve(item, known) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [resolve(item, known) for item in value]
    return value


def _in_base64(document: Any) -> str:
    return base64.b64encode(canonical_json(document).encode()).decode()
