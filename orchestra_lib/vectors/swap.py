"""Another index for a table that is searched and written meanwhile: built beside the old one, certified, then the one.

Nothing waits and no search finds less than it did. The new index is built CONCURRENTLY under a name of its own. From
the moment that it is valid the planner may use it for anybody, so the effort with which either index finds enough is
persisted before. It is certified beside the old one by a session that has it pinned; only then the old one is dropped,
and the new effort persisted and read back. Each step is journalled before it begins: killed anywhere, ``recover``
undoes the swap, or completes it once the certificate is there. ``roll_back`` brings the previous index back.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import psycopg
import psycopg.conninfo
from psycopg import sql

from orchestra_lib.bench.states import Prepared, warm
from orchestra_lib.database import Address, connect
from orchestra_lib.errors import DataError, GateFailed, LockHeld, ParameterError
from orchestra_lib.vectors.drift import Baseline, take_baseline
from orchestra_lib.vectors.forms import Effort, Form, Storage
from orchestra_lib.vectors.index import (
    BuiltIndex,
    IndexSpec,
    LiveIndex,
    check_memory,
    planned_memory,
    rebuild_index,
    vector_indexes,
)
from orchestra_lib.vectors.session_defaults import (
    LOADS_THE_LIBRARY,
    Defaults,
    defaults,
    hiding,
    older_sessions,
    persist,
)
from orchestra_lib.vectors.swap_journal import Orders, Outcome, Promise, RecordedSwap, Settled, Step, SwapJournal

_APPLICATION = "orchestra swap"
_SECONDS_FOR_A_BUILD_TO_END = 60.0
_SECONDS_BETWEEN_LOOKS = 0.05


class Verdict(Protocol):
    """What a certificate comes to; ``vectors.certificate.Certificate`` is one."""

    @property
    def holds(self) -> bool:
        """Whether the index may serve."""

    @property
    def reasons(self) -> tuple[str, ...]:
        """Plain sentences for that."""


Certify = Callable[[str], Verdict]
"""Certifies the index of that name, beside others: ``Searchable(..., only=name)`` has it answer."""


Settle = Callable[[LiveIndex], Settled]
"""Measures an index that came back, beside others, and says which effort it needs."""


@dataclass(frozen=True)
class Swapped:
    """A swap that was completed.

    ``made`` and ``dropped`` name the indexes; ``settings`` is what a new session has, read back; ``prewarmed`` what of
    the new index was brought into memory. ``older_sessions`` were open before the effort was persisted and keep theirs
    until they connect again; ``hiding`` names roles that have an effort of their own.
    """

    made: tuple[BuiltIndex, ...]
    dropped: tuple[str, ...]
    settings: Mapping[str, str]
    prewarmed: Prepared | None
    certificate: Verdict | None
    older_sessions: int
    hiding: tuple[str, ...]
    baseline: Baseline


@dataclass(frozen=True)
class Recovered:
    """How a swap was ended that its own process had not ended: completed, or undone."""

    outcome: Outcome
    orders: Orders


@dataclass(frozen=True)
class _Work:
    """What every step needs. ``session`` owns the table's swaps as long as it is open."""

    address: Address
    session: psycopg.Connection
    journal: SwapJournal
    available_mib: int | None
    progress: Callable[[str], None]
    maintenance_work_mem_mib: int | None = None


def swap(
    address: Address,
    spec: IndexSpec,
    effort: Effort,
    certify: Certify,
    *,
    journal_path: Path,
    available_mib: int | None = None,
    progress: Callable[[str], None] = lambda _: None,
    role: str | None = None,
    application_follows: bool = False,
    promise: Promise | None = None,
) -> Swapped:
    """Put the index that ``spec`` wants in the place of those that the column has, and persist its effort.

    ``role`` persists it for that role in the database rather than for the whole database. ``application_follows`` says
    that the application will search with the form's own statement, which it must where the index stores something else
    than the old one. ``promise`` is what was measured of that which goes. Raises GateFailed, with everything
    undone, when memory does not suffice or the certificate does not hold; LockHeld when another process swaps;
    RecordError when an earlier swap has not ended: ``recover`` it.
    """
    with _work(address, spec.table, journal_path, available_mib, progress) as work:
        orders = _orders(work.session, spec, effort, role, application_follows=application_follows)
        orders = replace(orders, promise=promise)
        check_memory(planned_memory(work.session, spec), spec, available_mib)
        return _carry_out(replace(work, maintenance_work_mem_mib=spec.maintenance_work_mem_mib), orders, certify)


def roll_back(
    address: Address,
    *,
    journal_path: Path,
    available_mib: int | None = None,
    progress: Callable[[str], None] = lambda _: None,
    settle: Settle | None = None,
) -> Swapped:
    """Bring back what the last swap replaced: the previous indexes, built again beside the present one, and settings.

    ``settle`` is asked for each of them before anything goes: built again it is another one, which may need more effort
    than before. What it says is persisted in place of the previous effort. Raises GateFailed when no swap is there to
    roll back, and as ``swap`` does.
    """
    last = SwapJournal(journal_path).last_done()
    if last is None:
        raise GateFailed(
            f"{journal_path} holds no completed swap that was not rolled back: there is nothing to bring back"
        )
    orders = last.orders
    reverse = replace(
        orders,
        making=tuple(index for index in orders.dropping if index.valid),
        dropping=orders.making,
        before=orders.after,
        guard={name: _larger(orders.after[name], orders.before[name]) for name in orders.guard},
        after=orders.before,
        rolls_back=last.id,
        promise=None,
    )
    with _work(address, orders.table, journal_path, available_mib, progress) as work:
        return _carry_out(work, reverse, None, settle)


def recover(
    address: Address, *, journal_path: Path, progress: Callable[[str], None] = lambda _: None
) -> Recovered | None:
    """End the swap that a killed process left: complete it when it was certified, else undo it. None without one.

    A build that the server still carries on for the dead process is ended first. Raises LockHeld when that process is
    alive after all.
    """
    recorded = SwapJournal(journal_path).unfinished()
    if recorded is None:
        return None
    with _work(address, recorded.orders.table, journal_path, None, progress, recovering=True) as work:
        recorded = work.journal.unfinished()
        if recorded is None:
            return None
        _end_builds(work.session, recorded.id)
        if recorded.is_certified:
            _finish(work, recorded)
            return Recovered(Outcome.DONE, recorded.orders)
        _undo(work, recorded)
        return Recovered(Outcome.UNDONE, recorded.orders)


def _carry_out(work: _Work, orders: Orders, certify: Certify | None, settle: Settle | None = None) -> Swapped:
    recorded = work.journal.begin(orders)
    try:
        moment = _guard(work, recorded)
        made, prewarmed = _build(work, recorded)
        certificate = _certify(work, recorded, certify, settle)
    except BaseException:
        # Should undoing fail as well, the journal says that it is open, and the next run takes it up.
        _end_builds(work.session, recorded.id)
        _undo(work, recorded)
        raise
    settings, baseline = _finish(work, recorded)
    return Swapped(
        made,
        tuple(index.name for index in orders.dropping),
        settings,
        prewarmed,
        certificate,
        older_sessions(work.session, moment),
        tuple(hiding(work.session, orders.after)) if orders.role is None else (),
        baseline,
    )


def _guard(work: _Work, recorded: RecordedSwap) -> object:
    work.journal.begun(recorded, Step.GUARD)
    if recorded.orders.guard:
        persist(work.address, recorded.orders.guard, recorded.orders.role)
    row = work.session.execute("SELECT clock_timestamp()").fetchone()
    work.journal.done(recorded, Step.GUARD)
    return row[0] if row else None


def _build(work: _Work, recorded: RecordedSwap) -> tuple[tuple[BuiltIndex, ...], Prepared | None]:
    orders, address = recorded.orders, _named(work.address, f"{_APPLICATION} {recorded.id}")
    work.journal.begun(recorded, Step.BUILD)
    made = tuple(
        rebuild_index(
            address,
            orders.table,
            orders.column,
            index,
            work.available_mib,
            work.progress,
            work.maintenance_work_mem_mib,
        )
        for index in orders.making
    )
    prewarmed = warm(address, [_quoted(work.session, index.name) for index in made], lambda: None) if made else None
    work.journal.done(recorded, Step.BUILD)
    return made, prewarmed


def _certify(work: _Work, recorded: RecordedSwap, certify: Certify | None, settle: Settle | None) -> Verdict | None:
    work.journal.begun(recorded, Step.CERTIFY)
    verdict = None
    for index in recorded.orders.making if certify else ():
        work.progress(f"certifying {index.name}")
        verdict = certify(index.name) if certify else None
        if verdict is not None and not verdict.holds:
            raise GateFailed(
                f"{index.name} is not certified, so it was dropped and the old index goes on serving: "
                + "; ".join(verdict.reasons),
                verdict.reasons,
            )
    work.journal.done(recorded, Step.CERTIFY, [settle(index) for index in recorded.orders.making] if settle else ())
    return verdict


def _finish(work: _Work, recorded: RecordedSwap) -> tuple[dict[str, str], Baseline]:
    """Everything after the certificate; each of it can be done again."""
    orders = recorded.orders
    work.journal.begun(recorded, Step.DROP)
    _drop(work.session, orders.dropping)
    work.journal.done(recorded, Step.DROP)
    work.journal.begun(recorded, Step.PERSIST)
    settled = {one.setting: one.value for one in recorded.settled if one.setting and one.value}
    settings = persist(work.address, {**orders.after, **settled}, orders.role)
    work.journal.done(recorded, Step.PERSIST)
    baseline = take_baseline(work.session, orders.table, orders.making[0] if orders.making else None)
    work.journal.ended(recorded, Outcome.DONE, asdict(baseline))
    return settings, baseline


def _undo(work: _Work, recorded: RecordedSwap) -> None:
    _drop(work.session, recorded.orders.making)
    if Step.GUARD in recorded.steps and recorded.orders.guard:
        persist(work.address, recorded.orders.before, recorded.orders.role)
    work.journal.ended(recorded, Outcome.UNDONE)


def _drop(session: psycopg.Connection, indexes: tuple[LiveIndex, ...]) -> None:
    for index in indexes:
        session.execute(sql.SQL("DROP INDEX CONCURRENTLY IF EXISTS {}").format(sql.Identifier(index.name)))


def _orders(
    session: psycopg.Connection, spec: IndexSpec, effort: Effort, role: str | None, *, application_follows: bool
) -> Orders:
    present = vector_indexes(session, sql.Identifier(spec.table), spec.column)
    searched_now = {index.form.storage for index in present} or {Storage.VECTOR}
    if searched_now != {spec.form.storage} and not application_follows:
        raise ParameterError(
            f"{spec.form.label} is not searched by the statement of an index of {' and '.join(sorted(searched_now))}: "
            "have the application use it and say so with application_follows, or its searches would read the table"
        )
    after: Defaults = spec.form.settings(effort)
    before = defaults(session, after, role)
    if role is None and (own := [entry for entry in hiding(session, after) if f"role {session.info.user} " in entry]):
        raise GateFailed(f"what is persisted for the database would not hold: {'; '.join(own)}")
    made = LiveIndex(
        _free_name(session, spec),
        spec.form,
        None if spec.form.storage is Storage.BIT else spec.opclass,
        spec.dimension,
        False,
        0,
        "",
    )
    statement = replace(spec, given_name=made.name).create_statement(concurrently=False).as_string(session)
    return Orders(
        spec.table,
        spec.column,
        (replace(made, definition=statement),),
        present,
        before,
        _guarding(session, spec.form, effort, present, before),
        after,
        role,
    )


def _guarding(
    session: psycopg.Connection, form: Form, effort: Effort, present: tuple[LiveIndex, ...], before: Defaults
) -> Defaults:
    """The settings under which neither the old nor the new index finds less than it has to."""
    guard: dict[str, str | None] = {}
    for name, value in form.settings(effort).items():
        shared = any(name in index.form.settings(effort) for index in present)
        now = (before[name] or _in_a_session(session, name)) if shared else None
        if value.isdigit():
            guard[name] = _larger(value, now)
        elif value != "off":
            guard[name] = value
    return guard


def _in_a_session(session: psycopg.Connection, name: str) -> str:
    session.execute(LOADS_THE_LIBRARY)
    row = session.execute("SELECT current_setting(%s)", [name]).fetchone()
    return str(row[0]) if row else ""


def _larger(one: str | None, other: str | None) -> str | None:
    numbers = [int(value) for value in (one, other) if value is not None and value.isdigit()]
    return str(max(numbers)) if numbers else one


def _free_name(session: psycopg.Connection, spec: IndexSpec) -> str:
    first = spec.name
    for name in (first, *(f"{first[:58]}_{number}" for number in range(2, 1_000))):
        if session.execute("SELECT to_regclass(%s)", [_quoted(session, name)]).fetchone() == (None,):
            return name
    raise DataError(f"no name is free for an index like {first}: drop those that nobody needs")


def _quoted(session: psycopg.Connection, name: str) -> str:
    return sql.Identifier(name).as_string(session)


@contextmanager
def _work(
    address: Address,
    table: str,
    journal_path: Path,
    available_mib: int | None,
    progress: Callable[[str], None],
    *,
    recovering: bool = False,
) -> Iterator[_Work]:
    """Own the table's swaps: by a lock that the server holds for this session, and gives up when it dies."""
    with connect(address, role="target", application_name=_APPLICATION) as session:
        row = session.execute("SELECT pg_try_advisory_lock(hashtextextended(%s, 0))", [f"swap {table}"]).fetchone()
        if row is None or not row[0]:
            raise LockHeld(f"another process swaps the index of {table}: wait for it, or end it and recover")
        journal = SwapJournal(journal_path)
        if not recovering and (open_one := journal.unfinished()):
            raise DataError(
                f"the swap {open_one.id} of {open_one.orders.table} was begun and not ended: recover it first"
            )
        yield _Work(address, session, journal, available_mib, progress)


def _end_builds(session: psycopg.Connection, swap_id: str) -> None:
    """End what the server still does for a process that died: a build goes on without its client."""
    deadline = time.monotonic() + _SECONDS_FOR_A_BUILD_TO_END
    name = f"{_APPLICATION} {swap_id}"
    while session.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = %s", [name]
    ).fetchall():
        if time.monotonic() > deadline:
            raise DataError(f"the server does not end the build of {name}: look at pg_stat_activity, and recover again")
        time.sleep(_SECONDS_BETWEEN_LOOKS)


def _named(address: Address, application_name: str) -> Address:
    if isinstance(address, str):
        return psycopg.conninfo.make_conninfo(address, application_name=application_name)

    def dial(**parameters: Any) -> psycopg.Connection:
        return address(**{**parameters, "application_name": application_name})

    return dial
