"""What ``distribank simulate`` shows: progress on the way, the sums, and the story of what failed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from distribank.network.terminal import console
from distribank.simulation.many import Record, Stopwatch, Sums, run_many, story, transcript, where

LINE_EVERY: Final = 10.0
"""Seconds between two lines of progress where there is no terminal."""


def show(seeds: range, jobs: int | None, record: Path | None, *, as_json: bool) -> int:
    """Run *seeds*, show what came of them, and return the exit status."""
    jobs = jobs or os.cpu_count() or 1
    out, watch, sums = console(stderr=True), Stopwatch(), Sums()
    kept = Record(record) if record is not None else None
    parts = kept.missing(seeds) if kept is not None else [seeds]
    with _Progress(out, sum(map(len, parts))) as progress:
        for part in parts:
            clock, own = Stopwatch(), Sums()
            for some in run_many(part, jobs):
                own.add(some)
                sums.add(some)
                progress.show(sums, watch.seconds)
            if kept is not None and (own.seeds == len(part) or own.failed):
                kept.append(part, own, clock.seconds)
            if sums.failed:
                break
    if kept is not None:
        sums = kept.total()
    never = sums.never()
    if as_json:
        result = {**sums.as_json(), "never": never, "wall": watch.seconds, "jobs": jobs, **where()}
        console().print(json.dumps(result, sort_keys=True), markup=False)
    else:
        _tell(sums, never, watch.seconds, jobs)
    for failing in sorted(int(each) for each in sums.failed)[:1]:
        out.print("\n" + story(failing), markup=False)
    return 1 if sums.failed or never else 0


def write_transcript(seed: int, file: Path) -> int:
    """Write everything that happens in *seed* to *file*; the exit status says whether it holds."""
    chronicle, failed = transcript(seed)
    lines = [*chronicle.lines()]
    at = where()
    lines.append(f"revision {at['revision']}, Python {at['python']}; fingerprint {chronicle.fingerprint()}")
    lines.append(
        f"seed {seed}: " + (f"{type(failed.why).__name__}: {failed.why}" if failed else "every invariant held")
    )
    file.write_text("\n".join(lines) + "\n")
    console().print(f"{file}: {len(lines)} lines. {lines[-1]}", markup=False)
    return 1 if failed else 0


def _tell(sums: Sums, never: list[str], wall: float, jobs: int) -> None:
    out = console()
    out.print(_figures(sums, wall) + f", {jobs} at a time")
    out.print("reached: " + ", ".join(f"{what} {count}" for what, count in sorted(sums.seen.items())), markup=False)
    if never:
        out.print("never reached: " + ", ".join(never), markup=False)
    if sums.failed:
        out.print(f"{len(sums.failed)} of {sums.seeds} seeds do not hold: {sorted(sums.failed)}")
    else:
        out.print(f"Every invariant held, for each of {sums.seeds} seeds.")


def _figures(sums: Sums, wall: float) -> str:
    cpu, wall = max(sums.cpu, 0.001), max(wall, 0.001)
    return (
        f"{sums.seeds} seeds, {sums.transfers} transfers, {sums.snapshots} snapshots; {sums.seeds / wall:.1f} seeds/s; "
        f"on one core {sums.transfers / cpu:.0f} transfers/s, {sums.virtual / cpu:.0f} times real time"
    )


class _Progress:
    """A bar where somebody watches, a line now and then where not."""

    def __init__(self, out: Console, seeds: int) -> None:
        self._out = out
        self._seeds = seeds
        self._next = LINE_EVERY
        columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
        self._bar = Progress(*columns, console=out, transient=True) if out.is_terminal else None

    def __enter__(self) -> _Progress:
        if self._bar is not None:
            self._bar.start()
            self._task = self._bar.add_task("seeds", total=self._seeds)
        return self

    def __exit__(self, *_error: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def show(self, sums: Sums, wall: float) -> None:
        """So much is done after *wall* seconds."""
        if self._bar is not None:
            self._bar.update(self._task, completed=sums.seeds, description=_figures(sums, wall))
        elif wall >= self._next:
            self._next = wall + LINE_EVERY
            self._out.print(f"  … {_figures(sums, wall)}")
