"""A parameter file as it stands: a plain mapping, read and changed by dotted paths. Nothing in it is checked here."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import yaml

from orchestra_lib.errors import ParameterError


def read(path: Path) -> dict[str, Any]:
    """The content of a parameter file. Raises ParameterError, in one line, for what is no YAML mapping."""
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _Loader)  # noqa: S506 - a safe loader with one more check
    except OSError as error:
        raise ParameterError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ParameterError(f"{path} is not UTF-8 at byte {error.start}") from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        raise ParameterError(f"{path}, line {line}: {error.problem}") from None
    except yaml.YAMLError as error:
        raise ParameterError(f"{path} is not YAML: {str(error).splitlines()[0]}") from None
    if not isinstance(content, dict):
        raise ParameterError(f"{path} holds no settings: it has to be a mapping with the section environment first")
    return content


def value_at(document: Mapping[str, Any], place: str) -> Any:
    """The value at a dotted path, such as ``api.memory``; None where nothing stands there, or null."""
    inner: Any = document
    for key in place.split("."):
        inner = inner.get(key) if isinstance(inner, Mapping) else None
    return inner


def with_values(document: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """The document with values put at dotted paths; the one given stays as it is.

    Sections that are not there are made, and what stands in the place of a section gives way to one.
    """
    changed = dict(document)
    for place, value in values.items():
        *sections, last = place.split(".")
        inner = changed
        for key in sections:
            section = inner.get(key)
            inner[key] = dict(section) if isinstance(section, Mapping) else {}
            inner = inner[key]
        inner[last] = value
    return changed


class _Loader(yaml.CSafeLoader):
    """YAML keeps the last of two equal keys in silence; a parameter file may not have two.

    libyaml reads a file in a fifth of the time of the parser that is written in Python.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                raise yaml.MarkedYAMLError(problem=f"{key!r} can be no key", problem_mark=key_node.start_mark)
            if key in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"the key {key!r} stands here twice", problem_mark=key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)
