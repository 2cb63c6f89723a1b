"""The parts that every report shares: a page of its own that needs nothing else, tables, and pictures."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape

STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; color: #222; }
table { border-collapse: collapse; margin: .6rem 0 1.4rem; font-size: 13px; }
th, td { border-bottom: 1px solid #ddd; padding: .25rem .6rem; text-align: right; white-space: nowrap; }
th:first-child, td:first-child, td:nth-child(2), th:nth-child(2) { text-align: left; }
figure { display: inline-block; margin: .4rem .8rem .4rem 0; vertical-align: top; }
figcaption { font-size: 12px; max-width: 300px; overflow-wrap: anywhere; }
svg.chart { width: 560px; max-width: 100%; font-size: 12px; } svg.chart + figcaption { max-width: 560px; }
.key { margin-right: 1rem; } .wide { overflow-x: auto; } .note { color: #555; }
"""


def page(title: str, sections: Iterable[str], style: str = "") -> str:
    """A whole HTML page; ``sections`` are HTML, ``style`` is added to the common one."""
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{STYLE}{style}</style></head><body>{''.join(sections)}</body></html>\n"
    )


def table(heads: Sequence[str], cells: Iterable[Sequence[str]]) -> str:
    """A table of texts."""
    head = "".join(f"<th>{escape(text)}</th>" for text in heads)
    body = "".join("<tr>" + "".join(f"<td>{escape(text)}</td>" for text in line) + "</tr>" for line in cells)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def figure(picture: bytes, words: str, kind: str = "png") -> str:
    """A picture, PNG or JPEG as encoded, held in the page itself, with words below it."""
    data = base64.b64encode(picture).decode("ascii")
    caption = f"<figcaption>{escape(words)}</figcaption>"
    return f'<figure><img alt="" src="data:image/{kind};base64,{data}">{caption}</figure>'
