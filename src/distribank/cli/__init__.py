"""The command ``distribank``: what is typed, and what is said back.

A breakage is one clear line on stderr and exit status 1; a mistyped command is exit status 2. Everything heavy
(FastAPI, the store, cryptography) is imported by the subcommand that needs it, so that ``--help`` is quick.

This module has the commands that run banks. All others have modules of their own, one for each purpose: the ``typer``
commands and the words of their answers. What they do is in the module of ``network`` that bears the same name.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from distribank import __version__
from distribank.breakages import Breakage
from distribank.cli import auditing, bench, breaking, composing, desk, moving, restoring, simulating, torture, transfers
from distribank.cli import people as people_of_a_network
from distribank.cli.options import DEFAULT, RUNNING, TRYING
from distribank.network import MAX_BANKS

app = typer.Typer(
    help="A payment network with no centre: banks that move money atomically by two-phase commit.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
network = typer.Typer(help="The files of a network of banks.", no_args_is_help=True)
app.add_typer(network, name="network", rich_help_panel=RUNNING)

Banks = Annotated[int, typer.Option("--banks", min=1, max=MAX_BANKS, help="How many banks.")]
BasePort = Annotated[
    int | None,
    typer.Option(
        "--base-port", min=1, max=65_535, help="The first bank's port, 8001 if not said; the others take the next ones."
    ),
]


def main() -> None:
    """The command's entry; always ends in ``SystemExit`` with the command's status."""
    try:
        app()
    except Breakage as breakage:
        sys.exit(f"distribank: {breakage}")


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Say the version and exit.", is_eager=True)] = False,
) -> None:
    if version:
        typer.echo(f"distribank {__version__}")
        raise typer.Exit


@network.command("init")
def network_init(
    banks: Banks,
    data_dir: Annotated[
        Path, typer.Option("--data-dir", envvar="DISTRIBANK_DATA_DIR", help="Where the files go; may exist.")
    ],
    base_port: BasePort = None,
    listen: Annotated[
        str | None, typer.Option("--listen", metavar="HOST", help="Where new banks listen; 127.0.0.1 if not said.")
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(
            "--address",
            metavar="URL",
            help="Where others reach a new bank, such as http://bank-{number:03}:{port}; http://127.0.0.1:{port} "
            "if not said.",
        ),
    ] = None,
    database: Annotated[
        str | None,
        typer.Option(
            "--database",
            metavar="URL",
            help="On what a new bank stands, such as postgresql://bank:{password}@db-{number:03}/bank, with a password "
            "made for each; sqlite:///bank.db if not said.",
        ),
    ] = None,
    database_password_file: Annotated[
        str,
        typer.Option(
            "--database-password-file",
            metavar="FILE",
            help="Where the database's server is to find that password, such as /databases/{code}/password.",
        ),
    ] = "",
) -> None:
    """Write the network file, and per bank its settings, secrets and key. Banks that exist are kept as they are."""
    from distribank.network.layout import ADDRESS, HOST, Database, Place, init, load
    from distribank.network.pasting import own_command

    before = load(data_dir)
    on = None if database is None else Database(database, database_password_file)
    made = init(data_dir, banks, base_port, Place(listen or HOST, address or ADDRESS), on)
    for bank in made:
        typer.echo(f"{bank.code}  {bank.name:<12}  {bank.url}  {bank.env_file}")
    if 0 < len(before) < len(made):
        typer.echo("\nThe network has grown: banks that run already hear of it once they are started again.")
    if address:  # they are to run elsewhere, by whatever made that address
        return
    typer.echo(f"\nStart one with:  {own_command('serve', '--env-file', str(made[0].env_file))}")
    typer.echo(f"or all with:     {own_command('up', '--banks', str(len(made)), '--data-dir', str(data_dir))}")


@app.command(rich_help_panel=TRYING)
def up(
    banks: Banks = 4,
    data_dir: Annotated[
        Path, typer.Option("--data-dir", envvar="DISTRIBANK_DATA_DIR", help="Made if need be, and kept.")
    ] = DEFAULT,
    base_port: BasePort = None,
    vote_deadline: Annotated[
        float | None,
        typer.Option(
            "--vote-deadline", min=1, max=120, help="Seconds that coordinators wait for votes; 2 if not said."
        ),
    ] = None,
    people: Annotated[
        bool,
        typer.Option("--people", envvar="DISTRIBANK_PEOPLE", help="Bring people, and print a transfer to paste."),
    ] = False,
) -> None:
    """Run a network of banks on this machine until Ctrl-C; their data is kept."""
    from distribank.network.up import up as run_all

    raise typer.Exit(run_all(data_dir, banks, base_port, vote_deadline, people))


@app.command(rich_help_panel=TRYING)
def demo(
    data_dir: Annotated[
        Path | None, typer.Option("--data-dir", help="Keep the banks' data here, a new directory; else it is deleted.")
    ] = None,
    base_port: BasePort = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the claims as JSON; the story goes to stderr.")
    ] = False,
) -> None:
    """Tell the whole story on four real banks, checking every claim; exit status 0 only if all of them held."""
    from distribank.demo import run

    raise typer.Exit(run(data_dir, base_port, as_json))


@app.command(rich_help_panel=RUNNING)
def serve(
    env_file: Annotated[Path, typer.Option("--env-file", help="The bank's settings: DIR/<code>/bank.env.")],
    until_stdin_closes: Annotated[bool, typer.Option("--until-stdin-closes", hidden=True)] = False,
) -> None:
    """Serve one bank in the foreground, until SIGTERM or Ctrl-C."""
    from distribank.config import Settings
    from distribank.network.processes import stop_when_stdin_closes
    from distribank.service import run

    settings = Settings.load(env_file)
    if until_stdin_closes:
        stop_when_stdin_closes()
    raise typer.Exit(run(settings))


for tools in (
    people_of_a_network.app,
    transfers.app,
    breaking.app,
    auditing.app,
    restoring.app,
    composing.app,
    moving.app,
    simulating.app,
    torture.app,
    bench.app,
):
    app.add_typer(tools)
app.add_typer(desk.app, name="in-doubt", rich_help_panel=RUNNING)
app.add_typer(restoring.desk, name="restoration", rich_help_panel=RUNNING)
