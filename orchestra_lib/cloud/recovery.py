"""After a killed process, or a call that nobody answered: find out what became of the changes, and write it down."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from orchestra_lib.cloud import access
from orchestra_lib.cloud.client import Client
from orchestra_lib.cloud.journal import Journal, RecordedChange
from orchestra_lib.cloud.kinds import KINDS
from orchestra_lib.cloud.plan import aliases_around, differences
from orchestra_lib.cloud.refusals import CloudRefused
from orchestra_lib.cloud.resource import Live
from orchestra_lib.plan import Verb

# The longest that a call takes from the death of who sent it until what it makes can be read.
_ARRIVES_WITHIN_SECONDS = 5.0
_LOOK_AGAIN_SECONDS = 0.2


def recover(client: Client, journal: Journal) -> tuple[RecordedChange, ...]:
    """Find out how the changes ended of which nobody knows it, and return them. Changes nothing but the journal.

    Operations that still run are waited for, so that a plan made afterwards sees what they made. A change of which
    nothing is to be seen ends as failed and lost; it is looked for again by every recovery until its resource is
    changed by another one.
    """
    unsettled, arrived_by = journal.unsettled(), journal.written_at() + _ARRIVES_WITHIN_SECONDS
    aliases, applied = aliases_around(client, [change.wanted for change in unsettled]), journal.applied()
    ended = []
    for change in unsettled:
        failure = _failure_of_operation(client, change)
        after = _looked_for(client, change, arrived_by)
        if failure:
            journal.failed(change, failure, after)
        elif _is_as_intended(change, after, applied.get(change.wanted.key, {}), aliases):
            journal.done(change, after)
        elif change.is_open:
            journal.failed(change, "it was cut off, and nothing of it is to be seen", after, lost=True)
        else:
            continue  # lost before, and still
        ended.append(change)
    return tuple(ended)


def _failure_of_operation(client: Client, change: RecordedChange) -> str:
    """Wait for a change's operation; why it failed, or nothing."""
    if not (change.is_open and change.operation):
        return ""
    kind = KINDS[change.wanted.kind]
    try:
        client.finish(kind.api, f"{change.verb} {change.wanted.key}", change.operation, kind.timeout_seconds)
    except CloudRefused as error:
        # An operation is forgotten after a while; what it made is what counts.
        return "" if error.is_absence else str(error)
    return ""


def _looked_for(client: Client, change: RecordedChange, arrived_by: float) -> Live | None:
    """What there is now. A call that may still be on its way is waited for where another would make a second one."""
    makes_another = change.verb is Verb.CREATE and KINDS[change.wanted.kind].found_by and not change.operation
    while True:
        live = access.read(client, change.wanted)
        if live or not makes_another or time.time() > arrived_by:
            return live
        time.sleep(_LOOK_AGAIN_SECONDS)


def _is_as_intended(
    change: RecordedChange, after: Live | None, applied: Mapping[str, Any], aliases: Mapping[str, str]
) -> bool:
    if change.verb is Verb.DELETE:
        return after is None
    if after is None:
        return False
    cleared = {name: (change.before or {}).get(name) for name in change.fields if name not in change.wanted.body}
    kind = KINDS[change.wanted.kind]
    return not differences(kind, aliases, change.wanted.body, after.body, {**applied, **cleared})
