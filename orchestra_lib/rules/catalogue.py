"""All rules, and which of them need to know what is there."""

from __future__ import annotations

from orchestra_lib.rules import database, live, models, money, project, run, workstations
from orchestra_lib.rules.rule import Rule

OFFLINE: tuple[Rule, ...] = (
    *project.RULES,
    *workstations.RULES,
    *database.RULES,
    *models.RULES,
    *run.RULES,
    *money.RULES,
)
"""The rules that the document alone answers."""

LIVE: tuple[Rule, ...] = live.RULES
"""The rules that need facts read from Google Cloud."""

ALL: tuple[Rule, ...] = (*OFFLINE, *LIVE)
