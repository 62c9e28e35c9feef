"""Whole banks as they ship, in virtual time, under everything that a network and a machine can do to them.

``DISTRIBANK_STACK_SEEDS`` names other seeds: ``7``, ``0-999`` or ``3,5,8``; ``make simulate-stack`` runs many of them
in several processes. A failure prints the command that replays its seed.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.whole_stack_campaign import REACHED, run_seed, seeds_of

REPEATED = "3,21,30"
"""Seeds whose transcripts are compared over processes."""


@pytest.mark.timeout(600)
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited", "ignore:Exception ignored in")
def test_what_clients_are_told_is_what_all_banks_say_whatever_was_done_to_them() -> None:
    seeds = seeds_of(os.environ.get("DISTRIBANK_STACK_SEEDS", "0-99"))
    seen: Counter[str] = Counter()
    for seed in seeds:
        seen += run_seed(seed).seen
    print(dict(seen))
    if len(seeds) >= 100:
        never = sorted(situation for situation in REACHED if not seen[situation])
        assert not never, f"never reached: {never}"


def test_a_seed_is_the_same_story_in_every_process_to_the_byte() -> None:
    def told(hash_seed: str) -> str:
        command = [sys.executable, "-m", "tests.whole_stack_campaign", REPEATED, "--transcript"]
        root = Path(__file__).parent.parent
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(["src", "."])}
        return subprocess.run(command, check=True, capture_output=True, text=True, cwd=root, env=environment).stdout

    first = told("0")
    assert first.count("seed ") == 3
    assert told("1") == told("2") == first
