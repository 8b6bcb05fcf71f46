"""Runbook 05 under load: p95 at stated rates, starts with and without an instance kept, and more than it can bear.

What is asked are the probe's searches and retrievals. What could disturb callers is measured on revisions with a tag
and no traffic.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from orchestra_lib import local_target
from orchestra_lib.api_load import report, tables
from orchestra_lib.api_load.cold_start import FirstRequests, LocalFront, first_requests
from orchestra_lib.api_load.forms import LONG, NOTEBOOK, Form
from orchestra_lib.api_load.in_flight import sweep
from orchestra_lib.api_load.limit import find_limit
from orchestra_lib.api_load.overload import FACTOR, Overload
from orchestra_lib.api_load.rates import RatesMeasured, measure_rates
from orchestra_lib.api_load.saturation import Saturation
from orchestra_lib.api_load.trial import tagged_revision, with_scaling
from orchestra_lib.api_load.workload import Kind, Workload
from orchestra_lib.cloud.refusals import CloudRefused
from orchestra_lib.display import Progress, Table
from orchestra_lib.evidence import Evidence, Source
from orchestra_lib.phases.api_probe import Caller, ProbeMemories
from orchestra_lib.phases.cloud_work import CloudWork
from orchestra_lib.rollout.service import RunService
from orchestra_lib.runbook import Runbook

_TAG, _OUT = "load", "Left out"


class Measures:
    """The measurements of one run; each may be repeated."""

    def __init__(
        self,
        run: Runbook,
        work: CloudWork,
        service: RunService,
        template: Mapping[str, Any],
        memories: ProbeMemories,
        caller: Caller,
    ) -> None:
        self._run, self._settings, self._work = run, run.settings, work
        self._service, self._template = service, template
        self._memories, self._caller = memories, caller
        self._source = Source.REHEARSED if work.is_local else Source.MEASURED
        wanted = run.settings.api_load
        self._form = replace(LONG if wanted.long else NOTEBOOK, rates=wanted.rates)

    def recover(self) -> None:
        """Take away the tag that a measurement of an earlier run has left: its revision would stay up for it."""
        try:
            shares = self._service.shares()
        except CloudRefused as error:
            if error.is_nothing_yet:
                return
            raise
        others = [share for share in shares if share.tag != _TAG]
        if len(others) < len(shares):
            self._service.direct(others)
            self._run.note("an earlier run was cut off while it measured: the revision that it tried has lost its tag")

    def rates(self) -> Table:
        """p95 of searches and retrievals at each stated rate, beside what is said of today's API."""
        found = self.measured_rates()
        self._run.add(
            *report.rates_evidence(found, self._source),
            *report.baseline_evidence(found, self._settings, self._source),
        )
        return tables.rates_table(found)

    def measured_rates(self, form: Form | None = None) -> RatesMeasured:
        """The figures alone; ``form`` says how long and at which rates, None: as this run's settings do."""
        wanted, progress = form or self._form, Progress("load", "rates")
        with self._run.step("offered rates"):
            progress.say(" and ".join(f"{rate:g}" for rate in wanted.rates) + " requests a second")
            return measure_rates(self._workload(), wanted)

    def cold_starts(self) -> Table:
        """The first request after a quiet time, with no instance kept and with one."""
        if not self._work.is_local:
            claim = "first request after a quiet time"
            note = "an idle instance ends after 15 minutes and nothing ends it sooner: Monitoring has startup latencies"
            return self._work.show((Evidence(claim, Source.ASSUMED, "not measured", note=note),), _OUT)
        endpoint = local_target.start()["run"]["endpoint"]
        front = LocalFront(endpoint, self._work.client.target.credentials.token)
        with self._run.step("cold starts"):
            found = [self._without_an_instance(front), self._with_one(front)]
        self._run.add(*report.cold_start_evidence(found, self._source))
        return tables.cold_start_table(found)

    def limits(self) -> Table:
        """What one instance bears, and twice of it; in the long form also the concurrency that is earned."""
        if not (self._work.is_local or self._settings.api_load.long):
            note = "it loads the database that the application uses: give long_load when nobody works"
            return self._work.show(
                (Evidence("what one instance bears", Source.ASSUMED, "not measured", note=note),), _OUT
            )
        wanted = self._settings.api
        concurrency = wanted.concurrency if wanted else 1
        template = with_scaling(self._template, concurrency=concurrency, least=1, most=1)
        progress = Progress("load", "steps")
        with self._run.step("saturation"), tagged_revision(self._service, template, _TAG) as (uri, _):
            saturated, overloaded = find_limit(self._workload().at(uri), self._form, progress.say, self._run.note)
        self._run.add(
            *report.saturation_evidence(saturated, self._source), *report.overload_evidence(overloaded, self._source)
        )
        if self._settings.api_load.long:
            self._sweep(concurrency)
        return _limits_table(saturated, overloaded)

    def _sweep(self, asked: int) -> None:
        template = with_scaling(self._template, concurrency=max(self._form.levels), least=1, most=1)
        with self._run.step("concurrency"), tagged_revision(self._service, template, _TAG) as (uri, _):
            found = sweep(self._workload().at(uri), self._form)
        self._run.add(*report.sweep_evidence(found, asked, self._source))

    def _without_an_instance(self, front: LocalFront) -> FirstRequests:
        """At a revision that keeps none, and has no traffic."""
        wanted = self._settings.api
        template = with_scaling(self._template, concurrency=wanted.concurrency if wanted else 1, least=0, most=1)
        with tagged_revision(self._service, template, _TAG) as (uri, revision):
            return self._first_requests(front, uri, revision, 0)

    def _with_one(self, front: LocalFront) -> FirstRequests:
        """At the revision that serves, which keeps as many as the settings say."""
        least = self._template["scaling"]["minInstanceCount"]
        return self._first_requests(front, self._service.uri(), self._service.serving(), least)

    def _first_requests(self, front: LocalFront, uri: str, revision: str, least: int) -> FirstRequests:
        quiet = partial(front.end_idle, self._service.name, revision)
        return first_requests(self._workload().at(uri), least, self._form.cold_starts, quiet)

    def _workload(self) -> Workload:
        goals, uri = self._settings.targets, self._service.uri()
        kinds = (
            Kind("search", self._memories.searches, goals.api_p95_ms),
            Kind("memory retrieval", self._memories.retrievals, goals.memory_retrieval_p95_ms),
        )
        return Workload(uri, kinds, lambda: self._caller.headers(uri)).learnt()


def _limits_table(found: Saturation, overloaded: Overload) -> Table:
    """Every rate that was offered to the one instance, in order."""
    steps = [
        (
            f"{step.stated_per_second:.0f}",
            f"{step.achieved_per_second:.0f}",
            *(str(seen.p95_ms) for seen in step.kinds),
            "keeps every goal" if step.holds else step.reason,
        )
        for step in found.steps
    ]
    during, recovery = overloaded.during, overloaded.recovery_seconds
    answered = str(overloaded.answered.p95_ms) if overloaded.answered else "–"
    refused = f"{during.shed} of {during.requests} refused and told when to come again; p95 of the others {answered}"
    back = "not quick again" if recovery is None else f"quick again after {recovery:.1f} s"
    twice = (f"{overloaded.offered_per_second:.0f}", f"{overloaded.answered_per_second:.0f}", "", "", refused)
    calm = ("half of what it bears", "", *(str(seen.p95_ms) for seen in overloaded.after), back)
    kinds = [f"p95 of {seen.kind}, ms" for seen in overloaded.after]
    caption = f"One instance, {FACTOR:g} times what it bears, and calm again · {report.where_text(found.environment)}"
    return Table(("offered/s", "answered/s", *kinds, ""), [*steps, twice, calm], caption)
