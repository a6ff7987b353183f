"""A page as HTML, as a fragment for notebooks, and as Markdown."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from certified.report._page import Block, Code, Curve, Facts, Items, Page, Table, Text

__all__ = ["to_fragment", "to_html", "to_markdown"]

_STYLE = """
.certified{--ink:#1a1f26;--soft:#5a6572;--line:#d8dee5;--tint:#f4f6f8;--mark:#0b5c8a;color:var(--ink);
 font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif;max-width:60rem;margin:0
 auto;
 padding:2rem 1.25rem;overflow-wrap:anywhere;background:#fff}
.certified h1{font-size:1.75rem;line-height:1.2;margin:0}
.certified .under{color:var(--soft);margin:.25rem 0 1.5rem}
.certified h2{font-size:1.05rem;margin:2rem 0 .6rem;padding-top:.8rem;border-top:1px solid var(--line)}
.certified section:first-of-type h2{border:0;padding:0;margin-top:0}
.certified p{margin:.4rem 0}
.certified p.claim{font-size:1.15rem;border-left:4px solid var(--mark);background:var(--tint);
 padding:.9rem 1.1rem;margin:0}
.certified ul{margin:.3rem 0;padding-left:1.2rem}.certified li{margin:.25rem 0}
.certified table{border-collapse:collapse;width:100%;margin:.6rem 0;font-variant-numeric:tabular-nums}
.certified th,.certified td{text-align:left;vertical-align:top;
 padding:.4rem .8rem .4rem 0;border-bottom:1px solid var(--line)}
.certified thead th{color:var(--soft);font-weight:600;font-size:.9rem}
.certified tbody th{font-weight:600;width:14rem}
.certified td.note{color:var(--soft);font-size:.92rem}.certified td.value{white-space:nowrap}
.certified pre{background:var(--tint);padding:.8rem 1rem;overflow-x:auto;font-size:.85rem;white-space:pre-wrap}
.certified figure{margin:1rem 0;max-width:34rem}.certified figcaption{color:var(--soft);font-size:.92rem}
.certified svg{width:100%;height:auto;display:block}
@media (max-width:40rem){.certified{padding:1.2rem 1rem}
 .certified table.facts tr{display:block;border-bottom:1px solid var(--line);padding:.35rem 0}
 .certified table.facts th,.certified table.facts td{display:block;border:0;padding:0;width:auto}
 .certified table.facts td.value{white-space:normal}
 .certified table.grid{font-size:.88rem;overflow-wrap:normal}.certified table.grid tbody th{width:auto}
 .certified table.grid th,.certified table.grid td{padding-right:.45rem}}
@media print{.certified{max-width:none;padding:0;font-size:10.5pt}.certified section{break-inside:avoid}
 .certified p.claim,.certified pre{border:1px solid var(--line);-webkit-print-color-adjust:exact;
 print-color-adjust:exact}}
"""


def to_html(page: Page) -> str:
    """Return a whole page: no script, nothing from a network."""
    meta = '<meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">'
    policy = """<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">"""
    title = escape(" - ".join(filter(None, (page.title, page.subtitle))))
    style = f"<style>html,body{{margin:0;background:#fff}}@page{{margin:18mm}}{_STYLE}</style>"
    head = f"<head>{meta}{policy}<title>{title}</title>{style}</head>"
    return f'<!doctype html>\n<html lang="en">{head}<body>{_body(page, "main")}</body></html>\n'


def to_fragment(page: Page) -> str:
    """Return the page for a notebook: with its style, without head and body."""
    return f"<style>{_STYLE}</style>{_body(page, 'div')}"


def _body(page: Page, element: str) -> str:
    under = f'<p class="under">{escape(page.subtitle)}</p>' if page.subtitle else ""
    sections = "".join(
        f"<section><h2>{escape(section.title)}</h2>{''.join(map(_html, section.blocks))}</section>"
        for section in page.sections
    )
    return f'<{element} class="certified"><header><h1>{escape(page.title)}</h1>{under}</header>{sections}</{element}>'


def _value(value: str, note: str) -> str:
    short = note and len(value) <= 20
    return f'<td class="value">{escape(value)}</td>' if short else f"<td>{escape(value)}</td>"


def _html(block: Block) -> str:
    match block:
        case Text(text, strong):
            return f'<p class="claim">{escape(text)}</p>' if strong else f"<p>{escape(text)}</p>"
        case Items(items):
            return f"<ul>{''.join(f'<li>{escape(item)}</li>' for item in items)}</ul>"
        case Facts(rows):
            lines = "".join(
                f'<tr><th scope="row">{escape(name)}</th>{_value(value, note)}<td class="note">{escape(note)}</td></tr>'
                for name, value, note in rows
            )
            return f'<table class="facts"><tbody>{lines}</tbody></table>'
        case Table(head, rows):
            top = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
            lines = "".join(
                f'<tr><th scope="row">{escape(row[0])}</th>{"".join(f"<td>{escape(c)}</td>" for c in row[1:])}</tr>'
                for row in rows
            )
            return f'<table class="grid"><thead><tr>{top}</tr></thead><tbody>{lines}</tbody></table>'
        case Code(text):
            return f"<pre>{escape(text)}</pre>"
        case Curve():
            return f"<figure>{_svg(block)}<figcaption>{escape(block.caption)}</figcaption></figure>"


def _svg(curve: Curve) -> str:
    """Draw the curve: epsilon to the right, delta upwards on a logarithmic scale."""
    width, height, left, bottom, top, right = 560, 320, 64, 48, 16, 20
    deltas = [delta for _, delta in curve.points]
    low = math.floor(math.log10(min(deltas)))
    last = max(epsilon for epsilon, _ in curve.points) or 1.0

    def x(epsilon: float) -> float:
        return left + (width - left - right) * epsilon / last

    def y(delta: float) -> float:
        return top + (height - top - bottom) * math.log10(max(delta, 1e-300)) / low

    path = " ".join(f"{x(e):.1f},{y(d):.1f}" for e, d in curve.points)
    step = _nice(last / 5)
    across = [k * step for k in range(int(last / step + 1e-9) + 1)]
    every = max(1, -low // 4)
    parts = [
        f'<line x1="{left}" y1="{y(10.0**k):.1f}" x2="{width - right}" y2="{y(10.0**k):.1f}" stroke="#e3e8ed"/>'
        f'<text x="{left - 8}" y="{y(10.0**k) + 4:.1f}" text-anchor="end">{_power(k)}</text>'
        for k in range(0, low - 1, -every)
    ]
    parts += [f'<text x="{x(e):.1f}" y="{height - bottom + 20}" text-anchor="middle">{e:.3g}</text>' for e in across]
    parts += [
        f'<text x="{(left + width - right) / 2:.0f}" y="{height - 6}" text-anchor="middle">epsilon</text>',
        f'<text x="14" y="{(height - bottom + top) / 2:.0f}" text-anchor="middle" '
        f'transform="rotate(-90 14 {(height - bottom + top) / 2:.0f})">delta</text>',
        f'<polyline points="{path}" fill="none" stroke="#0b5c8a" stroke-width="2.5"/>',
    ]
    epsilon, delta = curve.quoted
    if 0 <= epsilon <= last and delta >= 10.0**low:
        near_end = x(epsilon) > width - 200
        anchor, shift, lift = ("end", -10, 20) if near_end else ("start", 10, -8)  # the curve falls to the right
        label = f"epsilon {epsilon:.3g} at delta {delta:.3g}"
        parts.append(f'<circle cx="{x(epsilon):.1f}" cy="{y(delta):.1f}" r="5" fill="#b3261e"/>')
        place = f'x="{x(epsilon) + shift:.1f}" y="{y(delta) + lift:.1f}"'
        parts.append(f'<text {place} text-anchor="{anchor}">{label}</text>')
    told = f"Curve of delta against epsilon, from {curve.points[0][1]:.3g} at 0 to {deltas[-1]:.3g} at {last:.3g}"
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(told)}" '
        f'font-family="inherit" font-size="13" fill="#1a1f26">{"".join(parts)}</svg>'
    )


def _power(k: int) -> str:
    digits = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
    return "1" if k == 0 else "10" + str(k).translate(digits)


def _nice(step: float) -> float:
    size = 10.0 ** math.floor(math.log10(step))
    return next(k * size for k in (1, 2, 5, 10) if k * size >= step)


def to_markdown(page: Page) -> str:
    """Return the page as Markdown."""
    lines = [f"# {_plain(page.title)}", ""]
    if page.subtitle:
        lines += [_plain(page.subtitle), ""]
    for section in page.sections:
        lines += [f"## {_plain(section.title)}", ""]
        for block in section.blocks:
            lines += [*_markdown(block), ""]
    return "\n".join(lines).rstrip() + "\n"


def _markdown(block: Block) -> list[str]:
    match block:
        case Text(text, strong):
            return [f"**{_plain(text)}**" if strong else _plain(text)]
        case Items(items):
            return [f"- {_plain(item)}" for item in items]
        case Facts(rows):
            noted = any(note for _, _, note in rows)
            head = ["| | | |", "|---|---|---|"] if noted else ["| | |", "|---|---|"]
            return [*head, *(_row([name, value, note] if noted else [name, value]) for name, value, note in rows)]
        case Table(head, rows):
            return [_row(head), "|" + "---|" * len(head), *(_row(row) for row in rows)]
        case Code(text):
            return ["```", *text.replace("```", "'''").split("\n"), "```"]
        case Curve(points, quoted, caption):
            some = points[:: max(1, len(points) // 8)]
            listed = [_row([f"{e:.3g}", f"{d:.2g}"]) for e, d in some]
            quote = f"Quoted: epsilon {quoted[0]:.3g} at delta {quoted[1]:.3g}."
            return [_plain(caption), "", _row(["epsilon", "delta"]), "|---|---|", *listed, "", quote]


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(_plain(str(cell)).replace("|", "\\|") for cell in cells) + " |"


def _plain(text: str) -> str:
    """Escape what Markdown would take for markup."""
    for mark in ("\\", "`", "*", "_", "<", "[", "#"):
        text = text.replace(mark, "\\" + mark)
    return " ".join(text.split())
