"""Judging a document by rules, and putting the nearest valid settings into it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from orchestra_lib.evidence import Bound, Evidence, Source
from orchestra_lib.rules.facts import LiveFacts
from orchestra_lib.rules.known import NotStated
from orchestra_lib.rules.rule import Absent, CannotJudge, Finding, Input, Level, Parameter, Rule, Values
from orchestra_lib.settings.document import value_at, with_values

_NO_FACTS = LiveFacts()


def judge(
    document: Mapping[str, Any], rules: Sequence[Rule], where: str = "", facts: LiveFacts = _NO_FACTS
) -> tuple[Finding, ...]:
    """What the rules find in a document, worst first; ``where`` names it, ``facts`` are what was read of Google Cloud.

    A rule that holds has no finding. One that cannot be judged has one that says what is not there.
    """
    found = (_judge(rule, document, where, facts) for rule in rules)
    return tuple(sorted((one for one in found if one), key=lambda one: one.rank))


def fix(document: Mapping[str, Any], findings: Iterable[Finding]) -> dict[str, Any]:
    """The document with the nearest valid settings of the findings in it; the first finding of a setting wins.

    New settings may break other rules: judge again until nothing changes.
    """
    values: dict[str, Any] = {}
    for finding in findings:
        if not any(parameter.place in values for parameter in finding.nearest):
            values |= {parameter.place: parameter.value for parameter in finding.nearest}
    return with_values(document, values)


def summary(findings: Sequence[Finding], rules: Sequence[Rule], where: str = "") -> Evidence:
    """One row for all of it: how many of the rules the document breaks, which has to be none."""
    counted = {level: sum(one.level is level for one in findings) for level in Level}
    return Evidence(
        "rules that the settings break",
        Source.MEASURED,
        counted[Level.FAIL],
        "rules",
        Bound("==", 0),
        command=where,
        note=f"{len(rules)} rules, of which {counted[Level.WARN]} warn and {counted[Level.UNJUDGED]} were not judged",
    )


def _judge(rule: Rule, document: Mapping[str, Any], where: str, facts: LiveFacts) -> Finding | None:
    values = Values()
    for name, read in rule.reads.items():
        raw = _raw(read, document, facts)
        if raw is None and read.absent is Absent.MET:
            return None
        if raw is None and read.absent is Absent.UNJUDGED:
            gone = "was not read from Google Cloud" if read.live else "is not stated"
            return Finding(rule, Level.UNJUDGED, f"cannot be judged: {_name(read)} {gone}", where=where)
        value = read.default if raw is None else read.kind.read(raw)
        if raw is not None and value is None:
            # No service takes such a value; a rule that only warns has nothing to say about it.
            level = Level.FAIL if rule.severity is Level.FAIL else Level.UNJUDGED
            return Finding(rule, level, f"{_name(read)} is {_shown(raw)}; it has to be {read.kind.words}", where=where)
        setattr(values, name, value)
    try:
        if rule.holds(values):
            return None
        nearest = tuple(Parameter(place, value) for place, value in rule.nearest(values).items())
        return Finding(rule, rule.severity, rule.says(values), nearest, where)
    except (NotStated, CannotJudge) as error:
        return Finding(rule, Level.UNJUDGED, f"cannot be judged: {error}", where=where)


def _raw(read: Input, document: Mapping[str, Any], facts: LiveFacts) -> Any:
    if not read.live:
        return value_at(document, read.place)
    fact = getattr(facts, read.place)
    return fact.get(read.key) if read.key is not None and fact is not None else fact


def _name(read: Input) -> str:
    return f"{read.place.replace('_', ' ')} {read.key or ''}".strip() if read.live else read.place


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
