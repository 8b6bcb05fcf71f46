"""A plotly figure as one still picture in SVG, drawn here: it needs no browser to be made and no script to be read.

Drawn are scatter and bar traces on linear, logarithmic, date and category axes, which is what runbooks show. Another
kind of trace is seen in JupyterLab and on the pages, and told in words elsewhere.
"""

from orchestra_lib.display.still.picture import still_svg

__all__ = ["still_svg"]
