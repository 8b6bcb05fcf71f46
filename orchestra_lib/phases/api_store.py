"""The memory that runbook 05 serves: found, prepared for the API, and told to its revisions.

A rehearsal in which phase 3 has moved nothing serves a copy of today's store: the API writes, and today's store is not
phase 5's to write to.
"""

from __future__ import annotations

from collections.abc import Mapping

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from orchestra_lib.database import Address, connect
from orchestra_lib.errors import ParameterError
from orchestra_lib.evidence import Bound, Evidence, Source, yes_or_no
from orchestra_lib.memory.cutover_journal import CutoverJournal
from orchestra_lib.memory_target import api_user
from orchestra_lib.paths import move_journal_path
from orchestra_lib.phases.cloud_work import CloudWork
from orchestra_lib.phases.found_memory import OpenMemory, find_memory, rehearsal_corpus
from orchestra_lib.phases.store_copy import COPY, copy_address, copy_store, is_there
from orchestra_lib.plan import Change, Verb
from orchestra_lib.runbook import Runbook
from orchestra_lib.service import schema
from orchestra_lib.service.settings import SHARE_OF_CONNECTIONS, ServiceSettings
from orchestra_lib.target import DATABASE, Instances

ROLE: str = ServiceSettings.model_fields["role"].default
"""The role that confines the API to the rows of one user."""

_FEWEST_ROWS = 100


class ApiStore:
    """One memory, found when this is made. Addresses are used, never shown."""

    def __init__(self, run: Runbook, work: CloudWork) -> None:
        self._run, self._settings, self._work = run, run.settings, work
        self.found: OpenMemory = find_memory(run, work, lambda: rehearsal_corpus(run))
        self._login = api_user(run.settings)
        todays = self.found.address
        self.address: Address = copy_address(todays) if self.found.is_todays else todays

    @property
    def table(self) -> str:
        """The table of memories."""
        return self.found.table

    def checks(self) -> tuple[Evidence, ...]:
        """Whether there is something to serve, and room for all sessions; on which side the application writes."""
        rows = self.found.holds.rows if self.found.holds else 0
        note = self.found.name if rows >= _FEWEST_ROWS else f"{self.found.name}: run 03_memory first"
        there = Evidence("memories to serve", Source.OBSERVED, rows, "rows", Bound(">=", _FEWEST_ROWS), note=note)
        return (there, self._side(), *((self._room(),) if rows else ()))

    def change(self) -> Change:
        """What preparing the store would change."""
        what = "role of the API, rows confined to one user, two indexes, idempotency keys"
        name, verb = self.table, Verb.KEEP if self._is_prepared() else Verb.UPDATE
        if self.found.is_todays:
            name, what = f"{COPY}.{self.table}", f"a copy of today's store; {what}"
        return Change(verb, "memory", name, what)

    def prepare(self) -> tuple[Evidence, ...]:
        """Make what the API needs in the database; what is there is left alone. Raises DataError."""
        if self.found.is_todays:
            with self._run.step("copy today's store"):
                copied = copy_store(self.found.address)
            how = "was made now" if copied else "was there"
            self._run.note(f"phase 3 has moved nothing: a copy of today's store is served, which {how}")
        with connect(self.address, role="memory") as session:
            if self.found.instance is None:
                _make_login(session, self._login)
            schema.prepare(session, table=self.table, role=ROLE, login=self._login)
            (confined,) = session.execute(
                sql.SQL(
                    "SELECT EXISTS (SELECT FROM pg_policies WHERE permissive = 'RESTRICTIVE' AND {} = ANY (roles))"
                ).format(sql.Literal(ROLE))
            ).fetchone() or (False,)
        note = f"row level security for {ROLE}, which {self._login} takes on; everybody else keeps their rights"
        return (yes_or_no("the API sees the memories of one user only", Source.OBSERVED, bool(confined), note=note),)

    def environment(self) -> Mapping[str, str]:
        """Where the store is, by the names of the service's settings.

        Raises ParameterError for a database of one's own whose connection string has a password in it.
        """
        if self.found.instance is not None and not self._work.is_local:
            return {"INSTANCE": self.found.instance, "DATABASE_USER": self._login, "DATABASE": DATABASE}
        if self.found.instance is not None:
            return {"DSN": str(Instances(self._work.client.target).address(self.found.instance, self._login))}
        parameters = conninfo_to_dict(str(self.address))
        if parameters.pop("password", None):
            raise ParameterError(
                "memory.target.dsn has a password in it, which would stand in every revision of the API: leave it out "
                "and let the server trust this machine, or serve the memory from AlloyDB"
            )
        parameters["user"] = self._login
        return {"DSN": make_conninfo("", **parameters)}

    def _is_prepared(self) -> bool:
        if not self.found.holds or (self.found.is_todays and not is_there(self.found.address)):
            return False
        with connect(self.address, role="memory") as session:
            return schema.is_prepared(session, table=self.table, role=ROLE)

    def _side(self) -> Evidence:
        """A reading: the API may be deployed before the cutover, but who stores through it then stores in a copy."""
        claim = "side of the cutover on which the application writes"
        if self.found.instance is None:
            return Evidence(claim, Source.ASSUMED, "there is none", note=self.found.name)
        local = self._settings.environment.kind == "local"
        journal = CutoverJournal(move_journal_path(self._settings.environment.name, "cutover", local=local))
        side = journal.live() or "source"
        note = (
            "" if side == "target" else "let nobody but the probe store through the API before the cutover of 03_memory"
        )
        return Evidence(claim, Source.OBSERVED, side, note=note)

    def _room(self) -> Evidence:
        """Every instance with all its sessions, against what the server has."""
        wanted = self._settings.api
        sessions = wanted.max_instances * wanted.connections_per_instance if wanted else 0
        where = self.found.address if self.found.is_todays else self.address
        with connect(where, role="memory") as session:
            (most,) = session.execute("SELECT current_setting('max_connections')::int").fetchone() or (0,)
        note = (
            f"{SHARE_OF_CONNECTIONS:.0%} of the server's {most:,}; lower api.max_instances or connections_per_instance"
        )
        return Evidence(
            "sessions that all instances may have",
            Source.OBSERVED,
            sessions,
            "",
            Bound("<=", int(SHARE_OF_CONNECTIONS * most)),
            note=note,
        )


def _make_login(session: psycopg.Connection, login: str) -> None:
    """Outside AlloyDB nobody has made the API's login; the server trusts this machine, as the rehearsal's does."""
    if session.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [login]).fetchone() is None:
        session.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(login)))
