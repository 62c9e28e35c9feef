"""``torture``: Jepsen's bank test on real processes."""

from __future__ import annotations

from dataclasses import replace
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
    proxies_only: Annotated[
        bool,
        typer.Option(
            "--proxies-only",
            help="Lose whole requests and answers, by proxies, and no packets; as happens by itself where network "
            "namespaces, ip or nft are missing.",
        ),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the result as JSON; the progress goes to stderr.")
    ] = False,
) -> None:
    """Break real banks at random while people pay, and check everything; exit status 0 only if nothing is wrong.

    On Linux, with ip and nft, packets between banks are dropped, too, in a network of its own; no root is needed.
    """
    from distribank.torture import packets
    from distribank.torture.running import Order, run

    order = Order(minutes, banks, data_dir=data_dir, base_port=base_port)
    if seed is not None:
        order = replace(order, seed=seed)
    if not proxies_only:
        order = replace(order, proxies_alone=packets.enter())
    raise typer.Exit(run(order, as_json=as_json))
