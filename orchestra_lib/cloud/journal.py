"""What was changed, and what was there before: an append-only file, on the disk before and after every call.

Each change writes ``begun`` before its first call, ``sent`` when an operation was started, then ``done``, ``adopted``
or ``failed``. A change without an end is one whose process was killed, or whose call was never answered. When nothing
of it is to be seen later on, it ends as failed and ``lost``: the call may still arrive, and what it makes is ours.
"""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from orchestra_lib.append_only import append_line, whole_lines
from orchestra_lib.cloud.resource import Live, Resource
from orchestra_lib.errors import RecordError
from orchestra_lib.evidence import canonical_json
from orchestra_lib.plan import Verb
from orchestra_lib.redaction import redact_json


class Event(StrEnum):
    """What an entry says of its change."""

    BEGUN = "begun"
    SENT = "sent"
    DONE = "done"
    ADOPTED = "adopted"  # it was there already, as wanted: not ours
    FAILED = "failed"


_ENDS = (Event.DONE, Event.ADOPTED, Event.FAILED)


@dataclass
class RecordedChange:
    """One change, put together from its entries. ``before`` and ``after`` are live bodies, None for not there."""

    id: str
    run_id: str
    verb: Verb
    wanted: Resource
    before: Mapping[str, Any] | None
    fields: tuple[str, ...]
    event: Event = Event.BEGUN
    operation: Mapping[str, Any] | None = None
    after: Mapping[str, Any] | None = None
    message: str = ""
    lost: bool = False
    failed_operations: int = 0

    @property
    def is_open(self) -> bool:
        """Whether nobody wrote how it ended."""
        return self.event not in _ENDS

    @property
    def may_have_happened(self) -> bool:
        """Whether it was carried out by us, as far as anybody knows: a clear refusal and an adoption were not."""
        if self.event is Event.FAILED:
            return self.lost or self.after is not None
        return self.event is not Event.ADOPTED


@dataclass
class _State:
    changes: dict[str, RecordedChange] = field(default_factory=dict)
    entries: int = 0


class Journal:
    """The journal of one phase in one environment. One process writes it at a time: the phase lock sees to that."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._state = _read(path)

    @property
    def changes(self) -> tuple[RecordedChange, ...]:
        """Every change ever begun, in the order in which they were."""
        return tuple(self._state.changes.values())

    def open_changes(self) -> tuple[RecordedChange, ...]:
        """The changes of which nobody wrote how they ended."""
        return tuple(change for change in self.changes if change.is_open)

    def unsettled(self) -> tuple[RecordedChange, ...]:
        """The open changes, and the lost ones after which nothing was tried on their resource."""
        last = {change.wanted.key: change for change in self.changes}
        return tuple(
            change for change in self.changes if change.is_open or (change.lost and last[change.wanted.key] is change)
        )

    def is_ours(self, key: str) -> bool:
        """Whether we have made the resource, or may have, and have not deleted it since."""
        ours = False
        for change in self.changes:
            if change.wanted.key == key and change.verb is Verb.CREATE:
                ours = (ours and change.event is not Event.ADOPTED) or change.may_have_happened
            elif change.wanted.key == key and change.verb is Verb.DELETE:
                ours = ours and change.event is not Event.DONE
        return ours

    def written_at(self) -> float:
        """When the last entry was written, seconds since 1970."""
        return self.path.stat().st_mtime if self.path.exists() else 0.0

    def applied(self) -> dict[str, Mapping[str, Any]]:
        """The body of each resource as it was applied last, by key; deleted ones are not there."""
        bodies: dict[str, Mapping[str, Any]] = {}
        for change in self.changes:
            if change.event is Event.DONE and change.verb is Verb.DELETE:
                bodies.pop(change.wanted.key, None)
            elif change.event in (Event.DONE, Event.ADOPTED):
                bodies[change.wanted.key] = change.wanted.body
        return bodies

    def begin(
        self, run_id: str, verb: Verb, wanted: Resource, before: Live | None, fields: tuple[str, ...] = ()
    ) -> RecordedChange:
        """Write that a change begins; nothing may be sent before this returns."""
        change = RecordedChange(uuid.uuid4().hex, run_id, verb, wanted, None if before is None else before.body, fields)
        self._append(
            change,
            Event.BEGUN,
            run_id=run_id,
            verb=verb.value,
            kind=wanted.kind,
            parent=wanted.parent,
            id=wanted.id,
            body=wanted.body,
            needs=wanted.all_needs,
            before=change.before,
            fields=fields,
        )
        return change

    def sent(self, change: RecordedChange, operation: Mapping[str, Any]) -> None:
        """Write the operation that carries the change out."""
        change.operation = {name: operation[name] for name in ("name", "selfLink", "kind") if name in operation}
        self._append(change, Event.SENT, operation=change.operation)

    def done(self, change: RecordedChange, after: Live | None, *, adopted: bool = False) -> None:
        """Write that the change ended well, and what there is now."""
        change.after = None if after is None else after.body
        change.lost = False
        self._append(change, Event.ADOPTED if adopted else Event.DONE, after=change.after)

    def failed(self, change: RecordedChange, message: str, after: Live | None = None, *, lost: bool = False) -> None:
        """Write that the change failed, why, and what it left. ``lost``: nobody knows that it will not happen yet."""
        change.message, change.after, change.lost = message, None if after is None else after.body, lost
        self._append(change, Event.FAILED, message=message, after=change.after, lost=lost)

    def _append(self, change: RecordedChange, event: Event, **content: Any) -> None:
        with self._lock:
            entry = {
                "sequence": self._state.entries,
                "at": datetime.now(UTC).isoformat(),
                "event": event.value,
                "change": change.id,
                **content,
            }
            append_line(self.path, canonical_json(redact_json(entry)))
            change.event = event
            self._state.entries += 1
            self._state.changes[change.id] = change


def _read(path: Path) -> _State:
    state = _State()
    # A line that was cut off: nothing had been sent for it yet, or its end is looked up.
    for number, line in enumerate(whole_lines(path), start=1):
        try:
            _take(state, json.loads(line))
        except (ValueError, KeyError, TypeError) as error:
            raise RecordError(f"{path}, line {number} cannot be believed: {error}; restore it from a copy") from error
    return state


def _take(state: _State, entry: Mapping[str, Any]) -> None:
    if entry["sequence"] != state.entries:
        raise ValueError(f"it has the number {entry['sequence']} where {state.entries} follows")
    event, known = Event(entry["event"]), state.changes.get(entry["change"])
    if event is Event.BEGUN:
        wanted = Resource(entry["kind"], entry["parent"], entry["id"], entry["body"], tuple(entry["needs"]))
        state.changes[entry["change"]] = RecordedChange(
            entry["change"], entry["run_id"], Verb(entry["verb"]), wanted, entry["before"], tuple(entry["fields"])
        )
    elif known is None:
        raise ValueError(f"change {entry['change']} ends without having begun")
    else:
        known.event = event
        known.operation = entry.get("operation", known.operation)
        known.after, known.message = entry.get("after"), entry.get("message", "")
        known.lost = bool(entry.get("lost", False))
    state.entries += 1
