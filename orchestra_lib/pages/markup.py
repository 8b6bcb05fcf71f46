"""The pieces that pages are made of: the frame of a page, tables, marks of a verdict."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from orchestra_lib.display.sorting import ARROWS, ON_CLICK
from orchestra_lib.display.tables import badge
from orchestra_lib.evidence import Verdict
from orchestra_lib.pages.reading import Run

_MOST_BESIDE_EACH_OTHER = 4  # columns that fit on a narrow screen
_STYLE = """
:root{color-scheme:light;--ink:#1d2733;--pale:#5b6776;--line:#dde3ea;--ground:#f5f7fa;--link:#0b5cad}
*{box-sizing:border-box}
body{margin:0;background:var(--ground);color:var(--ink);
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main{max-width:1280px;margin:0 auto;padding:20px 22px 60px}
h1{font-size:26px;line-height:1.25;margin:8px 0 4px}h2{font-size:18px;margin:32px 0 10px}
a{color:var(--link);text-decoration:none}a:hover{text-decoration:underline}
.pale{color:var(--pale)}.small{font-size:13px}
.box{background:#fff;border:1px solid var(--line);border-radius:8px;padding:14px 18px;margin:12px 0}
.said{border-left:5px solid;border-radius:6px;padding:10px 16px;margin:14px 0;background:#fff}
.sound{border-color:#0b6b2e;background:#eef8f1}.harmed{border-color:#a11616;background:#fdeeee}
.note{border-color:#0b4f8a;background:#eef5fc}.said ul{margin:6px 0 0;padding-left:20px}
.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(272px,1fr));gap:14px}
.card{display:block;background:#fff;border:1px solid var(--line);border-radius:8px;padding:14px 16px;color:inherit}
.card:hover{border-color:#9fb4cc;text-decoration:none;box-shadow:0 1px 6px #0001}
.card .key{font-size:22px;font-weight:650;margin:8px 0 0;line-height:1.2;overflow-wrap:anywhere}
.top{display:flex;justify-content:space-between;align-items:center;gap:8px;font-weight:600}
.top>:last-child{font-size:13px}
.scroll{overflow-x:auto;background:#fff;border:1px solid var(--line);border-radius:8px}
table.orchestra{border-collapse:collapse;width:100%;font-size:14px}
.orchestra th{font-size:12.5px;color:var(--pale);font-weight:600;white-space:nowrap;background:#fafbfd}
.orchestra th,.orchestra td{text-align:left;vertical-align:top;padding:8px 11px;border-bottom:1px solid #edf0f4}
.orchestra tbody tr:last-child td{border-bottom:0}.orchestra td{overflow-wrap:break-word}
.mark{display:inline-block;padding:1px 8px;border-radius:3px;font-weight:650;font-size:13px;white-space:nowrap}
.tampered{color:#fff;background:#a11616}.waiting{color:#555;background:#ececec}
.nowrap{white-space:nowrap}.long{min-width:230px}
dl{display:grid;grid-template-columns:max-content 1fr;gap:4px 18px;margin:0}dt{color:var(--pale)}
dd{margin:0;overflow-wrap:anywhere}
details>summary{cursor:pointer;padding:4px 0}
.figure{background:#fff;border:1px solid var(--line);border-radius:8px;padding:8px;margin:12px 0;overflow-x:auto}
.figure svg{display:block;min-width:640px;margin:0 auto}
.bar{height:9px;background:#0072B2;border-radius:2px;min-width:2px}
.notebook{background:#fff;border:1px solid var(--line);border-radius:8px;padding:2px 20px 20px}
.notebook pre{background:#f3f5f8;padding:10px 14px;border-radius:6px;overflow-x:auto;font-size:13px}
.notebook table{border-collapse:collapse}.notebook .text_cell_render td,.notebook .text_cell_render th{padding:4px 10px;
text-align:left;vertical-align:top;border-bottom:1px solid var(--line)}
.notebook .jp-MarkdownOutput,.notebook .rendered_html{overflow-wrap:break-word}
.notebook .anchor-link{display:none}.notebook .output_area,.notebook .jp-OutputArea-child{margin:8px 0}
.notebook img{max-width:100%}.crumbs{margin:0 0 6px;font-size:14px}
@media(max-width:760px){main{padding:14px 14px 40px}h1{font-size:22px}dl{grid-template-columns:112px minmax(0,1fr)}
.orchestra th,.orchestra td{padding:7px 9px}.box{padding:12px 14px}
.stack thead{display:none}.stack tr{display:block;padding:8px 4px;border-bottom:1px solid var(--line)}
.stack td{display:grid;grid-template-columns:112px minmax(0,1fr);border:0!important;padding:2px 10px}
.stack td:empty{display:none}
.stack td::before{content:attr(data-name);color:var(--pale);font-size:13px}
.long{min-width:0}}
@media print{body{background:#fff}.scroll{overflow:visible}}
"""


def page(title: str, content: str, more_style: str = "", at_end: str = "") -> bytes:
    """A whole page: nothing in it is loaded from another host."""
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}{ARROWS}{more_style}</style></head>"
        f"<body><main>{content}</main>{at_end}</body></html>\n"
    ).encode()


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table that sorts by its headings; the cells are HTML. On a narrow screen a wide one is a list of its rows."""
    names = [escape(name) for name in headings]
    head = "".join(f"<th>{name}</th>" for name in names)
    body = "".join(f"<tr>{''.join(map(_cell, names, row))}</tr>" for row in rows)
    stacks = " stack" if len(names) > _MOST_BESIDE_EACH_OTHER else ""
    return (
        f'<div class="scroll"><table class="orchestra{stacks}"><thead {ON_CLICK}><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _cell(name: str, content: str) -> str:
    # The block holds together what a narrow screen sets beside the name; an empty cell is left out there.
    return f'<td data-name="{name}">{content and f"<div>{content}</div>"}</td>'


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """Names and what they are, one under the other; the second of each pair is HTML."""
    return "<dl>" + "".join(f"<dt>{escape(name)}</dt><dd>{told}</dd>" for name, told in pairs) + "</dl>"


def said(text: str, kind: str, lines: Sequence[str] = ()) -> str:
    """A box with a sentence and the lines below it; ``kind`` is sound, harmed or note."""
    listed = f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>" if lines else ""
    return f'<div class="said {kind}"><b>{escape(text)}</b>{listed}</div>'


def mark(run: Run) -> str:
    """The verdict of a run that is as it was sealed; TAMPERED for one that is not, whatever its files say."""
    if run.harm:
        word = "TAMPERED" if run.entry else "NOT SEALED"
        return f'<span class="mark tampered">{word}</span>'
    if run.entry is None:
        return '<span class="mark waiting">GOES ON</span>'
    return badge(run.entry.verdict) if run.entry.verdict else escape(run.entry.outcome.value)


def verdict_mark(word: object) -> str:
    """The verdict of one row of evidence."""
    return badge(Verdict(str(word)))


def duration(seconds: float | None) -> str:
    """Seconds for people: ``8.2 s``, ``3:31 min``."""
    if seconds is None:
        return "–"
    return f"{seconds:.1f} s" if seconds < 60 else f"{int(seconds) // 60}:{int(seconds) % 60:02d} min"


def moment(at: str) -> str:
    """A time of the ledger for people, in UTC."""
    return f'<span class="nowrap">{escape(at[:16].replace("T", " "))}</span>'
