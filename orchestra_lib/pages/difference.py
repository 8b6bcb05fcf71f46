"""What is different between two runs of one runbook: what they were told, what they planned, what they found."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from orchestra_lib.evidence import canonical_json, value_text
from orchestra_lib.record import Record

_NOT_THERE = "–"


@dataclass(frozen=True)
class Changed:
    """One thing that was before and is now; texts for people, – where it was not there."""

    name: str
    before: str
    now: str
    note: str = ""


@dataclass(frozen=True)
class Difference:
    """Everything that differs; each part is empty where nothing does."""

    code: tuple[Changed, ...]
    parameters: tuple[Changed, ...]
    plan: tuple[Changed, ...]
    numbers: tuple[Changed, ...]

    @property
    def words(self) -> str:
        """How much differs, on one line."""
        parts = [("parameter", self.parameters), ("planned change", self.plan), ("number", self.numbers)]
        told = [f"{len(found)} {name}{'' if len(found) == 1 else 's'}" for name, found in parts if found]
        return ", ".join([*(["other code"] if self.code else []), *told]) or "nothing"


def difference(before: Record, now: Record) -> Difference:
    """What differs between two runs of one runbook."""
    return Difference(_code(before, now), _parameters(before, now), _plan(before, now), _numbers(before, now))


def _code(before: Record, now: Record) -> tuple[Changed, ...]:
    facts: dict[str, Callable[[Record], str]] = {
        "commit": lambda run: (run.git.commit or "none")[:12] + (" with local changes" if run.git.dirty else ""),
        "notebook": lambda run: (run.source_sha256 or "unknown")[:12],
        "machine": lambda run: f"{run.host['name']}, {run.host['cores']} cores, {run.host['cpu']}",
        "Python": lambda run: str(run.host["python"]),
    }
    rows = [Changed(name, told(before), told(now)) for name, told in facts.items()]
    rows += _compared(dict(before.versions), dict(now.versions))
    return tuple(row for row in rows if row.before != row.now)


def _parameters(before: Record, now: Record) -> tuple[Changed, ...]:
    """What the operator gave, and every setting that came out differently."""
    given = _compared(before.parameters, now.parameters)
    settings = _compared(_flat(before.settings or {}), _flat(now.settings or {}))
    run_alone = ("run.", "environment.file")  # the run's own: mode and approval stand among the parameters
    return (*given, *(row for row in settings if not row.name.startswith(run_alone)))


def _plan(before: Record, now: Record) -> tuple[Changed, ...]:
    if before.plan_sha256 == now.plan_sha256:
        return ()
    if not before.plan or not now.plan:
        return (Changed("plan", (before.plan_sha256 or _NOT_THERE)[:12], (now.plan_sha256 or _NOT_THERE)[:12]),)
    rows = _compared(_changes(before), _changes(now))
    return rows or (Changed("state that the plan was made from", "", "", "the same changes, from another live state"),)


def _changes(run: Record) -> dict[str, object]:
    return {f"{one['kind']} {one['name']}": f"{one['verb']} {one['detail']}".strip() for one in run.plan}


def _numbers(before: Record, now: Record) -> tuple[Changed, ...]:
    """Every claim whose value or verdict is another one, those whose verdict changed first."""
    old, new = _by_claim(before), _by_claim(now)
    changed, verdicts = [], set()
    for claim in dict.fromkeys([*new, *old]):
        was, is_now = old.get(claim), new.get(claim)
        row = Changed(claim, _value(was), _value(is_now), _moved(was, is_now))
        if was and is_now and was["verdict"] != is_now["verdict"]:
            row = Changed(claim, row.before, row.now, f"{was['verdict']} → {is_now['verdict']}")
            verdicts.add(claim)
        if row.before != row.now or row.name in verdicts:
            changed.append(row)
    return tuple(sorted(changed, key=lambda row: (row.name not in verdicts, not _is_judged(new.get(row.name)))))


def _by_claim(run: Record) -> dict[str, Mapping[str, Any]]:
    return {str(row["claim"]): row for row in run.evidence}  # a claim that was measured again counts as it was last


def _is_judged(row: Mapping[str, Any] | None) -> bool:
    return bool(row and row["target"])


def _value(row: Mapping[str, Any] | None) -> str:
    return value_text(row["value"], str(row["unit"])) if row else _NOT_THERE


def _moved(before: Mapping[str, Any] | None, now: Mapping[str, Any] | None) -> str:
    """By how many per cent a number moved; nothing where there is no number to say it of."""
    old, new = (row["value"] if row else None for row in (before, now))
    numbers = [value for value in (old, new) if isinstance(value, int | float) and not isinstance(value, bool)]
    if len(numbers) < 2 or not numbers[0]:
        return ""
    return f"{100 * (numbers[1] - numbers[0]) / abs(numbers[0]):+,.1f} %"


def _compared(before: Mapping[str, object], now: Mapping[str, object]) -> tuple[Changed, ...]:
    rows = (Changed(name, _told(before, name), _told(now, name)) for name in dict.fromkeys([*before, *now]))
    return tuple(row for row in rows if row.before != row.now)


def _told(values: Mapping[str, object], name: str) -> str:
    if name not in values:
        return _NOT_THERE
    value = values[name]
    return value if isinstance(value, str) else canonical_json(value)


def _flat(values: Mapping[str, Any], above: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for name, value in values.items():
        place = f"{above}{name}"
        flat |= _flat(value, f"{place}.") if isinstance(value, Mapping) else {place: value}
    return flat
