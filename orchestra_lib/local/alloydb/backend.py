"""The PostgreSQL server behind one AlloyDB instance: started with the instance's flags, written to or a follower."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
import psycopg.conninfo

from orchestra_lib.errors import TargetUnreachable
from orchestra_lib.local import postgres
from orchestra_lib.local.alloydb import base_backups, chains, roles, server_settings, slots
from orchestra_lib.local.alloydb.roles import SUPERUSER, User
from orchestra_lib.local.alloydb.server_settings import Plan, Upstream
from orchestra_lib.local.postgres import ControlData, Running

# Somebody waits to come in, and holds the instance's lock: what does not go on has to fail, with its reason.
_PATIENCE: Mapping[str, Any] = {"connect_timeout": 10, "options": "-c statement_timeout=20s"}
_PROMOTION_SECONDS = 60
_ARCHIVED_SECONDS = 60
_RELOADED_SECONDS = 5
_POLL_SECONDS = 0.01
_UID_FILE, _CHAIN_FILE, _UPSTREAM_FILE = "orchestra.instance_uid", "orchestra.chain", "orchestra.upstream"
_STANDBY_FILE = "standby.signal"
_END_STREAMS = (
    "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_type = 'logical' AND active"
)
# The name of a segment begins with the timeline; the last checkpoint may be older than a promotion.
_POSITION = """\
SELECT ('x' || left(pg_walfile_name(pg_current_wal_flush_lsn()), 8))::bit(32)::int, pg_current_wal_flush_lsn()
WHERE NOT pg_is_in_recovery()
UNION ALL SELECT coalesce((SELECT received_tli FROM pg_stat_wal_receiver), timeline_id), pg_last_wal_replay_lsn()
FROM pg_control_checkpoint() WHERE pg_is_in_recovery()
"""


class Backend:
    """The server of one instance. Its methods block; they may be called from several threads.

    Whether it is written to or follows another one stands in its data directory, where PostgreSQL itself keeps it.
    """

    def __init__(self, data: Path, instance: str) -> None:
        self.data, self.instance = data, instance
        self.name = f"the server of AlloyDB instance {instance}"
        self.lock = threading.RLock()
        """Held while the server starts, stops or changes."""
        self.copying = threading.Lock()
        """Held while the base backup of its chain is taken."""
        self._synchronised: tuple[object, ...] = ()
        self._failures: Mapping[str, str] = {}
        self.kept_slots: frozenset[str] | None = None
        """The slots that :meth:`serve` saw to the last time."""
        self.has_slots_to_drop = False

    # --- what it is -----------------------------------------------------------------------------------------------

    @property
    def exists(self) -> bool:
        """Whether there is data."""
        return (self.data / "PG_VERSION").exists()

    @property
    def is_follower(self) -> bool:
        """Whether it follows another server, or would if it ran."""
        return (self.data / _STANDBY_FILE).exists()

    @property
    def running(self) -> Running | None:
        """The server if it accepts connections now."""
        return postgres.running(self.data)

    @property
    def followed(self) -> str:
        """The instance that it follows; empty for one that follows none."""
        return str(self._upstream().get("instance", "")) if self.is_follower else ""

    @property
    def followed_at(self) -> str:
        """The directory of the socket at which that was found the last time."""
        return str(self._upstream().get("socket_directory", ""))

    def is_of(self, uid: str) -> bool:
        """Whether the data is that of the instance with that uid, not of an earlier one with the same name."""
        file = self.data / _UID_FILE
        return file.exists() and file.read_text() == uid

    def chain(self, storage: Path) -> Path | None:
        """Where it archives its log, if it does."""
        file = self.data / _CHAIN_FILE
        return chains.chain_of(storage, file.read_text()) if file.exists() else None

    def control_data(self) -> ControlData:
        """The control file of its data."""
        return postgres.control_data(self.data)

    @contextmanager
    def session(self, seconds: float | None = None) -> Iterator[psycopg.Connection]:
        """The superuser's session; a statement may take that long. Raises TargetUnreachable while it does not run."""
        server = self.running
        if server is None:
            raise TargetUnreachable(f"{self.name} does not run")
        more = {**_PATIENCE, **({"options": f"-c statement_timeout={seconds:.0f}s"} if seconds else {})}
        with psycopg.connect(server.conninfo(SUPERUSER), autocommit=True, **more) as connection:
            yield connection

    # --- its life -------------------------------------------------------------------------------------------------

    def serve(self, plan: Plan) -> tuple[Running, Mapping[str, str]]:
        """The running server, started or changed if need be, and why for each user that could not be made.

        Raises TargetUnreachable when the server does not start with these flags.
        """
        settings = server_settings.settings(self.name, plan)
        with self.lock:
            server = self.running
            if server and self._reconfigure(settings):
                server = None
            if server is None:
                access = server_settings.access(plan.users)
                server = postgres.start(self.data, self.name, settings, superuser=SUPERUSER, access=access)
            wanted = (server, self.is_follower, tuple(plan.users), tuple(plan.verifiers.items()), plan.slots)
            if wanted != self._synchronised:
                with self.session() as connection:
                    is_all = slots.keep(connection, plan.slots)
                    if not self.is_follower:
                        self._failures = roles.synchronise(connection, plan.users, plan.verifiers)
                    self._let_in(plan.users, server, connection)
                self._synchronised = wanted if is_all else ()
                self.kept_slots, self.has_slots_to_drop = plan.slots, not is_all
            return server, {} if self.is_follower else self._failures

    def is_configured(self, plan: Plan) -> bool:
        """Whether it runs with what the plan says, as far as that can be seen without a session."""
        return self.running is not None and postgres.is_configured(self.data, server_settings.settings(self.name, plan))

    def initialise(self, uid: str, settings: Mapping[str, str]) -> None:
        """New, empty data with what AlloyDB predefines."""
        base_backups.check_room(self.data, self.name)
        server = postgres.start(self.data, self.name, settings, superuser=SUPERUSER, access=server_settings.access(()))
        roles.predefine(server.conninfo(SUPERUSER))
        (self.data / _UID_FILE).write_text(uid)

    def adopt(self, data: Path, uid: str) -> None:
        """Take a prepared data directory, in the place of what there was."""
        with self.lock:
            self.remove()
            (data / _UID_FILE).write_text(uid)
            self.data.parent.mkdir(parents=True, exist_ok=True)
            data.rename(self.data)

    def stop(self, mode: str = "fast") -> None:
        """Stop the server if it runs; its data stays."""
        with self.lock:
            if mode == "fast":
                self._end_streams()
            postgres.stop(self.data, self.name, mode)

    def remove(self) -> None:
        """Stop the server and delete its data."""
        with self.lock:
            self.stop()
            postgres.discard(self.data, self.name)

    def remove_data_of_another(self, uid: str) -> None:
        """Delete data that is not of the instance with that uid, and what is left of a beginning."""
        with self.lock:
            if self.data.exists() and not self.is_of(uid):
                self.remove()

    # --- its role -------------------------------------------------------------------------------------------------

    def follow(self, instance: str, socket_directory: str) -> None:
        """Follow another instance from the next start on; without a name, the one that will be told. It is stopped."""
        with self.lock:
            self.stop()
            mark_follower(self.data, instance, socket_directory)

    def lead(self) -> None:
        """Take back :meth:`follow` before it started: it is written to again."""
        with self.lock:
            (self.data / _STANDBY_FILE).unlink(missing_ok=True)
            (self.data / _UPSTREAM_FILE).unlink(missing_ok=True)

    def promote(self) -> None:
        """Stop following and be written to. Raises TargetUnreachable when it does not come to that."""
        with self.lock, self.session(_PROMOTION_SECONDS + 5) as connection:
            row = connection.execute("SELECT pg_promote(true, %s)", (_PROMOTION_SECONDS,)).fetchone()
            if not (row and row[0]):
                raise TargetUnreachable(f"{self.name} was not promoted within {_PROMOTION_SECONDS} s")
            (self.data / _UPSTREAM_FILE).unlink(missing_ok=True)

    def history(self) -> list[tuple[int, int]]:
        """The timelines that its data has been through, each with the position at which it left it, oldest first.

        The last is the present one, with what is on disk of it. Raises TargetUnreachable while it does not run.
        """
        with self.session() as connection:
            row = connection.execute(_POSITION).fetchone()
        timeline, position = (row[0], postgres.lsn(row[1])) if row else (0, 0)
        file = self.data / "pg_wal" / f"{timeline:08X}.history"
        lines = file.read_text().splitlines() if file.exists() else []
        parts = [line.split("\t") for line in lines if line and line[0].isdigit()]
        return [*((int(part[0]), postgres.lsn(part[1])) for part in parts), (timeline, position)]

    # --- its archive ----------------------------------------------------------------------------------------------

    def begin_chain(self, storage: Path) -> Path:
        """The chain that it archives into, a new one if need be; effective from the next :meth:`serve` on."""
        found = self.chain(storage)
        if found is None:
            identifier = chains.new_id()
            found = chains.chain_of(storage, identifier)
            (self.data / _CHAIN_FILE).write_text(identifier)
        postgres.make_directory(chains.log_of(found))
        return found

    def end_chain(self) -> None:
        """Archive no more; the next chain will be a new one."""
        (self.data / _CHAIN_FILE).unlink(missing_ok=True)

    def end_segment(self) -> str:
        """The name of the segment of its log that holds everything that was committed until now, and a later commit.

        It is archived next. The server has to be one that is written to.
        """
        with self.session() as connection:
            connection.execute("SELECT pg_current_xact_id()")  # its commit is where a recovery can see that it is past
            row = connection.execute("SELECT pg_walfile_name(pg_switch_wal())").fetchone()
        return str(row[0]) if row else ""

    def wait_until_archived(self, segment: str, chain: Path) -> None:
        """Return when it has archived a segment. Raises TargetUnreachable when that takes too long."""
        deadline = time.monotonic() + _ARCHIVED_SECONDS
        while not (chains.log_of(chain) / segment).exists():
            if time.monotonic() > deadline:
                raise TargetUnreachable(
                    f"{self.name} did not archive its log within {_ARCHIVED_SECONDS} s; see {self.data / 'log'}"
                )
            time.sleep(_POLL_SECONDS)

    # --- the rest -------------------------------------------------------------------------------------------------

    def _end_streams(self) -> None:
        """End the sessions that read the log's changes: a stop in order would wait for one that waits itself."""
        with suppress(TargetUnreachable, psycopg.Error), self.session() as connection:
            connection.execute(_END_STREAMS)

    def _let_in(self, users: Sequence[User], server: Running, connection: psycopg.Connection) -> None:
        """Have the server know its IAM users."""
        files = {self.data / name: text for name, text in server_settings.access(users).items()}
        if all(file.exists() and file.read_text() == text for file, text in files.items()):
            return
        for file, text in files.items():
            file.write_text(text)
        connection.execute("SELECT pg_reload_conf()")
        names = [user.name for user in users if user.is_iam]
        deadline = time.monotonic() + _RELOADED_SECONDS
        # The server says nowhere that it has read the file; whom it does not know yet, it asks for a password.
        while names and _is_asked_for_a_password(server, names[-1]) and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)

    def _upstream(self) -> dict[str, str]:
        file = self.data / _UPSTREAM_FILE
        with suppress(FileNotFoundError):
            found: dict[str, str] = json.loads(file.read_text())
            return found
        return {}

    def _reconfigure(self, settings: Mapping[str, str]) -> bool:
        """Give a running server new settings; returns whether it was stopped because they need a start."""
        changed = postgres.configure(self.data, settings)
        if not changed:
            return False
        with self.session() as connection:
            # A setting that is wrong needs a start too: the start fails and says why, a reload would only log it.
            needs_start = connection.execute(
                "SELECT 1 FROM pg_settings WHERE name = ANY(%s) AND context = 'postmaster' "
                "UNION ALL SELECT 1 FROM pg_file_settings WHERE error IS NOT NULL",
                (list(changed),),
            ).fetchone()
            if not needs_start:
                connection.execute("SELECT pg_reload_conf()")
                return False
        postgres.stop(self.data, self.name)
        return True


def _is_asked_for_a_password(server: Running, user: str) -> bool:
    attempt = psycopg.pq.PGconn.connect(psycopg.conninfo.make_conninfo(server.conninfo(), user=user).encode())
    try:
        return attempt.needs_password
    finally:
        attempt.finish()


def mark_follower(data: Path, instance: str, socket_directory: str) -> None:
    """Make a data directory, at whose server nothing runs, that of a follower."""
    upstream = {"instance": instance, "socket_directory": socket_directory}
    postgres.write(data / _UPSTREAM_FILE, json.dumps(upstream))
    postgres.write(data / _STANDBY_FILE, "")


def upstream_of(backend: Backend, slot: str, flags: tuple[Mapping[str, str], ...]) -> Upstream | None:
    """Whom a follower follows, at the place where that was found the last time."""
    if not backend.followed:
        return None
    return Upstream(backend.followed, backend.followed_at, slot, flags)
