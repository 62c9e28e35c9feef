"""``make hostile``: all that this directory knows, to the last byte, and how much of it there was.

The same tests as in CI with more of what chance makes, and every alteration of every recorded message instead of a
sample. Exits with 1 if anything was accepted, anything moved, or any answer was not as described.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import platform
import statistics
import subprocess
import sys
import time
from importlib.metadata import version
from typing import Any

import pytest

from tests.hostile.examples import MARIA, RUI, A
from tests.hostile.tampering import try_all
from tests.hostile.town import ask, town

EXAMPLES = "300"
"""What chance adds for each operation; the boundaries of each schema come on top."""

TESTS = "tests.hostile.test_"


def run() -> int:
    began = time.monotonic()
    git = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    print(f"revision {git.stdout.strip()}, Python {platform.python_version()}, Schemathesis {version('schemathesis')}")
    os.environ["HOSTILE_EXAMPLES"] = EXAMPLES
    quietly = ["-q", "-p", "no:cacheprovider", "-W", "ignore::pytest.PytestAssertRewriteWarning"]  # imported above
    failed = pytest.main([*quietly, "tests/hostile", "tests/test_authority.py", *sys.argv[1:]])
    asked, answered = asyncio.run(try_all())
    print(f"\nafter {time.monotonic() - began:.0f} s:")
    for line in (*_lines(), _tampered("requests", asked), _tampered("answers", answered)):
        print(f"  {line}")
    known, unknown = asyncio.run(_guesses())
    print(f"  a wrong password took {known:.3f} ms for a CPF that is registered, {unknown:.3f} ms for one that is not")
    for accepted in (*asked.accepted, *answered.accepted):
        print(f"  ACCEPTED: {accepted}")
    return 1 if failed or asked.accepted or answered.accepted else 0


def _lines() -> list[str]:
    bodies, generated, tokens = (_module(name) for name in ("bad_bodies", "generated", "stolen_tokens"))
    return [
        f"{generated.ANSWERED.total():,} generated inputs, answered {dict(sorted(generated.ANSWERED.items()))}",
        f"{bodies.ANSWERED.total():,} hand-made bad requests, answered {dict(sorted(bodies.ANSWERED.items()))}",
        f"{tokens.FIGURES['altered']:,} altered tokens and {tokens.FIGURES['forged']} forged ones",
    ]


async def _guesses(times: int = 2_000) -> tuple[float, float]:
    """Median milliseconds of a wrong password, for a CPF that is registered and for one that is not. Hashing is as
    cheap as it can be made, so that any other difference would show.
    """
    taken: dict[str, list[float]] = {MARIA: [], RUI: []}
    async with town(1) as made:
        await made.token(A, MARIA)
        form = [(b"content-type", b"application/x-www-form-urlencoded")]
        for _ in range(times):
            for cpf, each in taken.items():
                made.stopwatch.seconds += 3_600  # no guess is throttled here
                began = time.perf_counter()
                reply = await ask(made.houses[A].app, "POST", "/v1/token", form, f"username={cpf}&password=x".encode())
                each.append((time.perf_counter() - began) * 1_000)
                assert reply.status == 401
    return statistics.median(taken[MARIA]), statistics.median(taken[RUI])


def _module(name: str) -> Any:
    """A module of tests that has just been run here, for what it has counted."""
    return importlib.import_module(TESTS + name)


def _tampered(what: str, tally: Any) -> str:
    return f"{tally.tried:,} altered {what} between banks, {len(tally.accepted)} of them accepted"


if __name__ == "__main__":
    sys.exit(run())
