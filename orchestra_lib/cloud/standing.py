"""What the phases have made in an environment, and what differs from it now: for the command line, without a run."""

from __future__ import annotations

from dataclasses import dataclass

from orchestra_lib import settings
from orchestra_lib.cloud.client import Client
from orchestra_lib.cloud.journal import Journal
from orchestra_lib.cloud.rollback import drift
from orchestra_lib.cloud.target import connect
from orchestra_lib.paths import journal_path
from orchestra_lib.plan import Verb

_PHASES = tuple(f"{number:02d}" for number in range(9))


@dataclass(frozen=True)
class Standing:
    """One phase: how many resources it has made or changed, changes without an end, and what has drifted.

    ``drifted`` holds one line for each resource that differs; None when the live state was not read.
    """

    phase: str
    resources: int
    open_changes: int
    drifted: tuple[str, ...] | None


def standings(environment: str, *, read_live: bool) -> tuple[Standing, ...]:
    """The phases that have a journal in the environment; with ``read_live``, compared with what there is now.

    Raises ParameterError for an unknown environment, TargetUnreachable or CloudRefused when reading fails.
    """
    found = settings.load(environment)
    local = found.environment.kind == "local"
    journals = {
        phase: Journal(path) for phase in _PHASES if (path := journal_path(environment, phase, local=local)).exists()
    }
    client = Client(connect(found)) if read_live and journals else None
    return tuple(
        Standing(
            phase,
            len(journal.applied()),
            len(journal.open_changes()),
            None if client is None else _drifted(client, journal),
        )
        for phase, journal in journals.items()
    )


def _drifted(client: Client, journal: Journal) -> tuple[str, ...]:
    steps = drift(client, journal).steps
    return tuple(
        f"{step.wanted.kind} {step.name}: {'gone' if step.verb is Verb.CREATE else '; '.join(map(str, step.diffs))}"
        for step in steps
        if step.verb is not Verb.KEEP
    )
