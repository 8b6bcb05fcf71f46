"""From resources as they were applied to Terraform's blocks. Pure.

Nothing is dropped in silence: what the provider has no argument for, and what is secret, becomes a note of its block.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestra_lib.cloud.resource import UNKNOWN, Live, Resource
from orchestra_lib.cloud.terraform.rows import ROWS, Row
from orchestra_lib.cloud.terraform.schema import GA, Block, resource_types
from orchestra_lib.secret import MASK

_PART_OF_A_WORD = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_NO_NAME = re.compile(r"[^a-z0-9]+")
_SHOWN_CHARACTERS = 120


@dataclass(frozen=True)
class Converted:
    """One resource block with its import. ``key`` names the resource that it comes from, ``notes`` what it lacks."""

    key: str
    row: Row
    name: str
    arguments: Mapping[str, Any]
    import_id: str
    notes: tuple[str, ...]
    needs: tuple[str, ...]

    @property
    def address(self) -> str:
        """How Terraform names it: ``google_compute_network.orchestra``."""
        return f"{self.row.type}.{self.name}"


@dataclass(frozen=True)
class _Part:
    """One block on its way: its row, the fields that it has to say, and what its templates know."""

    resource: Resource
    row: Row
    body: Mapping[str, Any]
    known: Mapping[str, str]
    unsaid: tuple[str, ...] = ()


def convert(found: Sequence[tuple[Resource, Live]]) -> tuple[Converted, ...]:
    """The blocks of the resources, in the order of their keys. Bodies hold values, no references.

    The same resources give the same blocks in any order. A block that could not say everything has notes.
    """
    parts = [part for resource, live in sorted(found, key=lambda one: one[0].key) for part in _parts(resource, live)]
    names = _names(parts)
    of_key: dict[str, list[str]] = {}
    for part, name in zip(parts, names, strict=True):
        of_key.setdefault(part.resource.key, []).append(f"{part.row.type}.{name}")
    return tuple(_converted(part, name, _needs(part, of_key)) for part, name in zip(parts, names, strict=True))


def _needs(part: _Part, of_key: Mapping[str, list[str]]) -> tuple[str, ...]:
    """The addresses that have to exist first; an item of a list needs the resource that the list is in."""
    needs = [address for key in part.resource.all_needs for address in of_key.get(key, ())]
    has_own_block = any(row.each is None for row in ROWS[part.resource.kind])
    if part.row.each and has_own_block:
        needs.append(of_key[part.resource.key][0])
    return tuple(dict.fromkeys(needs))


def as_json(converted: Converted) -> tuple[dict[str, Any], dict[str, Any]]:
    """The body of the resource block and of the import block, in Terraform's JSON syntax.

    https://developer.hashicorp.com/terraform/language/syntax/json
    """
    body = {name: _escaped(value) for name, value in sorted(converted.arguments.items())}
    if converted.needs:
        body["depends_on"] = list(converted.needs)
    if converted.row.provider != GA:
        body["provider"] = converted.row.provider
    if converted.row.ignored_changes:
        body["lifecycle"] = {"ignore_changes": list(converted.row.ignored_changes)}
    if converted.notes:
        body = {"//": "Not said here: " + "; ".join(converted.notes), **body}
    return body, {"to": converted.address, "id": _escaped(converted.import_id)}


def _parts(resource: Resource, live: Live) -> list[_Part]:
    rows = ROWS[resource.kind]
    split = {row.each for row in rows if row.each}
    rest = {name: value for name, value in resource.body.items() if name not in split}
    known = _known(resource, live)
    parts: list[_Part] = []
    for row in rows:
        if row.each is None:
            parts.append(_Part(resource, row, row.reshape(rest, live.body), known))
            continue
        for item in resource.body.get(row.each, ()):
            body, each = (item, str(item["name"])) if isinstance(item, Mapping) else ({}, str(item))
            parts.append(_Part(resource, row, body, {**known, "each": each}))
    if all(row.each for row in rows):
        unsaid = tuple(_shown(name, value) for name, value in rest.items() if name != "member")
        parts = [_Part(one.resource, one.row, one.body, one.known, unsaid) for one in parts]
    return parts


def _known(resource: Resource, live: Live) -> dict[str, str]:
    """What the templates of a row may name."""
    segments = resource.parent.split("/")
    member = str(resource.body.get("member", resource.id))
    return {
        **dict(zip(segments[::2], segments[1::2], strict=False)),
        "parent": resource.parent,
        "id": resource.id,
        "name": live.name,
        "short_name": live.name.rsplit("/", 1)[-1],
        "network": str(resource.body.get("network", "")),
        "service": resource.id.removesuffix(".googleapis.com"),
        "member": member,
        "who": resource.id.rpartition(":")[2].partition("@")[0],
        "on": segments[-1].partition("@")[0],
    }


def _names(parts: Sequence[_Part]) -> list[str]:
    """A name for each block, unique among those of its type."""
    taken: set[tuple[str, str]] = set()
    names = []
    for part in parts:
        known = {**part.known, "each": part.known.get("each", "").rpartition("/")[2]}
        wanted = _NO_NAME.sub("_", part.row.label.format(**known).lower()).strip("_") or "resource"
        if wanted[0].isdigit():
            wanted = f"_{wanted}"  # a name begins with a letter or an underscore
        name, number = wanted, 1
        while (part.row.type, name) in taken:
            number += 1
            name = f"{wanted}_{number}"
        taken.add((part.row.type, name))
        names.append(name)
    return names


def _converted(part: _Part, name: str, needs: tuple[str, ...]) -> Converted:
    row, notes = part.row, list(part.unsaid)
    given = {argument: template.format(**part.known) for argument, template in row.arguments.items()}
    schema = resource_types()[row.type]
    said = _arguments(schema, part.body, "", row.renamed, notes)
    arguments = {**row.constants, **given, **said}
    notes += [f"{missing}, which the provider requires" for missing in sorted(schema.required - set(arguments))]
    import_id = row.import_id.format(**part.known)
    return Converted(part.resource.key, row, name, arguments, import_id, tuple(notes), needs)


def _arguments(
    schema: Block, body: Mapping[str, Any], path: str, renamed: Mapping[str, str], notes: list[str]
) -> dict[str, Any]:
    """The fields of a message as arguments; what cannot be said goes to the notes."""
    said: dict[str, Any] = {}
    for field, value in body.items():
        place = f"{path}{field}"
        name = renamed.get(place) or _snake_case(field)
        argument = schema.arguments.get(name)
        if value is None:
            continue
        if argument is None:
            notes.append(f"{_shown(place, value)}: the provider has no such argument")
        elif isinstance(argument, Block):
            said[name] = _blocks(argument, value, place, renamed, notes)
        elif MASK in json.dumps(value, ensure_ascii=False):
            notes.append(f"{place}: a secret, which is never written; give it as a sensitive variable")
        elif value == UNKNOWN:
            notes.append(f"{place}: it was not known when it was applied")
        else:
            said[name] = _value(argument, value)
    return said


def _blocks(
    schema: Block, value: Any, place: str, renamed: Mapping[str, str], notes: list[str]
) -> dict[str, Any] | list[dict[str, Any]]:
    items = value if isinstance(value, list | tuple) else [value]
    blocks = []
    for index, item in enumerate(items):
        block = _arguments(schema, item, f"{place}.", renamed, notes)
        where = f"{place}[{index}]" if len(items) > 1 else place
        notes += [f"{where}.{name}, which the provider requires" for name in sorted(schema.required - set(block))]
        blocks.append(block)
    return blocks if schema.many or len(blocks) != 1 else blocks[0]


def _value(type_: str, value: Any) -> Any:
    """A value in the provider's type: 64-bit numbers are texts in Google's JSON."""
    if type_ == "number" and isinstance(value, str):
        return json.loads(value)
    if type_ == "string" and isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    return list(value) if isinstance(value, tuple) else value


def _snake_case(field: str) -> str:
    return _PART_OF_A_WORD.sub("_", field).lower()


def _escaped(value: Any) -> Any:
    """Texts as Terraform reads them back: in JSON too, ``${`` and ``%{`` begin an expression."""
    if isinstance(value, str):
        return value.replace("${", "$${").replace("%{", "%%{")
    if isinstance(value, Mapping):
        return {_escaped(name): _escaped(item) for name, item in sorted(value.items())}
    if isinstance(value, list):
        return [_escaped(item) for item in value]
    return value


def _shown(place: str, value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, sort_keys=True)
    return f"{place} = {text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + '…'}"
