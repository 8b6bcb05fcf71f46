"""Every phase's figures show everywhere, also those of phases that draw nothing of ``plots``."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import orchestra_lib.display
import plotly.graph_objects as go
print(sorted(go.Figure(go.Bar(y=[1, 2]))._repr_mimebundle_()))
"""


def test_the_package_alone_makes_figures_live_and_still() -> None:
    # In a process of its own: here other tests have imported everything.
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.splitlines() == ["['application/vnd.plotly.v1+json', 'image/svg+xml', 'text/plain']"]
