"""``backup``, ``restore`` and ``restoration``: a copy of a running bank, its return to service, and what is then left
to people."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from distribank.cli.options import DEFAULT, RUNNING, DataDir

if TYPE_CHECKING:
    from collections.abc import Iterator

    from distribank.store.backup import Report

app = typer.Typer()
desk = typer.Typer(
    help="What a restore from a backup left to be done: who has told what is missing, and what people have to settle.",
    invoke_without_command=True,
)

EnvFile = Annotated[Path, typer.Option("--env-file", help="The bank's settings: DIR/<code>/bank.env.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON; progress goes to stderr.")]
Bank = Annotated[str | None, typer.Option("--bank", help="One bank by code, number or name; all if not said.")]

_MEANT = """\
{name} ({code}) will post its part of {transfer}
as its participants have committed it: {what}; {rest}
in suspense. It is not taken back but by other entries."""


@app.command(rich_help_panel=RUNNING)
def backup(
    env_file: EnvFile,
    to: Annotated[Path, typer.Option("--to", metavar="FILE", help="A file that is not there yet.")],
    as_json: AsJson = False,
) -> None:
    """Copy a bank's database to a file while it runs, at one moment, and read that file again to be sure of it."""
    import json

    from distribank.core.money import format_amount
    from distribank.moments import format_ms
    from distribank.network.pasting import own_command
    from distribank.network.restoring import take

    with _progress() as report:
        made = take(env_file, to, report)
    again = own_command("restore", "--env-file", str(env_file), "--from", str(made.path))
    sums = {"customers": made.customers, **made.books}
    shown = {
        "bank": made.bank,
        "file": str(made.path),
        "taken_at": format_ms(made.taken_at),
        "stamp": str(made.stamp),
        "incarnation": made.incarnation,
        "bytes": made.size,
        "entries": made.entries,
        "holds": made.holds,
        "sums": {name: format_amount(amount) for name, amount in sums.items()},
        "findings": made.findings,
        "restore": again,
    }
    if as_json:
        typer.echo(json.dumps(shown, ensure_ascii=False, indent=2))
    else:
        typer.echo(_taken(shown))
    raise typer.Exit(1 if made.findings else 0)


@app.command(rich_help_panel=RUNNING)
def restore(
    env_file: EnvFile,
    source: Annotated[Path, typer.Option("--from", metavar="FILE", help="What `distribank backup` wrote.")],
    without: Annotated[
        list[str] | None,
        typer.Option(
            "--without",
            metavar="CODE",
            help="A bank whose answer is not waited for; it is asked again once it is back. As often as needed.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Put a backup into service, the bank being stopped: a new incarnation, which asks its peers what it has lost."""
    import json

    from distribank.moments import format_ms
    from distribank.network.pasting import own_command
    from distribank.network.restoring import put_back

    with _progress() as report:
        done = put_back(env_file, source, without or [], report)
    row = done.restoration
    shown = {
        "file": str(done.path),
        "set_aside": None if done.aside is None else str(done.aside),
        "incarnation": row.incarnation,
        "backup_at": format_ms(row.taken_at),
        "backup_stamp": str(row.stamp),
        "restored_at": format_ms(row.restored_at),
        "without": list(row.without),
        "serve": own_command("serve", "--env-file", str(env_file)),
    }
    typer.echo(json.dumps(shown, ensure_ascii=False, indent=2) if as_json else _restored(shown))


@desk.callback()
def restoration(
    context: typer.Context, data_dir: DataDir = DEFAULT, bank: Bank = None, as_json: AsJson = False
) -> None:
    """List what a restore left to be done, at every bank or at one."""
    import asyncio

    from distribank.cli.desk import banks_of, show_all
    from distribank.network.restoring import found

    if context.invoked_subcommand is None:
        show_all(asyncio.run(found(banks_of(data_dir, bank))), as_json, _listed, "no bank was restored from a backup")


@desk.command()
def settle(
    transfer: Annotated[str, typer.Argument(metavar="ID", help="The transfer's id, or the end of it.")],
    reason: Annotated[str, typer.Option("--reason", help="Why; it is recorded.")],
    debit: Annotated[
        list[str] | None,
        typer.Option("--debit", metavar="ACCOUNT=AMOUNT", help="An account here that had paid; as often as needed."),
    ] = None,
    credit: Annotated[
        list[str] | None,
        typer.Option("--credit", metavar="ACCOUNT=AMOUNT", help="An account here that had received."),
    ] = None,
    data_dir: DataDir = DEFAULT,
    bank: Bank = None,
    as_json: AsJson = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask whether this is meant.")] = False,
) -> None:
    """Post what a bank had decided and lost, as a participant has committed it. What no account is named for goes to
    suspense, from where `in-doubt assign` moves it on."""
    import asyncio
    import json

    from distribank.breakages import Breakage
    from distribank.cli.desk import banks_of
    from distribank.network import restoring

    banks = {each.code: each for each in banks_of(data_dir, bank)}
    seen = asyncio.run(restoring.found(list(banks.values())))
    there = [(each["bank"], item) for each in seen.items for item in each["items"]]
    named = [(code, item) for code, item in there if item["transfer_id"].endswith(transfer)]
    if len(named) != 1:
        raise Breakage(f"{transfer} names {len(named)} of the {len(there)} transfers that were lost")
    [(code, item)] = named
    chosen = banks[code]
    legs = [_leg("debit", text) for text in debit or []] + [_leg("credit", text) for text in credit or []]
    if not yes:
        what = ", ".join(f"{leg['direction']} {leg['amount']} at {leg['account']}" for leg in legs) or "no account here"
        rest = "the rest" if legs else "all of its own part"
        where = item["transfer_id"]
        typer.echo(_MEANT.format(name=chosen.name, code=code, transfer=where, what=what, rest=rest), err=True)
        typer.confirm("Settle it?", abort=True, err=True)
    settled = asyncio.run(restoring.settle(chosen, item["transfer_id"], reason, legs))
    told = {"bank": code, "bank_name": chosen.name, **settled}
    typer.echo(json.dumps(told, ensure_ascii=False, indent=2) if as_json else f"{code}  {chosen.name}{_lost(settled)}")


def _leg(direction: str, text: str) -> dict[str, str]:
    account, equals, amount = text.partition("=")
    if not equals:
        raise typer.BadParameter(f"{text!r} is not ACCOUNT=AMOUNT, as in 00000012-4=3.00", param_hint=f"--{direction}")
    return {"account": account, "direction": direction, "amount": amount}


def _progress() -> Any:
    """Show on stderr what is being done, and how far it has come."""
    from contextlib import contextmanager

    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    from distribank.network.terminal import console

    @contextmanager
    def shown() -> Iterator[Report]:
        screen = console(stderr=True)
        if not screen.is_terminal:
            said: list[str] = []

            def say(what: str, _share: float | None) -> None:
                if what not in said:
                    said.append(what)
                    screen.print(f"  … {what}")

            yield say
            return
        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
        with Progress(*columns, console=screen, transient=True) as progress:
            task = progress.add_task("", total=None)

            def show(what: str, share: float | None) -> None:
                progress.update(task, description=what, total=None if share is None else 1.0, completed=share or 0.0)

            yield show

    return shown()


def _taken(shown: dict[str, Any]) -> str:
    sums = "\n".join(f"  {name:<20} {amount:>18}" for name, amount in shown["sums"].items())
    found = "".join(f"\n  WRONG: {finding}" for finding in shown["findings"])
    return (
        f"{shown['file']}: bank {shown['bank']} as it was at {shown['taken_at']}, up to stamp {shown['stamp']}\n"
        f"  read again and whole: {shown['bytes']} bytes, {shown['entries']} entries, {shown['holds']} holds\n"
        f"{sums}{found}\n\nTo put it back, the bank being stopped:\n  {shown['restore']}"
    )


def _restored(shown: dict[str, Any]) -> str:
    aside = f"\n  the database before it is now {shown['set_aside']}" if shown["set_aside"] else ""
    without = f"\n  without waiting for {', '.join(shown['without'])}" if shown["without"] else ""
    return (
        f"{shown['file']} is the backup of {shown['backup_at']}, under the incarnation {shown['incarnation']}{aside}"
        f"{without}\n\nWhat happened from then until {shown['restored_at']} is missing. The bank asks its peers for it "
        f"before it serves:\n  {shown['serve']}\nand `distribank restoration` then lists what is left to settle."
    )


def _listed(found: dict[str, Any]) -> str:
    peers = "".join(
        f"\n          {peer['bank']} {peer['status']}"
        + (f" at {peer['at']}: {peer['resupplied']} of its transfers posted here anew" if peer["at"] else "")
        for peer in found["peers"]
    )
    lost = "".join(_lost(item) for item in found["items"]) or "\n          nothing that this bank coordinated was lost"
    return (
        f"{found['bank']}  {found['bank_name']:<12} restored at {found['restored_at']} from a backup of "
        f"{found['backup_at']}{peers}{lost}"
    )


def _lost(item: dict[str, Any]) -> str:
    parts = "".join(
        f"\n              {part['bank']} {part['state']}: {part['flow']} owed to it"
        + "".join(f"; {leg['direction']} {leg['amount']} at {leg['account']}" for leg in part["legs"])
        for part in item["participants"]
    )
    settled = item["settled"]
    done = ""
    if settled:
        done = f"\n              settled at {settled['at']}: {settled['reason']}; {settled['suspense']} to suspense"
    by = f" by {item['ordered_by']}" if item["ordered_by"] else ""
    return (
        f"\n          {item['transfer_id']}\n              {item['outcome']}, ordered at {item['ordered_at']}{by}"
        f"{parts}{done}\n              next: {item['next']}"
    )
