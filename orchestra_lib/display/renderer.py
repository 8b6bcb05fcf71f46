"""How plotly's figures are written into notebooks: live for JupyterLab, and as a still picture for everything else.

Importing it is enough, and the package does: a figure of a phase that draws none of ``plots`` has to show as well.
No figure brings plotly.js along, which is 4.8 MB: JupyterLab has it, and the pages have it once (``pages``). Nor does
any bring what cannot be seen: styles of kinds of traces that it has none of and, of numbers in lists, digits beyond any
pixel.
"""

from __future__ import annotations

from typing import Any

import plotly.io as pio
from plotly.io.base_renderers import MimetypeRenderer, PlotlyRenderer

from orchestra_lib.display.still import still_svg

PLOTLY = "application/vnd.plotly.v1+json"
SVG = "image/svg+xml"

_SIGNIFICANT_DIGITS = 6
_OF_OTHER_AXES = ("polar", "ternary", "scene", "geo")  # parts of a template; every figure here has x and y


class _Live(PlotlyRenderer):  # type: ignore[misc]
    """Plotly's own form of the figure."""

    def to_mimebundle(self, fig_dict: dict[str, Any]) -> dict[str, Any]:
        figure = super().to_mimebundle(fig_dict)[PLOTLY]
        template = figure["layout"].get("template", {})
        kinds = {trace["type"] for trace in figure["data"]}
        template["data"] = {kind: styles for kind, styles in template.get("data", {}).items() if kind in kinds}
        for part in _OF_OTHER_AXES:
            template.get("layout", {}).pop(part, None)
        return {PLOTLY: _rounded(figure)}


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _rounded(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_rounded(inner) for inner in value]
    return float(f"{value:.{_SIGNIFICANT_DIGITS}g}") if isinstance(value, float) else value


class _Still(MimetypeRenderer):  # type: ignore[misc]
    """The figure as SVG and its title as text: what is seen where plotly's own form is not understood."""

    def to_mimebundle(self, fig_dict: dict[str, Any]) -> dict[str, str]:
        title = ((fig_dict.get("layout") or {}).get("title") or {}).get("text") or "without a title"
        bundle = {"text/plain": f"figure: {title.replace('<br>', ', ').replace('<sub>', '').replace('</sub>', '')}"}
        drawn = still_svg(fig_dict)
        return bundle if drawn is None else {SVG: drawn, **bundle}


pio.renderers["live"] = _Live()
pio.renderers["still"] = _Still()
pio.renderers.default = "live+still"
