"""The run as a picture: committed transfers a second, with the faults that were in force beneath. SVG, by hand."""

from __future__ import annotations

from html import escape
from typing import Final

from distribank.torture.figures import Figures

FILE: Final = "throughput.svg"
WIDTH: Final = 1000
LEFT: Final = 110
TOP: Final = 30
HEIGHT: Final = 220
ROW: Final = 18
POINTS: Final = 450
"""Points of the curve at most: more seconds than that are put together."""
COLOURS: Final = (
    *("#c0392b", "#8e44ad", "#2471a3", "#148f77", "#b9770e"),
    *("#5d6d7e", "#7d3c98", "#1e8449", "#873600", "#34495e"),
)


def svg(figures: Figures) -> str:
    """The whole picture."""
    seconds = max(1, int(figures.seconds))
    step = -(-seconds // POINTS)
    rates = [
        (begin, sum(figures.committed[second] for second in range(begin, min(begin + step, seconds))) / step)
        for begin in range(0, seconds - step + 1, step)
    ]
    most = _rounded(max((rate for _begin, rate in rates), default=1.0))
    rows = figures.kinds()
    height = TOP + HEIGHT + 30 + ROW * len(rows) + 20
    across = (WIDTH - LEFT - 20) / seconds

    def x(second: float) -> float:
        return LEFT + second * across

    def y(rate: float) -> float:
        return TOP + HEIGHT * (1 - rate / most)

    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}"',
        ' font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
        f'<text x="{LEFT}" y="18">committed transfers a second, and the faults in force</text>',
    ]
    for part in range(5):
        rate = most * part / 4
        lines.append(f'<line x1="{LEFT}" x2="{WIDTH - 20}" y1="{y(rate):.1f}" y2="{y(rate):.1f}" stroke="#ddd"/>')
        lines.append(f'<text x="{LEFT - 8}" y="{y(rate) + 4:.1f}" text-anchor="end">{rate:g}</text>')
    for place in range(7):
        second = seconds * place / 6
        at = f"{second / 60:.3g} min" if seconds >= 120 else f"{second:.0f} s"
        lines.append(f'<text x="{x(second):.1f}" y="{TOP + HEIGHT + 18}" text-anchor="middle">{at}</text>')
    for row, kind in enumerate(rows):
        colour, top = COLOURS[row % len(COLOURS)], TOP + HEIGHT + 30 + ROW * row
        lines.append(f'<text x="{LEFT - 8}" y="{top + 12}" text-anchor="end" fill="{colour}">{escape(kind)}</text>')
        for spell in figures.spells:
            if spell.kind == kind:
                left, wide = x(spell.begun), max(1.0, (spell.ended - spell.begun) * across)
                box = f'x="{left:.1f}" width="{wide:.1f}" fill="{colour}"'
                lines.append(f'<rect {box} y="{TOP}" height="{HEIGHT}" opacity="0.06"/>')
                title = f"<title>{escape(f'{spell.begun:.0f} to {spell.ended:.0f} s: {spell.words}')}</title>"
                lines.append(f'<rect {box} y="{top}" height="{ROW - 4}">{title}</rect>')
    points = " ".join(f"{x(begin + step / 2):.1f},{y(rate):.1f}" for begin, rate in rates)
    lines.append(f'<polyline points="{points}" fill="none" stroke="#1b4f72" stroke-width="1.2"/>')
    return "\n".join([*lines, "</svg>\n"])


def _rounded(most: float) -> float:
    """A round number that is not less."""
    scale = 1.0
    while scale * 10 <= most:
        scale *= 10
    return next((scale * part for part in (1, 2, 4, 5, 8, 10) if scale * part >= most), most) if most > 1 else 1.0
