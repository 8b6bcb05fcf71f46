"""A follower takes the place of the server that it follows: nothing is lost while that one can still be asked.

A planned change stops the old server in order, which sends its followers everything; only when the heir has replayed
the last record is it promoted. Of a server that is gone, the heir has what it had received.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from orchestra_lib.errors import TargetUnreachable
from orchestra_lib.local import postgres
from orchestra_lib.local.alloydb.backend import Backend

_NEAR_BYTES = 16 << 20
_CATCH_UP_SECONDS = 120
_LAST_RECORDS_SECONDS = 15
_POLL_SECONDS = 0.01
_RECEIVED = "SELECT flush_lsn FROM pg_stat_replication WHERE application_name = %s AND state = 'streaming'"
_log = logging.getLogger(__name__)


def change_places(old: Backend, heir: Backend, slot: str) -> None:
    """Stop the old server, which runs, and promote its follower, which does too. The old one is a follower then.

    ``slot`` is that of the heir. Raises TargetUnreachable, and leaves the roles as they were, when the heir does not
    come to have everything.
    """
    catch_up(old, heir, slot, within_bytes=_NEAR_BYTES)
    with old.lock:
        old.stop()
        checkpoint = old.control_data().checkpoint
        if not _wait_until(lambda: _replayed(heir) > checkpoint, _LAST_RECORDS_SECONDS):
            raise TargetUnreachable(
                f"{heir.name} has not received the last records of {old.name} within {_LAST_RECORDS_SECONDS} s; "
                "the roles stay as they were"
            )
        server = heir.running
        old.follow(heir.instance, server.socket_directory if server else "")
        heir.promote()
    _log.info("%s took over from %s at %X: nothing was lost", heir.instance, old.instance, checkpoint)


def has_everything(old: Backend, heir: Backend) -> bool:
    """Whether the old server was stopped in order and the heir has replayed all of it."""
    if old.running is not None:
        return False
    last = old.control_data()
    return last.state == "shut down" and _replayed(heir) > last.checkpoint


def catch_up(old: Backend, heir: Backend, slot: str, *, within_bytes: int = 0) -> None:
    """Return when the heir receives the old server's log and has it up to where it was at the call.

    Raises TargetUnreachable when it does not get there.
    """
    with old.session() as connection:
        row = connection.execute("SELECT pg_current_wal_flush_lsn()").fetchone()
        wanted = (postgres.lsn(row[0]) if row else 0) - within_bytes

        def is_there() -> bool:
            found = connection.execute(_RECEIVED, (slot,)).fetchone()
            return found is not None and found[0] is not None and postgres.lsn(found[0]) >= wanted

        if not _wait_until(is_there, _CATCH_UP_SECONDS):
            raise TargetUnreachable(f"{heir.name} does not catch up with {old.name}; see {heir.data / 'log'}")


def _replayed(heir: Backend) -> int:
    """How far it has replayed the log; it may be promoted already."""
    return heir.history()[-1][1]


def _wait_until(happened: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not happened():
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return True
