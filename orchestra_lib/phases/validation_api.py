"""The API's part of runbook 06: phase 5's service asked once more at its stated rates, by what phase 5 calls."""

from __future__ import annotations

from dataclasses import replace

from orchestra_lib.api_load.forms import LONG, NOTEBOOK, Form
from orchestra_lib.api_load.rates import RatesMeasured
from orchestra_lib.api_load.report import rates_evidence
from orchestra_lib.errors import GateFailed
from orchestra_lib.evidence import Bound, Evidence, Source
from orchestra_lib.phases.api import ApiPhase
from orchestra_lib.phases.cloud_work import CloudWork
from orchestra_lib.phases.validation_store import stated
from orchestra_lib.runbook import Runbook
from orchestra_lib.validation.targets import Side, Target

_NOT_THERE = "there is no service: run 05_api first"


class ApiAgain:
    """The service of phase 5, measured again with memories of its probe that are put there and deleted again."""

    def __init__(self, run: Runbook, work: CloudWork) -> None:
        self._run, self._settings = run, run.settings
        self._source = Source.REHEARSED if work.is_local else Source.MEASURED
        self._phase = ApiPhase(run)

    def told(self) -> str:
        """Which revision serves, or that nothing does."""
        return self._serving() or _NOT_THERE

    def measure(self, hardware: str, load: str) -> tuple[Target, tuple[Evidence, ...]]:
        """p95 of searches and retrievals at each stated rate; the target is held against the lowest of them."""
        bound = Bound("<", self._settings.targets.api_p95_ms)
        blank = Target("API, p95", "ms", bound, None, stated(self._settings.baseline.api_ms), hardware, load)
        if self._serving() is None:
            row = Evidence("p95 of the API", Source.MISSING, None, "ms", bound, note=_NOT_THERE)
            return replace(blank, missing=_NOT_THERE), (row,)
        found = self._phase.measured_again(self._form())
        return replace(blank, now=self._side(found)), rates_evidence(found, self._source)

    def left(self) -> tuple[Evidence, ...]:
        """The probe's memories that are still there; nothing where there is no service."""
        if self._serving() is None:
            return ()
        left = self._phase.memories_left()
        return (Evidence("memories of the probe that are left", Source.OBSERVED, left, "memories", Bound("==", 0)),)

    def _serving(self) -> str | None:
        try:
            return self._phase.takeover.serving()
        except GateFailed as error:
            return str(error)  # its traffic is divided: it is measured as it is

    def _form(self) -> Form:
        """Every stated rate on Google Cloud; a rehearsal's gate is its lowest alone."""
        wanted = self._settings.api_load
        if self._source is Source.REHEARSED:
            return replace(NOTEBOOK, rates=(min(wanted.rates),))
        return replace(LONG if wanted.long else NOTEBOOK, rates=wanted.rates)

    def _side(self, found: RatesMeasured) -> Side:
        """The slowest kind of request at the lowest rate, which is the one that every environment has to bear."""
        lowest = min(found.at_rates, key=lambda one: one.stated_per_second)
        seen = max(lowest.kinds, key=lambda one: one.p95_ms.high)
        how = (
            f"{seen.kind} through the service's own address, {lowest.stated_per_second:g} requests a second offered, "
            f"{lowest.achieved_per_second:.4g} answered, {lowest.protocol}"
        )
        return Side.of(seen.p95_ms, self._source, how)
