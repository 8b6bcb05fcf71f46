"""The replication slots of followers: each one keeps the log that its follower still needs."""

from __future__ import annotations

from collections.abc import Collection

import psycopg

_PREFIX = "follower_"


def slot_of(uid: str) -> str:
    """The slot of the follower that is the instance with that uid."""
    return f"{_PREFIX}{uid.replace('-', '_')}"


def make(connection: psycopg.Connection, name: str) -> None:
    """Make a slot that keeps the log from now on; one that has lost some of it is made anew."""
    row = connection.execute("SELECT wal_status FROM pg_replication_slots WHERE slot_name = %s", (name,)).fetchone()
    if row is not None and row[0] == "lost":
        connection.execute("SELECT pg_drop_replication_slot(%s)", (name,))
    if row is None or row[0] == "lost":
        connection.execute("SELECT pg_create_physical_replication_slot(%s, true)", (name,))


def keep(connection: psycopg.Connection, wanted: Collection[str]) -> bool:
    """Make the slots that are missing, and drop those of followers that are gone; ``connection`` is the superuser's.

    Returns whether that is all: a slot that somebody still reads from stays.
    """
    rows = connection.execute(
        "SELECT slot_name, active FROM pg_replication_slots "
        "WHERE slot_type = 'physical' AND starts_with(slot_name, %s)",
        (_PREFIX,),
    ).fetchall()
    active: dict[str, bool] = dict(rows)
    for name in set(wanted) - set(active):
        connection.execute("SELECT pg_create_physical_replication_slot(%s, true)", (name,))
    unwanted = set(active) - set(wanted)
    for name in unwanted:
        if not active[name]:
            connection.execute("SELECT pg_drop_replication_slot(%s)", (name,))
    return not any(active[name] for name in unwanted)
