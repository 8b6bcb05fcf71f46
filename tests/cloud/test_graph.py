"""The order in which changes are carried out, over random dependencies: what is needed is there when it is needed."""

from __future__ import annotations

from collections.abc import Sequence
from graphlib import TopologicalSorter

from hypothesis import given
from hypothesis import strategies as st

from orchestra_lib.cloud.apply import Node, _graph
from orchestra_lib.cloud.plan import Step
from orchestra_lib.cloud.resource import Live, Resource
from orchestra_lib.plan import Verb

WANTED = (Verb.CREATE, Verb.UPDATE, Verb.REPLACE, Verb.KEEP)
"""What a plan does to a resource that is wanted: it deletes nothing by itself."""
UNDONE = (Verb.CREATE, Verb.UPDATE, Verb.REPLACE, Verb.DELETE)
MAKES = (Verb.CREATE, Verb.REPLACE)


@st.composite
def plans(draw: st.DrawFn, verbs: Sequence[Verb]) -> list[Step]:
    """Steps in any order; each needs some of those that were drawn before it."""
    steps: list[Step] = []
    for number in range(draw(st.integers(1, 8))):
        needs = [step.key for step in steps if draw(st.booleans())]
        wanted = Resource("network", "projects/p/global", f"n{number}", {}, tuple(needs))
        verb = draw(st.sampled_from(verbs))
        steps.append(Step(wanted, verb, None if verb is Verb.CREATE else Live(wanted.id, {})))
    return draw(st.permutations(steps))


def an_order(draw: st.DataObject, steps: list[Step], *, undoing: bool) -> list[Node]:
    """One of the orders in which the changes may be carried out. Raises CycleError when there is none."""
    graph = TopologicalSorter(_graph(steps, undoing=undoing))
    graph.prepare()
    order, ready = list[Node](), list[Node]()
    while graph.is_active():
        ready += graph.get_ready()
        node = draw.draw(st.sampled_from(sorted(ready)))
        ready.remove(node)
        graph.done(node)
        order.append(node)
    return order


def pairs(steps: list[Step]) -> list[tuple[Step, Step]]:
    """Every step with each step that it needs."""
    by_key = {step.key: step for step in steps}
    return [(step, by_key[key]) for step in steps for key in step.wanted.needs]


@given(plans(WANTED), st.data())
def test_whatever_changes_finds_what_it_needs_in_place(steps: list[Step], draw: st.DataObject) -> None:
    order = an_order(draw, steps, undoing=False)
    for step, need in pairs(steps):
        if step.verb is not Verb.KEEP and need.verb is not Verb.KEEP:
            assert order.index((need.key, "write")) < order.index((step.key, "write"))


@given(plans(WANTED), st.data())
def test_what_is_replaced_is_deleted_before_what_it_needs_and_made_after(
    steps: list[Step], draw: st.DataObject
) -> None:
    order = an_order(draw, steps, undoing=False)
    for step, need in pairs(steps):
        if step.verb is need.verb is Verb.REPLACE:
            nodes = [(step.key, "delete"), (need.key, "delete"), (need.key, "write"), (step.key, "write")]
            assert sorted(nodes, key=order.index) == nodes


@given(plans(UNDONE), st.data())
def test_undoing_deletes_nothing_that_something_still_needs(steps: list[Step], draw: st.DataObject) -> None:
    order = an_order(draw, steps, undoing=True)
    for step, need in pairs(steps):
        goes = (need.key, "delete")
        if goes in order and step.verb in (Verb.DELETE, Verb.REPLACE):
            assert order.index((step.key, "delete")) < order.index(goes)
        if goes in order and step.verb is Verb.UPDATE:
            assert order.index((step.key, "write")) < order.index(goes)


@given(plans(UNDONE), st.data())
def test_undoing_makes_anew_only_what_finds_what_it_needs(steps: list[Step], draw: st.DataObject) -> None:
    order = an_order(draw, steps, undoing=True)
    for step, need in pairs(steps):
        if step.verb in MAKES and need.verb is not Verb.DELETE:
            assert order.index((need.key, "write")) < order.index((step.key, "write"))


@given(plans((Verb.CREATE, Verb.UPDATE)), st.data())
def test_undoing_takes_the_way_back(steps: list[Step], draw: st.DataObject) -> None:
    """Made is what is deleted, and an update is undone before the one that it was built on."""
    undone = [Step(step.wanted, _undoing(step.verb), Live(step.wanted.id, {})) for step in steps]
    order = an_order(draw, undone, undoing=True)
    for step, need in pairs(undone):
        assert order.index(_node(step)) < order.index(_node(need))


@given(plans((*WANTED, Verb.DELETE)), st.booleans())
def test_everything_is_done_once_and_what_is_kept_not_at_all(steps: list[Step], undoing: bool) -> None:
    order = list(TopologicalSorter(_graph(steps, undoing=undoing)).static_order())
    assert len(order) == len(set(order))
    for step in steps:
        assert ((step.key, "delete") in order) == (step.verb in (Verb.DELETE, Verb.REPLACE))
        assert ((step.key, "write") in order) == (step.verb in (*MAKES, Verb.UPDATE))


def _undoing(verb: Verb) -> Verb:
    return Verb.DELETE if verb is Verb.CREATE else verb


def _node(step: Step) -> Node:
    return step.key, "delete" if step.verb is Verb.DELETE else "write"
