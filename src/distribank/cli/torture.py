"""``torture``: Jepsen's bank test on real processes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from distribank.cli.options import TRYING

app = typer.Typer()


@app.command(rich_help_panel=TRYING)
def torture(
    minutes: Annotated[float, typer.Option("--minutes", min=0.1, help="How long the nemesis rages.")],
    banks: Annotated[int, typer.Option("--banks", min=2, max=20, help="How many banks.")] = 5,
    seed: Annotated[
        int | None,
        typer.Option("--seed", help="What is drawn: faults and their order, who pays whom; random if not said."),
    ] = None,
    data_dir: Annotated[
        Path | None,
        typer.Option("--data-dir", help="Where everything goes and stays: an empty directory, or a new one."),
    ] = None,
    base_port: Annotated[
        int | None, typer.Option("--base-port", min=1, max=65_535, help="The first of two ports a bank.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the result as JSON; the progress goes to stderr.")
    ] = False,
) -> None:
    """Break real banks at random while people pay, and check everything; exit status 0 only if nothing is wrong."""
    from distribank.torture.running import Order, run

    order = Order(minutes, banks, data_dir=data_dir, base_port=base_port)
    if seed is not None:
        order = Order(minutes, banks, seed, data_dir, base_port)
    raise typer.Exit(run(order, as_json=as_json))
