"""Every phase's figures show everywhere, also those of phases that draw nothing of ``plots``."""

from __future__ import annotations

import json
import subprocess
import sys

import plotly.graph_objects as go
import plotly.io as pio

from orchestra_lib.display.renderer import PLOTLY

PROGRAM = """
import orchestra_lib.display
import plotly.graph_objects as go
print(sorted(go.Figure(go.Bar(y=[1, 2]))._repr_mimebundle_()))
"""


def test_the_package_alone_makes_figures_live_and_still() -> None:
    # In a process of its own: here other tests have imported everything.
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.splitlines() == ["['application/vnd.plotly.v1+json', 'image/svg+xml', 'text/plain']"]


def test_a_live_figure_carries_the_styles_of_its_own_traces_and_six_digits() -> None:
    figure = go.Figure(go.Bar(x=["a", "b"], y=[1 / 3, 28_529]), layout={"template": "plotly_white"})
    shown = figure._repr_mimebundle_()[PLOTLY]
    assert shown["data"][0]["y"] == [0.333333, 28_529]
    template = shown["layout"]["template"]
    white = pio.templates["plotly_white"].to_plotly_json()
    assert template["data"] == {"bar": white["data"]["bar"]}
    assert template["layout"]["xaxis"] == white["layout"]["xaxis"]
    assert len(json.dumps(shown)) < 2_500
