"""What ``distribank torture`` draws from its seed, transfers and faults; and clocks that are set wrong, if they can."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from distribank.core.documents import parse_cpf
from distribank.network.client import AccountRef, BankClient
from distribank.network.layout import init
from distribank.network.processes import BankProcess
from distribank.torture import clocks
from distribank.torture.clients import transfer
from distribank.torture.history import History
from distribank.torture.links import Links
from distribank.torture.nemesis import KINDS, Nemesis, Scene
from distribank.torture.packets import Wires
from distribank.torture.people import ACCOUNTS, CPFS, MAX_TRANSFER, TOTAL, People, share

CODES = [f"9999000{number}" for number in range(1, 6)]


def test_transfers_are_of_every_kind_and_each_is_one_that_a_bank_would_take() -> None:
    banks = [BankClient(code, "http://127.0.0.1:1") for code in CODES]
    people = People(banks)
    people.accounts = [{code: AccountRef(code, str(person)) for code in CODES} for person in range(ACCOUNTS)]
    chance = random.Random(1)  # noqa: S311
    reach: Counter[int] = Counter()
    payers: Counter[int] = Counter()
    for _transfer in range(2000):
        person, debits, credits_ = transfer(people, CODES[0], chance)
        amounts = [amount for _account, amount in debits]
        assert sum(amounts) == sum(amount for _account, amount in credits_) <= MAX_TRANSFER
        assert min(amounts) > 0
        assert all(account.account == str(person) for account, _amount in debits)
        named = [account for account, _amount in debits + credits_]
        assert len(set(named)) == len(named)
        reach[len({account.bank for account in named})] += 1
        payers[len(debits)] += 1
    assert set(reach) == {1, 2, 3, 4}
    assert set(payers) == {1, 2, 3}


def test_the_people_have_documents_and_the_original_total() -> None:
    assert [parse_cpf(cpf) for cpf in CPFS] == list(CPFS)
    assert sum(share(person) for person in range(ACCOUNTS)) == TOTAL


def test_the_same_seed_draws_the_same_faults_and_every_kind_before_any_comes_again(tmp_path: Path) -> None:
    processes = [BankProcess(bank) for bank in init(tmp_path, 5)]

    def drawn(seed: int, wires: Wires | None) -> list[tuple[str, str]]:
        with History(tmp_path / "history.jsonl") as history:
            scene = Scene(processes, Links({}, random.Random(seed)), history, skewable=True, wires=wires)  # noqa: S311
            nemesis = Nemesis(scene, random.Random(seed), lambda _words: None)  # noqa: S311
            faults = [nemesis._draw()(scene, nemesis._chance) for _fault in range(3 * len(KINDS))]
        return [(fault.kind, fault.words) for fault in faults]

    wires = Wires({})
    assert drawn(1, wires) == drawn(1, wires) != drawn(2, wires)
    kinds = [kind for kind, _words in drawn(3, wires)]
    assert len(set(kinds[: len(KINDS)])) == len(KINDS)
    assert not [words for _kind, words in drawn(3, None) if "packets" in words]


@pytest.mark.skipif(clocks.library() is None, reason=clocks.MISSING)
def test_a_clock_is_set_while_its_process_runs_and_threads_wait_as_ever(tmp_path: Path) -> None:
    [bank] = init(tmp_path, 1)
    found = clocks.library()
    assert found is not None
    program = (
        "import sys, threading, time\n"
        "for _line in sys.stdin:\n"
        "    began = time.process_time()\n"
        "    threading.Event().wait(2.2)\n"
        "    print(time.time(), time.process_time() - began, flush=True)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
        env={**os.environ, **clocks.environment(bank, found)},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process:
        for off in (0, 20, -20):
            clocks.set_clock(bank, off)
            process.stdin.write("\n")
            told, spent = map(float, process.stdout.readline().split())
            assert abs(told - time.time() - off) < 5
            assert spent < 0.5
