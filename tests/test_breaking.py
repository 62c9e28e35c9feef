"""Banks of a running `distribank up`, broken from another terminal: only they are touched, and each is told of."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from distribank.breakages import Breakage, Misconfigured
from distribank.network import breaking
from distribank.network.layout import find, init, load
from distribank.network.pids import is_frozen, locked, running_pid
from distribank.network.processes import free_base_port, is_free
from tests.processes import SLOW_MACHINE_S, command, network_of, until


def said_by(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "distribank", *arguments], capture_output=True, text=True, timeout=30, check=True
    )
    return done.stdout


def test_a_bank_goes_by_its_code_its_number_or_its_name(tmp_path: Path) -> None:
    init(tmp_path, 3)

    assert {find(tmp_path, name).code for name in ("99990002", "2", "Pitanga", "pitanga")} == {"99990002"}
    with pytest.raises(Misconfigured, match=r"no bank '4' .*; there are 1 = 99990001 Aroeira"):
        find(tmp_path, "4")
    with pytest.raises(Misconfigured, match="holds no banks"):
        find(tmp_path / "nothing", "1")
    (tmp_path / "99990001" / "bank.env").unlink()  # as in a container, which sees one bank's files
    assert find(tmp_path, "2").code == "99990002"
    with pytest.raises(Misconfigured, match="does not hold the files of bank 99990001: try where"):
        find(tmp_path, "1")


def test_a_pid_that_a_stranger_has_got_is_never_signalled(tmp_path: Path) -> None:
    [bank] = init(tmp_path, 1)
    with subprocess.Popen(["sleep", "60"]) as stranger:
        bank.pid_file.write_text(str(stranger.pid))
        try:
            for verb in (breaking.freeze, breaking.thaw, breaking.kill):
                with pytest.raises(Breakage, match=r"is not running here: no  distribank up  runs on"):
                    verb(bank)
            assert stranger.poll() is None
        finally:
            stranger.kill()


async def test_what_is_so_already_is_said(tmp_path: Path) -> None:
    async with network_of(tmp_path, 1) as [bank]:
        with pytest.raises(Breakage, match="is not frozen"):
            breaking.thaw(bank.bank)
        with pytest.raises(Breakage, match="is running already"):
            breaking.start(tmp_path, bank.bank)
        assert breaking.freeze(bank.bank) == bank.pid
        with pytest.raises(Breakage, match="is frozen already"):
            breaking.freeze(bank.bank)
        with pytest.raises(Breakage, match=r"thaw it instead, with .* thaw 99990001"):
            breaking.start(tmp_path, bank.bank)
        assert breaking.thaw(bank.bank) == bank.pid
        assert bank.pid is not None
        assert not is_frozen(bank.pid)
        breaking.freeze(bank.bank)
        breaking.kill(bank.bank)

        async def ended() -> bool:
            return bank.exit_status is not None

        await until(ended, "the system tells how it ended")
        assert bank.exit_status == -signal.SIGKILL
        with pytest.raises(Breakage, match="no  distribank up  runs on"):
            breaking.start(tmp_path, bank.bank)


def test_a_second_up_on_the_same_data_is_refused(tmp_path: Path) -> None:
    init(tmp_path, 1, free_base_port(1))
    with locked(tmp_path / breaking.UP_LOCK, "taken"):
        done = subprocess.run(
            [sys.executable, "-m", "distribank", "up", "--data-dir", str(tmp_path), "--banks", "1"],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    assert done.returncode == 1
    assert "another  distribank up  runs on" in done.stderr


async def test_a_bank_killed_from_elsewhere_is_started_again_by_up_and_stopped_with_it(tmp_path: Path) -> None:
    data, said = tmp_path / "data", tmp_path / "said"
    up = ("up", "--banks", "2", "--data-dir", str(data), "--base-port", str(free_base_port(2)))
    with command(*up, out=said) as process:

        async def shown() -> bool:
            assert process.poll() is None, said.read_text()
            return said.read_text().count("  ready") == 2

        await until(shown, "both banks are shown as ready")
        one, two = load(data)
        where = ("--data-dir", str(data))

        assert "is frozen" in said_by("freeze", "2", *where)

        async def frozen() -> bool:
            return bool(re.search(r"99990002 .* frozen", said.read_text()))

        await until(frozen, "the table says so")
        assert "goes on" in said_by("thaw", "Pitanga", *where)
        killed = said_by("kill", "99990002", *where)
        assert "start 99990002" in killed
        with pytest.raises(Breakage, match=r"is not running here: start it with .* start 99990002"):
            breaking.freeze(two)
        first = running_pid(two.pid_file)
        assert first is None
        assert "is ready again" in said_by("start", "2", *where)
        again = running_pid(two.pid_file)

        async def shows_the_new_pid() -> bool:
            return f"pid {again}" in said.read_text()

        await until(shows_the_new_pid, "the table shows the new process")
        process.send_signal(signal.SIGINT)
        assert process.wait(SLOW_MACHINE_S) == 0
    assert is_free(one.port)
    assert is_free(two.port)
    assert running_pid(two.pid_file) is None


@pytest.mark.skipif(shutil.which("ps") is None, reason="no ps here")
def test_where_there_is_no_proc_ps_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "exists", lambda _path: False)
    monkeypatch.setattr(Path, "read_text", lambda *_a, **_k: (_ for _ in ()).throw(FileNotFoundError()))

    assert not is_frozen(os.getpid())
