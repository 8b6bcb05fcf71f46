"""The strategy's weeks as they were planned, and what the ledger says of when each phase was really run. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

from orchestra_lib.ledger import Entry
from orchestra_lib.settings.cloud import Phase
from orchestra_lib.settings.windows import Window

_RUN_ID = "%Y%m%dT%H%M%SZ"
_RUN_ID_LETTERS = 16


@dataclass(frozen=True)
class Run:
    """A sealed run: when it began and ended, and its verdict (empty where it has none)."""

    runbook: str
    began: datetime
    ended: datetime
    verdict: str


@dataclass(frozen=True)
class Stretch:
    """A row of the plan: from its first moment to the first after it, and the runs of it that the ledger knows."""

    name: str
    people: str
    begins: datetime
    ends: datetime
    runs: tuple[Run, ...]

    @property
    def actual(self) -> tuple[datetime, datetime] | None:
        """From the beginning of its first run to the end of its last; None before there is one."""
        if not self.runs:
            return None
        return min(run.began for run in self.runs), max(run.ended for run in self.runs)


@dataclass(frozen=True)
class Closed:
    """A window with a beginning and an end, as the plan shows it."""

    name: str
    purpose: str
    begins: datetime
    ends: datetime


@dataclass(frozen=True)
class Schedule:
    """The plan beside what happened. ``first_day`` is the first of week 1."""

    first_day: date
    stretches: tuple[Stretch, ...]
    windows: tuple[Closed, ...]


def schedule(
    timeline: Sequence[Phase],
    windows: Sequence[Window],
    entries: Sequence[Entry],
    environment: str,
    first_day: date | None,
    today: date,
) -> Schedule:
    """Plan and ledger of an environment. Without ``first_day`` week 1 begins with the first sealed run, else today."""
    runs = [run for entry in entries if entry.environment == environment and (run := _run(entry)) is not None]
    begun = min((run.began.date() for run in runs), default=today)
    first = first_day or begun
    return Schedule(
        first,
        tuple(_stretch(phase, first, [run for run in runs if run.runbook[:2] in phase.runbooks]) for phase in timeline),
        tuple(
            Closed(
                window.name,
                window.purpose,
                _midnight(window.first_day),
                _midnight(window.last_day + timedelta(days=1)),
            )
            for window in windows
            if window.first_day and window.last_day
        ),
    )


def _stretch(phase: Phase, first: date, runs: Sequence[Run]) -> Stretch:
    begins = _midnight(first + timedelta(weeks=phase.first_week - 1))
    return Stretch(phase.name, phase.people, begins, _midnight(first + timedelta(weeks=phase.last_week)), tuple(runs))


def _run(entry: Entry) -> Run | None:
    try:
        began = datetime.strptime(entry.run_id[:_RUN_ID_LETTERS], _RUN_ID).replace(tzinfo=UTC)
        return Run(entry.runbook, began, datetime.fromisoformat(entry.at), entry.verdict.value if entry.verdict else "")
    except ValueError:
        return None  # a run whose id is not one of ours says nothing of when it began


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)
