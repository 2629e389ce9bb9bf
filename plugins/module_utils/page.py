# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A page in one file: no script, nothing fetched, read on a phone at night as well as on paper."""

from __future__ import annotations

from html import escape

STYLE = """
:root { color-scheme: light dark; --soft: #8a8a8a33; --bad: #d64545; --good: #2e8b57; --mark: #b07a00; --calm: #2f7fd0 }
* { box-sizing: border-box }
body { font: 16px/1.45 system-ui, sans-serif; margin: 0 auto; padding: 1rem; max-width: 76rem; overflow-wrap: anywhere }
h1 { font-size: 1.35rem; margin: 0 0 .25rem }
h2 { font-size: 1.05rem; margin: 2rem 0 .5rem; border-bottom: 1px solid var(--soft); padding-bottom: .2rem }
p, ul, ol { margin: .4rem 0 } ul, ol { padding-left: 1.4rem } li { margin: .25rem 0 }
small, figcaption { font-size: .82rem }
.badge { display: inline-block; border: 1px solid currentColor; border-radius: .3rem; padding: 0 .4rem; font-weight: 600; font-size: .9em }
.bad { color: var(--bad) } .good { color: var(--good) } .mark { color: var(--mark) }
code, pre { font: .85rem/1.4 ui-monospace, monospace }
pre { background: var(--soft); padding: .6rem; border-radius: .3rem; white-space: pre-wrap; margin: .4rem 0 }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 21rem), 1fr)); gap: 1rem }
figure { margin: 0 } figure svg { display: block; width: 100%; height: auto }
table { border-collapse: collapse; width: 100% } td { padding: .2rem .5rem .2rem 0; vertical-align: top }
td:first-child { white-space: nowrap; font-variant-numeric: tabular-nums }
.facts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 10rem), 1fr)); gap: .8rem 1rem; margin: 1rem 0 }
.facts strong { font-size: 1.3rem }
.row { display: grid; grid-template-columns: minmax(0, 20rem) minmax(0, 1fr); column-gap: .8rem; align-items: center; padding: .1rem 0 }
.row .label { font-size: .9rem } summary.row { cursor: pointer } details > div.row .label { padding-left: 1rem }
summary.row .label::before { content: "▸ " } details[open] > summary.row .label::before { content: "▾ " }
.track { display: block; width: 100%; height: 1.1rem } .track rect { fill: currentColor } .ground { color: var(--soft) }
.shade { opacity: .16 } .calm { color: var(--calm) }
.scale { position: relative; display: block; height: 1.2rem } .scale span { position: absolute; white-space: nowrap }
@media (max-width: 40rem) { .row { grid-template-columns: minmax(0, 1fr) } }
@media print { body { max-width: none } figure, li, tr { break-inside: avoid } }
"""


def text(value):
    """`value` as text of a page, whatever it contains."""
    return escape(str(value))


def tag(name, content, css=""):
    """An element around `content`, which is HTML."""
    return f'<{name} class="{css}">{content}</{name}>' if css else f"<{name}>{content}</{name}>"


def listed(lines, name="ul", css=""):
    """A list of texts, or nothing."""
    return tag(name, "".join(tag("li", text(line)) for line in lines), css) if lines else ""


def section(heading, *parts):
    """A heading with what belongs to it, or nothing where there is nothing."""
    content = "\n".join(part for part in parts if part)
    return tag("section", f"{tag('h2', text(heading))}\n{content}") if content else ""


def page(title, *parts):
    """The whole document of `title` (text) and `parts` (HTML)."""
    body = "\n".join(part for part in parts if part)
    return (
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{text(title)}</title>\n<style>{STYLE}</style>\n<main>\n{body}\n</main>\n</html>\n"
    )
