"""``audit``: do the books of the whole network hold, at one moment, without a pause."""

from __future__ import annotations

from typing import Annotated, Any, Final

import typer

from distribank.cli.options import DEFAULT, RUNNING, DataDir

app = typer.Typer()

CHECKS: Final = {
    "each bank's entries sum to zero": ("books_unbalanced",),
    "every two banks agree on what one owes the other": ("positions_differ",),
    "customers' money is the cash paid in less the cash paid out": ("money_differs",),
    "no account is overdrawn, every kept sum is right, every hold belongs to an open transaction": (
        "books_inconsistent",
    ),
    "no bank is silent, no outcome is forced or disputed": (
        "bank_unreachable",
        "clock_ahead",
        "forced",
        "outcomes_differ",
    ),
}
"""The five checks, and the codes of what breaks each."""
ACROSS: Final = (2, 3)
"""The checks for which every bank has to answer."""


@app.command(rich_help_panel=RUNNING)
def audit(
    data_dir: DataDir = DEFAULT,
    at: Annotated[
        str | None, typer.Option("--at", metavar="BANK", help="The bank that asks the others; any that answers.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what the bank answers.")] = False,
) -> None:
    """Check the whole network's books at one moment, while it runs; exit status 0 only if everything holds."""
    import json

    from distribank.network.auditing import audited
    from distribank.network.layout import find, load_some

    bank, found = audited([find(data_dir, at)] if at else load_some(data_dir))
    if as_json:
        typer.echo(json.dumps(found, ensure_ascii=False, indent=2))
    else:
        typer.echo(f"The network as of {found['as_of']}, asked by {bank.name} ({bank.code}):\n")
        typer.echo(_told(found))
    raise typer.Exit(0 if found["ok"] else 1)


def _told(found: dict[str, Any]) -> str:
    lines = [_bank(bank) for bank in found["banks"]]
    lines += ["", *_doubts(found["in_doubt"])]
    complete = all(bank["status"] == "answered" for bank in found["banks"])
    for number, (words, codes) in enumerate(CHECKS.items(), 1):
        broken = [finding for finding in found["findings"] if finding["code"] in codes]
        mark = "✗" if broken else "?" if number in ACROSS and not complete else "✓"
        lines.append(f"{mark} {number}. {words}")
        lines += [f"       {_finding(finding)}" for finding in broken]
    if not complete:
        lines.append("?: not every bank answered, so this holds among those that did.")
    lines.append("\nEverything was checked, and holds." if found["ok"] else "\nNot everything holds, or was checked.")
    return "\n".join(lines)


def _bank(bank: dict[str, Any]) -> str:
    if bank["status"] != "answered":
        return f"{bank['bank']}  {bank['name']:<12} did not answer"
    sums = f"customers {bank['customers']:>14}   cash {bank['cash']:>15}   suspense {bank['suspense']:>9}"
    return f"{bank['bank']}  {bank['name']:<12} {sums}   {bank['entries']} entries"


def _doubts(doubts: list[dict[str, Any]]) -> list[str]:
    return [
        f"in doubt at {doubt['bank']}: {doubt['transaction']}, {doubt['customers']} of customers' money; "
        f"by its other banks: {doubt['settled']}"
        for doubt in doubts
    ] + ([""] if doubts else [])


def _finding(finding: dict[str, Any]) -> str:
    about = " ".join(finding[name] for name in ("bank", "peer", "transaction") if name in finding)
    return f"{finding['code']} {about}: {finding['detail']}"
