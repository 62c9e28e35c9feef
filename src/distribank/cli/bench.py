"""``bench``: what this machine reaches, beside what one would pick instead."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from distribank.cli.options import TRYING

app = typer.Typer()


@app.command(rich_help_panel=TRYING)
def bench(
    cases: Annotated[
        str | None, typer.Option("--cases", metavar="A,B", help="Only these; see --list. All if not said.")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Three minutes: one turn, short windows, no large ledgers.")
    ] = False,
    seconds: Annotated[
        float | None, typer.Option("--seconds", min=0.2, help="How long each run is measured in each turn; 5.")
    ] = None,
    repeats: Annotated[int | None, typer.Option("--repeats", min=1, help="How many turns; 5.")] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write every turn and every figure there.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE.png", help="Draw it; needs the extra bench (matplotlib).")
    ] = None,
    report: Annotated[Path | None, typer.Option("--report", metavar="FILE.md", help="Write the report there.")] = None,
    data_dir: Annotated[
        Path | None,
        typer.Option(
            "--data-dir",
            help="An empty or new directory on the disk to be measured; kept. A temporary one if not said.",
        ),
    ] = None,
    base_port: Annotated[
        int | None, typer.Option("--base-port", min=1, max=65_000, help="The first of some hundred ports.")
    ] = None,
    list_them: Annotated[bool, typer.Option("--list", help="Say which cases there are, and end.")] = False,
) -> None:
    """Measure real banks under load, in turns with what else one could have built; exit status 0 only if all money is
    right and every run of ours gave figures.
    """
    from distribank.benchmarks import bench as measuring

    if list_them:
        typer.echo(measuring.listed(quick=quick))
        return
    order = measuring.Order(
        cases=tuple(cases.split(",")) if cases else (),
        quick=quick,
        seconds=seconds,
        repeats=repeats,
        json_file=json_file,
        plot=plot,
        report=report,
        data_dir=data_dir,
        base_port=base_port,
    )
    raise typer.Exit(measuring.run(order))
