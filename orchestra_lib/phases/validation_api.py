"""The API's part of runbook 06: phase 5's service asked once more at its stated rates, by what phase 5 calls."""

from __future__ import annotations

from dataclasses import replace

from orchestra_lib.api_load.rates import RatesMeasured
from orchestra_lib.api_load.report import rates_evidence
from orchestra_lib.cloud.refusals import CloudRefused
from orchestra_lib.database import connect
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
        phase = self._phase
        phase.caller.wait_until_let_in(phase.service.uri())
        with connect(phase.store.address, role="memory") as session:
            phase.memories.put(session)
        try:
            found = phase.measures.measured_rates()
        finally:
            with connect(phase.store.address, role="memory") as session:
                phase.memories.clear(session)
        return replace(blank, now=self._side(found)), rates_evidence(found, self._source)

    def left(self) -> tuple[Evidence, ...]:
        """The probe's memories that are still there; nothing where there is no service."""
        if self._serving() is None:
            return ()
        with connect(self._phase.store.address, role="memory") as session:
            left = self._phase.memories.left(session)
        return (Evidence("memories of the probe that are left", Source.OBSERVED, left, "memories", Bound("==", 0)),)

    def _serving(self) -> str | None:
        try:
            return self._phase.service.serving()
        except CloudRefused as error:
            if error.is_nothing_yet:
                return None
            raise
        except GateFailed as error:
            return str(error)  # its traffic is divided: it is measured as it is

    def _side(self, found: RatesMeasured) -> Side:
        """The slowest kind of request at the lowest rate, which is the one that every environment has to bear."""
        lowest = min(found.at_rates, key=lambda one: one.stated_per_second)
        seen = max(lowest.kinds, key=lambda one: one.p95_ms.high)
        how = (
            f"{seen.kind} through the service's own address, {lowest.stated_per_second:g} requests a second offered, "
            f"{lowest.achieved_per_second:.4g} answered, {lowest.protocol}"
        )
        return Side.of(seen.p95_ms, self._source, how)
