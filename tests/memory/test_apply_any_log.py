"""Any log, in any batches, with any crashes, applied to a real server: what it ends in is what a model ends in."""

from __future__ import annotations

import pytest
from changes import Log, appliers, lasting_pair, own_row, without
from hypothesis import example, given, settings
from hypothesis import strategies as st

from orchestra_lib.database import connect
from orchestra_lib.memory.apply import apply_alone
from orchestra_lib.memory.coalesce import Rekey, effects
from orchestra_lib.memory.gathering import Gathering
from orchestra_lib.memory.lsn import lsn_text
from orchestra_lib.memory.schema import COLUMNS, create_table
from orchestra_lib.memory.transactions import Committed, Truncated

EMBEDDING = COLUMNS.index("embedding")
BEGINNING = 1_000
KEYS = "abde"  # two of each of two partitions


@pytest.fixture(scope="module")
def modelled(servers):
    """A session on the target, the source's log, and an applier for each of two partitions."""
    with lasting_pair(servers, "any_log") as pair:
        for conninfo in (pair.source, pair.target):
            with connect(conninfo) as connection:
                connection.execute(create_table(dimension=3))
        with connect(pair.target) as target, connect(pair.source) as source:
            log = Log(source)
            made = appliers(pair.target, log.layout, partitions=2)
            yield target, log, made
            for one in made:
                one.close()


class Model:
    """A source table, its log, and the states that it went through."""

    def __init__(self, log):
        self.log = log
        log.lsn = BEGINNING
        self.rows = {"a": ("was there", 3, (7, 8, 9)), "d": ("was there", 1, (1, 2, 3))}
        self.events = []
        self.states = [(log.lsn, dict(self.rows))]

    def play(self, transaction):
        """One transaction: all of its changes have one commit."""
        commit = self.log.lsn + 100
        for step in transaction:
            self.log.lsn = commit - 10
            change = self._change(*step)
            if change is not None:
                self.events.append(change)
        self.log.lsn = commit + 5
        self.events.append(Committed(commit, commit + 5, 0.0))
        self.states.append((self.log.lsn, dict(self.rows)))

    def _change(self, verb, key, other, content, vector):
        log = self.log
        if verb == "truncate":
            self.rows = {}
            log.lsn += 10
            return Truncated((log.relation,), log.lsn)
        if verb == "delete":
            return log.delete(own_row(key)) if self.rows.pop(key, None) else None
        if key not in self.rows:
            self.rows[key] = (content, 1, vector or (0, 0, 0))
            return log.insert(own_row(key, *self.rows[key]))
        _, version, kept = self.rows[key]
        if verb == "rekey" and other not in self.rows:
            del self.rows[key]
            old, key = own_row(key), other
        else:
            old = None
        self.rows[key] = (content, version + 1, vector or kept)
        sent = own_row(key, *self.rows[key])
        return log.update(sent if vector else without(sent, EMBEDDING), old)


class Mover:
    """Reads a model's log from the least checkpoint on and applies it in batches; may crash and begin again."""

    def __init__(self, made, model):
        self.made, self.model = made, model
        self.begin()

    def begin(self):
        for one in self.made:
            one.expect_replay()
        self.gathering = Gathering([one.checkpoint for one in self.made])
        least = min(one.checkpoint for one in self.made)
        self.waiting = [
            event
            for event in self.model.events
            if (event.end_lsn > least if isinstance(event, Committed) else event.commit_lsn >= least)
        ]

    def batch(self, size, crash):
        """Apply the next batch; ``crash``: only one partition gets it."""
        while self.waiting and self.gathering.changes < size and self.gathering.barrier is None:
            event = self.waiting.pop(0)
            if isinstance(event, Committed):
                self.gathering.commit(event)
            elif isinstance(event, Truncated):
                self.gathering.truncate(event)
            else:
                self.gathering.add(event, self.model.log.layout)
        batch = self.gathering.take()
        for number in range(1 if crash else len(self.made)):
            self.made[number].apply(batch.shares.get(number, ()), batch.end_lsn)
        if self.gathering.barrier is not None and not crash:
            apply_alone(self.made, self.gathering.take_barrier(), None)
        if crash:
            self.begin()


steps = st.tuples(
    st.sampled_from(("write",) * 4 + ("delete", "delete", "rekey", "rekey", "rekey", "truncate")),
    st.sampled_from(KEYS),
    st.sampled_from(KEYS),
    st.sampled_from("uvwxyz"),
    st.none() | st.tuples(*[st.integers(-3, 3)] * 3),
)
logs = st.lists(st.lists(steps, min_size=1, max_size=5), max_size=6)
cuts = st.lists(st.tuples(st.integers(1, 6), st.booleans()), max_size=6)


def begin_anew(target, made, rows, copied_until):
    """The target as a copy of ``rows``, which is that of the source at ``copied_until``; a stream at its beginning."""
    target.execute(
        "INSERT INTO orchestra_stream.stream (name, source_system, source_table, source_table_oid, slot, publication, "
        "start_lsn, copied_until) VALUES (%s, '', '', 0, '', '', '0/0', %s) "
        "ON CONFLICT (name) DO UPDATE SET copied_until = excluded.copied_until",
        [made[0]._stream, lsn_text(copied_until)],
    )
    target.execute(
        "DELETE FROM memories; DELETE FROM orchestra_stream.quarantine; "
        f"UPDATE orchestra_stream.checkpoint SET lsn = '{lsn_text(BEGINNING)}', touched_until = '0/0'"
    )
    for key, (content, version, vector) in rows.items():
        target.execute(
            "INSERT INTO memories VALUES (%s, 'agent', 'user', 'session', 'persona', 'note', %s, '{\"n\": 1}', "
            "%s::float8[]::vector, 'model', %s, '2000-01-01', '2000-01-01', NULL)",
            [key, content, list(map(float, vector)), version],
        )
    for one in made:
        one._at = one._attempted = None
        one.read(one.session()[0])


def differing(target, rows):
    """Keys whose rows are not the model's, less those that were put aside for want of a vector."""
    found = {
        key: (content, version, tuple(vector.to_numpy().tolist()))
        for key, content, version, vector in target.execute(
            "SELECT id, content, version, embedding FROM memories"
        ).fetchall()
    }
    return {key for key in found.keys() | rows.keys() if found.get(key) != rows.get(key)} - put_aside(target)


def put_aside(target):
    """Keys in quarantine. All began with a new id whose row, and vector, a replay had deleted; or with a further new id
    that such a row got later, when there was none to give it to, or one of which a change was in quarantine itself."""
    entries = target.execute(
        "SELECT key, verb, error FROM orchestra_stream.quarantine ORDER BY commit_lsn DESC"
    ).fetchall()
    first = {key: (verb, error) for key, verb, error in entries}
    in_doubt = {("rekey", f"the row to change, {key}, is itself in quarantine") for key, _, _ in entries}
    absent = {(verb, "the row to change is not there") for verb in ("rekey", "patch")}
    assert set(first.values()) <= absent | in_doubt, entries
    assert not first or "rekey" in {verb for verb, _ in first.values()}, entries
    return first.keys()


def _written(*steps):
    return [(*step, "a", "u", None) if len(step) == 2 else (*step, "u", None) for step in steps]


# The copy has d, which was a, and another a that came later: d must not get the vector of that one.
@example(
    transactions=[
        _written(("write", "a"), ("write", "a"), ("delete", "d")),
        _written(("write", "a"), ("write", "a"), ("write", "a"), ("rekey", "a", "d"), ("write", "a")),
    ],
    moment=2,
    cuts=[],
)
@settings(max_examples=250)
@given(transactions=logs, moment=st.just(0) | st.integers(0, 6), cuts=cuts)
def test_any_log_in_any_batches_with_any_crashes_ends_in_the_source(modelled, transactions, moment, cuts):
    """``moment``: after how many transactions of the log the target was copied; the log is read from its beginning."""
    target, log, made = modelled
    model = Model(log)
    for transaction in transactions:
        model.play(transaction)
    copied_until, copied = model.states[min(moment, len(model.states) - 1)]
    begin_anew(target, made, copied, copied_until)
    mover = Mover(made, model)
    for size, crash in cuts:
        mover.batch(size, crash)
    while mover.waiting or not mover.gathering.is_empty:
        mover.batch(5, crash=False)
    assert differing(target, model.rows) == set()
    if moment == 0 and not any(crash for _, crash in cuts):
        assert put_aside(target) == set(), "nothing came twice"


def test_effects_of_the_models_changes_include_barriers(modelled):
    _, log, _ = modelled
    model = Model(log)
    model.play([("write", "a", "b", "x", None), ("rekey", "a", "c", "y", None)])
    assert [isinstance(effects(event, log.layout), Rekey) for event in model.events[:2]] == [False, True]
