"""Whether a phase may run now: its windows against the clock, by what the clock on the wall there shows.

So a window that begins in an hour which summer time leaves out begins when that hour is jumped over, and one in an hour
that comes twice is open both times. Pure: the moment is passed in.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

from orchestra_lib.errors import GateFailed
from orchestra_lib.settings.windows import WEEKDAYS, Window, clock_time

FREEZE = "feature_freeze"

_DAY, _MINUTE = timedelta(days=1), timedelta(minutes=1)
_HORIZON_DAYS = 400  # more than a year: a window of one weekday in one season is found


@dataclass(frozen=True)
class Admission:
    """That a phase may run: the windows of it that are open, none where it has none, and one that was overridden."""

    open: tuple[Window, ...]
    overridden: Window | None = None


def admit(windows: Sequence[Window], phase: str, override: str | None, now: datetime) -> Admission:
    """Let a phase run, or not. ``override`` is the name of a window that does not count this time.

    A phase without a window may run at any time. Raises GateFailed, with the next opening, outside all of its windows.
    """
    own = [window for window in windows if phase in window.phases]
    now_open = tuple(window for window in own if is_open(window, now))
    if not own or now_open:
        return Admission(now_open)
    overridden = next((window for window in own if window.name == override), None)
    if overridden is not None:
        return Admission((), overridden)
    raise GateFailed(_refusal(own, phase, override, now))


def is_open(window: Window, moment: datetime) -> bool:
    """Whether a window is open at a moment, which has a time zone."""
    wall = moment.astimezone(window.zone)
    begins, ends, now = clock_time(window.begins), clock_time(window.ends), wall.time()
    if not window.crosses_midnight:
        return begins <= now < ends and _is_its_day(window, wall.date())
    if now >= begins:
        return _is_its_day(window, wall.date())
    return now < ends and _is_its_day(window, wall.date() - _DAY)


def closes(window: Window, moment: datetime) -> datetime | None:
    """When a window that is open at a moment closes next, in UTC; None when it does not within a year."""
    ends = _moments(window, window.ends, moment)
    return next((end for end in ends if not is_open(window, end)), None)


def opens(window: Window, moment: datetime) -> datetime | None:
    """When a window opens next after a moment, in UTC; None when it does not within a year."""
    return next((begin for begin in _moments(window, window.begins, moment) if is_open(window, begin)), None)


def _refusal(own: Sequence[Window], phase: str, override: str | None, now: datetime) -> str:
    first, window = min(
        ((found, window) for window in own if (found := opens(window, now)) is not None),
        key=lambda pair: pair[0],
        default=(None, own[-1]),
    )
    when = f"opens at {first.astimezone(window.zone):%Y-%m-%d %H:%M %Z}" if first else "does not open again"
    known = ", ".join(one.name for one in own)
    named = f"; {override} is none of its windows ({known})" if override else ""
    return (
        f"phase {phase} is outside its windows{named}: {window.name} {when} ({window}). Plan now with mode plan, wait, "
        f"or name the window that does not count this time: -p override_window {window.name}"
    )


def _is_its_day(window: Window, day: date) -> bool:
    if (window.first_day and day < window.first_day) or (window.last_day and day > window.last_day):
        return False
    return window.days is None or WEEKDAYS[day.weekday()] in window.days


def _moments(window: Window, clock: str, after: datetime) -> Iterator[datetime]:
    """The moments after another at which the clock there comes to a time, soonest first."""
    today = after.astimezone(window.zone).date()
    for days in range(-1, _HORIZON_DAYS):
        day = today + days * _DAY
        found = {_reached(day, clock, window.zone, fold) for fold in (0, 1)}
        yield from sorted(moment for moment in found if moment > after)


def _reached(day: date, clock: str, zone: ZoneInfo, fold: int) -> datetime:
    """The moment at which the clock there shows this time, or jumps over it; the second of two for fold 1."""
    wanted = datetime.combine(day, clock_time(clock))
    moment = wanted.replace(tzinfo=zone, fold=fold).astimezone(UTC)
    if _wall(moment, zone) == wanted:
        return moment
    moment = wanted.replace(tzinfo=zone, fold=0).astimezone(UTC)  # jumped over: this is as far behind it as the jump
    while _wall(moment - _MINUTE, zone) >= wanted:
        moment -= _MINUTE
    return moment


def _wall(moment: datetime, zone: ZoneInfo) -> datetime:
    return moment.astimezone(zone).replace(tzinfo=None)
