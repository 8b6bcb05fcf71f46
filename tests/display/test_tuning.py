"""What the figures of a tuning show, and that they draw themselves in an exported page without asking anybody."""

from __future__ import annotations

import math
import re

from orchestra_lib.bench.statistics import Estimate
from orchestra_lib.display.tuning import (
    Delivered,
    before_after_figure,
    build_figure,
    load_figure,
    pages_figure,
    plane_figure,
)
from orchestra_lib.vectors.candidate import Candidate
from orchestra_lib.vectors.certificate import Certificate, Loaded
from orchestra_lib.vectors.forms import EXACT, Effort, Form, Storage, hnsw, ivfflat
from orchestra_lib.vectors.tuning import PagePoint


def around(value: float) -> Estimate:
    return Estimate(value, 0.9 * value, 1.1 * value, 100)


def measured(form: Form, recall: float, p95_ms: float, seconds: float | None = 2.0) -> Candidate:
    return Candidate(form, Effort(9), "measured", around(recall), None, around(p95_ms), True, seconds, 80 << 20, 100)


def predicted(form: Form, recall: float, p95_ms: float) -> Candidate:
    return Candidate(form, Effort(9), "predicted", around(recall), p95_ms, None, True, None, 80 << 20, 100)


CHOSEN = measured(ivfflat(400), 0.96, 1.4)
CANDIDATES = [
    CHOSEN,
    predicted(ivfflat(800), 0.95, 1.9),
    measured(hnsw(storage=Storage.HALFVEC), 0.97, 1.6),
    measured(EXACT, 1.0, 28.0, None),
]


def test_the_plane_has_every_candidate_measured_apart_from_predicted_and_the_chosen_one_marked() -> None:
    before = measured(ivfflat(2_000), 0.8, 3.0)
    figure = plane_figure(CANDIDATES, CHOSEN, before, 0.95, 30.0, "1,000 rows")
    traces = {trace.name: trace for trace in figure.data}
    assert list(traces) == [
        "exact scan, measured", "IVFFlat, measured", "IVFFlat, predicted", "HNSW, measured",
        "before: IVFFlat with 2,000 lists, effort 9", "chosen: IVFFlat with 400 lists, effort 9",
    ]  # fmt: skip
    assert traces["IVFFlat, predicted"].marker.symbol == ("circle-open",)
    assert traces["HNSW, measured"].marker.symbol == ("square",)
    assert (traces["IVFFlat, predicted"].x, traces["IVFFlat, predicted"].y) == ((0.95,), (1.9,))
    assert [note.text for note in figure.layout.annotations] == ["recall target 0.95", "p95 target 30 ms"]
    assert figure.layout.annotations[1].y == math.log10(30)


def test_the_pages_are_one_panel_a_size_with_the_least_latency_in_bold_and_what_cannot_reach_pale() -> None:
    points = [
        PagePoint(rows, lists, 5, lists, 1_000.0, p95, 0.95, reaches=lists != 800)
        for rows in (1_000, 10_000)
        for lists, p95 in ((800, 0.5), (200, 2.0), (400, 1.0))
    ]
    figure = pages_figure(points, 400, "1,000 rows")
    assert [note.text for note in figure.layout.annotations] == ["1,000 rows", "10,000 rows"]
    centroids, lists, texts = figure.data[:3]
    assert (centroids.x, centroids.y) == (("200", "400 ★", "800"), (200, 400, 800))
    assert lists.marker.opacity == (1.0, 1.0, 0.35)
    assert texts.text == ("2.00 ms", "<b>1.00 ms</b>", "0.50 ms")


def test_the_load_shows_each_state_with_what_was_achieved_and_what_failed() -> None:
    warm = Loaded("warm", 50.0, 49.8, around(1.0), around(2.0), Estimate(3.0, 2.0, math.inf, 80), 2)
    cold = Loaded("cold", 50.0, 40.0, around(9.0), around(20.0), around(30.0), 0)
    certificate = Certificate(
        CHOSEN.form, CHOSEN.effort, "i", 1_000, 10, 0.95, 30.0, around(0.96), around(0.96), 0.8, 0.9, 0.0, warm,
        (cold,), (), (), (), True, (),
    )  # fmt: skip
    figure = load_figure(certificate, "1,000 rows")
    assert [trace.name for trace in figure.data] == [
        "warm: 49.8 a second achieved, 2 without an answer",
        "cold: 40.0 a second achieved",
    ]
    assert figure.data[0].y == (1.0, 2.0, 3.0)
    assert max(figure.data[0].error_y.array) <= 9 * 3.0, "an infinite end does not flatten the rest"


def test_a_forecast_is_paler_than_what_was_built_and_a_form_stands_once() -> None:
    figure = build_figure([*CANDIDATES, predicted(ivfflat(400), 0.9, 9.0)], 500, "1,000 rows")
    seconds, memory, disk = figure.data
    labels = ("IVFFlat with 400 lists", "IVFFlat with 800 lists", "HNSW of halfvec with m 16, ef_construction 64")
    assert seconds.y == labels
    assert seconds.x == (2.0, None, 2.0)
    assert memory.marker.opacity == (1.0, 0.4, 1.0)
    assert disk.x == (80, 80, 80)


def test_a_target_far_beyond_the_latencies_is_named_and_does_not_flatten_them() -> None:
    times = [Delivered("before", around(0.8), around(3.0)), Delivered("after", around(0.96), around(1.4))]
    near, far = (before_after_figure(times, 0.95, target, "1,000 rows") for target in (5.0, 30.0))
    assert (len(near.layout.shapes), len(far.layout.shapes)) == (2, 1)
    assert [note.text for note in far.layout.annotations] == ["recall@k, target 0.95", "p95 in ms, target 30"]


def test_a_figure_brings_its_drawing_and_names_no_address() -> None:
    figure = plane_figure(CANDIDATES, CHOSEN, None, 0.95, 30.0, "1,000 rows")
    bundle = figure._repr_mimebundle_()
    assert set(bundle) == {"application/vnd.plotly.v1+json", "image/svg+xml", "text/plain"}
    assert "1,000 rows" in bundle["image/svg+xml"]
    assert re.findall(r"""(?:src|href)=["'][^"'#]*""", bundle["image/svg+xml"]) == []
