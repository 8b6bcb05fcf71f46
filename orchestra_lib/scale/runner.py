"""Which of Beam's runners the options of a pipeline name, and whether its workers have this machine's files."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from orchestra_lib.errors import ParameterError

_HERE = frozenset({"directrunner", "bundlebaseddirectrunner", "switchingdirectrunner", "fnapirunner", "prismrunner"})


def runner_of(flags: Sequence[str]) -> str | None:
    """The runner that Beam's options name; None where they leave it to us."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("-r", "--runner")
    named: str | None = parser.parse_known_args(flags)[0].runner
    return named


def require_reachable_report(report: str | None, flags: Sequence[str]) -> None:
    """Return if the workers can write where the report is read. Raises ParameterError that says where it has to be."""
    runner = runner_of(flags)
    if runner is None or runner.rpartition(".")[2].lower() in _HERE or (report or "").startswith("gs://"):
        return
    raise ParameterError(
        f"the workers of {runner} write to their own disks, and {report or 'a folder of this machine'} would stay "
        "empty: give report a prefix that starts with gs://, such as gs://BUCKET/reports/memory"
    )
