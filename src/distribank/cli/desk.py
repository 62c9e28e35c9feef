"""``in-doubt``: the operator's desk. What waits for an outcome at which bank, why, what can be done about it, and what
wrong guesses have left to be settled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from distribank.cli.options import DEFAULT, DataDir

if TYPE_CHECKING:
    from distribank.network.desk import Found
    from distribank.network.layout import LocalBank

app = typer.Typer(
    help="What is in doubt at the banks of a network: see it, ask again, force it, settle what a guess cost.",
    no_args_is_help=True,
)

Bank = Annotated[str | None, typer.Option("--bank", help="One bank by code, number or name; all if not said.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Transaction = Annotated[str, typer.Argument(metavar="ID", help="The transfer's id, or the end of it.")]

_WARNING = """\
{name} ({code}) will {decision} its part of {transaction}
by itself, now, whatever the other banks do. If the coordinator has decided otherwise, money is made or lost between
the banks, and people have to settle that by hand: it is recorded as damage once the truth is known."""


_MEANT = """\
{name} ({code}) will {what}, out of {left} that are in suspense on that side.
Nobody else approves it, and it is not taken back but by other entries: the account's holders see it, and auditors read
the reason."""


@app.command("list")
def list_all(
    data_dir: DataDir = DEFAULT,
    bank: Bank = None,
    as_json: AsJson = False,
    forced: Annotated[bool, typer.Option("--forced", help="Outcomes that operators forced, instead.")] = False,
) -> None:
    """List what is in doubt, at every bank or at one."""
    import asyncio

    from distribank.network import desk

    banks = banks_of(data_dir, bank)
    found = asyncio.run((desk.forced if forced else desk.in_doubt)(banks))
    show_all(found, as_json, _forced if forced else _line, "no outcome was forced" if forced else "nothing is in doubt")


@app.command()
def show(transaction: Transaction, data_dir: DataDir = DEFAULT, bank: Bank = None, as_json: AsJson = False) -> None:
    """Show one transaction at every bank where it is in doubt: accounts, amounts, who was asked and what they said."""
    import asyncio

    from distribank.network import desk

    found = asyncio.run(desk.in_doubt(banks_of(data_dir, bank))).only(transaction)
    show_all(found, as_json, _details, f"{transaction} is not in doubt")


@app.command()
def ask(transaction: Transaction, data_dir: DataDir = DEFAULT, bank: Bank = None, as_json: AsJson = False) -> None:
    """Have each bank that is in doubt ask the others for the outcome now, and say what it then knows."""
    import asyncio

    from distribank.network import desk

    banks = {each.code: each for each in banks_of(data_dir, bank)}
    found = asyncio.run(desk.in_doubt(list(banks.values()))).only(transaction)
    for place, item in enumerate(found.items):
        found.items[place] = {**item, **asyncio.run(desk.inquire(banks[item["bank"]], item["transaction"]))}
    show_all(found, as_json, _details, f"{transaction} is not in doubt")


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
    from distribank.network import desk

    if decision not in ("commit", "abort"):
        raise typer.BadParameter(f"{decision!r} is neither commit nor abort", param_hint="commit|abort")
    banks = {each.code: each for each in banks_of(data_dir, bank)}
    items = asyncio.run(desk.in_doubt(list(banks.values()))).only(transaction).items
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
    record = asyncio.run(desk.resolve(chosen, known, decision, reason))
    shown = {"bank": chosen.code, "bank_name": chosen.name, **record}
    typer.echo(json.dumps(shown, ensure_ascii=False, indent=2) if as_json else _forced(shown))


@app.command()
def suspense(data_dir: DataDir = DEFAULT, bank: Bank = None, as_json: AsJson = False) -> None:
    """Show what wrong guesses have left in suspense, who wanted it, and to whom it was assigned and why."""
    import asyncio

    from distribank.network import desk

    found = asyncio.run(desk.suspense(banks_of(data_dir, bank)))
    show_all(found, as_json, _suspense, "nothing was ever in suspense")


@app.command()
def assign(
    direction: Annotated[str, typer.Argument(metavar="credit|debit")],
    amount: Annotated[str, typer.Argument(metavar="AMOUNT", help="In BRL, such as 3.00.")],
    reason: Annotated[str, typer.Option("--reason", help="Why; it is recorded.")],
    account: Annotated[
        str | None, typer.Option("--account", help="An account of that bank: given what is owed, or paying it.")
    ] = None,
    write_off: Annotated[
        bool, typer.Option("--write-off", help="The bank's own cash instead: it pays what is given up, or keeps it.")
    ] = False,
    transaction: Annotated[
        str | None,
        typer.Option("--transaction", metavar="ID", help="What had left it there; the end of the id will do."),
    ] = None,
    key: Annotated[
        str | None, typer.Option("--key", help="What was ordered under this key before is not done again.")
    ] = None,
    data_dir: DataDir = DEFAULT,
    bank: Bank = None,
    as_json: AsJson = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask whether this is meant.")] = False,
) -> None:
    """Assign what is in suspense at one bank: to an account there, or to the bank's own cash."""
    import asyncio
    import json
    import uuid

    from distribank.breakages import Breakage
    from distribank.network import desk

    side = {"credit": "owing", "debit": "owed"}.get(direction)
    if side is None:
        raise typer.BadParameter(f"{direction!r} is neither credit nor debit", param_hint="credit|debit")
    if (account is None) is not write_off:
        raise typer.BadParameter("say either --account or --write-off", param_hint="--account")
    banks = {each.code: each for each in banks_of(data_dir, bank)}
    found = asyncio.run(desk.suspense(list(banks.values())))
    there = [item for item in found.items if bank is not None or item[side] != "0.00"]
    if len(there) != 1:
        where = ", ".join(f"{item['bank_name']} ({item['bank']})" for item in there) or "none that answers"
        silent = "".join(f"; no answer from {code}: {why}" for code, why in found.unanswered.items())
        raise Breakage(f"assign at one bank at a time (--bank); banks with anything to {direction}: {where}{silent}")
    [item] = there
    chosen = banks[item["bank"]]
    order = {"direction": direction, "amount": amount, "reason": reason}
    if account is not None:
        order["account"] = account
    if transaction is not None:
        order["transaction"] = _named(item, transaction)
    if not yes:
        typer.echo(_MEANT.format(name=chosen.name, code=chosen.code, what=_what(order), left=item[side]), err=True)
        typer.confirm("Assign it?", abort=True, err=True)
    made = asyncio.run(desk.assign(chosen, order, key or uuid.uuid4().hex))
    shown = {"bank": chosen.code, "bank_name": chosen.name, **made}
    told = f"{chosen.code}  {chosen.name:<12} {made['assigned_at']}  {_what(made)}: {made['reason']}"
    typer.echo(json.dumps(shown, ensure_ascii=False, indent=2) if as_json else told)


def _named(item: dict[str, Any], transaction: str) -> str:
    """The whole id of what has left something in suspense."""
    from distribank.breakages import Breakage

    named: set[str] = {movement["transaction"] for movement in item["movements"] if not movement["assignment"]}
    found = [known for known in named if known.endswith(transaction)]
    if len(found) != 1:
        raise Breakage(f"{transaction} names {len(found)} transactions there; name one of {', '.join(sorted(named))}")
    return found[0]


def _what(order: dict[str, Any]) -> str:
    """An assignment in words, as ordered or as made."""
    credit = order["direction"] == "credit"
    if order.get("account") is not None:
        return f"{order['direction']} {order['amount']} {'to' if credit else 'of'} {order['account']}"
    return f"write off {order['amount']}, which the bank {'keeps' if credit else 'pays'}"


def banks_of(data_dir: Any, bank: str | None) -> list[LocalBank]:
    from distribank.network.layout import find, load_some

    return load_some(data_dir) if bank is None else [find(data_dir, bank)]


def show_all(found: Found, as_json: bool, line: Any, nothing: str) -> None:
    """Print what was found and leave; where nothing was, exit status 0 only if every bank answered."""
    import json

    if as_json:
        typer.echo(json.dumps(found.as_json(), ensure_ascii=False, indent=2))
    else:
        for item in found.items:
            typer.echo(line(item))
        if not found.items:
            typer.echo(nothing + (" at the banks that answer" if found.unanswered else ""))
        for bank, why in found.unanswered.items():
            typer.echo(f"no list from {bank}: {why}")
    raise typer.Exit(1 if found.unanswered and not found.items else 0)


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


def _suspense(item: dict[str, Any]) -> str:
    """A bank's suspense and all that moved it, newest first."""
    moved = "".join(f"\n          {each['at']}  {each['amount']:>10}  {_moved(each)}" for each in item["movements"])
    sides = f"it owes {item['owing']} and is owed {item['owed']}"
    return f"{item['bank']}  {item['bank_name']:<12} {item['balance']} in suspense: {sides}{moved}"


def _moved(movement: dict[str, Any]) -> str:
    cause = f" ({movement['transaction']})" if movement["transaction"] else ""
    if movement["assignment"]:
        return f"{_what(movement['assignment'])}: {movement['assignment']['reason']}{cause}"
    wanted = ", ".join(
        f"{part['direction']} of {part['wanted']} at {part['account']}, {part['to_suspense']} left"
        for part in movement["wanted_by"]
    )
    return f"{wanted or 'nobody was named for it'}{cause}"


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
