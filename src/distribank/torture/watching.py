"""What is seen of a run while it goes on: one live line in a terminal; elsewhere a line now and then."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import nullcontext
from typing import Final

from rich.console import Console
from rich.status import Status

from distribank.torture.clients import Counts

LIVE_SECONDS: Final = 0.5
PLAIN_SECONDS: Final = 10.0


async def watch(
    console: Console, counts: Counts, now: Callable[[], float], doing: Callable[[], str], end: float
) -> None:
    """Show what is counted until cancelled; *now* and *end* are seconds of the run, *doing* the nemesis's words."""
    every = LIVE_SECONDS if console.is_terminal else PLAIN_SECONDS
    with Status("", console=console) if console.is_terminal else nullcontext() as live:
        before, since = 0, now()
        while True:
            await asyncio.sleep(every)
            rate = (counts.committed - before) / max(now() - since, 0.001)
            before, since = counts.committed, now()
            line = f"{now():6.0f} s of {end:.0f}  {line_of(counts)}, {rate:.0f}/s now"
            if live is not None:
                live.update(f"{line}  {doing() or 'all is well'}".replace("[", "("))
            else:
                console.print(f"  {line}", markup=False)


def line_of(counts: Counts) -> str:
    """The counts in one line."""
    reads = counts.reads
    return (
        f"{counts.committed:,} transfers, {counts.refused.total():,} refused, {counts.retries.total():,} asked again, "
        f"{reads['whole']:,} whole reads, {reads['with findings'] + reads['no answer']:,} not whole"
    )
