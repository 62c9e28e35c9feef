"""``people``: somebody to try a running network out with, wherever its banks run; the network file is all it reads."""

from __future__ import annotations

from typing import Annotated

import typer

from distribank.cli.options import DEFAULT, TRYING, DataDir
from distribank.network import MAX_BANKS

app = typer.Typer()


@app.command(rich_help_panel=TRYING)
def people(
    data_dir: DataDir = DEFAULT,
    show_as: Annotated[
        str | None,
        typer.Option(
            "--show-as",
            envvar="DISTRIBANK_SHOW_AS",
            metavar="URL",
            help="How banks' addresses are printed, as in http://localhost:{port} ({code} and {number} work, too).",
            show_default="as in the network file",
        ),
    ] = None,
    wait: Annotated[float, typer.Option("--wait", min=0, max=3600, help="Seconds until the banks must be ready.")] = 60,
    banks: Annotated[
        int | None,
        typer.Option("--banks", min=2, max=MAX_BANKS, help="Only the first so many take part; all if not said."),
    ] = None,
) -> None:
    """Bring Maria, João, Ana and a company to a running network, with money; print a transfer to paste."""
    import asyncio
    import os

    from distribank.network.people import password_given, seed

    given = password_given(dict(os.environ))
    asyncio.run(seed(data_dir, _say, password=given, show_as=show_as, wait=wait, banks=banks))


def _say(text: str) -> None:
    print(text, flush=True)  # at once: a password must have been read before anything depends on it
