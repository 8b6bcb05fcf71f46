"""How plotly's figures are written into notebooks: live for JupyterLab, and as a still picture for everything else.

Importing it is enough, and the package does: a figure of a phase that draws none of ``plots`` has to show as well.
No figure brings plotly.js along, which is 4.8 MB: JupyterLab has it, and the pages have it once (``pages``).
"""

from __future__ import annotations

from typing import Any

import plotly.io as pio
from plotly.io.base_renderers import MimetypeRenderer

from orchestra_lib.display.still import still_svg

PLOTLY = "application/vnd.plotly.v1+json"
SVG = "image/svg+xml"


class _Still(MimetypeRenderer):  # type: ignore[misc]
    """The figure as SVG and its title as text: what is seen where plotly's own form is not understood."""

    def to_mimebundle(self, fig_dict: dict[str, Any]) -> dict[str, str]:
        title = ((fig_dict.get("layout") or {}).get("title") or {}).get("text") or "without a title"
        bundle = {"text/plain": f"figure: {title.replace('<br>', ', ').replace('<sub>', '').replace('</sub>', '')}"}
        drawn = still_svg(fig_dict)
        return bundle if drawn is None else {SVG: drawn, **bundle}


pio.renderers["still"] = _Still()
pio.renderers.default = "plotly_mimetype+still"
