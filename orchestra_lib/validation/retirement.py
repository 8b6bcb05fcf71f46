"""The end of the old system: how long it is kept, what people do to it, in which order, on which condition. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta

from orchestra_lib.validation.commands import command, planned

_DRILL_DAYS_BEFORE = 7
_FINAL_BACKUP_DAYS = 365


@dataclass(frozen=True)
class RetirementStep:
    """One step: not before which day, what, on which condition, how, and by which commands, in order."""

    on: date
    what: str
    condition: str
    how: str
    commands: tuple[str, ...] = ()


@dataclass(frozen=True)
class Retirement:
    """The whole plan. ``ends`` is the day on which the old system may go."""

    ends: date
    steps: tuple[RetirementStep, ...]


def retirement(
    cutover: date, retention_days: int, return_slot: str, source_secret: str, environment: str
) -> Retirement:
    """The plan of an environment whose writers were switched on a day. Nothing in it is done by a program.

    ``source_secret`` is the full name of the old store's secret, empty where there is none.
    """
    ends = cutover + timedelta(days=retention_days)
    drill = max(cutover, ends - timedelta(days=_DRILL_DAYS_BEFORE))
    secret = (f"gcloud secrets delete {source_secret}",) if source_secret else ()
    return Retirement(
        ends,
        (
            RetirementStep(
                cutover,
                "the old store is kept in step by the stream back, and nobody writes to it",
                "its writers have lost the right to write",
                "the stream goes on by itself, and is started again where it ended; the way back is a rollback of 07",
                (command("stream run", environment), *planned("rollback --phase 07", environment)),
            ),
            RetirementStep(
                cutover + timedelta(days=1),
                "look at it every day: lag, slot, other sessions",
                "",
                "the stream says how it stands; the alert on the slot's size speaks too",
                (command("stream status", environment),),
            ),
            RetirementStep(
                drill,
                "last backup of the old store, restored once somewhere else and counted",
                "the stream back is not behind",
                "pg_dump --format=custom, pg_restore into an empty database, 03_memory's inventory on both",
            ),
            RetirementStep(
                ends,
                "decision to let go, by the owner of the data",
                "no session on the old store but ours; the backup was restored; 06_validation is green again",
                "run 06 and then 07 once more, and keep their records; 01 to 05 were judged at the cutover",
                (*planned("migrate --only 06", environment), *planned("migrate --only 07", environment)),
            ),
            RetirementStep(
                ends,
                "the stream back ends and its slot goes: from here there is no way back to the old store",
                "the decision was made",
                "stop the stream, then drop its slot on AlloyDB",
                (command("stream stop", environment), f"SELECT pg_drop_replication_slot('{return_slot}')"),
            ),
            RetirementStep(
                ends + timedelta(days=1),
                "the old store is shut down, its credentials and its bill end",
                "the slot is gone",
                "shut the server down",
                secret,
            ),
            RetirementStep(
                ends + timedelta(days=_FINAL_BACKUP_DAYS),
                "the last backup goes",
                "no law or contract asks for it longer",
                "delete the dump",
            ),
        ),
    )
