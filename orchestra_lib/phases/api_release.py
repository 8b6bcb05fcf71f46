"""What runbook 05 leaves beside its resources, taken back: where the traffic goes, and what the memory was given.

Undoing a run sends all traffic to the revision that served before it, in one call. Undoing the phase deletes the
service and withdraws from the memory what the API needed in it; the memories stay.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from psycopg import sql

from orchestra_lib.blueprint.probe import PROBE
from orchestra_lib.cloud.client import Client
from orchestra_lib.cloud.refusals import CloudRefused
from orchestra_lib.cloud.target import connect as connect_to_cloud
from orchestra_lib.database import Address, connect
from orchestra_lib.errors import ParameterError
from orchestra_lib.evidence import Bound, Evidence, Source, yes_or_no
from orchestra_lib.memory_target import primary_instance
from orchestra_lib.move import TARGET_TABLE
from orchestra_lib.paths import move_journal_path
from orchestra_lib.phases.api_store import ROLE
from orchestra_lib.phases.found_memory import serves
from orchestra_lib.phases.release import Release
from orchestra_lib.phases.store_copy import COPY, drop_copy, is_there
from orchestra_lib.plan import Change, Verb
from orchestra_lib.rollout.blue_green import redirect
from orchestra_lib.rollout.journal import Outcome, RecordedRollout, RolloutJournal
from orchestra_lib.rollout.service import RunService
from orchestra_lib.runbook import Runbook
from orchestra_lib.service import schema
from orchestra_lib.settings import Settings
from orchestra_lib.target import Instances, source_database

PHASE = "05"


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
    """The traffic, back at the revision that served before a run."""

    def __init__(self, settings: Settings, client: Client, since_run: str) -> None:
        self._since_run, self._journal = since_run, rollouts(settings)
        self._service = RunService(client, _service_path(settings))

    @property
    def journalled(self) -> int:
        """Rollouts of that run and after it that were done."""
        return len(self._since())

    def check(self) -> Evidence:
        """Whether the revision is still there."""
        to = self._to()
        there = to is None or self._serving() is None or self._is_there(to)
        note = "no revision took over in that run" if to is None else to
        return yes_or_no("the revision that served before the run is there", Source.OBSERVED, there, note=note)

    def changes(self) -> tuple[Change, ...]:
        """The one redirect."""
        to, serving = self._to(), self._serving()
        if to is None or serving in (None, to):
            return ()
        return (Change(Verb.UPDATE, "traffic", self._service.id, "all of it back, in one call", serving, to),)

    def apply(self) -> int:
        """Redirect. Raises CloudRefused."""
        to, changes = self._to(), self.changes()
        if to is not None and changes:
            redirect(self._service, to)
        return len(changes)

    def evidence(self) -> tuple[Evidence, ...]:
        """Who serves now."""
        to, serving = self._to(), self._serving()
        note = serving or "the service was made in that run, and is gone with it"
        claim, held = "all traffic goes to the revision of before the run", to is None or serving in (None, to)
        return (yes_or_no(claim, Source.OBSERVED, held, note=note),)

    def _since(self) -> tuple[RecordedRollout, ...]:
        done = [
            one for one in self._journal.rollouts if one.service == self._service.name and one.outcome is Outcome.DONE
        ]
        first = next((place for place, one in enumerate(done) if one.run_id == self._since_run), len(done))
        return tuple(done[first:])

    def _to(self) -> str | None:
        since = self._since()
        return since[0].blue if since else None

    def _serving(self) -> str | None:
        """The revision that gets everything; None where there is no service."""
        try:
            return self._service.serving()
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
    """What the API needed in the memory, and the rehearsal's copy of today's store."""

    def __init__(self, settings: Settings, client: Client) -> None:
        self._settings, self._client = settings, client
        self._probe = f"{PROBE}@{settings.project.id}.iam.gserviceaccount.com" if settings.project else PROBE

    @property
    def journalled(self) -> int:
        """0: what is there is looked for."""
        return 0

    def check(self) -> Evidence:
        """A reading: what there is to withdraw."""
        found = self.changes()
        note = ", ".join(one.name for one in found)
        return Evidence("memories that were prepared for the API", Source.OBSERVED, len(found), "", note=note)

    def changes(self) -> tuple[Change, ...]:
        """What would be withdrawn."""
        what = "role of the API, its policies, two indexes and the idempotency keys; the memories stay"
        rows = [Change(Verb.UPDATE, "memory", name, what) for name, _ in self._prepared()]
        if self._has_copy():
            rows.append(Change(Verb.DELETE, "memory", COPY, "the copy of today's store that the rehearsal served"))
        return tuple(rows)

    def apply(self) -> int:
        """Withdraw it, and put the journal of the rollouts aside: its revisions go with the service."""
        prepared, copied = self._prepared(), self._has_copy()
        if copied:
            todays = source_database(self._settings).address
            drop_copy(todays)
            with connect(todays, role="source") as session:
                session.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(sql.Identifier(ROLE)))
        for _, address in prepared:
            with connect(address, role="memory") as session:
                delete = sql.SQL("DELETE FROM {} WHERE user_id = %s").format(sql.Identifier(TARGET_TABLE))
                session.execute(delete, [self._probe])
                schema.withdraw(session, table=TARGET_TABLE, role=ROLE)
        path = rollouts(self._settings).path
        if path.exists():
            path.rename(path.with_suffix(f".{datetime.now(UTC):%Y%m%dT%H%M%SZ}.jsonl"))
        return len(prepared) + copied

    def evidence(self) -> tuple[Evidence, ...]:
        """Nothing may be left."""
        left = self.changes()
        note = ", ".join(one.name for one in left)
        claim = "memories that are still prepared for the API"
        return (Evidence(claim, Source.OBSERVED, len(left), "", Bound("==", 0), note=note),)

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
        if not serves(self._client, primary):
            return []
        return [(primary.rsplit("/", 1)[1], Instances(self._client.target).address(primary))]

    def _has_copy(self) -> bool:
        if self._settings.environment.kind != "local" or self._settings.memory.source.dsn is not None:
            return False
        return is_there(source_database(self._settings).address)


def _service_path(settings: Settings) -> str:
    project, regions, api = settings.project, settings.regions, settings.api
    if project is None or regions is None or api is None:
        raise ParameterError(f"environment {settings.environment.name} has no sections project, regions and api")
    return f"projects/{project.id}/locations/{regions.primary}/services/{api.service}"
