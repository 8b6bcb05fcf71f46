"""What can end a stream of changes, by what there is to do about it.

A StreamBroken is tried again. A LockHeld says that somebody else is at work. Everything else needs a person.
"""

from __future__ import annotations

from orchestra_lib.errors import DataError, LockHeld, TargetUnreachable


class StreamError(DataError):
    """The stream cannot go on as it is: a message that nobody understands, a refusal that waiting does not cure."""


class SlotLost(StreamError):
    """The replication slot is gone or was invalidated: changes are missing, only a new copy brings them back."""


class SchemaChanged(StreamError):
    """The source's table is not what the stream was set up for."""


class StreamBroken(TargetUnreachable):
    """The connection that the stream came by is lost. Nothing is lost with it: start again where it was confirmed."""


class SlotBusy(LockHeld):
    """Another session reads the replication slot."""


class Superseded(LockHeld):
    """Another mover has taken over: its checkpoint is further than this one's."""
