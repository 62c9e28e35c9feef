"""Disks that fail under real bank processes: full, and broken. What was not flushed is not acknowledged (pitfall 26).

Which of SQLite's operations fails makes no difference: ``tests.power_scenes`` has each of them fail in turn.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from distribank.breakages import Breakage
from distribank.service import EXIT_DURABILITY_LOST
from tests.processes import SLOW_MACHINE_S, People, RealBank, network_of, until

pytestmark = pytest.mark.timeout(600)
MONEY = 100_000
LIMITED = f'ulimit -f 400; exec "{sys.executable}" -m distribank serve "$@"'
"""A bank none of whose files may grow past 400 KiB; ``ulimit`` asks for no rights."""
STOPS = "this bank stops at once, because it cannot write"


async def paid_in_until_it_stops(people: People, bank: RealBank) -> int:
    """Deposit one real after the other until the bank stops by itself; how many it acknowledged."""
    acknowledged = 0
    while bank.pid is not None:
        try:
            answer = await people.sessions[0].deposit(people.accounts[0], 100)
        except Breakage:
            break
        acknowledged += answer.status == 201
        assert answer.status in (201, 503)

    async def stopped() -> bool:
        return bank.pid is None

    await until(stopped, "the bank has stopped by itself", SLOW_MACHINE_S)
    assert bank.exit_status == EXIT_DURABILITY_LOST
    assert STOPS in bank.last_words()
    return acknowledged


async def has_kept(people: People, bank: RealBank, acknowledged: int) -> None:
    """*bank* is up again and has all deposits that were acknowledged, and at most the one that was not."""
    posted, available = await people.sessions[0].balances(people.accounts[0])
    assert posted - MONEY in (acknowledged * 100, (acknowledged + 1) * 100)
    assert posted == available
    assert (await bank.client.books())["balanced"]


async def test_a_bank_whose_disk_is_full_stops_with_a_clear_message_and_restarts_with_all_it_acknowledged(
    tmp_path: Path,
) -> None:
    async with network_of(tmp_path / "network", 2, program=lambda _bank: ["bash", "-c", LIMITED, "bank"]) as banks:
        people = await People(banks).settle_in(MONEY)
        acknowledged = await paid_in_until_it_stops(people, banks[0])
        after = RealBank(banks[0].bank, {}, [])
        try:
            await after.restart()
            await has_kept(people, after, acknowledged)
        finally:
            await after.stop()
            await after.client.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one mebibyte, where one may be mounted."""
    place = tmp_path / "disk"
    place.mkdir()
    mounting = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(place)], capture_output=True)
    if mounting.returncode:
        pytest.skip("only root may mount a small disk")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def give_room(disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,size=8m", str(disk)], check=True)


@pytest.fixture
def shim(tmp_path: Path) -> Path:
    """What makes a process's flushes fail while there is a file of a certain name."""
    source, made = Path(__file__).parent / "fixtures" / "fsync_fails.c", tmp_path / "fsync_fails.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(made), str(source), "-ldl"], check=True)
    return made


@pytest.mark.skipif(shutil.which("mount") is None, reason="nothing here mounts a disk")
async def test_a_full_file_system_stops_the_bank_and_with_more_room_it_goes_on(
    tmp_path: Path, small_disk: Path
) -> None:
    """On a disk that is really full a bank may be unable to start, and says so; nothing is lost either way."""
    env = {"DISTRIBANK_DATABASE_URL": f"sqlite:///{small_disk}/bank.db"}
    async with network_of(tmp_path / "network", 1, env=env) as (bank,):
        people = await People([bank]).settle_in(MONEY)
        acknowledged = await paid_in_until_it_stops(people, bank)
        try:
            await bank.restart()
        except Breakage as breakage:
            refused = str(breakage)
        else:
            refused = None
            await has_kept(people, bank, acknowledged)
            await bank.stop()
        assert refused is None or "disk is full" in refused
        give_room(small_disk)
        await bank.restart()
        await has_kept(people, bank, acknowledged)
        (await people.sessions[0].deposit(people.accounts[0], 100)).expect(201)


@pytest.mark.skipif(shutil.which("cc") is None or sys.platform != "linux", reason="no C compiler makes the shim here")
async def test_a_flush_that_the_disk_refuses_is_not_acknowledged_and_stops_the_bank(tmp_path: Path, shim: Path) -> None:
    broken = tmp_path / "broken"
    env = {"LD_PRELOAD": f"{shim}:{os.environ.get('LD_PRELOAD', '')}".rstrip(":"), "FSYNC_FAILS": str(broken)}
    async with network_of(tmp_path / "network", 1, env=env) as (bank,):
        people = await People([bank]).settle_in(MONEY)
        (await people.sessions[0].deposit(people.accounts[0], 100)).expect(201)
        broken.touch()
        assert await paid_in_until_it_stops(people, bank) == 0
        broken.unlink()
        await bank.restart()
        await has_kept(people, bank, 1)
