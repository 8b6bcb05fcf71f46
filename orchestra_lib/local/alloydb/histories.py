"""Whether a server can go on by following another one: its data must be a part of that one's history.

Every promotion begins a new timeline at some position. Data that was written on the old one after that position is
not on the new one. https://www.postgresql.org/docs/16/continuous-archiving.html#BACKUP-TIMELINES
"""

from __future__ import annotations

from collections.abc import Sequence

from orchestra_lib.local.postgres import ControlData


def is_part_of(stopped: ControlData, history: Sequence[tuple[int, int]]) -> bool:
    """Whether everything in the data of a stopped server is in a history of (timeline, position where it was left)."""
    left_at = dict(history).get(stopped.timeline)
    if left_at is None:
        return False
    if stopped.state == "shut down":
        return stopped.checkpoint < left_at  # its checkpoint is its last record
    return stopped.state == "shut down in recovery" and stopped.recovered_until <= left_at
