"""What runbook 05 leaves beside its resources, taken back: where the traffic goes, and what the memory was given.

Undoing a run sends all traffic to the revision that served before it, in one call, whether that run or a later one has
let another take over. Undoing the phase deletes the service and withdraws from the memory what the API needed in it;
the memories stay.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from psycopg import sql

from orchestra_lib.blueprint.probe import PROBE
from orchestra_lib.cloud.client import Client
from orchestra_lib.cloud.refusals import CloudRefused
from orchestra_lib.cloud.target import connect as connect_to_cloud
from orchestra_lib.database import Address, connect
from orchestra_lib.errors import GateFailed, ParameterError
from orchestra_lib.evidence import Bound, Evidence, Source, yes_or_no
from orchestra_lib.memory_target import api_user, primary_instance
from orchestra_lib.move import TARGET_TABLE
from orchestra_lib.paths import move_journal_path
from orchestra_lib.phases.api_store import ROLE
from orchestra_lib.phases.found_memory import READY, instance_state
from orchestra_lib.phases.release import Release
from orchestra_lib.phases.store_copy import COPY, drop_copy, is_there
from orchestra_lib.plan import Change, Verb
from orchestra_lib.rollout.blue_green import forget, recover, redirect
from orchestra_lib.rollout.journal import Outcome, RecordedRollout, RolloutJournal
from orchestra_lib.rollout.service import WHOLE, RunService, told
from orchestra_lib.runbook import Runbook
from orchestra_lib.service import schema
from orchestra_lib.settings import Settings
from orchestra_lib.settings.base import ALL_PHASES
from orchestra_lib.target import Instances, source_database

PHASE = "05"
_REMEDIES = {
    "STOPPED": "start it (activation policy ALWAYS)",
    "FAILED": "repair it, or undo all phases, which deletes it",
}
"""State of an instance that cannot be looked at -> what to do; the others pass by themselves."""


def rollouts(settings: Settings) -> RolloutJournal:
    """The journal of an environment's rollouts; the local target's goes when the target is reset."""
    local = settings.environment.kind == "local"
    return RolloutJournal(move_journal_path(settings.environment.name, "rollout", local=local))


def beside_api(run: Runbook) -> Sequence[Release]:
    """What is taken back with the phase, or with what was changed since a run."""
    client = Client(connect_to_cloud(run.settings))
    if run.settings.rollback.since_run is not None:
        return (TrafficReturn(run.settings, client, run.settings.rollback.since_run),)
    return (MemoryWithdrawal(run.settings, client),)


class TrafficReturn:
    """The traffic, back at the revision that served before a run, or before the first after it that let another serve.

    A rollout that was cut off is ended first, as the next run of the phase would end it.
    """

    def __init__(self, settings: Settings, client: Client, since_run: str) -> None:
        self._since_run, self._journal = since_run, rollouts(settings)
        self._service = RunService(client, _service_path(settings))

    @property
    def journalled(self) -> int:
        """Rollouts that this very run has begun, however they ended."""
        return sum(one.run_id == self._since_run for one in self._of_the_service())

    def check(self) -> Evidence:
        """Whether the revision is still there."""
        to = self._to()
        there = to is None or self._percents() is None or self._is_there(to)
        note = "no revision has taken over since" if to is None else to
        return yes_or_no("the revision that served before the run is there", Source.OBSERVED, there, note=note)

    def changes(self) -> tuple[Change, ...]:
        """The end of a rollout that was cut off, and the one redirect."""
        to, percents = self._to(), self._percents()
        if percents is None:
            return ()
        rows, left = [], self._journal.unfinished(self._service.name)
        if left is not None:
            percents_then = {left.green if left.is_decided else left.blue: WHOLE}
            rows.append(self._change("a rollout that was cut off is ended", percents, percents_then))
            percents = percents_then
        if to is not None and percents != {to: WHOLE}:
            rows.append(self._change("all of it back, in one call", percents, {to: WHOLE}))
        return tuple(rows)

    def apply(self) -> int:
        """End what was cut off, and redirect. Raises CloudRefused."""
        to, changes = self._to(), self.changes()
        if self._percents() is None:
            forget(self._service, self._journal)
            return 0
        recover(self._service, self._journal)
        if to is not None and self._percents() != {to: WHOLE}:
            redirect(self._service, to)
        return len(changes)

    def evidence(self) -> tuple[Evidence, ...]:
        """Who serves now."""
        to, percents = self._to(), self._percents()
        note = "the service was made in that run, and is gone with it" if percents is None else _named(percents)
        there = to is None or percents is None or percents == {to: WHOLE}
        return (yes_or_no("all traffic goes to the revision of before the run", Source.OBSERVED, there, note=note),)

    def _change(self, what: str, before: Mapping[str, int], after: Mapping[str, int]) -> Change:
        return Change(Verb.UPDATE, "traffic", self._service.id, what, _named(before), _named(after))

    def _of_the_service(self) -> list[RecordedRollout]:
        return [one for one in self._journal.rollouts if one.service == self._service.name]

    def _to(self) -> str | None:
        """The revision that served before the first rollout since the run; None where there was none.

        The run itself may have let nothing take over: a later one did, with what that run had changed. A run's id
        begins with its time. What was cut off counts, because green may have part of the traffic.
        """
        since = [one for one in self._of_the_service() if one.run_id >= self._since_run]
        return next((one.blue for one in since if one.outcome is not Outcome.UNDONE), None)

    def _percents(self) -> dict[str, int] | None:
        """Who gets how much; None where there is no service."""
        try:
            return self._service.percents()
        except CloudRefused as error:
            if error.is_nothing_yet:
                return None
            raise

    def _is_there(self, revision: str) -> bool:
        try:
            self._service.environment(revision)
        except CloudRefused as error:
            if error.is_absence:
                return False
            raise
        return True


class MemoryWithdrawal:
    """What the API needed in the memory, and what a rehearsal has put beside today's store: a copy, and two roles."""

    def __init__(self, settings: Settings, client: Client) -> None:
        self._settings, self._client = settings, client
        self._probe = f"{PROBE}@{settings.project.id}.iam.gserviceaccount.com" if settings.project else PROBE
        self._goes_with_alloydb = settings.rollback.phase == ALL_PHASES

    @property
    def journalled(self) -> int:
        """0: what is there is looked for."""
        return 0

    def check(self) -> Evidence:
        """A reading: what there is to withdraw. Without one where AlloyDB is there and cannot be looked at."""
        claim, found, unseen = "memories that were prepared for the API", self.changes(), self._unseen()
        if unseen and not self._goes_with_alloydb:
            return Evidence(claim, Source.MISSING, None, "", note=unseen)
        note = ", ".join(one.name for one in found)
        return Evidence(claim, Source.OBSERVED, len(found), "", note=unseen or note)

    def changes(self) -> tuple[Change, ...]:
        """What would be withdrawn."""
        what = "role of the API, its policies, two indexes and the idempotency keys; the memories stay"
        return (
            *(Change(Verb.UPDATE, "memory", name, what) for name, _ in self._prepared()),
            *(Change(Verb.DELETE, kind, name, detail) for kind, name, detail in self._beside_todays_store()),
        )

    def apply(self) -> int:
        """Withdraw it, and put the journal of the rollouts aside: its revisions go with the service.

        Raises GateFailed when AlloyDB cannot be looked at, unless it goes itself.
        """
        unseen = self._unseen()
        if unseen and not self._goes_with_alloydb:
            raise GateFailed(f"what the API needed in the memory cannot be withdrawn: {unseen}")
        changes = self.changes()
        for _, address in self._prepared():
            with connect(address, role="memory") as session:
                delete = sql.SQL("DELETE FROM {} WHERE user_id = %s").format(sql.Identifier(TARGET_TABLE))
                session.execute(delete, [self._probe])
                schema.withdraw(session, table=TARGET_TABLE, role=ROLE)
        if self._rehearses_store:
            todays = source_database(self._settings).address
            drop_copy(todays)  # before the roles: they have rights in it
            with connect(todays, role="source") as session:
                for role in self._roles:
                    session.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(sql.Identifier(role)))
        path = rollouts(self._settings).path
        if path.exists():
            path.rename(path.with_suffix(f".{datetime.now(UTC):%Y%m%dT%H%M%SZ}.jsonl"))
        return len(changes)

    def evidence(self) -> tuple[Evidence, ...]:
        """Nothing may be left; what cannot be looked at is not claimed."""
        claim, none, unseen = "memories that are still prepared for the API", Bound("==", 0), self._unseen()
        if unseen:
            return (Evidence(claim, Source.MISSING, None, "", none, note=unseen),)
        left = self.changes()
        note = ", ".join(one.name for one in left)
        return (Evidence(claim, Source.OBSERVED, len(left), "", none, note=note),)

    def _prepared(self) -> list[tuple[str, Address]]:
        """Name and address of the stores in which there is something of the API's."""
        found = []
        for name, address in self._stores():
            with connect(address, role="memory") as session:
                if schema.is_prepared(session, table=TARGET_TABLE, role=ROLE):
                    found.append((name, address))
        return found

    def _stores(self) -> list[tuple[str, Address]]:
        own = self._settings.memory.target.dsn
        if own is not None:
            return [("a database of your own", own.reveal())]
        primary = primary_instance(self._settings)
        if instance_state(self._client, primary) != READY:
            return []
        return [(primary.rsplit("/", 1)[1], Instances(self._client.target).address(primary))]

    def _unseen(self) -> str:
        """Why AlloyDB cannot be looked at, and what to do; empty where it can be, or there is none."""
        if self._settings.memory.target.dsn is not None:
            return ""
        primary = primary_instance(self._settings)
        state = instance_state(self._client, primary)
        if state in (None, READY):
            return ""
        remedy = _REMEDIES.get(state, f"wait until it is {READY}")
        return f"{primary.rsplit('/', 1)[1]} is {state or 'in no state'}: {remedy}, then run the rollback again"

    @property
    def _rehearses_store(self) -> bool:
        return self._settings.environment.kind == "local" and self._settings.memory.source.dsn is None

    @property
    def _roles(self) -> list[str]:
        """The API's role and its login, which belong to the whole server."""
        return [ROLE, api_user(self._settings)]

    def _beside_todays_store(self) -> list[tuple[str, str, str]]:
        """Kind, name and detail of what a rehearsal without phase 3 has made on the server of today's store."""
        if not self._rehearses_store:
            return []
        todays = source_database(self._settings).address
        copied = [("memory", COPY, "the copy of today's store that the rehearsal served")] if is_there(todays) else []
        with connect(todays, role="source") as session:
            found = session.execute("SELECT rolname::text FROM pg_roles WHERE rolname = ANY(%s)", [self._roles])
            roles = [name for (name,) in found.fetchall()]
        return [*copied, *(("role beside today's store", name, "the API's") for name in sorted(roles))]


def _named(percents: Mapping[str, int]) -> str:
    """The revision that gets everything, or who gets how much."""
    return told(percents) if len(percents) != 1 else next(iter(percents))


def _service_path(settings: Settings) -> str:
    project, regions, api = settings.project, settings.regions, settings.api
    if project is None or regions is None or api is None:
        raise ParameterError(f"environment {settings.environment.name} has no sections project, regions and api")
    return f"projects/{project.id}/locations/{regions.primary}/services/{api.service}"
