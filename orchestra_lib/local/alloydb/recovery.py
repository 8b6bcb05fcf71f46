"""The data of a restored cluster: a base backup, and the archived log replayed up to a point in time."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from orchestra_lib.errors import TargetUnreachable
from orchestra_lib.local import postgres
from orchestra_lib.local.alloydb import backups, base_backups, chains, server_settings

_NOT_REACHED = "recovery ended before configured recovery target was reached"


def from_backup(backup: Path, target: Path, name: str) -> None:
    """The state of a backup (a directory of ``places.backup``) as whole data in a new directory.

    Raises TargetUnreachable when the backup holds none: its cluster had no instance, or no data plane ran.
    """
    base = backups.base_of(backup)
    if backups.note_of(base) is None:
        raise TargetUnreachable(
            f"{name} cannot be restored: its backup holds no data, for want of an instance when it was made"
        )
    _recovered(base, target, name, {"restore_command": "/bin/false", "recovery_target": "immediate"})


def at_point_in_time(storage: Path, point_in_time: str, target: Path, name: str) -> None:
    """The state of a cluster (its storage) at a moment (RFC 3339) as whole data in a new directory.

    Everything that was committed at that moment or before is in it, and nothing else. Raises TargetUnreachable when
    the continuous backup does not reach back, or on, to that moment.
    """
    moment = datetime.fromisoformat(point_in_time)
    chain = chains.reaching(storage, moment.timestamp())
    if chain is None:
        raise TargetUnreachable(f"{name} cannot be restored: no continuous backup reaches back to {point_in_time}")
    settings = {
        "restore_command": chains.restore_command(chain),
        # With an offset in numbers: the server reads it before it knows the name of any time zone, such as Z.
        "recovery_target_time": moment.astimezone(UTC).isoformat(" "),
        "recovery_target_inclusive": "on",
    }
    try:
        _recovered(backups.base_of(chain), target, name, settings)
    except TargetUnreachable as error:
        if _NOT_REACHED not in str(error):
            raise
        raise TargetUnreachable(
            f"{name} cannot be restored: the archived log of its source ends before {point_in_time}, and the source's "
            "server could not be asked for the rest"
        ) from error


def _recovered(base: Path, target: Path, name: str, settings: dict[str, str]) -> None:
    part = target.with_name(f"{target.name}.part")
    postgres.discard(part, name)  # an earlier attempt may still be at it
    copied = backups.data_of(base)
    base_backups.check_room(part, name, base_backups.bytes_in(copied))
    postgres.copy_data(copied, part)
    for file, text in server_settings.access(()).items():
        (part / file).write_text(text)
    postgres.recover(part, name, {**postgres.SETTINGS, "recovery_target_action": "promote", **settings})
    base_backups.clear(part)
    part.rename(target)
