"""``distribank compose``: print, or write, the compose file of a network in containers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from distribank.cli.options import RUNNING
from distribank.network import MAX_BANKS

app = typer.Typer()


@app.command(rich_help_panel=RUNNING)
def compose(
    banks: Annotated[int, typer.Option("--banks", min=2, max=MAX_BANKS, help="The most banks that it can start.")] = 16,
    postgres: Annotated[
        bool, typer.Option("--postgres", help="Each bank on a PostgreSQL database, as two replicas behind one address.")
    ] = False,
    output: Annotated[Path | None, typer.Option("--output", help="A file to write it to; else it is printed.")] = None,
) -> None:
    """The compose file of a network: a container, a volume and a port for each bank."""
    from distribank.breakages import Misconfigured
    from distribank.network.composing import compose_file

    text = compose_file(banks, postgres)
    if output is None:
        typer.echo(text, nl=False)
        return
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise Misconfigured(f"cannot write {output}: {error.strerror}") from error
