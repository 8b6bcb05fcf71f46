"""What a server is started with: the flags of its instance, its archive, and whom it follows."""

from __future__ import annotations

import getpass
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestra_lib.errors import TargetUnreachable
from orchestra_lib.local import postgres
from orchestra_lib.local.alloydb import chains
from orchestra_lib.local.alloydb.roles import SUPERUSER, User

# What a flag of AlloyDB means in PostgreSQL's own words; other flags are settings of the same name.
_MEANINGS: Mapping[tuple[str, str], Mapping[str, str]] = {("alloydb.logical_decoding", "on"): {"wal_level": "logical"}}
# AlloyDB's own flags, which PostgreSQL does not know; those with a dot it takes for an extension's that is not loaded.
_WITHOUT_EFFECT = frozenset({"enable_google_adaptive_autovacuum"})
# Settings that say where the server lives, who may come in, what it archives and whom it follows. AlloyDB does not
# offer them as flags either.
_OURS = frozenset(
    {
        "archive_cleanup_command",
        "archive_command",
        "archive_library",
        "archive_mode",
        "config_file",
        "data_directory",
        "external_pid_file",
        "hba_file",
        "hot_standby",
        "ident_file",
        "listen_addresses",
        "port",
        "primary_conninfo",
        "primary_slot_name",
        "restore_command",
        "unix_socket_directories",
    }
)
_FLAG_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)?")
# A follower refuses to start with less than the server that it follows. The numbers are PostgreSQL's defaults.
# https://www.postgresql.org/docs/16/hot-standby.html#HOT-STANDBY-ADMIN
_AT_LEAST = {
    "max_connections": 100,
    "max_locks_per_transaction": 64,
    "max_prepared_transactions": 0,
    "max_wal_senders": 10,
    "max_worker_processes": 8,
}
# Followers archive too. Archiving is turned on by its command alone, because the mode needs a restart. Some log stays
# for a follower that comes back.
_ALWAYS = {**postgres.SETTINGS, "archive_mode": "always", "wal_keep_size": "256MB"}
_LISTENER, _FOLLOWER = "listener", "follower"
# IAM users come in through the listener, which has checked their token; it runs as the user of this process.
# They are named one by one: who was granted the role of one of them is no IAM user for that.
_IAM_USERS_FILE = "orchestra.iam_users"
_ACCESS = f"""\
local all         {SUPERUSER}          peer map={_LISTENER}
local all         @{_IAM_USERS_FILE}  peer map={_LISTENER}
local all         all                   scram-sha-256
local replication {SUPERUSER}          peer map={_FOLLOWER}
local replication @{_IAM_USERS_FILE}  peer map={_LISTENER}
local replication all                   scram-sha-256
"""


@dataclass(frozen=True)
class Upstream:
    """Whom a server follows, and where that listens; by the slot it is known there."""

    instance: str
    socket_directory: str
    slot: str
    flags: tuple[Mapping[str, str], ...]
    """The flags of the server that is followed, and of those that it follows itself."""


@dataclass(frozen=True)
class Plan:
    """What a server has to be."""

    flags: Mapping[str, str]
    users: Sequence[User]
    verifiers: Mapping[str, str]
    chain: Path | None
    """Where it archives its log; None: nowhere."""
    upstream: Upstream | None
    """Whom it follows; None for one that is written to, and for one whose upstream does not exist."""
    slots: frozenset[str]
    """By which its followers are known."""


def settings(name: str, plan: Plan) -> dict[str, str]:
    """The settings of a server that messages call ``name``. Raises TargetUnreachable for what is no flag."""
    result = {**_ALWAYS, **_from_flags(name, plan.flags), "archive_command": chains.archive_command(plan.chain)}
    if plan.upstream:
        for limit, default in _AT_LEAST.items():
            values = (int(flags.get(limit, default)) for flags in (plan.flags, *plan.upstream.flags))
            result[limit] = str(max(values))
        result["primary_conninfo"] = (
            f"host='{_quoted(plan.upstream.socket_directory)}' user={SUPERUSER} application_name={plan.upstream.slot}"
        )
        result["primary_slot_name"] = plan.upstream.slot
    return result


def access(users: Sequence[User]) -> dict[str, str]:
    """The files that say who may come in, by name."""
    # PostgreSQL takes no empty list; this one comes in the same way.
    iam_users = [SUPERUSER, *(user.name for user in users if user.is_iam)]
    names = "".join('"{}"\n'.format(name.replace('"', '""')) for name in iam_users)
    maps = [(_LISTENER, getpass.getuser(), "all")]
    maps += [(_FOLLOWER, user, SUPERUSER) for user in sorted({getpass.getuser(), postgres.user()})]
    return {
        "pg_hba.conf": _ACCESS,
        _IAM_USERS_FILE: names,
        "pg_ident.conf": "".join(f"{' '.join(line)}\n" for line in maps),
    }


def _from_flags(name: str, flags: Mapping[str, str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for flag, value in flags.items():
        if flag in _OURS or not _FLAG_NAME.fullmatch(flag):
            raise TargetUnreachable(f"{name} cannot be started: {flag!r} is no database flag of AlloyDB; take it away")
        if flag in _WITHOUT_EFFECT:
            continue
        found |= {flag: value, **_MEANINGS.get((flag, value.lower()), {})}
    return found


def _quoted(value: str) -> str:
    return value.replace("\\", "\\\\").replace("'", "\\'")
