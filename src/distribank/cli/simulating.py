"""``simulate``: real banks in virtual time, under faults that seeds draw."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from distribank.cli.options import TRYING

app = typer.Typer()


@app.command(rich_help_panel=TRYING)
def simulate(
    seeds: Annotated[int | None, typer.Option("--seeds", min=1, help="How many seeds; 100 if none is named.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="The first seed; alone, the only one.")] = None,
    jobs: Annotated[int | None, typer.Option("--jobs", min=1, help="Processes; as many as cores if not said.")] = None,
    transcript: Annotated[
        Path | None,
        typer.Option("--transcript", metavar="FILE", help="Write down all that happens in one seed."),
    ] = None,
    record: Annotated[
        Path | None,
        typer.Option("--record", metavar="FILE", help="Append what came of each thousand; skip those in it."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Simulate networks of banks under crashes, lost messages, failing disks and wrong clocks; check that all holds.

    Each seed is one network, its faults and its clients, repeated exactly by its number. Exit status 0 only if every
    invariant held for every seed, and a thousand seeds or more met everything that they should.
    """
    from distribank.simulation import showing

    first = seed or 0
    count = seeds or (100 if seed is None else 1)
    if transcript is not None:
        if count != 1:
            raise typer.BadParameter("a transcript tells of one seed: name it with --seed", param_hint="--transcript")
        raise typer.Exit(showing.write_transcript(first, transcript))
    raise typer.Exit(showing.show(range(first, first + count), jobs, record, as_json=as_json))
