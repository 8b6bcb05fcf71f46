"""Sorting a table by a click on one of its headings, the same in JupyterLab and on a page.

The script stands in the table's own ``onclick``: no file, no id, no order of loading. Where scripts are taken out, as
in a notebook that is not trusted, the table stays as it is.
"""

from __future__ import annotations

from html import escape

_SCRIPT = (
    "(e=>{const h=e.target.closest('th');if(!h)return;const b=h.closest('table').tBodies[0],i=h.cellIndex,"
    "up=h.getAttribute('aria-sort')!=='ascending';for(const o of h.parentNode.cells)o.removeAttribute('aria-sort');"
    "h.setAttribute('aria-sort',up?'ascending':'descending');"
    # What begins with a number sorts as one, ranks before other texts, and a date is no number.
    "const k=r=>{const s=r.cells[i].innerText.trim(),m=/^[-+]?[\\d,]*\\.?\\d+(?=\\s|%|$)/.exec(s);"
    "return m?+m[0].replace(/,/g,''):s.toLowerCase()};"
    "[...b.rows].sort((r,s)=>{const x=k(r),y=k(s);return(typeof x===typeof y?x<y?-1:+(x>y):typeof x==='number'?-1:1)"
    "*(up?1:-1)}).forEach(r=>b.append(r))})(event)"
)

ON_CLICK = f'onclick="{escape(_SCRIPT)}"'
"""The attribute of a ``thead`` whose table is to be sorted by its headings; the table has the class ``orchestra``."""

ARROWS = (
    '.orchestra thead th{cursor:pointer}.orchestra th[aria-sort=ascending]::after{content:" \\25B2"}'
    '.orchestra th[aria-sort=descending]::after{content:" \\25BC"}'
)
"""Style sheet: the sorted heading has an arrow."""
