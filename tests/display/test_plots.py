"""Figures draw themselves in an exported page without asking anybody for a script."""

from __future__ import annotations

import re

from orchestra_lib.bench.statistics import Estimate
from orchestra_lib.display.plots import recall_latency_figure
from orchestra_lib.vectors.evaluate import Evaluation, ProbePoint


def evaluation(label: str, p95_ms: float) -> Evaluation:
    def estimate(value: float) -> Estimate:
        return Estimate(value, value * 0.9, value * 1.1, 100)

    return Evaluation(
        label, 10, 3, 1000, estimate(0.9), estimate(1.0), estimate(p95_ms), estimate(9.0), None, None, 0, "i", "i",
        (ProbePoint(1, estimate(0.5), 1.0), ProbePoint(3, estimate(0.9), 2.0)),
    )  # fmt: skip


def test_a_figure_brings_its_drawing_and_names_no_address() -> None:
    figure = recall_latency_figure([evaluation("before", 5.0), evaluation("after", 2.0)], 0.95, 30.0, "1,000 rows")
    bundle = figure._repr_mimebundle_()
    assert {"application/vnd.plotly.v1+json", "text/html"} <= set(bundle)
    assert "Plotly.newPlot" in bundle["text/html"]
    assert "1,000 rows" in bundle["text/html"]
    assert re.findall(r"""(?:src|href)=["'](?:https?:)?//[^"']*""", bundle["text/html"]) == []


def test_a_figure_names_the_recall_and_latency_that_are_wanted_and_each_point() -> None:
    figure = recall_latency_figure([evaluation("before", 5.0), evaluation("after", 2.0)], 0.95, 30.0, "1,000 rows")
    assert [note.text for note in figure.layout.annotations] == ["recall target 0.95", "latency target 30 ms"]
    stars = [trace for trace in figure.data if trace.mode == "markers"]
    assert [(trace.x[0], trace.y[0], trace.name) for trace in stars] == [
        (0.9, 5.0, "before: run with 3 probes"),
        (0.9, 2.0, "after: run with 3 probes"),
    ]
