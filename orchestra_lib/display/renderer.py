"""How plotly's figures are written into notebooks: for JupyterLab, and for an exported page that needs no network.

Importing it is enough, and the package does: a figure of a phase that draws none of ``plots`` has to show as well.
"""

from __future__ import annotations

from typing import Any

import plotly.io as pio
from plotly.io.base_renderers import NotebookRenderer


class _SelfContained(NotebookRenderer):  # type: ignore[misc]
    """Plotly's renderer for notebooks, which brings plotly.js along once, without its MathJax from another host."""

    def to_mimebundle(self, fig_dict: dict[str, Any]) -> dict[str, str]:
        html = pio.to_html(
            fig_dict,
            include_plotlyjs=False,
            include_mathjax=False,
            full_html=False,
            default_width="100%",
            validate=False,
        )
        return {"text/html": html}


# The first is what JupyterLab draws itself; the second is for an exported page, which then needs no network.
pio.renderers["self_contained"] = _SelfContained()
pio.renderers.default = "plotly_mimetype+self_contained"
