"""Commands as people are handed them: whole, and each for the environment that is meant. Pure.

Without ``--environment`` a command acts on the local target, wherever it was copied from.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

_APPROVAL: Mapping[str, str] = MappingProxyType({
    "migrate": "-p approved_plan DIGEST",
    "rollback": "--approved-plan DIGEST",
})  # fmt: skip
"""How a command that changes something is told which plan it may carry out; the plan shows its digest."""


def command(words: str, environment: str) -> str:
    """A command of this library, such as ``stream status``, for an environment."""
    return f"python -m orchestra_lib {words} --environment {environment}"


def planned(words: str, environment: str) -> tuple[str, str]:
    """A change, such as ``rollback --phase 07``: the command that plans it, and the one that applies that plan."""
    whole = command(words, environment)
    return f"{whole} --mode plan", f"{whole} --mode apply {_APPROVAL[words.split()[0]]}"
