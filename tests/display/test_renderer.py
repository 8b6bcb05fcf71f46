"""Every phase's figures show in an exported page, also those of phases that draw nothing of ``plots``."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import orchestra_lib.display
import plotly.graph_objects as go
print("Plotly.newPlot" in go.Figure()._repr_mimebundle_()["text/html"])
"""


def test_the_package_alone_makes_figures_draw_themselves() -> None:
    # In a process of its own: here other tests have imported everything.
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "True"  # plotly.js itself is shown before the first figure
