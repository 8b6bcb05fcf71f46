"""What a rule is: the settings that it reads, what has to hold of them, how sure that is, and the nearest setting.

A rule is data with small predicates. It reads a plain document, because a file that breaks rules cannot be loaded as
settings; what a preflight has read from Google Cloud is a second thing to read from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date
from enum import StrEnum
from types import SimpleNamespace
from typing import Any

import yaml

from orchestra_lib.evidence import Evidence, Source, yes_or_no
from orchestra_lib.rules import known
from orchestra_lib.rules.kinds import Kind


class CannotJudge(Exception):
    """A predicate finds that it lacks what it needs; the text says what."""


class Level(StrEnum):
    """What a finding amounts to, worst first. A rule that could not be judged is never a pass."""

    FAIL = "FAIL"  # Google Cloud refuses it, or it loses what must not be lost
    WARN = "WARN"  # it works, and costs or disappoints
    INFO = "INFO"
    UNJUDGED = "UNJUDGED"


_WORST_FIRST = tuple(Level)
_WIDE = 10_000  # characters: YAML is not to break the line
_END_OF_SCALAR = "...\n"


@dataclass(frozen=True)
class Parameter:
    """A setting with a value, ready for a parameter file. None is the file's null."""

    place: str
    value: Any

    def __str__(self) -> str:
        text = yaml.safe_dump(self.value, default_flow_style=True, allow_unicode=True, width=_WIDE)
        return f"{self.place}: {_one_line(text.removesuffix(_END_OF_SCALAR))}"


def _one_line(text: str) -> str:
    return " ".join(text.split())


@dataclass(frozen=True)
class Basis:
    """Where a rule comes from: a page on a day, or a place in a discovery document, whose revision is its day."""

    source: str
    on: date | None = None
    api: str | None = None
    confirmed: bool = True

    def __str__(self) -> str:
        day = known.revision(self.api) if self.api else self.on
        doubt = "" if self.confirmed else ", recalled and not confirmed"
        return f"known on {day}, {self.source}{doubt}"


def in_document(api: str, place: str) -> Basis:
    """A rule that the discovery document of an API states; ``place`` is a schema and its field, or a method."""
    return Basis(f"{api} {place}", api=api)


def on_page(source: str, on: date = date(2026, 11, 23), *, confirmed: bool = True) -> Basis:
    """A rule that a page or a repository states."""
    return Basis(source, on, confirmed=confirmed)


class Absent(StrEnum):
    """What it means that a value is not there."""

    UNJUDGED = "UNJUDGED"  # nobody knows: the rule cannot be judged
    DEFAULT = "DEFAULT"  # the service takes a value of its own, or the rule sees that there is none
    MET = "MET"  # what the rule is about is not used: nothing is sent, nothing is claimed


@dataclass(frozen=True)
class Input:
    """One thing that a rule reads. ``live``: from what was read of Google Cloud, not from the document."""

    place: str
    kind: Kind
    absent: Absent = Absent.UNJUDGED
    default: Any = None
    live: bool = False
    key: str | None = None  # one entry of a live mapping


def needs(place: str, kind: Kind) -> Input:
    """A setting without which the rule cannot be judged."""
    return Input(place, kind)


def may(place: str, kind: Kind, default: Any = None) -> Input:
    """A setting that need not be there; ``default`` is what the service then takes."""
    return Input(place, kind, Absent.DEFAULT, default)


def used(place: str, kind: Kind) -> Input:
    """A setting that need not be there, and then the rule is met: what it is about is not used, or not claimed."""
    return Input(place, kind, Absent.MET)


def live(place: str, kind: Kind, key: str | None = None) -> Input:
    """A fact of :class:`~orchestra_lib.rules.facts.LiveFacts`, or one entry of it."""
    return Input(place, kind, live=True, key=key)


Values = SimpleNamespace
"""What a rule has read, by the names that it gave."""


def _nothing(_: Values) -> Mapping[str, Any]:
    return {}


@dataclass(frozen=True)
class Rule:
    """One condition. ``claim`` says what holds when it is met; ``says`` what is wrong, with the value.

    ``nearest`` are the settings that would meet it, empty where there are none. An id names a rule of the written
    list; one that has several conditions, or several places, has as many rows.
    """

    id: str
    severity: Level
    claim: str
    reads: Mapping[str, Input]
    holds: Callable[[Values], bool]
    says: Callable[[Values], str]
    basis: Basis
    nearest: Callable[[Values], Mapping[str, Any]] = _nothing

    @property
    def place(self) -> str:
        """The setting that the rule is about: the first of the document's that it reads."""
        return next(read.place for read in self.reads.values() if not read.live)

    @property
    def is_live(self) -> bool:
        """Whether the rule needs facts read from Google Cloud."""
        return any(read.live for read in self.reads.values())


@dataclass(frozen=True)
class Finding:
    """What a rule found in a document; ``where`` names the document."""

    rule: Rule
    level: Level
    message: str
    nearest: tuple[Parameter, ...] = ()
    where: str = field(default="", compare=False)

    @property
    def rank(self) -> int:
        """0 for the worst."""
        return _WORST_FIRST.index(self.level)

    def __str__(self) -> str:
        remedy = f"; nearest: {', '.join(map(str, self.nearest))}" if self.nearest else ""
        return f"{self.level} {self.rule.id} {self.rule.place}: {_one_line(self.message)}{remedy} ({self.rule.basis})"

    def evidence(self) -> Evidence:
        """The finding as a row: a FAIL fails, everything else is noted."""
        claim = f"{self.rule.id} {self.rule.claim}"
        remedy = f"; nearest valid setting: {', '.join(map(str, self.nearest))}" if self.nearest else ""
        note = f"{self.rule.place}: {_one_line(self.message)}{remedy}; {self.rule.basis}"
        if self.level is Level.FAIL:
            return yes_or_no(claim, Source.MEASURED, False, command=self.where, note=note)
        told = {Level.WARN: "warning", Level.INFO: "information", Level.UNJUDGED: "not judged"}[self.level]
        return Evidence(claim, Source.ASSUMED, told, command=self.where, note=note)
