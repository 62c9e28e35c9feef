"""``make hostile``: all that this directory knows, to the last byte, and how much of it there was.

The same tests as in CI with more of what chance makes, and every alteration of every recorded message instead of a
sample. Exits with 1 if anything was accepted, anything moved, or any answer was not as described.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import platform
import subprocess
import sys
import time
from importlib.metadata import version
from typing import Any

import pytest

EXAMPLES = "250"
"""What chance adds for each operation; the boundaries of each schema come on top."""

TESTS = "tests.hostile.test_"


def run() -> int:
    began = time.monotonic()
    git = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    print(f"revision {git.stdout.strip()}, Python {platform.python_version()}, Schemathesis {version('schemathesis')}")
    os.environ["HOSTILE_EXAMPLES"] = EXAMPLES
    failed = pytest.main(["-q", "-p", "no:cacheprovider", "tests/hostile", "tests/test_authority.py", *sys.argv[1:]])
    from tests.hostile.tampering import try_all

    asked, answered = asyncio.run(try_all())
    print(f"\nafter {time.monotonic() - began:.0f} s:")
    for line in (*_lines(), _tampered("requests", asked), _tampered("answers", answered)):
        print(f"  {line}")
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


def _module(name: str) -> Any:
    """A module of tests that has just been run here, for what it has counted."""
    return importlib.import_module(TESTS + name)


def _tampered(what: str, tally: Any) -> str:
    return f"{tally.tried:,} altered {what} between banks, {len(tally.accepted)} of them accepted"


if __name__ == "__main__":
    sys.exit(run())
