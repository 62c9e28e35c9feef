"""``in-doubt``: the operator's desk. What waits for an outcome at which bank, why, and what can be done about it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from distribank.cli.breaking import DEFAULT, DataDir

if TYPE_CHECKING:
    from distribank.network.doubts import Found
    from distribank.network.layout import LocalBank

app = typer.Typer(help="What is in doubt at the banks of a network: see it, ask again, force it.", no_args_is_help=True)

Bank = Annotated[str | None, typer.Option("--bank", help="One bank by code, number or name; all if not said.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Transaction = Annotated[str, typer.Argument(metavar="ID", help="The transfer's id, or the end of it.")]

_WARNING = """\
{name} ({code}) will {decision} its part of {transaction}
by itself, now, whatever the other banks do. If the coordinator has decided otherwise, money is made or lost between
the banks, and people have to settle that by hand: it is recorded as damage once the truth is known."""


@app.command("list")
def list_all(
    data_dir: DataDir = DEFAULT,
    bank: Bank = None,
    as_json: AsJson = False,
    forced: Annotated[bool, typer.Option("--forced", help="Outcomes that operators forced, instead.")] = False,
) -> None:
    """List what is in doubt, at every bank or at one."""
    import asyncio

    from distribank.network import doubts

    banks = _banks(data_dir, bank)
    found = asyncio.run((doubts.forced if forced else doubts.in_doubt)(banks))
    _show(found, as_json, _forced if forced else _line, "no outcome was forced" if forced else "nothing is in doubt")


@app.command()
def show(transaction: Transaction, data_dir: DataDir = DEFAULT, bank: Bank = None, as_json: AsJson = False) -> None:
    """Show one transaction at every bank where it is in doubt: accounts, amounts, who was asked and what they said."""
    import asyncio

    from distribank.network import doubts

    found = asyncio.run(doubts.in_doubt(_banks(data_dir, bank))).only(transaction)
    _show(found, as_json, _details, f"{transaction} is not in doubt")


@app.command()
def ask(transaction: Transaction, data_dir: DataDir = DEFAULT, bank: Bank = None, as_json: AsJson = False) -> None:
    """Have each bank that is in doubt ask the others for the outcome now, and say what it then knows."""
    import asyncio

    from distribank.network import doubts

    banks = {each.code: each for each in _banks(data_dir, bank)}
    found = asyncio.run(doubts.in_doubt(list(banks.values()))).only(transaction)
    for place, item in enumerate(found.items):
        found.items[place] = {**item, **asyncio.run(doubts.inquire(banks[item["bank"]], item["transaction"]))}
    _show(found, as_json, _details, f"{transaction} is not in doubt")


@app.command()
def resolve(
    transaction: Transaction,
    decision: Annotated[str, typer.Argument(metavar="commit|abort")],
    reason: Annotated[str, typer.Option("--reason", help="Why; it is recorded.")],
    data_dir: DataDir = DEFAULT,
    bank: Bank = None,
    as_json: AsJson = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask whether this is meant.")] = False,
) -> None:
    """Force an outcome at one bank, which breaks the promise that it gave with its vote. The last resort."""
    import asyncio
    import json

    from distribank.breakages import Breakage
    from distribank.network import doubts

    if decision not in ("commit", "abort"):
        raise typer.BadParameter(f"{decision!r} is neither commit nor abort", param_hint="commit|abort")
    banks = {each.code: each for each in _banks(data_dir, bank)}
    items = asyncio.run(doubts.in_doubt(list(banks.values()))).only(transaction).items
    if not items:
        raise Breakage(f"{transaction} is in doubt at no bank that answers")
    if len(items) > 1:
        where = ", ".join(f"{item['bank_name']} ({item['bank']})" for item in items)
        raise Breakage(f"an outcome is forced at one bank at a time: choose one with --bank; in doubt at {where}")
    [item] = items
    chosen, known = banks[item["bank"]], item["transaction"]
    if not yes:
        warning = _WARNING.format(name=chosen.name, code=chosen.code, decision=decision, transaction=known)
        typer.echo(warning, err=True)
        typer.confirm("Force it?", abort=True, err=True)
    record = asyncio.run(doubts.resolve(chosen, known, decision, reason))
    shown = {"bank": chosen.code, "bank_name": chosen.name, **record}
    typer.echo(json.dumps(shown, ensure_ascii=False, indent=2) if as_json else _forced(shown))


def _banks(data_dir: Any, bank: str | None) -> list[LocalBank]:
    from distribank.network.layout import find, load_some

    return load_some(data_dir) if bank is None else [find(data_dir, bank)]


def _show(found: Found, as_json: bool, line: Any, nothing: str) -> None:
    import json

    if as_json:
        typer.echo(json.dumps(found.as_json(), ensure_ascii=False, indent=2))
        return
    for item in found.items:
        typer.echo(line(item))
    if not found.items:
        typer.echo(nothing + (" at the banks that answer" if found.unanswered else ""))
    for bank, why in found.unanswered.items():
        typer.echo(f"no list from {bank}: {why}")


def _line(item: dict[str, Any]) -> str:
    return (
        f"{item['bank']}  {item['bank_name']:<12} {item['role']} since {item['since']}: {item['why']}\n"
        f"          {item['transaction']}"
    )


def _details(item: dict[str, Any]) -> str:
    accounts = "".join(
        f"\n          {leg['direction']} {leg['amount']} at {leg['bank']} {leg['account']}" for leg in item["accounts"]
    )
    asked = "".join(f"\n          {asked['bank']} was asked and said: {asked['said']}" for asked in item["asked"])
    return f"{_line(item)}{accounts}{asked}"


def _forced(item: dict[str, Any]) -> str:
    truth = f"the truth is {item['truth']}, since {item['truth_at']}" if item["truth"] else "the truth is not known yet"
    matched = {None: "", True: "; they agree", False: "; it was wrong"}[item["matched"]]
    return (
        f"{item['bank']}  {item['bank_name']:<12} forced to {item['decision']} at {item['decided_at']}: "
        f"{item['reason']}; {truth}{matched}\n          {item['transaction']}"
        f"{_damage(item['damage']) if item['damage'] else ''}"
    )


def _damage(damage: dict[str, Any]) -> str:
    """What a wrong guess was corrected by, account by account, to the centavo."""
    accounts = "".join(
        f"\n          {part['account']}: {part['direction']} of {part['wanted']} needed, "
        f"{part['corrected']} corrected, {part['to_suspense']} to suspense"
        for part in damage["accounts"]
    )
    position = damage["position"]
    return (
        f"{accounts}\n          position with {position['bank']}: {position['amount']}; suspense: {damage['suspense']}"
    )
