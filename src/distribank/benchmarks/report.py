"""A run in words and figures: the goals, reached or not; every run, side by side; the machine. Text, Markdown, JSON."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Any, Final

from distribank import __version__
from distribank.benchmarks import parts
from distribank.benchmarks.cases import NAIVE, NOOP, OWN, POSTGRES, Scale
from distribank.benchmarks.figures import AT_LEAST, AT_MOST, Figure, Goal, figure, ratios
from distribank.benchmarks.running import AUDIT_S, READY, RECOVERY, Results, Turn
from distribank.simulation.many import revision

NOT_MEASURED: Final = "not measured in this run"
WHY: Final = 60
"""Characters of a reason that stand in the table; below it stands the whole."""
MOST_ELSEWHERE: Final = 0.1
"""The part of the machine that others may take before the report warns of it."""
BASE: Final = "two banks, 64 clients"
FIRST: Final = "1,000 accounts"


@dataclass(frozen=True, slots=True)
class Row:
    """One line: *what*, what is *reached* (in *unit*), what it is to reach; *why* says why there is no figure."""

    what: str
    goal: Goal | None
    reached: Figure | None
    unit: str = ""
    why: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; ``None`` where there is none, or no figure."""
        return None if self.goal is None or self.reached is None else self.goal.met(self.reached)

    @property
    def verdict(self) -> str:
        return {None: "" if self.reached else "no figure", True: "met", False: "NOT met"}[self.met]

    def shown(self) -> tuple[str, str, str, str]:
        why = self.why if len(self.why) <= WHY else f"{self.why[:WHY]} …"
        reached = f"{self.reached.shown()} {self.unit}".rstrip() if self.reached else why
        return self.what, self.goal.shown() if self.goal else "", reached, self.verdict


class _Reading:
    """Quantities of a run by name, and why one of them is not there."""

    def __init__(self, results: Results) -> None:
        self._results = results

    def of(self, run: str, quantity: Callable[[Turn], float | None]) -> list[float]:
        """That quantity of every turn of *run*."""
        values = [quantity(turn) for turn in self._results.turns.get(run, [])]
        return [value for value in values if value is not None]

    def rates(self, run: str) -> list[float]:
        return self.of(run, lambda turn: turn.rate)

    def other(self, name: str) -> list[float]:
        return self._results.others.get(name, [])

    def row(self, what: str, goal: Goal | None, values: Sequence[float], needs: Sequence[str], unit: str = "") -> Row:
        """The row of *values*; where there are none, the reason that one of the runs or subjects it *needs* has."""
        known = {**self._results.missing, **self._results.failed, **self._results.wrong}
        why = next((known[name] for name in needs if name in known), NOT_MEASURED)
        return Row(what, goal, figure(values), unit, why)


def rows(results: Results, scale: Scale) -> list[Row]:
    """Every figure that has a goal, in the order in which the goals were set; then what else is worth a line."""
    return [*_goals(_Reading(results), scale), *_also(_Reading(results), scale)]


def _goals(read: _Reading, scale: Scale) -> list[Row]:
    base, million = read.rates(BASE), f"{scale.large[-1]:,} accounts"
    past, batches = f"{scale.past:,} past transfers", _best_batch(read)
    one, composite = "two banks, 1 client", ("over 8 banks, 64 clients", "over 2 of 8 banks, 64 clients")
    return [
        read.row(
            "two-bank transfers, 64 clients ÷ no-op FastAPI POST",
            Goal(AT_LEAST, 0.8),
            ratios(base, read.rates("no-op, 64 clients")),
            (NOOP, OWN),
        ),
        read.row(
            "the same ÷ naive two-phase commit",
            Goal(AT_LEAST, 15),
            ratios(base, read.rates("naive, 64 clients")),
            (NAIVE, "naive, 64 clients", OWN),
        ),
        read.row(
            "the same ÷ two PostgreSQL servers",
            Goal(AT_LEAST, 6),
            ratios(base, read.rates("PostgreSQL, 64 clients")),
            (POSTGRES, "PostgreSQL, 64 clients", OWN),
        ),
        read.row(
            "one client alone ÷ two PostgreSQL servers",
            Goal(AT_LEAST, 1.0),
            ratios(read.rates(one), read.rates("PostgreSQL, 1 client")),
            (POSTGRES, "PostgreSQL, 1 client", OWN),
        ),
        read.row(
            f"two-bank transfers in {batches.partition(',')[0] if batches else 'batches'} ÷ no-op FastAPI POST",
            Goal(AT_LEAST, 3),
            ratios(read.rates(batches), read.rates("no-op, 64 clients")),
            (NOOP, OWN),
        ),
        read.row(
            "flushes per two-bank transfer, 64 clients",
            Goal(AT_MOST, 0.15),
            read.of(BASE, lambda turn: turn.flushes),
            (BASE, OWN),
        ),
        read.row(
            "requests between banks per two-bank transfer, 64 clients",
            Goal(AT_MOST, 0.1),
            read.of(BASE, lambda turn: turn.requests),
            (BASE, OWN),
        ),
        *(
            read.row(
                f"{way} one hot account ÷ uniform",
                Goal(AT_LEAST, 0.8),
                ratios(read.rates(f"{way} one hot account, 64 clients"), base),
                (f"{way} one hot account, 64 clients", OWN),
            )
            for way in ("into", "out of")
        ),
        read.row(
            "composite over 8 banks: CPU per transfer ÷ two-bank",
            Goal(AT_MOST, 3),
            ratios(read.of(composite[0], _all_cpu), read.of(composite[1], _all_cpu)),
            (*composite, OWN),
        ),
        read.row(
            "two-bank p50, one client ÷ (no-op POST + two requests + three flushes)",
            Goal(AT_MOST, 1.2),
            ratios(read.of(one, lambda turn: turn.p50), _ideal(read, parts.FLUSH)),
            (NOOP, one, OWN),
        ),
        read.row(
            f"{million} ÷ {FIRST}, throughput",
            Goal(AT_LEAST, 0.9),
            ratios(read.rates(f"{million}, 64 clients"), read.rates(f"{FIRST}, 64 clients")),
            (million, FIRST),
        ),
        read.row(
            f"start to ready, {past} ÷ none",
            Goal(AT_MOST, 1.2),
            ratios(read.other(f"{READY}, {past}, s"), read.other(f"{READY}, {FIRST}, s")),
            (past, FIRST),
        ),
        read.row(
            f"memory of a bank with {million}",
            Goal(AT_MOST, 400),
            read.of(f"{million}, 64 clients", lambda turn: max(turn.resident.values(), default=None)),
            (million,),
            "MiB",
        ),
        read.row(
            "four banks ÷ two banks, throughput per core used",
            Goal(AT_LEAST, 0.8),
            ratios(*(_networks(read, n, 64) for n in (4, 2))),
            ("4 banks", "2 banks"),
        ),
    ]


def _also(read: _Reading, scale: Scale) -> list[Row]:
    """What has no goal of its own."""
    one, past = "two banks, 1 client", f"{scale.past:,} past transfers"
    signed = [
        count * each
        for count, each in zip(read.of(BASE, lambda turn: turn.requests), read.other(parts.SIGNATURES), strict=False)
    ]
    plain, audited = "not audited, 64 clients", "audited all the time, 64 clients"
    sizes = [FIRST, *(f"{accounts:,} accounts" for accounts in scale.large), past]
    found = [
        read.row(
            "four banks ÷ two banks, throughput per core used, 256 clients",
            None,
            ratios(*(_networks(read, n, 256) for n in (4, 2))),
            ("4 banks", "2 banks"),
        ),
        *(
            read.row(
                f"eight banks ÷ two banks, throughput per core used, {clients} clients",
                None,
                ratios(*(_networks(read, n, clients) for n in (8, 2))),
                ("8 banks", "2 banks"),
            )
            for clients in (64, 256)
        ),
        read.row(f"{past} ÷ none, throughput", None, _over(read, past), (past, FIRST)),
        read.row(
            f"memory of a bank with {past}",
            None,
            read.of(f"{past}, 64 clients", lambda turn: max(turn.resident.values(), default=None)),
            (past,),
            "MiB",
        ),
        *(read.row(f"start to ready, {size}", None, read.other(f"{READY}, {size}, s"), (size,), "s") for size in sizes),
        *(
            read.row(
                f"ready again after a kill under load, {size}", None, read.other(f"{RECOVERY}, {size}, s"), (size,), "s"
            )
            for size in sizes
        ),
        read.row("signatures, CPU per two-bank transfer, all banks", None, signed, (BASE, OWN), "µs"),
        read.row(
            "the same ÷ all CPU of the transfer",
            None,
            ratios(signed, read.of(BASE, _all_cpu)),
            (BASE, OWN),
        ),
        read.row(
            "throughput while audited ÷ not audited", None, ratios(read.rates(audited), read.rates(plain)), (audited,)
        ),
        read.row(
            "p99 while audited ÷ not audited",
            None,
            ratios(*(read.of(run, lambda turn: turn.p99) for run in (audited, plain))),
            (audited,),
        ),
        read.row(AUDIT_S.removesuffix(", s"), None, read.other(AUDIT_S), (audited,), "s"),
        read.row(
            "two-bank p50, one client ÷ the same with plain appends for flushes",
            None,
            ratios(read.of(one, lambda turn: turn.p50), _ideal(read, parts.APPEND)),
            (NOOP, one),
        ),
        *(
            read.row(name.rpartition(",")[0], None, read.other(name), (OWN,), name.rpartition(", ")[2])
            for name in (parts.FLUSH, parts.APPEND, parts.REQUEST)
        ),
        read.row(
            "load generator, CPU per request, against the no-op",
            None,
            read.of("no-op, 64 clients", lambda turn: turn.generator),
            (NOOP,),
            "µs",
        ),
    ]
    return [row for row in found if row.reached is not None]


def _best_batch(read: _Reading) -> str:
    """The batches that had the most transfers a second."""
    sizes = [
        f"batches of {size}, {clients} clients" for size, clients in (("10", 4), ("50", 4), ("200", 4), ("1,000", 2))
    ]
    had = {name: found.median for name in sizes if (found := figure(read.rates(name))) is not None}
    return max(had, key=had.__getitem__, default="")


def _over(read: _Reading, name: str) -> list[float]:
    return ratios(read.rates(f"{name}, 64 clients"), read.rates(f"{FIRST}, 64 clients"))


def _ideal(read: _Reading, flush: str) -> list[float]:
    """One no-op POST, two requests between banks and three flushes, turn by turn, milliseconds."""
    posts = read.of("no-op, 1 client", lambda turn: turn.p50)
    return [
        post + 2 * request + 3 * flushed
        for post, request, flushed in zip(posts, read.other(parts.REQUEST), read.other(flush), strict=False)
    ]


def _all_cpu(turn: Turn) -> float | None:
    return sum(turn.cpu.values()) or None


def _networks(read: _Reading, banks: int, clients: int) -> list[float]:
    """Throughput per core used where each of so many banks pays every other."""
    return read.of(f"network of {banks} banks, {clients} clients", _per_core)


def _per_core(turn: Turn) -> float | None:
    return turn.rate / turn.cores if turn.cores else None


# Shown --------------------------------------------------------------------------------------------------------------

GOALS_HEAD: Final = ("what", "to reach", "reached: median (least–greatest)", "")
RUNS_HEAD: Final = (
    *("run", "transfers/s", "p50 ms", "p95 ms", "p99 ms", "CPU µs/transfer: coordinator", "participant", "others"),
    *("flushes/transfer", "requests/transfer"),
)


def runs(results: Results) -> list[tuple[str, ...]]:
    """A line for each run: medians with their spread over the turns."""
    return [(name, *_cells(turns)) for name, turns in results.turns.items()]


def _cells(turns: Sequence[Turn]) -> list[str]:
    quantities: tuple[Callable[[Turn], float | None], ...] = (
        lambda turn: turn.rate,
        lambda turn: turn.p50,
        lambda turn: turn.p95,
        lambda turn: turn.p99,
        lambda turn: next(iter(turn.cpu.values()), None),
        lambda turn: turn.cpu.get("participant"),
        _others,
        lambda turn: turn.flushes,
        lambda turn: turn.requests,
    )
    found = [figure([v for v in map(quantity, turns) if v is not None]) for quantity in quantities]
    return [each.shown() if each else "–" for each in found]


def _others(turn: Turn) -> float | None:
    """The CPU of every process but the first, which clients speak to, and the participant."""
    return sum(used for role, used in list(turn.cpu.items())[1:] if role != "participant") or None


def busy(results: Results) -> str:
    """A warning where other processes took much of the machine meanwhile; empty where they did not."""
    taken = figure([turn.elsewhere for turns in results.turns.values() for turn in turns])
    if taken is None or taken.median <= MOST_ELSEWHERE * (os.cpu_count() or 1):
        return ""
    return (
        f"Other processes took {taken.shown()} of {os.cpu_count()} cores while this was measured: "
        "the figures are of what they left."
    )


def text(results: Results, scale: Scale) -> str:
    """Both tables for a terminal."""
    goals = [row.shown() for row in rows(results, scale)]
    return "\n".join(
        chain(
            _table(RUNS_HEAD, runs(results)),
            [""],
            _table(GOALS_HEAD, goals),
            filter(None, [busy(results)]),
            (f"\n{name}: WRONG MONEY, no figures: {why}" for name, why in results.wrong.items()),
            (f"\n{name}: no figures: {why}" for name, why in {**results.missing, **results.failed}.items()),
        )
    )


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> list[str]:
    """Columns that line up, the first to the left."""
    wide = [max(map(len, column)) for column in zip(head, *lines, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, wide, strict=True))
        ).rstrip()
        for line in (head, *lines)
    ]


MARKDOWN: Final = """# Benchmark

`distribank bench` on {machine}; {provenance}. Banks as they ship, each a process, on {disk}: every commit flushed,
every message between banks signed, every request with a token. Load comes from a process of its own, over loopback,
on the same cores: {clients}. {scale}. What is compared was measured in turns; a ratio is taken within each turn.
Figures are medians, with the least and the greatest turn in parentheses.

## What is to be reached

{goals}

## Every run

{runs}

{notes}
"""


def markdown(results: Results, scale: Scale, directory: Path, plot: str | None) -> str:
    """The whole report."""
    generator = figure([turn.generator for turns in results.turns.values() for turn in turns])
    notes = [
        *([f"![Throughput and latency of every run]({plot})"] if plot else []),
        *filter(None, [busy(results)]),
        *(f"* **{name}: the money was wrong, so there are no figures**: {why}" for name, why in results.wrong.items()),
        *(f"* {name}: no figures: {why}" for name, why in {**results.missing, **results.failed}.items()),
    ]
    if not results.wrong:
        notes.append("Behind every case the books of every subject were right, and what clients were told was posted.")
    return MARKDOWN.format(
        machine=machine(),
        provenance=provenance(),
        disk=filesystem(directory),
        clients=f"it takes {generator.shown()} µs of CPU for a request" if generator else "nothing was measured",
        scale=f"{scale.repeats} turns of {scale.seconds:g} s behind {scale.warm_up:g} s of warming up",
        goals=_markdown_table(GOALS_HEAD, [row.shown() for row in rows(results, scale)]),
        runs=_markdown_table(RUNS_HEAD, runs(results)),
        notes="\n".join(notes),
    )


def _markdown_table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *lines))


def document(results: Results, scale: Scale, directory: Path) -> dict[str, Any]:
    """Everything, for machines: each turn of each run, and the rows with their goals."""
    return {
        "machine": machine(),
        "provenance": provenance(),
        "disk": filesystem(directory),
        "scale": asdict(scale),
        "rows": [
            {
                "what": row.what,
                "goal": asdict(row.goal) if row.goal else None,
                "reached": row.reached.json() if row.reached else None,
                "unit": row.unit,
                "met": row.met,
                **({} if row.reached else {"why": row.why}),
            }
            for row in rows(results, scale)
        ],
        "runs": {name: [asdict(turn) for turn in turns] for name, turns in results.turns.items()},
        "others": results.others,
        "missing": results.missing,
        "failed": results.failed,
        "wrong": results.wrong,
    }


def machine() -> str:
    """Cores, processor, system, and how busy it was."""
    model = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return f"{os.cpu_count()} cores ({model}), {platform.system()} {platform.release()}, load {os.getloadavg()[0]:.1f}"


def provenance() -> str:
    today = datetime.now(UTC)
    return (
        f"distribank {__version__}, revision {revision()}, Python {platform.python_version()}, "
        f"{today.day} {today:%B %Y}"
    )


def filesystem(directory: Path) -> str:
    """What *directory* lies on, by its kind: a flush costs nothing on one in memory."""
    path, best = str(directory.resolve()), ("", "an unknown file system")
    try:
        for line in Path("/proc/self/mounts").read_text().splitlines():
            _device, place, kind, *_ = line.split()
            if f"{path}/".startswith(f"{place.rstrip('/')}/") and len(place) >= len(best[0]):
                best = place, kind
    except OSError:
        pass
    return best[1]
