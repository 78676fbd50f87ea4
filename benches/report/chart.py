"""Draws how far each figure is from its aim, as SVG.

All aims stand on one line, whatever they are about. A bar goes from that line to where the figure is: to the right where
it is better than its aim, to the left where it misses it, each step a doubling. What is drawn is told in words too, so
nothing rests on colour; colours follow the reader's light or dark page, and the font is the reader's own.
"""

import math
from xml.sax.saxutils import escape

WIDTH = 910
# The bars' room, with the line of the aims in it; labels stand left of it, figures right.
LEFT, RIGHT = 340, 625
# How many halvings and doublings there is room for. A figure beyond them ends in an arrow.
WORST, BEST = -2, 3
ROW, HEAD, FOOT = 26, 34, 34

STYLE = """
  text { font: 13px system-ui, sans-serif; fill: #1f2328; }
  .faint { fill: #59636e; font-size: 11px; }
  .grid { stroke: #d1d9e0; }
  .aim { stroke: #1f2328; stroke-width: 1.5; }
  .reached { fill: #2a6fbb; }
  .missed { fill: #c8500a; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3; }
    .faint { fill: #9198a1; }
    .grid { stroke: #3d444d; }
    .aim { stroke: #e6edf3; }
    .reached { fill: #6cb0ff; }
    .missed { fill: #ff9d5c; }
  }
"""


def steps(row):
    """Doublings by which a figure is better than its aim. None of something of which there may be none: on the line."""
    [(kind, bound)] = row["aim"].items()
    judged = row["value"] if row["ratio"] is None else row["ratio"]
    if judged == bound:
        return 0.0
    if min(judged, bound) <= 0:
        # Nothing is infinitely many times better or worse than something.
        return math.inf if row["reached"] else -math.inf
    return math.log2(judged / bound) * (1 if kind == "at_least" else -1)


def across(step):
    return LEFT + (min(max(step, WORST), BEST) - WORST) * (RIGHT - LEFT) / (BEST - WORST)


def bar(row, top):
    step = steps(row)
    start, end = sorted((across(0), across(step)))
    kind = "reached" if row["reached"] else "missed"
    shape = f'<rect class="{kind}" x="{start:.1f}" y="{top + 6}" width="{max(end - start, 3):.1f}" height="14" rx="2"/>'
    if WORST <= step <= BEST:
        return shape
    tip, back = (RIGHT + 9, RIGHT) if step > 0 else (LEFT - 9, LEFT)
    return shape + f'<path class="{kind}" d="M{back} {top + 6}L{tip} {top + 13}L{back} {top + 20}z"/>'


def shortened(text, most=43):
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"


def named(row):
    """Two rows may measure one figure beside two ceilings."""
    plain = row["figure"].replace("`", "")
    beside = row["ceiling"]["name"].replace("`", "") if row["ceiling"] and row["ratio"] is not None else ""
    return plain, beside


def draw(rows, aim):
    rows = [row for row in rows if row["aim"]]
    height = HEAD + ROW * len(rows) + FOOT
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" aria-labelledby="t d">',
        '<title id="t">Each figure beside its aim</title>',
        '<desc id="d">Bars to the right are better than the aim, bars to the left miss it; each step is a doubling.</desc>',
        f"<style>{STYLE}</style>",
    ]
    for step in range(WORST, BEST + 1):
        x, name = across(step), "aim" if step == 0 else f"{2.0**step:g} ×"
        line = "aim" if step == 0 else "grid"
        parts.append(f'<text class="faint" x="{x:.1f}" y="22" text-anchor="middle">{name}</text>')
        parts.append(f'<line class="{line}" x1="{x:.1f}" x2="{x:.1f}" y1="{HEAD - 6}" y2="{height - FOOT + 4}"/>')
    for index, row in enumerate(rows):
        top = HEAD + index * ROW
        plain, beside = named(row)
        judged = f"{row['ratio']:.2f}" if row["ratio"] is not None else f"{row['value']:.4g} {row['unit']}".strip()
        parts.append(f"<g><title>{escape(plain + (' beside ' + beside if beside else ''))}</title>")
        label = shortened(plain if not beside else f"{plain.split(',')[0]} / {beside}")
        parts.append(f'<text x="{LEFT - 14}" y="{top + 17}" text-anchor="end">{escape(label)}</text>')
        parts.append(bar(row, top))
        said = f"{judged}, to reach {aim(row)}{'' if row['reached'] else ': missed'}"
        parts.append(f'<text x="{RIGHT + 16}" y="{top + 17}">{escape(said)}</text></g>')
    parts.append(
        f'<text class="faint" x="{across(0):.1f}" y="{height - 10}" text-anchor="middle">'
        "misses its aim ← → better than its aim</text>"
    )
    return "\n".join([*parts, "</svg>", ""])
