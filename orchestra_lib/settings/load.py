"""Reading an environment's file and the one it rehearses, putting a notebook's overrides over them, and saying in one
line what is refused.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from orchestra_lib.errors import ParameterError
from orchestra_lib.settings.document import read
from orchestra_lib.settings.model import CLOUD_SECTIONS, Settings
from orchestra_lib.settings.overrides import OVERRIDES, parameter_names
from orchestra_lib.settings.refusal import refusal

STRATEGY = "strategy-as-written"
"""The file with the strategy's own words under our names: no environment, and nothing can be made from it."""

# What a rehearsal takes from the environment that it rehearses, where it has none of its own.
_TAKEN: tuple[tuple[str, ...], ...] = (*((name,) for name in CLOUD_SECTIONS), ("memory", "alloydb"))


def root() -> Path:
    """The project's folder: ``$ORCHESTRA_HOME``, or where this library was installed from."""
    chosen = os.environ.get("ORCHESTRA_HOME")
    return Path(chosen).expanduser().absolute() if chosen else Path(__file__).resolve().parents[2]


def environments(directory: Path | None = None) -> tuple[str, ...]:
    """The names of the environments that have a parameter file."""
    paths = (directory or root() / "parameters").glob("*.yaml")
    return tuple(sorted(path.stem for path in paths if path.stem != STRATEGY))


def load(
    environment: object,
    runbook: str | None = None,
    overrides: Mapping[str, object] | None = None,
    directory: Path | None = None,
) -> Settings:
    """The settings of an environment, with a runbook's parameters over them; a None is no override.

    Sections of Google Cloud that the file lacks come from the environment that it ``rehearses``, if it names one.
    Raises ParameterError, in one line, for an unknown environment or parameter and for the first value that cannot be:
    it names the file in which the value stands, or the parameter, the key, the value and what is allowed.
    """
    path = _file(environment, directory or root() / "parameters")
    content = read(path)
    rehearsed, there = _rehearsed(path, content)
    taken = _take(content, there)
    given = {name: value for name, value in (overrides or {}).items() if value is not None}
    places = _places(runbook, given)
    for name, value in given.items():
        _put(content, places[name], value)
    try:
        settings = Settings.model_validate(content)
    except ValidationError as error:
        errors = error.errors(include_url=False)
        # A misspelt key is also a missing one: the misspelling is what helps.
        first = next((one for one in errors if one["type"] == "extra_forbidden"), errors[0])
        stands_in = rehearsed if rehearsed and any(first["loc"][: len(place)] == place for place in taken) else path
        raise ParameterError(refusal(first, stands_in, runbook, {places[name]: name for name in given})) from None
    if settings.environment.name != path.stem:
        raise ParameterError(
            f"{path}: environment.name is {settings.environment.name!r}; it has to be the file's own, {path.stem!r}"
        )
    return settings.with_taken(tuple(".".join(place) for place in taken))


def _rehearsed(path: Path, content: Mapping[str, Any]) -> tuple[Path | None, Mapping[str, Any]]:
    """The file of the environment that this one rehearses, and its content.

    It has to be one on Google Cloud, that rehearses nothing itself.
    """
    name = content.get("rehearses")
    if name is None:
        return None, {}
    others = [other for other in environments(path.parent) if other != path.stem]
    if name not in others:
        raise ParameterError(
            f"{path}: rehearses is {name!r}; allowed: the name of another file beside it, "
            f"and there is {', '.join(others) or 'none'}"
        )
    rehearsed = path.parent / f"{name}.yaml"
    there = read(rehearsed)
    environment = there.get("environment")
    if there.get("rehearses") is not None or not isinstance(environment, dict) or environment.get("kind") != "gcp":
        raise ParameterError(
            f"{path}: rehearses is {name!r}, and {rehearsed} is not on Google Cloud; only an environment of kind gcp "
            "that rehearses nothing itself can be rehearsed"
        )
    return rehearsed, there


def _take(content: dict[str, Any], rehearsed: Mapping[str, Any]) -> tuple[tuple[str, ...], ...]:
    """Put the rehearsed environment's sections where the content has none of its own; their places."""
    taken = []
    for place in _TAKEN:
        into, out_of = _section(content, place[:-1]), _section(rehearsed, place[:-1])
        if isinstance(into, dict) and isinstance(out_of, dict) and place[-1] not in into and place[-1] in out_of:
            into[place[-1]] = out_of[place[-1]]
            taken.append(place)
    return tuple(taken)


def _section(content: Mapping[str, Any], place: tuple[str, ...]) -> Any:
    for key in place:
        inner = content.get(key)
        if not isinstance(inner, dict):
            return None
        content = inner
    return content


def _file(environment: object, directory: Path) -> Path:
    names = environments(directory)
    if environment == STRATEGY:
        raise ParameterError(
            f"{STRATEGY} is no environment: it holds what the strategy says, and part of that cannot exist; the "
            f"preflight judges it; the environments are {', '.join(names) or 'none'}"
        )
    if environment not in names:
        raise ParameterError(
            f"there is no environment {environment!r}; {directory} has {', '.join(names) or 'no file NAME.yaml'}"
        )
    return directory / f"{environment}.yaml"


def _places(runbook: str | None, given: Mapping[str, object]) -> dict[str, tuple[str, ...]]:
    if not given:
        return {}
    known = parameter_names(runbook) if runbook else ()
    unknown = next((name for name in given if name not in known), None)
    if runbook is None or unknown is not None:
        raise ParameterError(f"{unknown!r} is no parameter of {runbook}; it has {', '.join(known)}")
    return {name: tuple(OVERRIDES[runbook][name].split(".")) for name in given}


def _put(content: dict[str, Any], place: tuple[str, ...], value: object) -> None:
    for key in place[:-1]:
        inner = content.setdefault(key, {})  # a section that has defaults may be left out of the file
        if not isinstance(inner, dict):
            return  # the file itself is wrong there, and validation will say so
        content = inner
    content[place[-1]] = value
