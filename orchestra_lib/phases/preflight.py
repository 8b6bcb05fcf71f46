"""The steps of runbook 00: judge the settings, ask what is there, hold the strategy beside it, count the money.

Nothing is changed. What is found stands in the record as evidence, and the verdict comes from it like any other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

import ipywidgets

from orchestra_lib.cloud.client import Client
from orchestra_lib.cloud.target import connect
from orchestra_lib.cost import bill, bill_evidence
from orchestra_lib.display import Table
from orchestra_lib.display.costs import cost_table, levers_table, what_if_controls
from orchestra_lib.display.findings import findings_table
from orchestra_lib.errors import OrchestraError
from orchestra_lib.evidence import Source
from orchestra_lib.preflight import (
    Check,
    cloud_checks,
    found_checks,
    guarded,
    judged,
    machine_checks,
    noted,
    open_checks,
    planted,
    rule_checks,
    source_checks,
    strategy_checks,
    surroundings_checks,
    warned,
)
from orchestra_lib.prices import LATEST, PriceTable, list_prices
from orchestra_lib.prices.catalogue import catalogue, refreshed
from orchestra_lib.rules import OFFLINE
from orchestra_lib.runbook import Runbook
from orchestra_lib.settings import STRATEGY, root
from orchestra_lib.settings.document import read
from orchestra_lib.target import source_database

_SOURCE_CLAIM = "today's store can be looked at"


class PreflightPhase:
    """One run of the preflight. Methods are called in the order of the runbook's cells, again if need be."""

    def __init__(self, run: Runbook) -> None:
        self._run, self._settings = run, run.settings
        self._document = run.settings.public()
        self._where = f"parameters/{run.settings.environment.name}.yaml"
        self._offline = run.settings.preflight.offline
        self._prices = list_prices()

    def checks(self) -> Table:
        """Everything that is checked of this environment, in one table, the worst first."""
        with self._run.step("settings"):
            rows = [*rule_checks(self._document, OFFLINE, self._where)]
            rows += open_checks(self._settings, offline=self._offline)
        with self._run.step("this machine"):
            rows += machine_checks(self._settings)
        if self._offline:
            told = "not asked: only the settings and this machine were judged"
            rows.append(noted("Google Cloud", "what is there", Source.ASSUMED, told))
        else:
            with self._run.step("Google Cloud"):
                rows += self._asked()
            with self._run.step("today's store"):
                rows += guarded("today's store", _SOURCE_CLAIM, Source.OBSERVED, self._store)
        return self._show(rows, f"Checked for {self._settings.environment.name}; nothing was changed")

    def strategy(self) -> Table:
        """What the same rules find in the strategy as it was written, which is no environment: it fails no run."""
        path = root() / "parameters" / f"{STRATEGY}.yaml"
        with self._run.step("strategy"):
            rows = list(strategy_checks(read(path), OFFLINE, f"parameters/{path.name}"))
        return self._show(rows, "The strategy as it was written, by the same rules")

    def cost(self) -> Table:
        """The strategy's estimate, the bill at list prices, and the budget."""
        with self._run.step("cost"):
            self._prices = self._current_prices()
            self._run.add(bill_evidence(self._document, bill(self._document, self._prices, LATEST)))
        return cost_table(self._document, self._prices, LATEST)

    def levers(self) -> Table:
        """The bill with each lever moved, one at a time."""
        return levers_table(self._document, self._prices, LATEST)

    def what_if(self) -> ipywidgets.VBox:
        """The levers to move by hand. Nobody reads what is chosen: it changes no setting."""
        return what_if_controls(self._document, self._prices, LATEST)

    def _asked(self) -> list[Check]:
        project = self._settings.project
        rows = list(surroundings_checks(project.id)) if project else []
        try:
            target = connect(self._settings)
        except OrchestraError as error:
            return [
                *rows,
                judged(
                    "identity", "somebody is logged in, and the target is there", Source.OBSERVED, False, str(error)
                ),
            ]
        names = self._settings.preflight.findings
        if names:
            self._run.note(f"planted, to be found: {', '.join(names)}")
        with planted(target, names):
            rows += cloud_checks(target, self._settings, self._document, self._where)
        return [*rows, *found_checks(names, rows)]

    def _store(self) -> Iterator[Check]:
        memory = self._settings.memory
        if self._settings.environment.kind == "local":
            reached = source_database(self._settings)
            yield from source_checks(reached.address, memory, is_rehearsal=reached.is_rehearsal)
        elif memory.source.dsn is None:
            yield warned(
                "today's store", _SOURCE_CLAIM, Source.ASSUMED, "memory.source.dsn is open: phase 3 asks for it"
            )
        else:
            yield from source_checks(memory.source.dsn.reveal(), memory, is_rehearsal=False)

    def _current_prices(self) -> PriceTable:
        """The dated table, on Google Cloud brought up to date from the catalogue as far as that answers."""
        if self._offline or self._settings.environment.kind == "local":
            return list_prices()
        today = datetime.now(UTC).date()
        try:
            found = refreshed(list_prices(), catalogue(Client(connect(self._settings))), today)
        except OrchestraError as error:
            self._run.note(f"the prices are those of the dated table: {error}")
            return list_prices()
        self._run.note(f"{len(found.replaced)} prices are today's, from the catalogue; {len(found.left)} stay as dated")
        return found.table

    def _show(self, rows: Sequence[Check], caption: str) -> Table:
        self._run.add(*(row.evidence for row in rows))
        return findings_table(rows, caption)
