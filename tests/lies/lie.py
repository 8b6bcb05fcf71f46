"""A lie: a way to make a run look better than it was, planted in the real thing, and the reason why it ends red."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from stores import Pair

from orchestra_lib import audit, record, runbook, settings
from orchestra_lib.errors import OrchestraError
from orchestra_lib.evidence import Source, yes_or_no
from orchestra_lib.runbook import Runbook

NOT_CAUGHT = ""
_MOVED = ("ORCHESTRA_STATE_DIR", "ORCHESTRA_RUNS_DIR", "ORCHESTRA_OVERWRITE", record.RUN_CONTEXT_VARIABLE)


@dataclass(frozen=True)
class World:
    """Where a lie is planted: a home of its own, and two databases of its own where it needs them."""

    home: Path
    pair: Pair | None = None

    @property
    def stores(self) -> Pair:
        """The two databases."""
        assert self.pair is not None, "this lie says that it needs no stores"
        return self.pair


@dataclass(frozen=True)
class Lie:
    """``plant`` does it and returns what was said of it, ``NOT_CAUGHT`` when nothing was; ``reason`` is a pattern."""

    name: str
    reason: str
    plant: Callable[[World], str]
    needs_stores: bool = False
    is_long: bool = False
    """Left out of the short form: it takes seconds, and one like it is in."""


@contextmanager
def at_home(home: Path) -> Iterator[None]:
    """Inside, the library takes ``home`` for the project: parameters are a copy, records and state begin empty."""
    shutil.copytree(settings.root() / "parameters", home / "parameters", dirs_exist_ok=True)
    kept = {name: value for name, value in os.environ.items() if name not in _MOVED}
    try:
        with mock.patch.dict(os.environ, {**kept, "ORCHESTRA_HOME": str(home)}, clear=True):
            yield
    finally:
        for run in tuple(runbook._open_here.values()):
            for lock in (run._replaced(), *run._more_locks):
                if lock is not None:
                    lock.release()


def said(what: Callable[[], object]) -> str:
    """What the library says when it refuses; ``NOT_CAUGHT`` when it does not."""
    try:
        what()
    except OrchestraError as error:
        return f"{type(error).__name__}: {error}"
    return NOT_CAUGHT


def found_by_audit() -> str:
    """What ``audit verify`` finds wrong."""
    return "\n".join(str(finding) for finding in audit.verify().findings if not finding.is_note)


def honest_run(name: str = "01_infrastructure", **parameters: object) -> Path:
    """A run that is what it says, sealed; its record."""
    run = Runbook.open(name, environment="local", **parameters)
    run.add(yes_or_no("rows are equal", Source.MEASURED, True))
    run.verify()
    run.close()
    assert found_by_audit() == NOT_CAUGHT, "without the lie nothing is wrong"
    return run.record_path
