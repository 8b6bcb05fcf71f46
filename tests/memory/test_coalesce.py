"""Net effects against a model that applies changes one by one; no database."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestra_lib.memory.coalesce import Coalesced, Kind, Rekey, effects, merged
from orchestra_lib.memory.layout import Layout, StagedColumn
from orchestra_lib.memory.pgoutput import NULL_FIELD, Column, Relation
from orchestra_lib.memory.stream_errors import StreamError
from orchestra_lib.memory.transactions import Change

NAMES = ("id", "content", "embedding")


def small_layout(replica_identity="d"):
    """Three columns, the last of which the log may leave out."""
    columns = tuple(StagedColumn(name, name, 25, -1, "text") for name in NAMES)
    layout = Layout("memories", 1, columns, frozenset(NAMES))
    described = tuple(Column(name, 25, -1, replica_identity == "f" or name == "id") for name in NAMES)
    relation = Relation(1, "public", "memories", replica_identity, described)
    layout.check(relation)
    return layout, relation


LAYOUT, RELATION = small_layout()


def field(text):
    content = text.encode()
    return memoryview(struct.pack(">i", len(content)) + content)


def row(*texts):
    return tuple(None if text is None else field(text) for text in texts)


def key_only(key):
    return (field(key), NULL_FIELD, NULL_FIELD)


def insert(key, content, vector, lsn=1):
    return Change("insert", RELATION, None, row(key, content, vector), lsn)


def update(key, content, vector=None, old=None, lsn=1):
    return Change("update", RELATION, old and key_only(old), row(key, content, vector), lsn)


def delete(key, lsn=1):
    return Change("delete", RELATION, key_only(key), None, lsn)


def net_of(*changes):
    coalesced = Coalesced()
    for change in changes:
        for net in effects(change, LAYOUT):
            coalesced.add(net)
    return {net.key: net for net in coalesced}


def texts(net):
    return tuple(None if value is None else bytes(value[4:]).decode() for value in net.row)


@pytest.mark.parametrize(
    ("changes", "kind", "left"),
    [
        ([insert("a", "x", "v")], Kind.INSERT, ("a", "x", "v")),
        ([update("a", "x", "v")], Kind.UPSERT, ("a", "x", "v")),
        ([update("a", "x")], Kind.PATCH, ("a", "x", None)),
        ([insert("a", "x", "v"), update("a", "y")], Kind.INSERT, ("a", "y", "v")),
        ([update("a", "x", "v"), update("a", "y")], Kind.UPSERT, ("a", "y", "v")),
        ([update("a", "x"), update("a", "y")], Kind.PATCH, ("a", "y", None)),
        ([update("a", "x"), update("a", "y", "w")], Kind.UPSERT, ("a", "y", "w")),
        ([delete("a"), insert("a", "x", "v")], Kind.REPLACE, ("a", "x", "v")),
        ([delete("a"), insert("a", "x", "v"), update("a", "y")], Kind.REPLACE, ("a", "y", "v")),
    ],
)
def test_changes_of_one_row_come_to_one(changes, kind, left):
    net = net_of(*changes)[b"a"]
    assert (net.kind, texts(net)) == (kind, left)


@pytest.mark.parametrize(
    "before",
    [
        [insert("a", "x", "v")],
        [update("a", "x", "v")],
        [update("a", "x")],
        [delete("a"), insert("a", "x", "v")],
    ],
)
def test_a_row_that_goes_in_the_end_is_deleted_even_if_it_came_in_the_same_batch(before):
    assert net_of(*before, delete("a", lsn=9))[b"a"].kind is Kind.DELETE


def test_the_commit_of_the_last_change_counts():
    assert net_of(insert("a", "x", "v", lsn=5), update("a", "y", lsn=8))[b"a"].lsn == 8


def test_an_update_after_the_delete_is_a_gap_in_the_log():
    with pytest.raises(StreamError, match=r"'a' at 0/9.*deleted at 0/8"):
        net_of(delete("a", lsn=8), update("a", "x", lsn=9))


def test_a_changed_id_with_all_values_is_a_row_that_goes_and_one_that_comes():
    nets = net_of(update("b", "x", "v", old="a"))
    assert {key: net.kind for key, net in nets.items()} == {b"a": Kind.DELETE, b"b": Kind.INSERT}


def test_a_changed_id_without_all_values_is_a_barrier():
    barrier = effects(update("b", "x", old="a", lsn=7), LAYOUT)
    assert isinstance(barrier, Rekey)
    assert (barrier.old.key, barrier.new.key, barrier.commit_lsn) == (b"a", b"b", 7)
    assert texts(barrier.new) == ("b", "x", None)


def test_with_full_replica_identity_the_old_row_lends_its_values_to_the_new_one():
    layout, relation = small_layout("f")
    change = Change("update", relation, row("a", "x", "v"), row("b", "y", None), 1)
    gone, come = effects(change, layout)
    assert (gone.kind, come.kind, texts(come)) == (Kind.DELETE, Kind.INSERT, ("b", "y", "v"))


def test_with_full_replica_identity_a_vector_that_was_not_sent_is_left_alone():
    layout, relation = small_layout("f")
    (net,) = effects(Change("update", relation, row("a", "x", "v"), row("a", "y", None), 1), layout)
    assert (net.kind, texts(net)) == (Kind.PATCH, ("a", "y", None))


def test_an_old_key_that_is_the_same_is_no_change_of_it():
    (net,) = effects(update("a", "x", "v", old="a"), LAYOUT)
    assert net.kind is Kind.UPSERT


def test_an_id_that_was_not_sent_again_is_that_of_the_old_row():
    change = Change("update", RELATION, key_only("long"), row(None, "x", None), 1)
    (net,) = effects(change, LAYOUT)
    assert (net.key, net.kind, texts(net)) == (b"long", Kind.PATCH, ("long", "x", None))


@pytest.mark.parametrize("id_field", [None, NULL_FIELD])
def test_a_change_without_an_id_is_refused(id_field):
    change = Change("update", RELATION, None, (id_field, field("x"), None), 1)
    with pytest.raises(StreamError, match="without id, its id"):
        effects(change, LAYOUT)


class Model:
    """A table and what happens to it, one change after the other."""

    def __init__(self, rows):
        self.rows = dict(rows)
        self.changes = []

    def play(self, step):
        key, verb, content, vector = step
        if verb == "delete" and key in self.rows:
            del self.rows[key]
            self.changes.append(delete(key))
        elif verb == "write" and key not in self.rows:
            self.rows[key] = (key, content, vector or "0")
            self.changes.append(insert(*self.rows[key]))
        elif verb == "write":
            kept = self.rows[key][2]
            self.rows[key] = (key, content, vector or kept)
            self.changes.append(update(key, content, vector))


def applied(rows, nets):
    """What the net effects make of a table."""
    rows = dict(rows)
    for net in nets:
        key, before = net.key.decode(), rows.pop(net.key.decode(), None)
        if net.kind is Kind.INSERT:
            assert before is None, "an insert of a row that was there"
        if net.kind in (Kind.UPSERT, Kind.PATCH):
            assert before is not None, "an update of a row that was not there"
        if net.kind is not Kind.DELETE:
            values = texts(net)
            rows[key] = tuple(old if new is None else new for new, old in zip(values, before or values, strict=True))
    return rows


steps = st.tuples(
    st.sampled_from("abc"),
    st.sampled_from(("write", "write", "delete")),
    st.sampled_from("uvwxyz"),
    st.none() | st.sampled_from("123"),
)


@given(st.sets(st.sampled_from("abc")), st.lists(steps, max_size=20))
def test_net_effects_come_to_what_the_changes_come_to(present, played):
    before = {key: (key, "before", "0") for key in present}
    model = Model(before)
    for step in played:
        model.play(step)
    nets = net_of(*model.changes)
    assert applied(before, nets.values()) == model.rows
    assert all(net.kind is Kind.PATCH or None not in net.row for net in nets.values())


@given(st.sets(st.sampled_from("abc")), st.lists(steps, max_size=12), st.lists(steps, max_size=12))
def test_merging_two_batches_is_coalescing_them_together(present, first, second):
    model = Model({key: (key, "before", "0") for key in present})
    for step in first:
        model.play(step)
    cut = len(model.changes)
    for step in second:
        model.play(step)
    early, late = net_of(*model.changes[:cut]), net_of(*model.changes[cut:])
    together = {
        key: merged(early[key], late[key]) if key in early and key in late else early.get(key) or late[key]
        for key in early.keys() | late.keys()
    }
    assert together == net_of(*model.changes)
