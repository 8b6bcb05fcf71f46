"""What the settings alone say: the rules that they break, and what only their owner can still say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from orchestra_lib.errors import ParameterError
from orchestra_lib.evidence import Evidence, Source
from orchestra_lib.preflight.check import Check, judged, missing, noted, warned
from orchestra_lib.preflight.wanted import BLUEPRINTS
from orchestra_lib.rules import Finding, Level, LiveFacts, Rule, judge, summary
from orchestra_lib.settings import Settings

AREA = "settings"


def rule_checks(document: Mapping[str, Any], rules: Sequence[Rule], where: str) -> Iterator[Check]:
    """What the settings alone break: a row for each finding, one that counts, one that names what was not judged."""
    yield from _rows(judge(document, rules, where), rules, where, AREA, Source.MEASURED, "")


def fact_checks(
    document: Mapping[str, Any], rules: Sequence[Rule], where: str, facts: LiveFacts, source: Source
) -> Iterator[Check]:
    """The same for rules that need to know what is there. ``source``: what reading it is worth."""
    findings = judge(document, rules, where, facts)
    yield from _rows(findings, rules, where, "facts", source, ", by what is there")


def strategy_checks(document: Mapping[str, Any], rules: Sequence[Rule], where: str) -> Iterator[Check]:
    """The findings of another document than the one that will be applied: readings, so that they stop nothing."""
    findings = [one for one in judge(document, rules, where) if one.level is not Level.UNJUDGED]
    for finding in findings:
        stated = Evidence(
            f"strategy as written: {finding.rule.id}, {finding.rule.claim}",
            Source.MEASURED,
            finding.level.value,
            command=where,
            note=_note(finding),
        )
        yield Check("strategy", stated, tuple(map(str, finding.nearest)), _words(finding))
    for level, words in ((Level.FAIL, "rules that it breaks"), (Level.WARN, "rules that warn of it")):
        count = sum(one.level is level for one in findings)
        yield noted("strategy", f"strategy as written: {words}", Source.MEASURED, count, "rules", where)


def open_checks(settings: Settings, *, offline: bool) -> Iterator[Check]:
    """Whether each phase has what only the owner can say. Its own run asks for it, so that offline it only warns."""
    claim, refusals = "the settings leave nothing open that a phase asks for", []
    for _, blueprint in BLUEPRINTS:
        try:
            blueprint(settings)
        except ParameterError as error:
            refusals.append(str(error))
    for refusal in dict.fromkeys(refusals):
        yield warned(AREA, claim, Source.MEASURED, refusal) if offline else missing(AREA, claim, refusal)
    if not refusals:
        yield judged(AREA, claim, Source.MEASURED, True)


def _rows(
    findings: Sequence[Finding], rules: Sequence[Rule], where: str, area: str, source: Source, by: str
) -> Iterator[Check]:
    for finding in findings:
        if finding.level is not Level.UNJUDGED:
            yield Check(area, finding.evidence(), tuple(map(str, finding.nearest)), _words(finding))
    counted = summary(findings, rules, where)
    yield Check(area, replace(counted, claim=f"{counted.claim}{by}", source=source))
    unjudged = [finding for finding in findings if finding.level is Level.UNJUDGED]
    if unjudged:
        names = "; ".join(f"{one.rule.id} {one.rule.place}" for one in unjudged)
        yield noted(area, f"rules that could not be judged{by}", source, len(unjudged), "rules", names)


def _words(finding: Finding) -> str:
    return f"{finding.rule.place}: {finding.message}; {finding.rule.basis}"


def _note(finding: Finding) -> str:
    remedy = f"; nearest valid setting: {', '.join(map(str, finding.nearest))}" if finding.nearest else ""
    return f"{finding.rule.place}: {finding.message}{remedy}; {finding.rule.basis}"
