"""The steps of runbook 05: image, memory, service and gateway, a new revision that takes over, and the measurements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import plotly.graph_objects as go

from orchestra_lib.api_load.forms import Form
from orchestra_lib.api_load.rates import RatesMeasured
from orchestra_lib.blueprint.api import ApiPlan, api, path_of, revision_template
from orchestra_lib.blueprint.identities import GATEWAY
from orchestra_lib.blueprint.probe import PROBE, probe
from orchestra_lib.cloud.caller import caller
from orchestra_lib.cloud.resource import Resource
from orchestra_lib.database import connect
from orchestra_lib.display import Table
from orchestra_lib.errors import GateFailed, OrchestraError, ParameterError
from orchestra_lib.evidence import Bound, Evidence, Source
from orchestra_lib.phases.api_front import gateway_url, tried
from orchestra_lib.phases.api_image import ApiImage
from orchestra_lib.phases.api_measures import Measures
from orchestra_lib.phases.api_probe import Caller, ProbeMemories
from orchestra_lib.phases.api_release import PHASE
from orchestra_lib.phases.api_store import ApiStore
from orchestra_lib.phases.api_takeover import Takeover
from orchestra_lib.phases.cloud_work import CloudWork
from orchestra_lib.plan import Plan, Verb
from orchestra_lib.rollout.service import RunService
from orchestra_lib.runbook import Runbook
from orchestra_lib.service.interface import interface_document
from orchestra_lib.settings.cloud import Api

_GOOGLE = "https://accounts.google.com"
_CERTIFICATES = "/oauth2/v1/certs"
_GOOGLE_KEYS = f"https://www.googleapis.com{_CERTIFICATES}"
_INVOKER = "roles/run.invoker"
_FIRST = "first"
# Here an address is not new, and a start is as short as it is: a probe a second.
_LOCAL_PROBE = {"periodSeconds": 1, "timeoutSeconds": 1, "failureThreshold": 60}


class ApiPhase:
    """One run of the API phase. Methods are called in the order of the runbook's cells, again if need be.

    ``takeover`` moves the traffic, ``measures`` measures under load.
    """

    def __init__(self, run: Runbook) -> None:
        self._run, self._settings, self._section = run, run.settings, _section(run)
        self._work = CloudWork(run, PHASE)
        self._client, self._place = self._work.client, self._work.place
        self._store = ApiStore(run, self._work)
        self._image = ApiImage(run.settings, self._work)
        first = {**self._template, "revision": f"{self._section.service}-{_FIRST}"}
        self._wanted: ApiPlan = api(run.settings, first, interface_document(), self._section.audience)
        self._asking = probe(run.settings, self._wanted.service, caller(self._client.target))
        self._service = RunService(self._client, path_of(self._wanted.service))
        email = self._email(PROBE)
        self._caller = Caller(self._client, email, self._section.audience)
        self._memories = ProbeMemories(self._store.table, email, run.settings.rollout.probe_memories)
        served = (run, self._work, self._service, self._template, self._memories, self._caller)
        self.takeover, self.measures = Takeover(*served), Measures(*served)
        self._shown: frozenset[tuple[Verb, str, str]] = frozenset()
        self._want(self._everything)
        self.takeover.recover()
        self.measures.recover()

    def checks(self) -> tuple[Evidence, ...]:
        """Phase 1, permissions, and a memory with rows in it and room for the API's sessions."""
        with self._run.step("checks"):
            return (*self._work.checks(self._work.look()), *self._store.checks())

    def plan(self) -> Plan:
        """The live state against the blueprint; beside it the image, the memory and the traffic."""
        with self._run.step("plan"):
            self._want(self._everything)
            plan = self._work.plan()
            beside = (self._image.change(), self._store.change(), self.takeover.change())
        self._shown = frozenset((one.verb, one.kind, one.name) for one in plan.changes)
        live: dict[str, object] = {one.kind: one.verb.value for one in beside}
        return Plan((*plan.changes, *beside), {**plan.live_state, **live})

    def build_image(self) -> Table:
        """Make the account that builds, and build the image unless its tag is there: it is the source's digest."""
        self._apply(self._wanted.builder)
        with self._run.step("image"):
            row = self._image.build()
        return self._work.show((row,), "The image")

    def prepare(self) -> Table:
        """Prepare the memory for the API, and put the probe's own memories into it."""
        with self._run.step("prepare the memory"):
            rows = self._store.prepare()
            self._run.at_end(self._forget)
            with connect(self._store.address, role="memory") as session:
                count = self._memories.put(session)
        note = "between real vectors, labelled as synthetic; deleted at the end of this run"
        put = Evidence("memories of the probe", Source.OBSERVED, count, note=note)
        return self._work.show((*rows, put), "The memory")

    def apply(self) -> Table:
        """Make what is left of the plan, and wait until the service lets the probe in."""
        table = self._apply(self._everything)
        with self._run.step("wait until policies are in effect"):
            self._caller.wait_until_let_in(self._service.uri())
        return table

    def figure(self) -> go.Figure:
        """When each change ran."""
        return self._work.figure()

    def front(self) -> Table:
        """Call the service and the gateway as nobody, with a token for somebody else, and as the probe."""
        with self._run.step("gateway"):
            url = gateway_url(self._client, path_of(self._wanted.gateway), is_local=self._work.is_local)
            question = self._memories.questions[0].tolist()
            rows = tried(url, self._service.uri(), self._caller, question, self._work.place.source)
        return self._work.show(rows, f"The gateway, {url}")

    def verify(self) -> Table:
        """Delete the probe's memories, read everything back, and say who serves."""
        self._want(self._everything)
        with self._run.step("read back"):
            self._forget()
            with connect(self._store.address, role="memory") as session:
                left = self._memories.left(session)
            rows = (
                *self._work.read_back(),
                self.takeover.is_served(f"{self.takeover.serving()}, image {self._image.short_name}"),
                self._other_invokers(),
                Evidence("memories of the probe that are left", Source.OBSERVED, left, "memories", Bound("==", 0)),
                self._host(),
            )
        return self._work.show(rows, "Read back")

    # --- for those who look again -------------------------------------------------------------------------------------

    @property
    def service(self) -> RunService:
        """The service, as a rollout sees it."""
        return self._service

    def measured_again(self, form: Form) -> RatesMeasured:
        """The service as it stands, at stated rates; the probe's memories are put there for it and deleted again."""
        self._caller.wait_until_let_in(self._service.uri())
        with connect(self._store.address, role="memory") as session:
            self._memories.put(session)
        try:
            return self.measures.measured_rates(form)
        finally:
            self._forget()

    def memories_left(self) -> int:
        """Memories of the probe that are in the store."""
        with connect(self._store.address, role="memory") as session:
            return self._memories.left(session)

    # --- what the steps share -----------------------------------------------------------------------------------------

    @property
    def _everything(self) -> tuple[Resource, ...]:
        return (*self._wanted.resources, *self._asking.resources)

    @cached_property
    def _template(self) -> dict[str, Any]:
        """The template of a revision, but for the revision's name."""
        made = revision_template(self._settings, self._image.name, self._environment)
        if self._work.is_local:
            (container,) = made["containers"]
            container["startupProbe"] = {**container["startupProbe"], **_LOCAL_PROBE}
        return made

    @cached_property
    def _environment(self) -> Mapping[str, str]:
        """What the settings do not say: the store, and who calls."""
        local, base = self._work.is_local, self._client.target.base_url
        return {
            **self._store.environment(),
            "JWT_ISSUER": _GOOGLE,
            "JWT_AUDIENCE": self._section.audience,
            "JWT_CERTIFICATES_URL": f"{base}{_CERTIFICATES}" if local else _GOOGLE_KEYS,
            **({"HOST": "127.0.0.1"} if local else {}),
        }

    def _want(self, resources: Sequence[Resource]) -> None:
        under = {one.key: one for one in (*self._wanted.foundation, *self._asking.foundation)}
        self._work.want(resources, tuple(under.values()), rehearses_foundation=True)

    def _apply(self, resources: Sequence[Resource]) -> Table:
        """Carry out a part of what was shown. Raises GateFailed when it is not that any more."""
        self._want(resources)
        for one in self._work.plan().changes:
            if one.verb is not Verb.KEEP and (one.verb, one.kind, one.name) not in self._shown:
                raise GateFailed(
                    f"{one.verb} {one.kind} {one.name} was not in the plan that was shown: make a new plan"
                )
        return self._work.apply()

    def _other_invokers(self) -> Evidence:
        """Whoever else may call the service could go round the gateway."""
        path = f"{self._service.name}:getIamPolicy"
        policy = self._client.call("run.v2", "run.projects.locations.services.getIamPolicy", path)
        members = {who for row in policy.get("bindings", ()) if row["role"] == _INVOKER for who in row["members"]}
        others = sorted(members - {f"serviceAccount:{self._email(name)}" for name in (GATEWAY, PROBE)})
        claim = "others than the gateway and the probe that may call the service"
        note = ", ".join(others)
        return Evidence(claim, self._place.source, len(others), "", Bound("==", 0), note=note)

    def _host(self) -> Evidence:
        url = gateway_url(self._client, path_of(self._wanted.gateway), is_local=self._work.is_local)
        host = url.partition("://")[2]
        known = self._work.is_local or self._section.host == host
        note = "" if known else "write it into api.host: the uptime check of phase 1 begins then"
        return Evidence("the API's host", self._place.source, host, note=note)

    def _email(self, account: str) -> str:
        return f"{account}@{self._place.project}.iam.gserviceaccount.com"

    def _forget(self) -> None:
        """Delete the probe's memories; what cannot be deleted now is by the next run."""
        try:
            with connect(self._store.address, role="memory") as session:
                self._memories.clear(session)
        except OrchestraError as error:
            self._run.note(f"the probe's memories are left until the next run: {error}")


def _section(run: Runbook) -> Api:
    if run.settings.api is None:
        raise ParameterError(f"environment {run.settings.environment.name} has no section api")
    return run.settings.api
