"""One run of the command: which cases at what scale, one after the other; then the tables and the files asked for."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import uvloop

from distribank.benchmarks import cases as known
from distribank.benchmarks import plot, report
from distribank.benchmarks.cases import Case, Scale
from distribank.benchmarks.running import Results, Say, run_case
from distribank.benchmarks.subjects import Network
from distribank.breakages import Misconfigured
from distribank.network.terminal import cancel_on_signals, console

INTERRUPTED: Final = 130
IN_MEMORY: Final = ("tmpfs", "ramfs")


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be measured and where the results go; *cases* by name, all of them if none is."""

    cases: tuple[str, ...] = ()
    quick: bool = False
    seconds: float | None = None
    repeats: int | None = None
    json_file: Path | None = None
    plot: Path | None = None
    report: Path | None = None
    data_dir: Path | None = None
    base_port: int | None = None

    @property
    def scale(self) -> Scale:
        scale = known.QUICK if self.quick else Scale()
        return replace(scale, seconds=self.seconds or scale.seconds, repeats=self.repeats or scale.repeats)


def listed(*, quick: bool = False) -> str:
    """Every case in a line of words, with its runs."""
    return "\n".join(
        f"{case.name:<10}{case.words}\n" + "\n".join(f"{'':<12}{run.name}" for run in case.runs)
        for case in known.cases(known.QUICK if quick else Scale())
    )


def run(order: Order, chosen: Sequence[Case] | None = None) -> int:
    """Measure, tell, write what was asked for; 0 only if all money was right and every run of our own gave figures.

    *chosen* replaces the cases that *order* names.
    """
    screen = console(stderr=True)
    cases = _chosen(order) if chosen is None else chosen
    if order.plot is not None:
        plot.pyplot()  # missing is better said now than in an hour
    directory = _directory(order.data_dir)
    results, began = Results(), time.monotonic()

    def say(words: str) -> None:
        screen.print(f"  {time.monotonic() - began:6.0f} s  {words}", markup=False)

    if report.filesystem(directory) in IN_MEMORY:
        say(f"{directory} lies in memory, where a flush costs nothing: name a directory on a disk with --data-dir")
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_all(cases, order, directory, results, say))
        _write(order, results, directory)
    except asyncio.CancelledError:
        say("stopped; nothing was written")
        return INTERRUPTED
    finally:
        if order.data_dir is None:
            shutil.rmtree(directory, ignore_errors=True)
    print(report.text(results, order.scale))
    ours = {run.name for case in cases for run in case.runs if _is_ours(case, run.subject, order.scale)}
    return 1 if results.wrong or ours & results.failed.keys() else 0


def _is_ours(case: Case, subject: str, scale: Scale) -> bool:
    return any(one.name == subject and isinstance(one, Network) for one in case.subjects(scale))


def _chosen(order: Order) -> list[Case]:
    cases = known.cases(order.scale)
    unknown = sorted(set(order.cases) - {case.name for case in cases})
    if unknown:
        raise Misconfigured(f"there is no case {unknown[0]}: --list says which there are")
    return [case for case in cases if not order.cases or case.name in order.cases]


def _directory(wanted: Path | None) -> Path:
    if wanted is None:
        made = Path(tempfile.mkdtemp(prefix="distribank-bench-"))
        if report.filesystem(made) not in IN_MEMORY:
            return made
        made.rmdir()
        return Path(tempfile.mkdtemp(prefix=".distribank-bench-", dir=os.curdir)).absolute()
    if wanted.exists() and (not wanted.is_dir() or any(wanted.iterdir())):
        raise Misconfigured(f"{wanted} is not an empty directory: a measurement begins with new ledgers")
    wanted.mkdir(parents=True, exist_ok=True)
    return wanted


async def _all(cases: Sequence[Case], order: Order, directory: Path, results: Results, say: Say) -> None:
    cancel_on_signals()
    for number, case in enumerate(cases, 1):
        say(f"case {number} of {len(cases)}, {case.name}: {case.words}")
        await run_case(case, order.scale, directory, order.base_port, results, say)


def _write(order: Order, results: Results, directory: Path) -> None:
    if order.plot is not None:
        plot.draw(results, order.plot)
    if order.json_file is not None:
        document = report.document(results, order.scale, directory)
        order.json_file.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    if order.report is not None:
        picture = None
        if order.plot is not None:
            picture = os.path.relpath(order.plot, order.report.parent)
        told = report.markdown(results, order.scale, directory, picture)
        order.report.write_text(told, encoding="utf-8")
