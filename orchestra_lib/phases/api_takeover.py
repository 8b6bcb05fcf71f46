"""Runbook 05's traffic: the new revision takes over gate by gate, and everything goes back in one call."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from orchestra_lib.cloud.refusals import CloudRefused
from orchestra_lib.display import Progress, Table
from orchestra_lib.display.rollout import ShownStep, rollout_figure
from orchestra_lib.evidence import Bound, Evidence, Source, yes_or_no
from orchestra_lib.phases.api_probe import Caller, ProbeMemories
from orchestra_lib.phases.api_release import rollouts
from orchestra_lib.phases.cloud_work import CloudWork
from orchestra_lib.plan import Change, Verb
from orchestra_lib.rollout import blue_green
from orchestra_lib.rollout.blue_green import BLUE, Gate, Rollout, is_served
from orchestra_lib.rollout.comparison import Requests, ask
from orchestra_lib.rollout.journal import Outcome
from orchestra_lib.rollout.service import WHOLE, RunService, Share
from orchestra_lib.runbook import Runbook
from orchestra_lib.service.settings import PREFIX

_REDIRECT_SECONDS = 1.0
_ASKED_AFTER_A_REDIRECT = 20
_STORE_SETTINGS = frozenset(f"{PREFIX}{name}" for name in ("DSN", "INSTANCE", "DATABASE"))


@dataclass(frozen=True)
class Redirected:
    """The way back and forth: seconds until each was in effect, and what was asked after both."""

    back_seconds: float
    forth_seconds: float
    asked: int
    failed: int


class Takeover:
    """The traffic of one service in one run. ``template`` is that of the revision that is to serve."""

    def __init__(
        self,
        run: Runbook,
        work: CloudWork,
        service: RunService,
        template: Mapping[str, Any],
        memories: ProbeMemories,
        caller: Caller,
    ) -> None:
        self._run, self._wanted, self._work = run, run.settings.rollout, work
        self._service, self._template = service, template
        self._memories, self._caller = memories, caller
        self._measures = Source.REHEARSED if work.is_local else Source.MEASURED
        self._journal = rollouts(run.settings)
        self._done: Rollout | None = None

    def recover(self) -> None:
        """End a rollout that an earlier run has left in its middle."""
        if self._journal.unfinished(self._service.name) is None:
            return
        with self._run.step("recover rollout"):
            try:
                told = blue_green.recover(self._service, self._journal)
            except CloudRefused as error:
                if not error.is_nothing_yet:
                    raise
                told = blue_green.forget(self._service, self._journal)
        self._run.note(f"an earlier run was cut off: {told}")

    def change(self) -> Change:
        """What the plan says of the traffic."""
        steps = ", ".join(f"{percent} %" for percent in self._wanted.percents)
        how = f"a revision of this template takes over: {steps}, with a gate before the first and after each"
        serving = self.serving()
        if serving is None:
            return Change(Verb.CREATE, "traffic", self._service.id, how)
        served = is_served(self._service, self._template)
        return Change(Verb.KEEP if served else Verb.UPDATE, "traffic", self._service.id, "" if served else how, serving)

    def serving(self) -> str | None:
        """The revision that gets everything; None before there is a service."""
        try:
            return self._service.serving()
        except CloudRefused as error:
            if error.is_nothing_yet:
                return None
            raise

    def roll_out(self) -> Table:
        """Let a revision of the template take over; nothing when one serves already."""
        if is_served(self._service, self._template):
            serving = self.serving()
            done = [one for one in self._journal.rollouts if one.green == serving and one.outcome is Outcome.DONE]
            which = f"run {done[-1].run_id}, whose record has what its gates saw," if done else "an earlier run"
            note = f"{serving}: {which} has let it take over"
            return self._work.show((self.is_served(note),), "Nothing to roll out")
        if not self._same_store(self._service.serving()):
            self._put_in_place()
        wanted, progress = self._wanted, Progress("rollout", "steps")
        gate = Gate(wanted.percents, wanted.warm_requests, wanted.requests, wanted.latency_ratio, wanted.failed_share)
        with self._run.step("roll out"):
            self._done = blue_green.roll_out(
                self._service,
                self._template,
                self._asked(),
                gate,
                self._journal,
                self._measures,
                progress.say,
                self._run.record.run_id,
            )
        self._run.add(*_rows(self._done, self._measures))
        return _table(self._done)

    def figure(self) -> go.Figure | Table:
        """The shares over time and what the gates saw; a sentence where nothing took over."""
        done, host = self._done, self._run.record.host
        if done is None:
            return Table(("",), (("nothing took over in this run, so there is nothing to draw",),))
        steps = [ShownStep(one.percent, one.shift_seconds, one.gate_seconds, _ratio(one.rows)) for one in done.steps]
        subject = f"{done.blue} to {done.green} · {host['cores']} cores, {host['cpu']}"
        return rollout_figure(steps, done.deploy_seconds, self._wanted.latency_ratio, subject)

    def redirect(self) -> Table:
        """Send everything back to the revision of before, in one call, and forward again; both are timed."""
        previous, now = self._journal.previous(self._service.name), self._service.serving()
        if previous is None or previous == now or not self._same_store(previous):
            note = "no revision of before serves this memory"
            row = Evidence("drill: redirect", Source.ASSUMED, "not carried out", note=note)
            return self._work.show((row,), "Left out")
        with self._run.step("redirect back and forward"):
            found = self._redirected(previous, now)
        bound = Bound("<", _REDIRECT_SECONDS) if self._work.is_local else None
        told = f"{now} to {previous} in one call; it kept its tag, so its instance is warm"
        source, back, forth = self._measures, round(found.back_seconds, 3), round(found.forth_seconds, 3)
        rows = (
            Evidence("redirect back: until in effect", source, back, "s", bound, note=told),
            Evidence("redirect forward: until in effect", source, forth, "s", bound),
            Evidence(
                "requests that failed after the redirects",
                source,
                found.failed,
                "requests",
                Bound("==", 0),
                note=f"of {found.asked}",
            ),
        )
        return self._work.show(rows, "There and back")

    def is_served(self, note: str = "") -> Evidence:
        """Whether everything goes to a revision of the template."""
        claim = "all traffic goes to a revision of this template"
        return yes_or_no(claim, self._work.place.source, is_served(self._service, self._template), note=note)

    def _asked(self) -> Requests:
        uri = self._service.uri()
        return self._memories.asked(lambda: self._caller.headers(uri))

    def _same_store(self, revision: str) -> bool:
        """Whether a revision is there and serves this run's memory: only then can its answers be compared."""
        try:
            served = self._service.environment(revision)
        except CloudRefused as error:
            if error.is_absence:
                return False
            raise
        (container,) = self._template["containers"]
        wanted = {one["name"]: one["value"] for one in container["env"]}
        return all(served.get(name) == wanted.get(name) for name in _STORE_SETTINGS)

    def _put_in_place(self) -> None:
        """Another memory than that of the revision that serves: two memories cannot be compared, so it is replaced."""
        name = f"{self._service.id}-store-{uuid.uuid4().hex[:4]}"
        with self._run.step("another memory"):
            self._service.deploy(self._template, name, [Share(name, WHOLE, BLUE)])
        self._run.note(
            "the revision that served had another memory, and two memories cannot be compared: "
            f"{name} serves in its place, and is what the new revision is held against"
        )

    def _redirected(self, previous: str, now: str) -> Redirected:
        uri, asked = self._service.uri(), self._asked()
        back = blue_green.redirect(self._service, previous)
        seen = list(ask(uri, asked, _ASKED_AFTER_A_REDIRECT))
        forth = blue_green.redirect(self._service, now)
        seen += ask(uri, asked, _ASKED_AFTER_A_REDIRECT)
        return Redirected(back, forth, len(seen), sum(not one.is_good for one in seen))


def _rows(done: Rollout, source: Source) -> tuple[Evidence, ...]:
    ready = "new revision: from its deployment until it is ready"
    longest = max(step.shift_seconds for step in done.steps[1:])
    return (
        Evidence(ready, source, round(done.deploy_seconds, 2), "s"),
        *(row for step in done.steps for row in step.rows),
        Evidence("longest shift of the traffic", source, round(longest, 3), "s"),
    )


def _table(done: Rollout) -> Table:
    rows = [
        (
            f"{one.percent} %",
            f"{one.shift_seconds:.2f}",
            f"{one.gate_seconds:.2f}",
            *(row.value for row in one.rows),
        )
        for one in done.steps
    ]
    headings = (
        "new revision's share", "shift, s", "gate, s", "answers that differ", "failed by the new one alone",
        "latency, new / old, upper end", "failed share of the service",
    )  # fmt: skip
    return Table(headings, rows, f"{done.green} took over from {done.blue}")


def _ratio(rows: Sequence[Evidence]) -> float | None:
    value = next((row.value for row in rows if row.claim.endswith("divided by blue's")), None)
    return float(value) if isinstance(value, int | float) else None
