"""What Google Cloud and an organisation do not allow, as data and small predicates."""

from orchestra_lib.rules.catalogue import ALL, LIVE, OFFLINE
from orchestra_lib.rules.constraints import CONSTRAINTS, Constraint, Policy, violations
from orchestra_lib.rules.facts import LiveFacts
from orchestra_lib.rules.judge import fix, judge, summary
from orchestra_lib.rules.rule import Finding, Level, Parameter, Rule

__all__ = [
    "ALL",
    "CONSTRAINTS",
    "LIVE",
    "OFFLINE",
    "Constraint",
    "Finding",
    "Level",
    "LiveFacts",
    "Parameter",
    "Policy",
    "Rule",
    "fix",
    "judge",
    "summary",
    "violations",
]
