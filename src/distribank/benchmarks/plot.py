"""A run as a picture (PNG): the throughput of everything measured, with its spread, and its latencies beside it."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from distribank.benchmarks.figures import figure
from distribank.benchmarks.running import Results, Turn
from distribank.breakages import Misconfigured

ROW_INCHES: Final = 0.28
WIDE: Final = 12.0
BLUE: Final = "#1b4f72"
LATENCIES: Final = (("p50", "o"), ("p95", "s"), ("p99", "^"))


def pyplot() -> Any:
    """matplotlib, drawing into files; ``Misconfigured`` with what to do where it is missing."""
    try:
        import_module("matplotlib").use("Agg")
        return import_module("matplotlib.pyplot")
    except ImportError:
        raise Misconfigured(
            "a picture needs matplotlib: pip install 'distribank[bench]', or leave --plot away"
        ) from None


def draw(results: Results, path: Path) -> None:
    """Write the picture of *results* to *path*."""
    plt = pyplot()
    names = list(results.turns)[::-1]
    places = range(len(names))
    drawing, (left, right) = plt.subplots(
        1, 2, sharey=True, figsize=(WIDE, 1.2 + ROW_INCHES * len(names)), width_ratios=(3, 2), layout="constrained"
    )
    found = [figure([turn.rate for turn in results.turns[name]]) for name in names]
    rates = [each.median if each else 0.0 for each in found]
    spread = [
        [each.median - each.least if each else 0.0 for each in found],
        [each.greatest - each.median if each else 0.0 for each in found],
    ]
    left.barh(places, rates, xerr=spread, color=BLUE, ecolor="#888888", height=0.7)
    left.set_yticks(places, names)
    left.set_xlabel("transfers (or requests) a second: median, least and greatest turn")
    for name, mark in LATENCIES:
        right.plot([_latency(results.turns[run], name) for run in names], places, mark, label=name, color=BLUE, ms=4)
    right.set_xscale("log")
    right.set_xlabel("latency of a request, ms: medians of the turns")
    right.legend(loc="lower right")
    for axes in (left, right):
        axes.grid(axis="x", alpha=0.3)
    drawing.savefig(path, dpi=110, format="png")
    plt.close(drawing)


def _latency(turns: Sequence[Turn], name: str) -> float:
    found = figure([getattr(turn, name) for turn in turns])
    return found.median if found else 0.0
