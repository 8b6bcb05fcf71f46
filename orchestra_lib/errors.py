"""The few errors of this library. A message says what was wrong, with the value, and what to do about it."""

from __future__ import annotations


class OrchestraError(Exception):
    """Base of all of them; ``exit_code`` is what a command that meets it ends with."""

    exit_code = 1

    def _render_traceback_(self) -> list[str]:
        # IPython asks for this: a notebook shows the one clear line instead of a wall of frames.
        return [f"{type(self).__name__}: {self}"]


class ParameterError(OrchestraError):
    """A setting or a notebook parameter is refused."""

    exit_code = 2


class TargetUnreachable(OrchestraError):
    """The target (a database, Google Cloud, the local target) cannot be reached."""

    exit_code = 3


class GateFailed(OrchestraError):
    """A gate is closed; ``failures`` holds one line for each piece of evidence that keeps it so."""

    def __init__(self, message: str, failures: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.failures = failures


class LockHeld(OrchestraError):
    """Somebody else runs this phase in this environment."""


class RecordError(OrchestraError):
    """A record or the ledger cannot be written, or cannot be believed."""


class DataError(OrchestraError):
    """The data is not what it has to be: mixed dimensions, duplicate ids, rows that differ, no room."""


class StopAfterPlan(OrchestraError):
    """Mode ``plan``: the run ends here as asked, before anything is changed."""

    exit_code = 0
