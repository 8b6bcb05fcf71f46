"""The PostgreSQL server behind one AlloyDB instance: started when somebody connects, with the instance's flags."""

from __future__ import annotations

import getpass
import re
import shutil
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import psycopg

from orchestra_lib.errors import TargetUnreachable
from orchestra_lib.local import postgres
from orchestra_lib.local.alloydb import roles
from orchestra_lib.local.alloydb.roles import GROUP_OF_IAM_USERS, SUPERUSER, User
from orchestra_lib.local.postgres import Running

FREE_BYTES_NEEDED = 1 << 30
"""An empty server takes 40 MB, its first WAL segments and temporary files some more."""
# What a flag of AlloyDB means in PostgreSQL's own words; other flags are settings of the same name.
_MEANINGS: Mapping[tuple[str, str], Mapping[str, str]] = {("alloydb.logical_decoding", "on"): {"wal_level": "logical"}}
# AlloyDB's own flags, which PostgreSQL does not know; those with a dot it takes for an extension's that is not loaded.
_WITHOUT_EFFECT = frozenset({"enable_google_adaptive_autovacuum"})
# Settings that say where the server lives and who may come in. AlloyDB does not offer them as flags either.
_OURS = frozenset(
    {
        "config_file",
        "data_directory",
        "external_pid_file",
        "hba_file",
        "ident_file",
        "listen_addresses",
        "port",
        "unix_socket_directories",
    }
)
_FLAG_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)?")
# Somebody waits to come in, and holds the instance's lock: what does not go on has to fail, with its reason.
_PATIENCE: Mapping[str, Any] = {"connect_timeout": 10, "options": "-c statement_timeout=20s"}
_UID_FILE = "orchestra.instance_uid"
_MAP = "listener"
# IAM users come in through the listener, which has checked their token; it runs as the user of this process.
_ACCESS = f"""\
local all         {SUPERUSER}         peer map={_MAP}
local all         +{GROUP_OF_IAM_USERS}     peer map={_MAP}
local all         all                  scram-sha-256
local replication +{GROUP_OF_IAM_USERS}     peer map={_MAP}
local replication all                  scram-sha-256
"""


class Backend:
    """The server of one instance. Its methods block; they may be called from several threads."""

    def __init__(self, data: Path, instance: str) -> None:
        self._data = data
        self._name = f"the server of AlloyDB instance {instance}"
        self._lock = threading.Lock()
        self._synchronised: tuple[object, ...] = ()
        self._failures: Mapping[str, str] = {}

    def serve(
        self, uid: str, flags: Mapping[str, str], users: Iterable[User], verifiers: Mapping[str, str]
    ) -> tuple[Running, Mapping[str, str]]:
        """The running server, started or changed if need be, and why for each user that could not be made.

        Data of an instance with another ``uid`` (the instance was deleted and made again) is removed first. Raises
        TargetUnreachable when the server does not start with these flags.
        """
        settings = {**postgres.SETTINGS, **_as_settings(self._name, flags)}
        with self._lock:
            self._remove_data_of_another(uid)
            server = postgres.running(self._data)
            if server and self._reconfigure(server, settings):
                server = None
            if server is None:
                server = self._start(uid, settings)
            wanted = (server, tuple(users), tuple(verifiers.items()))
            if wanted != self._synchronised:
                with psycopg.connect(server.conninfo(SUPERUSER), autocommit=True, **_PATIENCE) as connection:
                    self._failures = roles.synchronise(connection, wanted[1], verifiers)
                self._synchronised = wanted
            return server, self._failures

    def stop(self) -> None:
        """Stop the server if it runs; its data stays."""
        with self._lock:
            postgres.stop(self._data, self._name)

    def remove(self) -> None:
        """Stop the server and delete its data."""
        with self._lock:
            self._remove()

    def _remove_data_of_another(self, uid: str) -> None:
        file = self._data / _UID_FILE
        if self._data.exists() and (not file.exists() or file.read_text() != uid):
            self._remove()

    def _remove(self) -> None:
        if self._data.exists():
            postgres.stop(self._data, self._name)
            shutil.rmtree(self._data)

    def _start(self, uid: str, settings: Mapping[str, str]) -> Running:
        is_new = not self._data.exists()
        if is_new:
            self._check_room()
        access = {"pg_hba.conf": _ACCESS, "pg_ident.conf": f"{_MAP} {getpass.getuser()} all\n"}
        server = postgres.start(self._data, self._name, settings, superuser=SUPERUSER, access=access)
        if is_new:
            roles.predefine(server.conninfo(SUPERUSER))
            (self._data / _UID_FILE).write_text(uid)
        return server

    def _check_room(self) -> None:
        self._data.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self._data.parent).free
        if free < FREE_BYTES_NEEDED:
            raise TargetUnreachable(
                f"{self._name} needs {FREE_BYTES_NEEDED / 2**20:,.0f} MiB of disk in {self._data.parent}, "
                f"{free / 2**20:,.0f} MiB are free; free some or set ORCHESTRA_STATE_DIR to a larger disk"
            )

    def _reconfigure(self, server: Running, settings: Mapping[str, str]) -> bool:
        """Give a running server new settings; returns whether it was stopped because they need a start."""
        changed = postgres.configure(self._data, settings)
        if not changed:
            return False
        with psycopg.connect(server.conninfo(SUPERUSER), autocommit=True, **_PATIENCE) as connection:
            # A setting that is wrong needs a start too: the start fails and says why, a reload would only log it.
            needs_start = connection.execute(
                "SELECT 1 FROM pg_settings WHERE name = ANY(%s) AND context = 'postmaster' "
                "UNION ALL SELECT 1 FROM pg_file_settings WHERE error IS NOT NULL",
                (list(changed),),
            ).fetchone()
            if not needs_start:
                connection.execute("SELECT pg_reload_conf()")
                return False
        postgres.stop(self._data, self._name)
        return True


def _as_settings(name: str, flags: Mapping[str, str]) -> dict[str, str]:
    settings: dict[str, str] = {}
    for flag, value in flags.items():
        if flag in _OURS or not _FLAG_NAME.fullmatch(flag):
            raise TargetUnreachable(f"{name} cannot be started: {flag!r} is no database flag of AlloyDB; take it away")
        if flag in _WITHOUT_EFFECT:
            continue
        settings |= {flag: value, **_MEANINGS.get((flag, value.lower()), {})}
    return settings
