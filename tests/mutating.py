"""Plants the bugs of ``tests.mutants`` in the shipped code, one at a time, and runs the tests that must find them.

A bug is planted in memory: the module's text is changed as it is imported, and the files stay as they are. Each one
gets a process of its own, forked from one that has read everything but this program, so that a run costs what its tests
cost. Found is what a test *fails* on: tests that cannot be collected, or that hang, have found nothing.

    python -m tests.mutating                     each bug against the test that stands beside it in the table
    python -m tests.mutating --search NAME …     these (or all) against every suite in turn: which tests find them
    python -m tests.mutating --report FILE       the first, and the table as docs/reports/mutants.md has it
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import signal
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType
from typing import Any, Final

from tests.mutants import EQUIVALENT, MUTANTS, Mutant
from tests.provenance import provenance

ROOT: Final = Path(__file__).resolve().parent.parent
LIMIT_S: Final = 60.0
"""How long the test of one bug may take; found after that counts as not found."""

AT_ONCE: Final = min(2, os.cpu_count() or 1)
READ_ONCE: Final = (
    "_hypothesis_pytestplugin",
    "anyio",
    "apsw",
    "argon2",
    "cryptography.hazmat.primitives.asymmetric.ed25519",
    "fastapi",
    "http_message_signatures",
    "httptools",
    "httpx",
    "hypothesis",
    "jwt",
    "prometheus_client",
    "pydantic_settings",
    "pytest_asyncio.plugin",
    "pytest_timeout",
    "python_multipart",
    "rich.console",
    "typer",
    "uvicorn",
    "uvloop",
)
"""What every test needs and no bug is planted in: imported before the processes part."""


@dataclass(frozen=True)
class Outcome:
    """What became of one bug: the tests that *found* it and the first one's *words*, or why none did; in *seconds*."""

    name: str
    found: tuple[str, ...]
    words: str
    seconds: float


def path_of(module: str) -> Path:
    """The file of a module of this program."""
    return ROOT / "src" / Path(*module.split(".")).with_suffix(".py")


def planted(mutant: Mutant) -> str:
    """The module's text with the bug in it; ``ValueError`` if the place is not there, or there more than once."""
    text = path_of(mutant.module).read_text()
    times = text.count(mutant.old)
    if times != 1:
        raise ValueError(f"{mutant.name}: {mutant.module} has {mutant.old!r} {times} times: mend the table")
    return text.replace(mutant.old, mutant.new)


class _Planted(SourceFileLoader):
    """Loads one module from its changed text, whatever has been compiled of it before."""

    def __init__(self, name: str, path: str, text: str) -> None:
        super().__init__(name, path)
        self._text = text

    def get_code(self, fullname: str) -> CodeType:
        return compile(self._text, self.path, "exec", dont_inherit=True)


class _Planter(MetaPathFinder):
    def __init__(self, mutant: Mutant) -> None:
        self._module, self._text = mutant.module, planted(mutant)

    def find_spec(self, fullname: str, path: Sequence[str] | None = None, target: Any = None) -> ModuleSpec | None:
        if fullname != self._module:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        assert spec is not None
        assert spec.origin is not None
        spec.loader = _Planted(fullname, spec.origin, self._text)
        return spec


class _Watcher:
    """A pytest plugin that keeps which tests failed, and the first one's last words."""

    def __init__(self) -> None:
        self.failed: list[str] = []
        self.words = ""

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed:
            self.failed.append(report.nodeid)
            crash = getattr(report.longrepr, "reprcrash", None)
            self.words = self.words or (crash.message.splitlines() or [""])[0] if crash else self.words


def _run(mutant: Mutant | None, tests: Sequence[str], most: int, told: int) -> None:
    """In a process of its own: plant, test, tell through descriptor *told*. Never returns."""
    import pytest

    assert not any(name.split(".")[0] == "distribank" for name in sys.modules), "the bug comes too late"
    os.environ.setdefault("DISTRIBANK_CAMPAIGN_SEEDS", "0-9")
    if mutant is not None:
        sys.meta_path.insert(0, _Planter(mutant))
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    watcher = _Watcher()
    options = [f"-pno:{plugin}" for plugin in ("cacheprovider", "anyio", "schemathesis")]
    options += ["--hypothesis-seed=0", "-W", "ignore::pytest.PytestAssertRewriteWarning", "-x"]
    statuses = []
    for test in tests:
        statuses.append(int(pytest.main([*options, test], plugins=[watcher])))
        if len(watcher.failed) >= most:
            break
    words = watcher.words if watcher.failed else f"no test failed (pytest's status: {statuses})"
    os.write(told, json.dumps([watcher.failed[:100], words[:500]]).encode())
    os._exit(0)


def run(
    runs: Iterable[tuple[Mutant, Sequence[str], int]], limit: float = LIMIT_S, at_once: int = AT_ONCE
) -> Iterator[Outcome]:
    """Each mutant against its tests, *at_once* of them, no longer than *limit* seconds, until so many have found it."""
    import pytest  # noqa: F401 - before the processes part

    for name in READ_ONCE:
        importlib.import_module(name)
    waiting, running = list(runs)[::-1], {}
    while waiting or running:
        while waiting and len(running) < at_once:
            mutant, tests, most = waiting.pop()
            hear, tell = os.pipe()
            pid = os.fork()
            if pid == 0:
                os.setpgid(0, 0)
                try:
                    _run(mutant, tests, most, tell)
                finally:
                    os._exit(1)
            os.close(tell)
            running[pid] = (mutant, hear, time.monotonic())
        time.sleep(0.02)
        for pid, (mutant, hear, began) in list(running.items()):
            seconds = time.monotonic() - began
            ended, _ = os.waitpid(pid, os.WNOHANG)
            if not ended and seconds < limit:
                continue
            if not ended:
                os.killpg(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            del running[pid]
            said = os.read(hear, 65536) if ended else b""  # what is told is short enough to wait in a pipe
            os.close(hear)
            default = [[], "it died and told nothing" if ended else f"nothing was found in {limit:.0f} s"]
            found, words = json.loads(said) if said else default
            yield Outcome(mutant.name, tuple(found), words, seconds)


SUITES: Final = {
    "core": (
        "tests/test_participant_table.py tests/test_coordinator_table.py tests/test_ledger.py tests/test_consents.py "
        "tests/test_transfer.py tests/test_money.py tests/test_heuristics.py tests/test_suspense.py "
        "tests/test_idempotency_rules.py tests/test_clock.py tests/test_exploration.py::test_no_order_of_messages_"
        "flushes_and_crashes_breaks_a_promise_or_leaves_anything_stuck[2-2-0-3000] tests/test_transfers.py "
        "tests/test_adversity.py tests/test_pitfalls.py tests/test_snapshots.py tests/test_transfer_routes.py"
    ),
    "bank": (
        "tests/test_transfers.py tests/test_adversity.py tests/test_pitfalls.py tests/test_snapshots.py "
        "tests/test_showing.py tests/test_suspense_routes.py tests/test_heuristic_routes.py tests/test_auditing.py "
        "tests/test_account_routes.py tests/test_transfer_routes.py tests/test_linked_accounts.py "
        "tests/test_traces.py tests/test_contract.py tests/test_two_processes.py"
    ),
    "store": (
        "tests/test_store_contract.py tests/test_store_sharing.py tests/test_store_sqlite.py tests/test_migration.py "
        "tests/test_transfers.py tests/test_two_processes.py"
    ),
    "peers": "tests/test_signatures.py tests/test_interbank.py tests/test_wire.py tests/test_peers.py",
    "api": (
        "tests/test_tokens.py tests/test_authority.py tests/test_sign_in.py tests/test_throttle.py "
        "tests/test_strict_bodies.py tests/test_strict_json.py tests/test_account_routes.py "
        "tests/test_transfer_routes.py tests/test_interbank.py tests/test_contract.py tests/test_serving.py"
    ),
}
"""Where a bug of each part is searched for, the fastest first."""


def searched(mutant: Mutant) -> list[str]:
    part = mutant.module.split(".")[1]
    return SUITES.get(part, SUITES["api"]).split()


def report(outcomes: Sequence[Outcome], seconds: float) -> str:
    """The page ``docs/reports/mutants.md``."""
    by_name = {mutant.name: mutant for mutant in MUTANTS}
    killed = sum(bool(outcome.found) for outcome in outcomes)
    lines = [
        "# Seeded bugs",
        "",
        "Each bug is planted in the shipped code in memory, one at a time; then the test that should find it runs,",
        "in a process of its own. A bug that no test finds fails the run, and so does one whose place in the code is",
        "not there any more. `make mutants` makes this page anew; `tests/mutants.py` has the changes themselves.",
        "",
        f"{len(outcomes)} bugs, {killed} found, in {seconds:.0f} s, {AT_ONCE} at a time; {provenance()}.",
        "Seconds are those of one process: imports, the test, and whatever else the machine did meanwhile.",
        "",
        "| bug | where | what it breaks | found by | s |",
        "|---|---|---|---|---:|",
    ]
    for outcome in outcomes:
        mutant = by_name[outcome.name]
        test = outcome.found[0].removeprefix("tests/").replace("|", "\\|") if outcome.found else "**nothing**"
        where = mutant.module.removeprefix("distribank.").replace(".", "/")
        lines.append(f"| {mutant.name} | {where} | {mutant.breaks} | `{test}` | {outcome.seconds:.1f} |")
    lines += ["", "## Changes that turned out to be no bugs", ""]
    lines += [f"* **{name}**: {why}" for name, why in EQUIVALENT.items()]
    return "\n".join(lines) + "\n"


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("names", nargs="*", help="these bugs only, by their whole names")
    options.add_argument("--search", action="store_true", help="against every suite, to see which tests find them")
    options.add_argument("--at-once", type=int, default=AT_ONCE, help="processes")
    options.add_argument("--most", type=int, default=3, help="suites that find a bug before the search ends")
    options.add_argument("--report", type=Path, help="write the table there")
    options.add_argument("--json", type=Path, help="write what was found there")
    asked = options.parse_args()
    chosen = [mutant for mutant in MUTANTS if not asked.names or mutant.name in asked.names]
    assert asked.names == [] or len(chosen) == len(set(asked.names)), "a name that is not in the table"
    for mutant in chosen:
        planted(mutant)
    began = time.monotonic()
    runs = [(m, searched(m), asked.most) if asked.search else (m, [m.found_by], 1) for m in chosen]
    outcomes = []
    for outcome in run(runs, 300.0 if asked.search else LIMIT_S, asked.at_once):
        outcomes.append(outcome)
        verdict = "found" if outcome.found else "NOT FOUND"
        print(f"{verdict} in {outcome.seconds:.1f} s: {outcome.name}: {outcome.words}", flush=True)
        for test in outcome.found:
            print(f"    {test}", flush=True)
    seconds = time.monotonic() - began
    order = [mutant.name for mutant in MUTANTS]
    outcomes.sort(key=lambda outcome: order.index(outcome.name))
    missed = [outcome.name for outcome in outcomes if not outcome.found]
    print(f"{len(outcomes)} bugs, {len(missed)} not found, {seconds:.0f} s")
    if asked.json is not None:
        asked.json.write_text(json.dumps([asdict(outcome) for outcome in outcomes]))
    if asked.report is not None:
        asked.report.write_text(report(outcomes, seconds))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
