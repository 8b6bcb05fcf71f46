"""The end of the old system: how long it is kept, what people do to it, in which order, on which condition. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta

_DRILL_DAYS_BEFORE = 7
_FINAL_BACKUP_DAYS = 365


@dataclass(frozen=True)
class RetirementStep:
    """One step: not before which day, what, on which condition, and how."""

    on: date
    what: str
    condition: str
    how: str


@dataclass(frozen=True)
class Retirement:
    """The whole plan. ``ends`` is the day on which the old system may go."""

    ends: date
    steps: tuple[RetirementStep, ...]


def retirement(
    cutover: date, retention_days: int, return_slot: str, source_secret: str, environment: str
) -> Retirement:
    """The plan of an environment whose writers were switched on a day. Nothing in it is done by a program."""
    ends = cutover + timedelta(days=retention_days)
    drill = max(cutover, ends - timedelta(days=_DRILL_DAYS_BEFORE))
    status = f"python -m orchestra_lib stream status --environment {environment}"
    secret = f"; gcloud secrets delete {source_secret}" if source_secret else ""
    return Retirement(
        ends,
        (
            RetirementStep(
                cutover,
                "the old store is kept in step by the stream back, and nobody writes to it",
                "its writers have lost the right to write",
                f"python -m orchestra_lib stream run --environment {environment}; way back: rollback --phase 07",
            ),
            RetirementStep(
                cutover + timedelta(days=1),
                "look at it every day: lag, slot, other sessions",
                "",
                f"{status}; the alert on the slot's size speaks too",
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
                "run 06_validation and 07_finalization once more, and keep their records",
            ),
            RetirementStep(
                ends,
                "the stream back ends and its slot goes: from here there is no way back to the old store",
                "the decision was made",
                f"stream stop, then on AlloyDB: SELECT pg_drop_replication_slot('{return_slot}')",
            ),
            RetirementStep(
                ends + timedelta(days=1),
                "the old store is shut down, its credentials and its bill end",
                "the slot is gone",
                f"shut the server down{secret}",
            ),
            RetirementStep(
                ends + timedelta(days=_FINAL_BACKUP_DAYS),
                "the last backup goes",
                "no law or contract asks for it longer",
                "delete the dump",
            ),
        ),
    )
