"""Commands that follow a transfer: ``trace``, where it stands at every bank, and ``transfer``, which orders one."""

from __future__ import annotations

import os
import sys
from typing import Annotated, Final

import typer

from distribank.breakages import Misconfigured
from distribank.cli.options import DEFAULT, TRYING, DataDir

app = typer.Typer()

Legs = list[str]
LEG: Final = "[BANK/]ACCOUNT=AMOUNT"


@app.command(rich_help_panel=TRYING)
def trace(
    transfer_id: Annotated[str, typer.Argument(metavar="ID", help="The transfer's id.")],
    data_dir: DataDir = DEFAULT,
    as_json: Annotated[bool, typer.Option("--json", help="Print what the bank answers.")] = False,
    as_mermaid: Annotated[bool, typer.Option("--mermaid", help="Print a Mermaid sequence diagram.")] = False,
) -> None:
    """Say where a transfer stands: every bank's log of it, in the order of their clocks, in words."""
    import asyncio

    from distribank.network.transfers import trace as show

    if as_json and as_mermaid:
        raise typer.BadParameter("choose one of --json and --mermaid")
    media_type = "application/json" if as_json else "text/vnd.mermaid" if as_mermaid else "text/plain"
    asyncio.run(show(transfer_id, data_dir, media_type))


@app.command(rich_help_panel=TRYING)
def transfer(
    at: Annotated[str, typer.Option("--at", metavar="BANK", help="The bank at which it is ordered.")],
    cpf: Annotated[str, typer.Option("--cpf", help="The CPF of whoever orders it.")],
    debit: Annotated[Legs, typer.Option("--debit", metavar=LEG, help="Out of this account; may be repeated.")],
    credit: Annotated[Legs, typer.Option("--credit", metavar=LEG, help="Into this account; may be repeated.")],
    description: Annotated[str | None, typer.Option("--description", help="What all parties will read.")] = None,
    password_stdin: Annotated[
        bool, typer.Option("--password-stdin", help="Read the password from standard input.")
    ] = False,
    data_dir: DataDir = DEFAULT,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the transfer as JSON; its phases go to stderr.")
    ] = False,
) -> None:
    """Order a transfer and show its phases as they happen; exit status 0 only if it is committed.

    A BANK is named by its code, its number or its name; a leg without one is at the bank of --at.

    Money at other banks is debited with a consent given there.

    The password comes from standard input, from DISTRIBANK_PASSWORD, or is asked for.
    """
    import asyncio

    from distribank.network.layout import find
    from distribank.network.transfers import read_leg
    from distribank.network.transfers import transfer as order

    try:
        debits, credits_ = ([read_leg(text, data_dir, at) for text in side] for side in (debit, credit))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    password = _password(from_stdin=password_stdin)
    bank = find(data_dir, at)
    raise typer.Exit(asyncio.run(order(bank, cpf, password, debits, credits_, description, as_json)))


def _password(*, from_stdin: bool) -> str:
    """The password; never an argument, which every process of the machine could read."""
    if from_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    if "DISTRIBANK_PASSWORD" in os.environ:
        return os.environ["DISTRIBANK_PASSWORD"]
    if not sys.stdin.isatty():
        raise Misconfigured("give the password with --password-stdin or in DISTRIBANK_PASSWORD")
    password: str = typer.prompt("Password", hide_input=True, err=True)
    return password
