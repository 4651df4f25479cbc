"""Texts, numbers and figures of the results as safe HTML."""

from __future__ import annotations

import re

from markupsafe import Markup, escape

# A letter, with or without a hat.
_LETTER = r"[^\W\d_]\u0302?"
# x_t, a_{i+1}, α_max after a letter, a hat, a closing bracket or a star; κ_1n.
_LOWER = re.compile(
    r"(?<=[^\W\d_]|[)⟩\]*\u0302])_"
    r"(?:\{([^{}]+)\}|(min|max|[^\W_]|\*)(?![A-Za-z0-9Α-ω_])|(?<=[Α-ω]_)(\d)(?=[a-zα-ω]))"
)
# A product whose letters share an index, a_iv_i, or whose last one has a power or an index of its
# own, a_iv^2, α_tα_{t−1}: a letter without either would be a snake_case word.
_PRODUCT = re.compile(
    rf"(?<![A-Za-z_]){_LETTER}_([ijst])"
    rf"(?:(?:{_LETTER}_\1)+(?![A-Za-z0-9Α-ω_])|(?:{_LETTER}_\1)*(?={_LETTER}(?:\^|_\{{)))"
)
# ^2, also before a letter (α^2A), ^0.5, ^−2, ^{-1/2}, ^*, ^n, ^slope.
_UPPER = re.compile(
    r"(?<=[\w)⟩\]*>‖|])\^"
    r"(?:\{([^{}]+)\}|([−-]?\d+(?:\.\d+)?|(?:[^\W\d_]|[a-z]{3,}|\*)(?!\w)))"
)


def math(text: str) -> Markup:
    """Return the text as HTML: x_t, x_{t+1}, ^2, ^{−1/2} as sub- and superscripts, `code` as code.

    In a product a_iv_i the index of each letter is set. Everything is escaped first; blank lines
    become paragraph breaks.
    """
    parts = re.split(r"`([^`]*)`", text)
    html = []
    for i, part in enumerate(parts):
        safe = str(escape(part))
        if i % 2:
            html.append(f"<code>{safe}</code>")
            continue
        safe = _PRODUCT.sub(lambda m: m[0].replace(f"_{m[1]}", f"<sub>{m[1]}</sub>"), safe)
        safe = _LOWER.sub(lambda m: f"<sub>{m[1] or m[2] or m[3]}</sub>", safe)
        safe = _UPPER.sub(lambda m: f"<sup>{m[1] or m[2]}</sup>", safe)
        html.append(re.sub(r"\n\s*\n", "<br><br>", safe))
    return Markup("".join(html))


def number(value: object, digits: int = 7) -> str:
    """Return a table cell: floats with up to ``digits`` significant digits, the rest as it is."""
    if isinstance(value, float):
        return f"{value:.{digits}g}".replace("-", "−")
    return str(value)


def duration(seconds: float) -> str:
    """Return seconds as "0.4 s", "12 s" or "3 min 5 s"."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def inline_svg(text: str, name: str, label: str) -> Markup:
    """Return matplotlib's SVG for use inside a page that holds others.

    Drops the prologue, metadata, comments and the page-wide style, prefixes every id with
    ``name-``, scales with the column, and names the picture ``label`` for screen readers. The
    element itself gets the id ``name``. Raises ValueError when the text holds no svg element.
    """
    start = text.find("<svg")
    if start < 0:
        raise ValueError("the figure must hold an svg element, got none")
    body = text[start:]
    for dropped in (
        r"<!--.*?-->\s*",
        r"<metadata>.*?</metadata>\s*",
        r"<defs>\s*<style[^>]*>[^<]*</style>\s*</defs>\s*",
    ):
        body = re.sub(dropped, "", body, flags=re.DOTALL)
    body = re.sub(r'(\bid="|href="#|url\(#)', lambda m: f"{m[0]}{name}-", body)
    opening, rest = body.split(">", 1)
    opening = re.sub(r'\s(?:width|height)="[^"]*"', "", opening)
    return Markup(f'{opening} id="{name}" role="img" aria-label="{escape(label)}">{rest}')


def thumbnail(svg: str, name: str) -> Markup:
    """Return a small picture that draws the page's inline figure ``name`` again, by reference."""
    box = re.search(r'viewBox="[^"]*"', svg)
    return Markup(f'<svg {box[0] if box else ""} aria-hidden="true"><use href="#{name}"/></svg>')
