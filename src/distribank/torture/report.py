"""The report of a run, for people: what was done, what was found, per fault, with the picture."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from distribank import __version__
from distribank.network.pasting import data_option, own_command
from distribank.torture import history, plot
from distribank.torture.checker import Verdict
from distribank.torture.figures import Figures, figures

FILE: Final = "report.md"
WHOLE: Final = ("explained", "unexplained")
SHOWN: Final = 10
"""Violations of one kind that the report lists."""


def write(directory: Path, verdict: Verdict) -> dict[str, Any]:
    """Write the report and the picture; the same in figures."""
    found = figures(history.read(directory / history.FILE))
    (directory / plot.FILE).write_text(plot.svg(found), encoding="utf-8")
    (directory / FILE).write_text(markdown(verdict, found), encoding="utf-8")
    return summary(verdict, found)


def summary(verdict: Verdict, found: Figures) -> dict[str, Any]:
    """The run in figures, for machines."""
    return {
        "ok": verdict.valid,
        "seed": found.setup.get("seed"),
        "seconds": round(found.seconds, 1),
        "transfers": {**verdict.transfers, "by_banks": {str(many): n for many, n in sorted(found.banks.items())}},
        "refused": dict(found.codes.most_common()),
        "asked_again": dict(found.asked_again.most_common()),
        "reads": dict(verdict.reads),
        "balances": verdict.balances,
        "entries": verdict.entries,
        "faults": dict(Counter(spell.kind for spell in found.spells)),
        "messages": found.links,
        "calm_seconds": found.calm,
        "violations": dict(Counter(violation.kind for violation in verdict.violations)),
    }


def told(verdict: Verdict, found: Mapping[str, Any], directory: Path) -> str:
    """The end of the run in a few lines, and where everything is."""
    done, whole = verdict.transfers, sum(verdict.reads[kind] for kind in WHOLE)
    figures = (
        f"\n{done['ok']:,} transfers committed, {done['fail']:,} refused, {done['info']:,} unknown; "
        f"{sum(found['faults'].values())} faults; {whole:,} reads of the whole network and "
        f"{verdict.reads.total() - whole:,} of a part of it, {verdict.balances:,} of balances; "
        f"{verdict.entries:,} entries in the statements."
    )
    lines = [figures]
    if verdict.valid:
        lines.append("Nothing is wrong.")
    else:
        kinds = ", ".join(f"{kind}: {many}" for kind, many in found["violations"].items())
        lines += [f"WRONG: {kinds}", *(f"  {each.kind}: {each.words}" for each in verdict.violations[:SHOWN])]
        lines.append(_how_to_look(directory))
    lines.append(f"The report: {directory / FILE}")
    return "\n".join(lines)


def _how_to_look(directory: Path) -> str:
    banks = own_command("up", "--banks", "1", *data_option(directory))
    return (
        f"Nothing was deleted. {directory / history.FILE} has every operation under its name (op-…), with the\n"
        "transfer's id; DIR/<bank>/bank.log is what each bank said, DIR/<bank>/bank.db what it has. Start the banks\n"
        f"as they are:  {banks}\n"
        "and ask them:\n"
        f"  {own_command('trace', 'ID', *data_option(directory))}\n"
        f"  {own_command('audit', *data_option(directory))}"
    )


def markdown(verdict: Verdict, found: Figures) -> str:
    """The whole report."""
    setup, done = found.setup, verdict.transfers
    alone = setup.get("proxies_alone")
    banks = setup.get("banks", [])
    title = "nothing is wrong" if verdict.valid else f"{len(verdict.violations)} things are wrong"
    what = (
        f"{len(banks)} banks, {setup.get('clients')} clients at each, {len(setup.get('accounts', {}))} accounts, "
        f"{sum(setup.get('accounts', {}).values())} centavos in all; seed {setup.get('seed')}; {found.seconds:.0f} s "
        f"with {len(found.spells)} faults. DistriBank {__version__}, Python {platform.python_version()}, "
        f"{platform.system()}.\n"
    )
    waits = (
        "From the first asking to the acknowledgement, half of the committed transfers took at most "
        f"{found.wait(0.5) * 1000:,.0f} ms, 99 % at most {found.wait(0.99):,.1f} s, the slowest {found.wait(1):,.1f} "
        "s; a client whose bank is dead asks until it is back.\n"
    )
    parts = [
        f"# Torture: {title}\n",
        what,
        f"![Throughput and faults]({plot.FILE})\n",
        "## What was done\n",
        _table(
            ("transfers", "number"),
            [
                ("committed", f"{done['ok']:,}"),
                *(
                    (f"of these over {many} bank{'s' if many > 1 else ''}", f"{n:,}")
                    for many, n in sorted(found.banks.items())
                ),
                *((f"refused: {code}", f"{many:,}") for code, many in found.codes.most_common()),
                ("outcome never learnt", f"{done['info']:,}"),
                *((f"asked again: {why}", f"{many:,}") for why, many in found.asked_again.most_common()),
            ],
        ),
        waits,
        _table(
            ("reads", "number"),
            [
                *((f"of the whole network: {what}", f"{many:,}") for what, many in sorted(verdict.reads.items())),
                ("of balances", f"{verdict.balances:,}"),
            ],
        ),
        "## What the nemesis did\n",
        _table(
            ("fault", "times", "seconds", "transfers/s meanwhile"),
            [
                *(
                    (kind, f"{times}", f"{seconds:.0f}", f"{rate:.0f}")
                    for kind, (times, seconds, rate) in _kinds(found)
                ),
                ("none", "", "", f"{found.quiet_rate():.0f}"),
            ],
        ),
        _table(("between the banks", "number"), [(what, f"{many:,}") for what, many in found.links.items()]),
        "" if setup.get("clocks") else "Clocks were left as they are: libfaketime is not installed.\n",
        f"Whole requests and answers were lost, by proxies, and no packets: {alone}.\n" if alone else "",
        "## What was found\n",
        _found(verdict, found),
    ]
    return "\n".join(part for part in parts if part)


def _kinds(found: Figures) -> list[tuple[str, tuple[int, float, float]]]:
    return [(kind, found.of_kind(kind)) for kind in found.kinds()]


def _found(verdict: Verdict, found: Figures) -> str:
    calm = (
        "something stayed held or in doubt" if found.calm is None else f"nothing held or in doubt {found.calm:.1f} s on"
    )
    lines = [
        f"* {verdict.entries:,} entries in the statements of the end"
        + (": every acknowledged transfer is there once and whole, no refused one is." if verdict.valid else "."),
        f"* All healed and every client answered: {calm}.",
        f"* The last audit: {'everything was checked, and holds' if verdict.final else 'not whole'}.",
    ]
    for kind, many in Counter(violation.kind for violation in verdict.violations).items():
        lines.append(f"* **{kind}**: {many}")
        those = [violation.words for violation in verdict.violations if violation.kind == kind]
        lines += [f"    * {words}" for words in those[:SHOWN]]
    return "\n".join(lines) + "\n"


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in lines) + "\n"
