"""Carrying out a plan: in dependency order, in parallel, journalled, each change read back before it counts as done."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from graphlib import TopologicalSorter
from threading import Event as Flag
from typing import Any, TypeVar

import stamina

from orchestra_lib.cloud import access
from orchestra_lib.cloud.client import Client, Interrupted, Unanswered
from orchestra_lib.cloud.diff import FieldDiff, is_rows
from orchestra_lib.cloud.journal import Journal, RecordedChange
from orchestra_lib.cloud.kinds import KINDS
from orchestra_lib.cloud.plan import CloudPlan, Step, alias_of, comparison, differences
from orchestra_lib.cloud.recovery import recover
from orchestra_lib.cloud.refusals import NOT_VISIBLE, CloudRefused
from orchestra_lib.cloud.resource import Live, Resource, resolve
from orchestra_lib.errors import GateFailed, OrchestraError
from orchestra_lib.plan import Verb

WORKERS = 16
# Rate limits of Google Cloud are per minute, and what was just made shows everywhere within one.
_ATTEMPTS, _PATIENCE_SECONDS = 10, 120.0
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS, _JITTER_SECONDS = 0.2, 15.0, 0.5

Result = TypeVar("Result")
Node = tuple[str, str]
"""A key and what is done to it: ``delete`` or ``write``."""
Progress = Callable[[int, int, str], None]
"""Called with the changes that are done, all changes, and what was done last."""


@dataclass(frozen=True)
class Done:
    """One change that was carried out and read back. ``adopted`` means that it was there already, as wanted.

    ``started_seconds`` counts from the beginning of the apply.
    """

    key: str
    name: str
    verb: Verb
    live: Live | None
    started_seconds: float
    seconds: float
    adopted: bool = False


def apply(
    client: Client,
    plan: CloudPlan,
    journal: Journal,
    run_id: str,
    progress: Progress | None = None,
    *,
    undoing: bool = False,
) -> tuple[Done, ...]:
    """Carry out the plan's changes and return them in the order in which they ended.

    The first failure lets what runs come to its end and starts nothing more; what is done stays and is journalled, and
    the next run goes on from there. Raises the first failure, GateFailed when something was changed since the plan was
    made, KeyboardInterrupt when it is interrupted (operations that run go on; the journal knows them).
    """
    recover(client, journal)  # of an apply that was interrupted or failed in this very session
    return _Execution(client, plan, journal, run_id).run(progress, undoing=undoing)


class _Execution:
    """A walk through a plan. Threads share ``_live`` and ``_aliases`` by whole-value assignment; the journal locks."""

    def __init__(self, client: Client, plan: CloudPlan, journal: Journal, run_id: str) -> None:
        self._client, self._plan, self._journal, self._run_id = client, plan, journal, run_id
        self._steps = {step.key: step for step in plan.steps}
        self._live: dict[str, Live | None] = plan.live()
        self._aliases = dict(plan.aliases)
        self._stop = Flag()
        self._began = time.perf_counter()
        # A service that was enabled a moment ago refuses calls for a while.
        self._services_are_new = any(s.wanted.kind == "service" and s.verb is not Verb.KEEP for s in plan.steps)

    def run(self, progress: Progress | None, *, undoing: bool) -> tuple[Done, ...]:
        graph = TopologicalSorter(_graph(self._plan.steps, undoing=undoing))
        graph.prepare()
        done: list[Done] = []
        failures: list[BaseException] = []
        running: dict[Future[Done], Node] = {}
        total = sum(len(_nodes(step)) for step in self._plan.steps)
        with ThreadPoolExecutor(WORKERS) as pool:
            try:
                while running or (graph.is_active() and not failures):
                    if not failures:
                        running |= {pool.submit(self._carry_out, node): node for node in graph.get_ready()}
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        node = running.pop(future)
                        error = future.exception()
                        if error:
                            failures.append(error)
                            continue
                        graph.done(node)
                        done.append(future.result())
                        if progress:
                            progress(len(done), total, f"{done[-1].verb} {node[0]}")
            except KeyboardInterrupt:
                self._stop.set()
                raise
        if failures:
            raise _worst(failures)
        return tuple(done)

    def _carry_out(self, node: Node) -> Done:
        key, what = node
        step, began = self._steps[key], time.perf_counter()
        wanted = self._resolved(step.wanted)
        live, adopted = None, False
        if what == "delete":
            self._delete(step, wanted)
        elif step.verb is Verb.UPDATE:
            live = self._update(step, wanted)
        else:
            live, adopted = self._create(step, wanted)
        self._live[key] = live
        if alias := alias_of(wanted, live):
            self._aliases = {**self._aliases, **alias}
        verb = Verb.DELETE if what == "delete" else Verb.CREATE if step.verb is Verb.REPLACE else step.verb
        name = f"{wanted.kind} {step.name}"
        return Done(key, name, verb, live, began - self._began, time.perf_counter() - began, adopted)

    def _create(self, step: Step, wanted: Resource) -> tuple[Live, bool]:
        ours = self._journal.is_ours(wanted.key)  # a change that was cut off may have made it
        change = self._journal.begin(self._run_id, Verb.CREATE, wanted, None)

        def attempt(number: int) -> tuple[Live, bool]:
            may_be_ours = ours or number > 1
            # What is not told apart by an id of ours is made a second time without a word: look before every attempt.
            look = number > 1 or KINDS[wanted.kind].found_by or KINDS[wanted.kind].identity
            there = access.read(self._client, wanted) if look else None
            if there is not None:
                return there, not may_be_ours
            try:
                self._wait(change, access.create(self._client, wanted, _request_id(change)))
            except CloudRefused as error:
                there = access.read(self._client, wanted) if error.is_conflict else None
                if there is None and error.is_conflict and may_be_ours:
                    raise _not_yet(f"{wanted.key} is being made and cannot be read yet ({error})") from None
                if there is None:
                    raise
                return there, not may_be_ours
            return self._visible(wanted), False

        live, adopted = self._journalled(change, attempt)
        self._require_arrived(change, step, wanted, live, adopted=adopted)
        self._journal.done(change, live, adopted=adopted)
        return live, adopted

    def _update(self, step: Step, wanted: Resource) -> Live:
        live = self._unchanged(step, wanted)
        fields = tuple(dict.fromkeys(diff.field for diff in self._left(step, wanted, live)))
        if not fields:
            return live
        change = self._journal.begin(self._run_id, Verb.UPDATE, wanted, live, fields)

        def attempt(number: int) -> Live:
            there = live if number == 1 else self._visible(wanted)
            if number > 1 and not self._left(step, wanted, there):
                return there
            merged = replace(wanted, body=_merged(wanted.body, there.body, step.applied, fields))
            self._wait(change, access.update(self._client, merged, there, fields, _request_id(change)))
            return self._visible(wanted)

        after = self._journalled(change, attempt)
        self._require_arrived(change, step, wanted, after)
        self._journal.done(change, after)
        return after

    def _delete(self, step: Step, wanted: Resource) -> None:
        goes_with_its_parent = KINDS[wanted.kind].delete is None
        # Its parent has been deleted before it, and it cannot be looked at any more.
        live = step.live if goes_with_its_parent and step.live else self._unchanged(step, wanted)
        change = self._journal.begin(self._run_id, Verb.DELETE, wanted, live)

        def attempt(number: int) -> None:
            if (number > 1 or goes_with_its_parent) and access.read(self._client, wanted) is None:
                return
            try:
                self._wait(change, access.delete(self._client, wanted, live, _request_id(change)))
            except CloudRefused as error:
                if not error.is_absence:
                    raise
            if access.read(self._client, wanted) is not None:
                raise _not_yet(f"delete {wanted.key}: it is still there after its deletion")

        self._journalled(change, attempt)
        self._journal.done(change, None)

    def _journalled(self, change: RecordedChange, attempt: Callable[[int], Result]) -> Result:
        """Run the attempts of a change. A failure stands in the journal, unless it may be carried out nevertheless."""
        try:
            for trying in stamina.retry_context(
                on=self._is_transient,
                attempts=_ATTEMPTS,
                timeout=_PATIENCE_SECONDS,
                wait_initial=_FIRST_PAUSE_SECONDS,
                wait_max=_LONGEST_PAUSE_SECONDS,
                wait_jitter=_JITTER_SECONDS,
            ):
                with trying:
                    return attempt(trying.num)
        except CloudRefused as error:
            if error.is_final:
                # A failed operation may leave a resource behind, which is ours then.
                self._journal.failed(change, str(error), self._left_by(change))
            raise
        raise AssertionError("stamina ends with a value or an error")

    def _wait(self, change: RecordedChange, answer: Mapping[str, Any]) -> None:
        if not access.is_operation(answer):
            return
        kind = KINDS[change.wanted.kind]
        self._journal.sent(change, answer)
        what = f"{change.verb} {change.wanted.key}"
        try:
            self._client.finish(kind.api, what, answer, kind.timeout_seconds, self._stop.is_set)
        except CloudRefused:
            change.failed_operations += 1
            raise

    def _left_by(self, change: RecordedChange) -> Live | None:
        try:
            return access.read(self._client, change.wanted) if change.failed_operations else None
        except OrchestraError:
            return None  # what went wrong is raised by the caller; this would only hide it

    def _visible(self, wanted: Resource) -> Live:
        live = access.read(self._client, wanted)
        if live is None:
            raise _not_yet(f"{wanted.key} was made and cannot be read yet")
        return live

    def _unchanged(self, step: Step, wanted: Resource) -> Live:
        """The live resource, if it still is what the plan was made from."""
        live = self._visible(wanted)
        if step.live is not None:
            moved = comparison(KINDS[wanted.kind], self._aliases).differences(_planned(step), live.body)
            if moved:
                raise GateFailed(
                    f"{step.key} was changed since the plan was made ({'; '.join(map(str, moved))}): make a new plan"
                )
        return live

    def _require_arrived(
        self, change: RecordedChange, step: Step, wanted: Resource, live: Live, *, adopted: bool = False
    ) -> None:
        left = self._left(step, wanted, live)
        if not left:
            return
        values = "; ".join(f"{diff.path} is {diff.before!r}, wanted {diff.after!r}" for diff in left)
        self._journal.failed(change, values, None if adopted else live)
        if adopted:
            raise GateFailed(
                f"{wanted.key} has appeared since the plan was made and differs ({values}): make a new plan"
            )
        raise CloudRefused(
            f"{change.verb} {wanted.key}: the call succeeded, but reading it back shows other values ({values})",
            status=409,
            reason="readBackDiffers",
        )

    def _left(self, step: Step, wanted: Resource, live: Live) -> tuple[FieldDiff, ...]:
        """What is still not as it is wanted."""
        return differences(KINDS[wanted.kind], self._aliases, wanted.body, live.body, step.applied)

    def _resolved(self, wanted: Resource) -> Resource:
        return replace(wanted, body=resolve(wanted.body, self._live), needs=wanted.all_needs)

    def _is_transient(self, error: Exception) -> bool:
        if self._stop.is_set():
            return False
        if isinstance(error, CloudRefused):
            return error.transient or (self._services_are_new and error.reason == "SERVICE_DISABLED")
        return isinstance(error, Unanswered)


def _graph(steps: Iterable[Step], *, undoing: bool) -> dict[Node, set[Node]]:
    """Each change with those that have to come before it.

    What is made comes after what it needs, and what is deleted before; what goes with what it needs is looked at after
    that. An update does as what is made: it may use what was made for it. One that undoes an update gives such a thing
    up, and comes before as what is deleted does.
    """
    nodes = {step.key: _nodes(step) for step in steps}
    graph: dict[Node, set[Node]] = {node: set() for found in nodes.values() for node in found}
    for step in steps:
        for mine in nodes[step.key]:
            deletes = mine[1] == "delete" and KINDS[step.wanted.kind].delete is not None
            gives_up = deletes or (undoing and step.verb is Verb.UPDATE)
            for other in (node for need in step.wanted.all_needs for node in nodes.get(need, ())):
                first, second = (mine, other) if gives_up else (other, mine)
                graph[second].add(first)
        if len(nodes[step.key]) > 1:
            graph[step.key, "write"].add((step.key, "delete"))
    return graph


def _nodes(step: Step) -> tuple[Node, ...]:
    whats = {Verb.KEEP: (), Verb.DELETE: ("delete",), Verb.REPLACE: ("delete", "write")}.get(step.verb, ("write",))
    return tuple((step.key, what) for what in whats)


def _planned(step: Step) -> dict[str, Any]:
    """The fields that the plan looked at, as it saw them."""
    assert step.live is not None  # noqa: S101 - the caller has looked
    return {diff.field: step.live.body.get(diff.field) for diff in step.diffs}


def _merged(
    wanted: Mapping[str, Any], live: Mapping[str, Any], applied: Mapping[str, Any], fields: Iterable[str]
) -> dict[str, Any]:
    """The named fields, wanted over live: what others added to them stays, what we applied and want no more goes."""
    return {name: _over(wanted.get(name), live.get(name), applied.get(name)) for name in fields}


def _over(wanted: Any, live: Any, applied: Any) -> Any:
    if isinstance(wanted, Mapping) and isinstance(live, Mapping):
        before = applied if isinstance(applied, Mapping) else {}
        kept = {name: value for name, value in live.items() if name in wanted or name not in before}
        return {**kept, **{name: _over(value, live.get(name), before.get(name)) for name, value in wanted.items()}}
    if is_rows(wanted) and is_rows(live) and len(wanted) == len(live):
        before = applied if is_rows(applied) and len(applied) == len(wanted) else [{}] * len(wanted)
        return [_over(*row) for row in zip(wanted, live, before, strict=True)]
    return wanted


def _request_id(change: RecordedChange) -> str:
    """The same for every attempt that may have arrived already: the service carries it out once.

    After an operation has failed it is another one: the service would only answer with the failed operation again.
    """
    return str(uuid.uuid5(uuid.UUID(change.id), str(change.failed_operations)))


def _not_yet(message: str) -> CloudRefused:
    return CloudRefused(message, status=404, reason=NOT_VISIBLE, transient=True)


def _worst(failures: list[BaseException]) -> BaseException:
    """The failure to raise: one that is nobody's consequence."""
    return next((error for error in failures if not isinstance(error, Interrupted)), failures[0])
