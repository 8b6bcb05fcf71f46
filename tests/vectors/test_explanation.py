"""A tuning in words: each sentence is made of the numbers that it speaks of."""

from __future__ import annotations

from dataclasses import replace

from orchestra_lib.bench.statistics import Estimate
from orchestra_lib.vectors.candidate import Candidate
from orchestra_lib.vectors.explanation import best_point, sentences
from orchestra_lib.vectors.forms import EXACT, Effort, ivfflat
from orchestra_lib.vectors.goals import Goals
from orchestra_lib.vectors.tuning import PagePoint, Profile, Tuning

RECALL = Estimate(0.97, 0.96, 0.98, 300)
GOALS = Goals(0.95, 30.0, 10, "vector_cosine_ops", None, 60.0, lists=(4_000,))
PROFILE = Profile("memories", 100_000, 1_536, "f", 800, 256, 64, 4, 0.0, 0, 0, 80.0, "PostgreSQL 16.14")


def candidate(form, p95_ms, **changes):
    found = Candidate(form, Effort(12), "measured", RECALL, None, Estimate(p95_ms, p95_ms, p95_ms, 300), True, 25.0, 1)
    return replace(found, **changes)


def point(rows, lists, p95_ms, *, reaches=True):
    return PagePoint(rows, lists, 12, lists, 1_000.0 * 900 / lists, p95_ms, 0.96, reaches)


GROWTH = (
    point(100_000, 900, 2.0),
    point(100_000, 2_000, 2.6),
    point(100_000, 4_000, 4.1),
    point(1_000_000, 900, 9.0),
    point(1_000_000, 2_000, 6.5),
    point(1_000_000, 4_000, 6.0),
)
TUNING = Tuning(
    goals=GOALS,
    profile=PROFILE,
    candidates=(),
    chosen=candidate(ivfflat(900), 2.1),
    reason="",
    asked=(candidate(ivfflat(4_000), 4.2),),
    before=candidate(ivfflat(100), 8.4),
    model=None,
    model_error=0.06,
    growth=GROWTH,
    certificate=None,
    no_index_needed=False,
    skipped=("HNSW was not tried: it would take about 300 s",),
    steps=(),
    interrupted=False,
)


def told(tuning, words):
    return [sentence for sentence in sentences(tuning) if words in sentence]


def test_each_number_of_lists_has_its_sentence_with_the_pages_that_it_reads():
    assert "p95 2.10 ms" in told(TUNING, "is chosen")[0]
    assert "900 pages of centroids and 1,000 of lists" in told(TUNING, "Why:")[0]
    (two,), (four,) = told(TUNING, "With 2,000 lists"), told(TUNING, "With 4,000 lists")
    assert "1.3 times that of 900" in two
    assert "2.0 times that of 900" in four
    assert "most of them for centroids" in four


def test_fewer_lists_than_the_best_are_accounted_for():
    near, slower = (
        replace(TUNING, chosen=candidate(ivfflat(700), 2.2), growth=(*GROWTH, point(100_000, 700, p95_ms)))
        for p95_ms in (2.05, 2.5)
    )
    assert "With 700 it is 2.05 ms: less than 5% is no gain" in told(near, "Why:")[0]
    assert "The 700 lists that were made are expected to take 2.50 ms" in told(slower, "Why:")[0]
    assert "700" not in told(replace(near, chosen=candidate(ivfflat(900), 2.1)), "Why:")[0]


def test_what_create_index_takes_is_told_as_it_is_known():
    assert "built in 25.0 s" in told(TUNING, "is chosen")[0]
    seeded = candidate(ivfflat(900), 2.1, build_seconds=None, create_seconds=(7.61, 24.6), build_memory_mib=216)
    assert "CREATE INDEX takes about 7.6 to 25 s and 216 MiB" in told(replace(TUNING, chosen=seeded), "is chosen")[0]
    unknown = candidate(ivfflat(900), 2.1, build_seconds=None)
    assert "not built" in told(replace(TUNING, chosen=unknown), "is chosen")[0]


def test_growth_says_what_is_best_at_ten_times_the_rows():
    (sentence,) = told(TUNING, "With 1,000,000 rows")
    assert "900 lists would take 9.0 ms, 2,000 6.5 ms, 4,000 6.0 ms" in sentence
    assert "4,000, would be best then, and more might be better still" in sentence


def test_what_was_asked_for_and_what_was_there_before_are_held_against_the_choice():
    assert "the chosen one takes 0.50 times as long" in told(TUNING, "as asked for")[0]
    assert "4.0 times as long" in told(TUNING, "The present index")[0]


def test_what_is_not_certified_or_was_not_tried_is_said():
    assert told(TUNING, "It is not certified")
    assert told(TUNING, "Not looked at: HNSW was not tried")


def test_no_index_needed_is_said_first():
    exact = replace(TUNING, chosen=candidate(EXACT, 9.0), no_index_needed=True, growth=(), before=None, asked=())
    assert sentences(exact)[0].startswith("At 100,000 rows no index is needed")


def test_lists_that_do_not_reach_the_recall_are_never_the_best():
    missing = (replace(GROWTH[0], reaches=False), *GROWTH[1:])
    assert best_point(replace(TUNING, growth=missing), 100_000).lists == 2_000
    (sentence,) = [
        s
        for s in sentences(replace(TUNING, growth=(GROWTH[1], replace(GROWTH[2], reaches=False))))
        if "do not reach" in s
    ]
    assert "With 4,000 lists even 12 probes" in sentence
