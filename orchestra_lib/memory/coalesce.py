"""What a run of changes amounts to, key by key; pure.

The last writer wins within a batch, so a row that is written ten times in it is written once on the target. What a
change leaves untouched (a large value that was not sent) comes from the change before it in the batch, or stays as it
is on the target. A changed id is a row that goes and a row that comes; when the target has to lend its own value of
what was not sent, it is a barrier instead: everything before it is applied first, then it alone.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import Enum

from orchestra_lib.memory.layout import ID, Layout
from orchestra_lib.memory.lsn import lsn_text
from orchestra_lib.memory.pgoutput import Row
from orchestra_lib.memory.stream_errors import StreamError
from orchestra_lib.memory.transactions import Change


class Kind(Enum):
    """What is to be done to a row: see :class:`Net`."""

    INSERT = "insert"
    UPSERT = "upsert"
    PATCH = "patch"
    REPLACE = "replace"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class Net:
    """What is to become of one row.

    INSERT: it came in this batch. UPSERT: it was there, and all of it is known. PATCH: it was there, and the columns
    that are None in ``row`` stay as they are. REPLACE: it went and came again, so its version may be lower. DELETE: it
    goes; of ``row`` only the id counts. ``row`` holds the layout's columns, ``key`` the id as text, ``lsn`` the commit
    of the last change.
    """

    kind: Kind
    key: bytes
    row: Row
    lsn: int


@dataclass(frozen=True, slots=True)
class Rekey:
    """A row whose id changed while some of its values were not sent: a barrier.

    ``old`` deletes the row under its old id, ``new`` is the PATCH of the row under its new one.
    """

    old: Net
    new: Net

    @property
    def commit_lsn(self) -> int:
        """The commit that it belongs to."""
        return self.new.lsn


class Coalesced:
    """The net effects of the changes that were added, one a key."""

    def __init__(self) -> None:
        self._nets: dict[bytes, Net] = {}

    def add(self, net: Net) -> None:
        """Add what comes after everything so far. Raises StreamError for an update of a row that is gone."""
        earlier = self._nets.get(net.key)
        self._nets[net.key] = net if earlier is None else merged(earlier, net)

    def __len__(self) -> int:
        return len(self._nets)

    def __iter__(self) -> Iterator[Net]:
        return iter(self._nets.values())


def partition_of(key: bytes, partitions: int) -> int:
    """The partition of a key: always the same one, so that changes of a row stay in their order."""
    return zlib.crc32(key) % partitions


def effects(change: Change, layout: Layout) -> tuple[Net, ...] | Rekey:
    """What one change does: to one row, to two when its id changed, or a barrier.

    ``layout`` must have checked the change's relation. Raises StreamError for a change that names no row.
    """
    lsn = change.commit_lsn
    if change.new is None:
        before = layout.columns_of(change.old or ())
        return (Net(Kind.DELETE, layout.key(before[ID]), before, lsn),)
    row = layout.columns_of(change.new)
    if change.verb == "insert":
        return (Net(Kind.INSERT, layout.key(row[ID]), row, lsn),)
    if change.old is None:
        return (_update(layout.key(row[ID]), row, lsn),)
    before = layout.columns_of(change.old)
    if row[ID] is None:  # an id so long that it is stored apart is sent with the old row alone
        row = (before[ID], *row[ID + 1 :])
    key, old_key = layout.key(row[ID]), layout.key(before[ID])
    if key == old_key:
        return (_update(key, row, lsn),)
    gone = Net(Kind.DELETE, old_key, before, lsn)
    whole = _filled(row, before) if layout.old_is_whole else row
    if None in whole:
        return Rekey(gone, Net(Kind.PATCH, key, whole, lsn))
    return gone, Net(Kind.INSERT, key, whole, lsn)


def merged(earlier: Net, later: Net) -> Net:
    """What two net effects on one row come to. Raises StreamError for an update of a row that is gone."""
    if later.kind in (Kind.DELETE, Kind.REPLACE):
        return later
    if later.kind is Kind.INSERT:
        return replace(later, kind=Kind.REPLACE)
    if earlier.kind is Kind.DELETE:
        raise StreamError(
            f"the source changes the row {earlier.key.decode(errors='backslashreplace')!r} at {lsn_text(later.lsn)}, "
            f"which it had deleted at {lsn_text(earlier.lsn)}: the log has a gap; copy the table again"
        )
    row = _filled(later.row, earlier.row)
    if earlier.kind is Kind.PATCH:
        return _update(later.key, row, later.lsn)
    return Net(earlier.kind, later.key, row, later.lsn)


def _update(key: bytes, row: Row, lsn: int) -> Net:
    return Net(Kind.PATCH if None in row else Kind.UPSERT, key, row, lsn)


def _filled(row: Row, before: Row) -> Row:
    """The row, with what was not sent as it was before."""
    if None not in row:
        return row
    return tuple(old if new is None else new for new, old in zip(row, before, strict=True))
