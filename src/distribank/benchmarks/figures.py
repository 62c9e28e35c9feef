"""The arithmetic of measuring: percentiles, medians with their spread, ratios turn by turn, and what was reached."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from statistics import median
from typing import Final


@dataclass(frozen=True, slots=True)
class Figure:
    """One quantity over the turns of a run: their median, the least and the greatest."""

    median: float
    least: float
    greatest: float

    def shown(self, form: str = "") -> str:
        """``1,234 (1,200–1,300)``; the median alone where there was one turn."""
        style = form or _form(self.median)
        if self.least == self.greatest:
            return format(self.median, style)
        return f"{self.median:{style}} ({self.least:{style}}–{self.greatest:{style}})"

    def json(self) -> dict[str, float]:
        return {"median": self.median, "least": self.least, "greatest": self.greatest}


def figure(values: Sequence[float]) -> Figure | None:
    """The figure of *values*, one a turn; ``None`` where there is none."""
    return Figure(median(values), min(values), max(values)) if values else None


def ratios(above: Sequence[float], below: Sequence[float]) -> list[float]:
    """*above* ÷ *below*, turn by turn; turns that only one of them has, or that divide by zero, are left out."""
    return [one / other for one, other in zip(above, below, strict=False) if other]


def percentile(ordered: Sequence[float], part: float) -> float:
    """The least of the *ordered* values that *part* (0 to 1) of them do not exceed (nearest rank); 0 of none."""
    return ordered[max(0, ceil(part * len(ordered)) - 1)] if ordered else 0.0


AT_LEAST: Final = "≥"
AT_MOST: Final = "≤"


@dataclass(frozen=True, slots=True)
class Goal:
    """What is to be reached: a bound, and on which side of it the figure is to lie."""

    sign: str
    bound: float

    def met(self, reached: Figure) -> bool:
        """Whether the median keeps the bound."""
        return reached.median >= self.bound if self.sign == AT_LEAST else reached.median <= self.bound

    def shown(self) -> str:
        return f"{self.sign} {self.bound:g}"


def _form(value: float) -> str:
    """How many digits of *value* mean something."""
    if abs(value) >= 100:
        return ",.0f"
    return ",.1f" if abs(value) >= 10 else ".2f" if abs(value) >= 0.1 else ".3f"
