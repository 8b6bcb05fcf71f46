"""Phase 5's changes to the memory API under constant load; the long form is ``python tests/faults/api_rollout.py``."""

from __future__ import annotations

import pytest
from faults.api_rollout import Report, Told, run


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, []),
        ({"told": [Told(20, 21, wrong="query 1: []")]}, ["1 answers 2xx are wrong"]),
        ({"told": [Told(20, 21, failure="HTTP 503")]}, ["1 of 101 failed outside faults"]),
        ({"told": [Told(8, 9.5, failure="HTTP 503")]}, []),
        ({"told": [Told(9.5, 9.6, wrong="query 1: []")]}, ["1 answers 2xx are wrong"]),
        ({"lost": ["a"]}, ["1 of 1 stored memories are lost"]),
        ({"redirect_seconds": [1.2]}, ["a redirect took 1.20 s"]),
        ({"late": 1}, ["1 requests went to the old revision"]),
        ({"stored": []}, ["too little was asked"]),
    ],
)
def test_each_claim_can_be_broken(changes: dict[str, list[object]], words: list[str]) -> None:
    told = [Told(number, number + 0.5) for number in range(20, 120)]
    report = Report(told=told, stored=["a"], faults=[(9.0, 10.0)], redirect_seconds=[0.1])
    for name, value in changes.items():
        setattr(report, name, [*told, *value] if name == "told" else value)
    broken = report.broken()
    assert len(broken) == len(words)
    assert all(one.startswith(word) for one, word in zip(broken, words, strict=True))


@pytest.mark.slow
def test_nothing_answered_is_wrong_while_revisions_change_an_instance_dies_and_the_database_restarts() -> None:
    report = run(rounds=1, rate=20.0, calm_seconds=1.0)
    print(report)
    assert report.broken() == []
    assert len(report.faults) == 2
