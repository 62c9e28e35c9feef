"""``freeze``, ``thaw``, ``kill`` and ``start``: what may happen to one bank of a running ``distribank up``."""

from __future__ import annotations

from typing import Annotated

import typer

from distribank.cli.options import BREAKING, DEFAULT, DataDir

Bank = Annotated[str, typer.Argument(metavar="BANK", help="Its code (99990002), its number (2) or its name.")]

app = typer.Typer()


@app.command(rich_help_panel=BREAKING)
def freeze(bank: Bank, data_dir: DataDir = DEFAULT) -> None:
    """Freeze a bank (SIGSTOP): it neither answers nor ends, as though its machine hung."""
    from distribank.network import breaking
    from distribank.network.layout import find
    from distribank.network.pasting import bank_command

    found = find(data_dir, bank)
    pid = breaking.freeze(found)
    typer.echo(f"{found.name} ({found.code}, pid {pid}) is frozen: it keeps what it holds and answers nobody.")
    typer.echo(f"Let it go on with:  {bank_command('thaw', bank, data_dir)}")


@app.command(rich_help_panel=BREAKING)
def thaw(bank: Bank, data_dir: DataDir = DEFAULT) -> None:
    """Let a frozen bank go on where it stood (SIGCONT)."""
    from distribank.network import breaking
    from distribank.network.layout import find

    found = find(data_dir, bank)
    pid = breaking.thaw(found)
    typer.echo(f"{found.name} ({found.code}, pid {pid}) goes on where it was frozen.")


@app.command(rich_help_panel=BREAKING)
def kill(bank: Bank, data_dir: DataDir = DEFAULT) -> None:
    """Kill a bank (SIGKILL): it ends without warning. What it has promised is on its disk."""
    from distribank.network import breaking
    from distribank.network.layout import find
    from distribank.network.pasting import bank_command

    found = find(data_dir, bank)
    pid = breaking.kill(found)
    typer.echo(f"{found.name} ({found.code}, pid {pid}) is dead; what it had promised is in {found.directory}.")
    typer.echo(f"Start it again with:  {bank_command('start', bank, data_dir)}")


@app.command(rich_help_panel=BREAKING)
def start(bank: Bank, data_dir: DataDir = DEFAULT) -> None:
    """Start again a bank that has ended. The running `distribank up` does it, and looks after the bank."""
    from distribank.network import breaking
    from distribank.network.layout import find

    found = find(data_dir, bank)
    pid = breaking.start(data_dir, found)
    typer.echo(f"{found.name} ({found.code}, pid {pid}) is ready again at {found.url}/docs")
