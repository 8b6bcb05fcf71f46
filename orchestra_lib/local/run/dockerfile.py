"""What of a Dockerfile can be followed without Docker: the last stage's files, environment and command.

https://docs.docker.com/reference/dockerfile/
"""

from __future__ import annotations

import json
import posixpath
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

_VARIABLE = re.compile(r"\$(?:\{(?P<braced>\w+)(?::-(?P<otherwise>[^}]*))?\}|(?P<plain>\w+))")
_SHELL = ("/bin/sh", "-c")
_WITHOUT_MEANING = frozenset({"EXPOSE", "LABEL", "MAINTAINER", "STOPSIGNAL", "ONBUILD"})


class DockerfileError(Exception):
    """The file cannot be read as a Dockerfile; the message says which line."""


@dataclass(frozen=True)
class Copied:
    """One COPY: paths within the context, and where they go in the image."""

    sources: tuple[str, ...]
    destination: str
    is_directory: bool
    """Whether the destination is a directory in any case."""


@dataclass
class Stage:
    """What a stage says, in the order in which it says it."""

    copies: list[Copied] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    working_directory: str = "/"
    entrypoint: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()
    left_out: list[str] = field(default_factory=list)
    """Instructions that were not followed."""

    def copy(self) -> Stage:
        """A stage that begins where this one ends."""
        return Stage(
            list(self.copies),
            dict(self.environment),
            self.working_directory,
            self.entrypoint,
            self.arguments,
            list(self.left_out),
        )


def read(text: str, build_arguments: Mapping[str, str]) -> Stage:
    """The last stage. Raises DockerfileError."""
    stages: dict[str, Stage] = {}
    stage: Stage | None = None
    arguments: dict[str, str] = {}
    for number, name, rest in _instructions(text):
        if name == "ARG":
            _declare(rest, arguments, build_arguments)
            continue
        if name == "FROM":
            words = [_expanded(word, arguments) for word in rest.split() if not word.startswith("--")]
            stage = stages[words[0]].copy() if words[0] in stages else Stage()
            stages[words[2] if len(words) == 3 and words[1].upper() == "AS" else str(len(stages))] = stage
            continue
        if stage is None:
            raise DockerfileError(f"line {number}: {name} stands before FROM")
        _follow(stage, number, name, rest, arguments)
    if stage is None:
        raise DockerfileError("it has no FROM")
    return stage


def _follow(stage: Stage, number: int, name: str, rest: str, arguments: Mapping[str, str]) -> None:
    known = {**arguments, **stage.environment}
    if name in ("COPY", "ADD"):
        _copy(stage, number, rest, known)
    elif name == "WORKDIR":
        stage.working_directory = posixpath.normpath(posixpath.join(stage.working_directory, _expanded(rest, known)))
    elif name == "ENV":
        stage.environment.update(_pairs(rest, known))
    elif name == "ENTRYPOINT":
        stage.entrypoint, stage.arguments = _command(rest), ()
    elif name == "CMD":
        stage.arguments = _command(rest)
    elif name not in _WITHOUT_MEANING:
        stage.left_out.append(f"{name} {rest}")


def _copy(stage: Stage, number: int, rest: str, known: Mapping[str, str]) -> None:
    words = _listed(rest) or shlex.split(rest)
    flags = [word for word in words if word.startswith("--")]
    paths = [_expanded(word, known) for word in words if not word.startswith("--")]
    if any(flag.startswith("--from") for flag in flags):
        stage.left_out.append(f"COPY {rest}")
        return
    if len(paths) < 2:
        raise DockerfileError(f"line {number}: COPY needs a source and a destination")
    destination = posixpath.normpath(posixpath.join(stage.working_directory, paths[-1]))
    is_directory = paths[-1].endswith("/") or paths[-1] in (".", "..") or len(paths) > 2
    stage.copies.append(Copied(tuple(paths[:-1]), destination, is_directory))


def _instructions(text: str) -> Iterator[tuple[int, str, str]]:
    """Line number, name in capitals, and the rest with continued lines joined."""
    begun, joined = 0, ""
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        begun = begun if joined else number
        if stripped.endswith("\\"):
            joined += stripped[:-1].rstrip() + " "
            continue
        name, _, rest = (joined + stripped).partition(" ")
        joined = ""
        yield begun, name.upper(), rest.strip()
    if joined:
        raise DockerfileError(f"line {begun}: the file ends within an instruction")


def _declare(rest: str, arguments: dict[str, str], given: Mapping[str, str]) -> None:
    name, _, default = rest.partition("=")
    value = given.get(name, arguments.get(name, _expanded(default.strip("\"'"), arguments)))
    arguments[name] = value


def _pairs(rest: str, known: Mapping[str, str]) -> dict[str, str]:
    first, _, others = rest.partition(" ")
    if "=" not in first:  # the old form: ENV NAME the rest of the line
        return {first: _expanded(others, known)}
    return {name: _expanded(value, known) for name, _, value in (word.partition("=") for word in shlex.split(rest))}


def _command(rest: str) -> tuple[str, ...]:
    return tuple(_listed(rest)) or (*_SHELL, rest)


def _listed(rest: str) -> list[str]:
    """The words of the JSON form; empty for the shell form."""
    if not rest.startswith("["):
        return []
    try:
        words = json.loads(rest)
    except ValueError:
        return []
    return [str(word) for word in words]


def _expanded(text: str, known: Mapping[str, str]) -> str:
    def value(found: re.Match[str]) -> str:
        return known.get(found["braced"] or found["plain"]) or found["otherwise"] or ""

    return _VARIABLE.sub(value, text)
