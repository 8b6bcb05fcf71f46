"""The judge: it finds every kind of violation that is planted, names it, and accepts what is right."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from stores import fill
from written_rows import LIVES, SEED, make_store, note, put, step_where

from orchestra_lib import evidence
from orchestra_lib.errors import DataError
from orchestra_lib.local.databases import LocalState
from orchestra_lib.rehearsal.judge import Verdict, Violation, judge
from orchestra_lib.rehearsal.ledger import Ledger
from orchestra_lib.rehearsal.written import KEY_SPACE, Mix

KEYS = 12
DELETED, PRESENT = 3, 5  # keys that the store below leaves deleted and there


@pytest.fixture(scope="module")
def database(servers: LocalState) -> Iterator[str]:
    """One database for all of these tests."""
    server = servers.databases["source"].conninfo
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute("CREATE DATABASE judged")
        with psycopg.connect(server, dbname="judged", autocommit=True) as judged:
            judged.execute("CREATE EXTENSION vector")
        yield f"{server} dbname=judged"
        connection.execute("DROP DATABASE judged WITH (FORCE)")


@pytest.fixture
def store(database: str) -> str:
    """An empty table of memories, made anew."""
    execute(database, "DROP TABLE IF EXISTS memories")
    make_store(database)
    return database


@pytest.fixture
def ledger(store: str, tmp_path: Path) -> Path:
    """Twelve keys, each at a step of its own, all as acknowledged; one of them deleted."""
    fill(store, 5)  # rows that are nobody's business here
    steps = {key: step_where(key, True, after=key) for key in range(KEYS)} | {DELETED: step_where(DELETED, False, 1)}
    path = tmp_path / "ledger"
    note(path, steps)
    for key, step in steps.items():
        if key != DELETED:
            put(store, key, step)
    return path


def execute(conninfo: str, statement: str, *values: object) -> None:
    with psycopg.connect(conninfo) as connection:
        connection.execute(statement, values)


def only(verdict: Verdict, violation: Violation) -> str:
    """What was said of the one violation there is."""
    assert {kind: count for kind, count in verdict.counts.items() if count} == {violation: 1}
    assert not verdict.holds
    (finding,) = verdict.findings
    assert finding.violation is violation
    red = [row for row in verdict.evidence() if row.verdict is evidence.Verdict.FAIL]
    assert len(red) == 1
    assert finding.id in red[0].note
    return str(finding)


def test_what_is_as_acknowledged_holds(store: str, ledger: Path) -> None:
    verdict = judge(ledger, store, "memories")
    assert verdict.holds
    assert (verdict.rows, verdict.in_doubt, verdict.findings) == (KEYS - 1, 0, ())
    assert {row.verdict for row in verdict.evidence()} == {evidence.Verdict.PASS}
    assert all(row.source is evidence.Source.MEASURED for row in verdict.evidence())


def test_a_row_that_is_missing_is_lost(store: str, ledger: Path) -> None:
    execute(store, "DELETE FROM memories WHERE id = %s", LIVES.id(PRESENT))
    assert "is lost: it is not there and has to be at step" in only(judge(ledger, store, "memories"), Violation.LOST)


def test_a_row_in_an_older_version_is_stale(store: str, ledger: Path) -> None:
    put(store, PRESENT, 1)
    told = only(judge(ledger, store, "memories"), Violation.STALE)
    assert "it is at step 1 and has to be at step" in told


def test_a_deleted_row_that_is_there_is_resurrected(store: str, ledger: Path) -> None:
    put(store, DELETED, 1)
    assert "was deleted" in only(judge(ledger, store, "memories"), Violation.RESURRECTED)


@pytest.mark.parametrize(
    "change",
    [
        "content = content || ' '",
        "agent_id = 'agent7'",
        "metadata = metadata || '{\"x\": 1}'",
        "metadata = '{}'",
        "embedding = (SELECT embedding FROM memories WHERE id = 'id-00000001')",
        "embedding_model = 'another'",
        "version = version + 1",
        "updated_at = updated_at + interval '1 microsecond'",
        "expires_at = coalesce(expires_at, '2030-01-01') + interval '1 microsecond'",
    ],
)
def test_a_row_of_which_one_column_is_not_right_is_corrupt(store: str, ledger: Path, change: str) -> None:
    execute(store, f"UPDATE memories SET {change} WHERE id = %s", LIVES.id(PRESENT))
    assert "is corrupt" in only(judge(ledger, store, "memories"), Violation.CORRUPT)


def test_an_id_that_two_rows_have_is_duplicated(store: str, ledger: Path) -> None:
    execute(store, "ALTER TABLE memories DROP CONSTRAINT memories_pkey")
    execute(store, "INSERT INTO memories SELECT * FROM memories WHERE id = %s", LIVES.id(PRESENT))
    assert "is duplicated" in only(judge(ledger, store, "memories"), Violation.DUPLICATED)


@pytest.mark.parametrize("id_", [LIVES.id(KEYS), f"{KEY_SPACE}{SEED}:x", f"{KEY_SPACE}{SEED}:5"])
def test_a_row_that_was_never_sent_is_foreign(store: str, ledger: Path, id_: str) -> None:
    put(store, KEYS, 1)
    execute(store, "UPDATE memories SET id = %s WHERE id = %s", id_, LIVES.id(KEYS))
    assert "this id was never sent" in only(judge(ledger, store, "memories"), Violation.FOREIGN)


def test_a_version_that_was_never_sent_is_foreign(store: str, ledger: Path) -> None:
    step = step_where(PRESENT, True, after=40)
    put(store, PRESENT, step)
    assert f"it is at step {step} and was sent up to" in only(judge(ledger, store, "memories"), Violation.FOREIGN)


def test_the_rows_of_another_seed_are_not_judged(store: str, ledger: Path) -> None:
    put(store, KEYS, 1)
    execute(store, "UPDATE memories SET id = %s WHERE id = %s", f"{KEY_SPACE}{SEED}7:1", LIVES.id(KEYS))
    assert judge(ledger, store, "memories").holds


@pytest.mark.parametrize("happened", [True, False])
@pytest.mark.parametrize("present", [True, False])
def test_a_write_in_doubt_may_have_happened_or_not(
    store: str, tmp_path: Path, *, happened: bool, present: bool
) -> None:
    key, step = 1, step_where(1, present, after=4)
    note(tmp_path / "ledger", {key: step - 1, 2: 1}, {key: step})
    put(store, 2, 1)
    if LIVES.at(key, now := step if happened else step - 1).present:
        put(store, key, now)
    verdict = judge(tmp_path / "ledger", store, "memories")
    assert verdict.holds
    assert verdict.in_doubt == 1


def test_a_write_in_doubt_allows_nothing_else(store: str, tmp_path: Path) -> None:
    note(tmp_path / "ledger", {1: 5}, {1: 6})
    put(store, 1, step_where(1, True, after=0))
    assert "has to be at step 5" in only(judge(tmp_path / "ledger", store, "memories"), Violation.STALE)


def test_a_first_insert_in_doubt_may_be_missing_and_its_row_may_be_there(store: str, tmp_path: Path) -> None:
    note(tmp_path / "ledger", {1: 1}, {2: 1, 3: 1})
    put(store, 1, 1)
    put(store, 2, 1)
    assert judge(tmp_path / "ledger", store, "memories").holds


def test_a_row_that_its_index_has_lost_is_still_read(store: str, ledger: Path) -> None:
    put(store, DELETED, 1)
    with psycopg.connect(store) as connection:  # an index over other rows is what a damaged one comes to
        connection.execute("ALTER TABLE memories DROP CONSTRAINT memories_pkey")
        connection.execute("CREATE INDEX ON memories (id) WHERE false")
        connection.execute(f"CREATE UNIQUE INDEX damaged ON memories (id) WHERE id <> '{LIVES.id(DELETED)}'")
        connection.execute("ANALYZE memories")
    only(judge(ledger, store, "memories"), Violation.RESURRECTED)


def test_nothing_to_judge_does_not_hold(store: str, tmp_path: Path) -> None:
    Ledger(tmp_path / "ledger", SEED, Mix()).__exit__()
    verdict = judge(tmp_path / "ledger", store, "memories")
    assert not verdict.holds
    assert next(row.verdict for row in verdict.evidence()) is evidence.Verdict.FAIL


def test_what_is_no_ledger_is_refused(store: str, tmp_path: Path) -> None:
    (tmp_path / "other").write_text("hello\n")
    with pytest.raises(DataError, match="is no ledger of a writer"):
        judge(tmp_path / "other", store, "memories")


@pytest.mark.parametrize("seed", range(3))
def test_many_violations_are_counted_each_as_its_own_kind(store: str, tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    execute(store, "ALTER TABLE memories DROP CONSTRAINT memories_pkey")
    steps = {key: draw.randint(2, 12) for key in range(60)}
    note(tmp_path / "ledger", steps)
    planted = Counter[Violation]()
    for key, step in steps.items():
        state, there = LIVES.at(key, step), step
        kind = draw.choice([None, *Violation])
        if state.present and kind in (Violation.LOST, Violation.CORRUPT, Violation.DUPLICATED):
            planted[kind] += 1
        elif LIVES.at(key, step - 1).present and kind is (Violation.STALE if state.present else Violation.RESURRECTED):
            there, planted[kind] = step - 1, planted[kind] + 1
        elif kind is Violation.FOREIGN:
            there, planted[kind] = step_where(key, True, after=step), planted[kind] + 1
        else:
            kind = None
        if kind is not Violation.LOST and LIVES.at(key, there).present:
            put(store, key, there)
        if kind is Violation.CORRUPT:
            execute(store, "UPDATE memories SET persona = 'x' WHERE id = %s", LIVES.id(key))
        if kind is Violation.DUPLICATED:
            execute(store, "INSERT INTO memories SELECT * FROM memories WHERE id = %s", LIVES.id(key))
    verdict = judge(tmp_path / "ledger", store, "memories")
    assert {kind: count for kind, count in verdict.counts.items() if count} == dict(planted)
    assert sum(planted.values()) > 10
