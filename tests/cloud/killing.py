"""Killing an apply and a rollback at random events, going on, and comparing with what nobody killed."""

from __future__ import annotations

import difflib
import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from killed_run import Run, Stage, carry_out, plan_of
from planes import Plane
from portrait import portrait

from orchestra_lib.cloud.journal import Event, Journal
from orchestra_lib.local.control.projects import ENABLED_FROM_THE_START
from orchestra_lib.plan import Verb

# A plan that finds the project finds these enabled and has nothing to do; one that does not, enables them.
_WITH_THE_PROJECT = frozenset(f"service:projects/PROJECT/{name}.googleapis.com" for name in ENABLED_FROM_THE_START)
_LINES_SHOWN = 12


@dataclass(frozen=True)
class Undisturbed:
    """What an apply, or a rollback, comes to when nobody kills it: its events, the project, what the journal holds."""

    events: int
    portrait: list[str]
    applied: frozenset[str]


@dataclass(frozen=True)
class Point:
    """One point: where the processes died, and what did not hold afterwards."""

    kills: tuple[str, ...]
    problems: tuple[str, ...]

    def __str__(self) -> str:
        return "\n    ".join(["; ".join(self.kills), *self.problems])


class Trial:
    """Points of one blueprint on one control plane, compared with an apply and a rollback that nobody kills."""

    def __init__(self, plane: Plane, blueprint: str, directory: Path, seed: int) -> None:
        self._plane, self._blueprint, self._directory = plane, blueprint, directory
        self._seed = seed
        run = self._first_run(0)
        self._apply = self._undisturbed(run)
        self._rollback = self._undisturbed(replace(run, undoing=True))
        self.events = {"apply": self._apply.events, "rollback": self._rollback.events}

    def point(self, number: int) -> Point:
        """Kill, go on, compare; first the apply, then the rollback. ``number`` counts from 1 and is used once."""
        run, kills, problems = self._first_run(number), list[str](), list[str]()
        draw = random.Random(f"{self._seed} {number}")
        for undoing, wanted in ((False, self._apply), (True, self._rollback)):
            one = replace(run, undoing=undoing)
            try:
                kills += self._killed(one, wanted.events, draw, again=number % 3 != 0)
                carry_out(replace(one, run_id="last"))
            except RuntimeError as error:
                return Point(tuple(kills), (*problems, str(error)))
            problems += self._problems(one, wanted)
        return Point(tuple(kills), tuple(problems))

    def _first_run(self, number: int) -> Run:
        project = f"killed-{self._blueprint}-{number:03}"
        return Run(self._plane, project, self._blueprint, self._directory / f"{project}.jsonl", "first")

    def _undisturbed(self, run: Run) -> Undisturbed:
        events = carry_out(run).events
        return Undisturbed(events, portrait(self._plane, run.project), _applied(run))

    def _killed(self, run: Run, events: int, draw: random.Random, *, again: bool) -> Iterator[str]:
        """Kill a run, and the one after it if ``again``; yields where."""
        what = "rollback" if run.undoing else "apply"
        at = draw.randint(1, events)
        ended = carry_out(replace(run, kill_at=at))
        if not ended.killed:  # how often an operation is looked at is chance: this run had fewer events
            return
        yield f"{what} {at} of {events}, {ended.last_event}"
        if again:
            stage: Stage = draw.choice(("recover", "apply"))
            at = draw.randint(1, 6 if stage == "recover" else events)
            ended = carry_out(replace(run, run_id="second", stage=stage, kill_at=at))
            if ended.killed:
                yield f"again in its {stage} {at}, {ended.last_event}"

    def _problems(self, run: Run, wanted: Undisturbed) -> Iterator[str]:
        journal, what = Journal(run.journal), "rollback" if run.undoing else "apply"
        left = [f"{step.verb} {step.key}" for step in plan_of(run, journal).steps if step.verb is not Verb.KEEP]
        if left:
            yield f"{what}: a second plan has {left}"
        unsettled = [change.wanted.key for change in journal.unsettled()]
        if unsettled:
            yield f"{what}: the journal does not know what became of {unsettled}"
        adopted = [change.wanted.key for change in journal.changes if change.event is Event.ADOPTED]
        if adopted:
            yield f"{what}: ours, and in the journal as adopted: {adopted}"
        differing = sorted((_applied(run) ^ wanted.applied) - _WITH_THE_PROJECT)
        if differing:
            yield f"{what}: in the journal as applied on one side only: {differing}"
        there = portrait(self._plane, run.project)
        if there != wanted.portrait:
            lines = difflib.unified_diff(wanted.portrait, there, "undisturbed", "killed", n=0, lineterm="")
            yield "\n".join([f"{what}: the project differs", *itertools.islice(lines, _LINES_SHOWN)])


def _applied(run: Run) -> frozenset[str]:
    return frozenset(key.replace(run.project, "PROJECT") for key in Journal(run.journal).applied())
