"""An executed notebook as HTML, with its figures: still where nothing may run, live where plotly.js lies beside."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import nbformat
from nbconvert import HTMLExporter
from pygments.formatters import HtmlFormatter  # type: ignore[import-untyped]

from orchestra_lib.display.renderer import PLOTLY, SVG

PLOTLY_JS = "plotly.min.js"
"""The file beside the index that makes figures live. Without it they are still, and nothing else is missing."""

_WIDGET = "application/vnd.jupyter.widget-view+json"
_WIDGETS_AS_TEXT = ("Button(", "VBox(")
CODE_STYLE = str(HtmlFormatter(style="default").get_style_defs(".highlight"))

# Each figure's data lies in the page as JSON; it is drawn when it comes into sight, because a page may have many.
LIVE = (
    f'<script src="../{PLOTLY_JS}" defer onerror="this.remove()"></script><script>addEventListener("load",()=>{{'
    "if(!window.Plotly)return;const o=new IntersectionObserver(s=>{for(const e of s)if(e.isIntersecting){"
    "o.unobserve(e.target);const f=JSON.parse(e.target.querySelector('script').textContent);"
    "f.layout.autosize=true;delete f.layout.width;e.target.querySelector('.still').remove();"
    "Plotly.newPlot(e.target,f.data,f.layout,{responsive:true,displaylogo:false})}});"
    "document.querySelectorAll('.figure').forEach(f=>o.observe(f))})</script>"
)


@dataclass(frozen=True)
class Figure:
    """A figure of a notebook: its title, and the piece of HTML that shows it."""

    title: str
    html: str


def figures(notebook: Path) -> list[Figure]:
    """The figures that a notebook shows, in order."""
    read = nbformat.read(notebook, as_version=4)
    return [_figure(output["data"]) for output in _figure_outputs(read)]


def body(notebook: Path) -> str:
    """The cells and their outputs as HTML, for a page that has the styles."""
    read = nbformat.read(notebook, as_version=4)
    for output in _figure_outputs(read):
        output["data"] = {"text/html": _figure(output["data"]).html}
    for output in _controls(read):
        output["data"] = {"text/html": '<p class="pale">A control, for whoever steps through it in JupyterLab.</p>'}
    exporter = HTMLExporter(template_name="basic", exclude_input_prompt=True, exclude_output_prompt=True)
    told, _ = exporter.from_notebook_node(read)
    return str(told)


def _figure_outputs(notebook: nbformat.NotebookNode) -> Iterator[nbformat.NotebookNode]:
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            if PLOTLY in output.get("data", {}):
                yield output


def _controls(notebook: nbformat.NotebookNode) -> Iterator[nbformat.NotebookNode]:
    """Buttons and sliders: nothing answers them on a page, and nbconvert would look for their scripts elsewhere."""
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            if _WIDGET in data or (set(data) == {"text/plain"} and data["text/plain"].startswith(_WIDGETS_AS_TEXT)):
                yield output


def _figure(data: dict[str, Any]) -> Figure:
    live = data[PLOTLY]
    title = str(((live.get("layout") or {}).get("title") or {}).get("text") or "")
    still = data.get(SVG) or f"<p>{escape(str(data.get('text/plain', 'a figure, drawn by plotly alone')))}</p>"
    # "</" would end the script element in the middle of a text.
    stated = json.dumps({"data": live["data"], "layout": live["layout"]}).replace("</", "<\\/")
    html = (
        f'<div class="figure"><div class="still">{still}</div><script type="application/json">{stated}</script></div>'
    )
    return Figure(title.split("<br>")[0], html)
