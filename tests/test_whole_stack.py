"""Whole banks as they ship, in virtual time, under everything that a network and a machine can do to them.

``DISTRIBANK_STACK_SEEDS`` names other seeds: ``7``, ``0-999`` or ``3,5,8``; ``make simulate-stack`` runs many of them
in several processes. A failure prints the command that replays its seed.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import subprocess
import sys
import textwrap
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import httpx
import pytest

from distribank import recovery
from distribank.api import tokens
from distribank.bank import coordinating, ordering, participating
from distribank.peers import line, signatures
from tests.processes import PASSWORD
from tests.whole_stack import Fate, Stack, StackLoop, Wire, lay_out, run_stack
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


MUTANTS: dict[str, tuple[Any, str, str, str]] = {
    "a body is taken for what was signed": (signatures, "_check_digest", "!= content_digest(body)", "== ''"),
    "a signature is not looked at": (
        signatures.Verifier,
        "_check_signature",
        'raise NotSigned(Flaw.SIGNATURE, f"not made by the key {signature.keyid}") from None',
        "return",
    ),
    "tokens end with the process": (tokens.Tokens, "__init__", "= secret", "= secret + secrets.token_hex()"),
    "votes leave before they are durable": (
        participating.Participating,
        "receive",
        "if any(not isinstance(message, Abort) for message in messages):",
        "if False:",
    ),
    "a decision is told before it is durable": (
        coordinating.Coordinating,
        "_decide",
        "await self._store.flushed()",
        "pass",
    ),
    "a 202 is no promise": (
        ordering.Ordering,
        "_promise_to_find",
        "moment.write([replace(named, answered=True)])",
        "pass",
    ),
    "commits are not sent again": (
        recovery.Recovery,
        "_tell_again",
        "await self._ask(",
        "None and (",
    ),
    "answers are given to the wrong messages": (line.Line, "delivered", "reversed(answers)", "answers"),
}
"""Defects in what ships: the place, what stands there, and what stands there instead."""

HEAD = "from __future__ import annotations\n"
ENOUGH = 150
"""Seeds after which a defect that nobody has seen counts as one that nobody would see."""


@pytest.mark.timeout(600)
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited", "ignore:Exception ignored in")
@pytest.mark.parametrize("name", MUTANTS)
def test_a_defect_is_seen(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    place, function, old, new = MUTANTS[name]
    source = textwrap.dedent(inspect.getsource(getattr(place, function)))
    assert old in source
    module = place if inspect.ismodule(place) else inspect.getmodule(place)
    made: dict[str, Any] = {}
    exec(compile(f"{HEAD}{source.replace(old, new)}", f"<{name}>", "exec"), vars(module), made)  # noqa: S102
    monkeypatch.setattr(place, function, made[function])
    for seed in range(ENOUGH):
        try:
            run_seed(seed)
        except Exception as seen:
            print(f"{name}: seen in seed {seed}: {seen}")
            return
    raise AssertionError(f"not seen in {ENOUGH} seeds: {name}")


# What travels together --------------------------------------------------------------------------------------------

CLIENTS, TRANSFERS = 64, 10


def test_what_64_clients_do_at_once_is_flushed_together_and_travels_together(tmp_path: Path) -> None:
    """The gate for group commit and for messages that share a request: counted where no machine's pace has a say."""
    chance = Random(64)  # noqa: S311 - repeatable, not secret

    async def run(loop: StackLoop) -> tuple[int, int]:
        stack = Stack(loop, lay_out(tmp_path, 2), 64, {})
        loop.hesitate = lambda: chance.uniform(0.0005, 0.0015)
        stack.weather = lambda _letter: Fate(delay=chance.uniform(0.0001, 0.0003), back=chance.uniform(0.0001, 0.0003))
        for code in stack.settings:
            await stack.start(code)
        coordinator, other = (f"http://{code}.test/v1" for code in stack.settings)
        async with httpx.AsyncClient(transport=Wire(stack, "client"), timeout=60) as client:
            who, mine = await join(client, coordinator, "52998224725")
            _, theirs = await join(client, other, "11144477735")
            paid_in = {"amount": "100.00"}
            await post(client, f"{coordinator}/accounts/{mine}/deposits", paid_in, {**who, "Idempotency-Key": "d"})
            flushed, asked = flushes(stack), requests(stack)

            async def pay(number: int) -> None:
                for turn in range(TRANSFERS):
                    credit = {"bank": "99990002", "account": theirs, "amount": "0.01"}
                    order = {"debits": [{"account": mine, "amount": "0.01"}], "credits": [credit]}
                    key = {"Idempotency-Key": f"{number}-{turn}"}
                    assert (await post(client, f"{coordinator}/transfers", order, {**who, **key}))[
                        "status"
                    ] == "completed"

            await asyncio.gather(*map(pay, range(CLIENTS)))
            counted = flushes(stack) - flushed, requests(stack) - asked
        for code in stack.settings:
            await stack.stop(code)
        return counted

    flushed, asked = run_stack(run, chance)
    print(f"{flushed / CLIENTS / TRANSFERS:.3f} flushes, {asked / CLIENTS / TRANSFERS:.3f} requests a transfer")
    assert 0 < flushed / (CLIENTS * TRANSFERS) <= 0.15
    assert 0 < asked / (CLIENTS * TRANSFERS) <= 0.1


async def join(client: httpx.AsyncClient, bank: str, cpf: str) -> tuple[dict[str, str], str]:
    """Somebody new at *bank*: how she says who she is, and her account."""
    await post(client, f"{bank}/holders", {"name": "Maria da Silva", "cpf": cpf, "password": PASSWORD}, {})
    token = await client.post(f"{bank}/token", data={"username": cpf, "password": PASSWORD})
    who = {"Authorization": f"Bearer {token.json()['access_token']}"}
    return who, (await post(client, f"{bank}/accounts", {"type": "individual"}, who))["account"]


async def post(client: httpx.AsyncClient, url: str, content: Any, headers: dict[str, str]) -> Any:
    answer = await client.post(url, json=content, headers=headers)
    assert answer.status_code == 201, answer.text
    return answer.json()


def flushes(stack: Stack) -> int:
    return sum(life.service.store.stats.flushes for life in stack.lives.values() if life.service is not None)


def requests(stack: Stack) -> int:
    """What banks have asked each other about transfers."""
    return sum(letter.url.endswith(("/prepare", "/commit", "/abort", "/inquire")) for letter in stack.sent)
