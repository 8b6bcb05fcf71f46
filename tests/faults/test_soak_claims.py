"""Each claim of the soak can be broken; the soak itself is ``python tests/faults/api_soak.py``."""

from __future__ import annotations

from collections import Counter

import pytest
from faults.api_soak import POOL_MAX, Look, Watched


def watched(**changes: object) -> Watched:
    """A soak that holds, changed; ``leak`` is MiB a minute, ``sessions`` the most that are open."""
    leak, most = changes.pop("leak", 0.0), changes.pop("sessions", POOL_MAX)
    looks = [Look(n / 2, 80 + leak * n / 120 + n % 3, 40, most if n == 99 else 5) for n in range(1_200)]
    given = {"looks": looks, "answers": Counter({"POST 201": 5_000}), "descriptors_before": 20, "descriptors_after": 22}
    return Watched(**{**given, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, []),
        ({"leak": 0.1}, []),
        ({"leak": 1.0}, ["memory may have grown by"]),
        ({"sessions": POOL_MAX + 1}, [f"{POOL_MAX + 1} sessions, the pool has {POOL_MAX}"]),
        ({"sessions_left": 1}, ["1 sessions of a stopped service"]),
        ({"in_transaction_after": 1}, ["1 sessions are in a transaction"]),
        ({"descriptors_after": 29}, ["29 file descriptors are open, 20 were before"]),
        ({"answers": Counter({"POST 201": 9, "POST 503": 1})}, ["1 of 10 answers are no success"]),
        ({"answers": Counter()}, ["nothing was asked"]),
        ({"wrong": ["ada: a listing differs"]}, ["1 answers were wrong"]),
    ],
)
def test_each_claim_can_be_broken(changes: dict[str, object], words: list[str]) -> None:
    broken = watched(**changes).broken()
    assert len(broken) == len(words)
    assert all(one.startswith(word) for one, word in zip(broken, words, strict=True)), broken
