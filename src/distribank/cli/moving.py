"""``distribank migrate-store``: move a bank that has outgrown its database to another one."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from distribank.cli.options import RUNNING

app = typer.Typer()


@app.command("migrate-store", rich_help_panel=RUNNING)
def migrate_store(
    env_file: Annotated[Path, typer.Option("--env-file", help="The bank's settings: DIR/<code>/bank.env.")],
    to: Annotated[
        str,
        typer.Option(
            "--to",
            envvar="DISTRIBANK_MIGRATE_TO",
            help="The empty database that it moves to, such as postgresql://user:password@host/name; in the "
            "environment, where others cannot see a password.",
        ),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print what was moved as JSON.")] = False,
) -> None:
    """Move a bank that is stopped to another database, and check that both add up to the same."""
    from distribank.core.money import format_amount
    from distribank.network.moving import move
    from distribank.network.pasting import own_command

    def told(table: str, done: int) -> None:
        if sys.stderr.isatty():
            typer.echo(f"\r{done:>12,} rows, now of {table:<20}", nl=False, err=True)

    moved = move(env_file, to, told)
    if sys.stderr.isatty():
        typer.echo("", err=True)
    counted = moved.counted
    if as_json:
        said = {
            "bank": moved.bank,
            "customers": format_amount(counted.customers),
            "entries": counted.entries,
            "holds": counted.holds,
            "unfinished": len(counted.unfinished),
            "findings": counted.findings,
            "former_database": moved.former,
        }
        typer.echo(json.dumps(said, indent=2))
        return
    typer.echo(
        f"Bank {moved.bank} has moved: {counted.entries:,} entries, R$ {format_amount(counted.customers)} of "
        f"customers, {counted.holds} holds and {len(counted.unfinished)} unfinished transactions, the same on both "
        "sides."
    )
    typer.echo(f"The former database, {moved.former}, is kept as it was; no bank starts on it any more.")
    typer.echo(f"\nStart it with:  {own_command('serve', '--env-file', str(env_file))}")
