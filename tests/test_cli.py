"""The command: what is typed, what is said back, and the exit status."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from distribank import __version__
from distribank.network.layout import init, load
from distribank.network.processes import free_base_port, is_free
from tests.processes import CHEAP, SLOW_MACHINE_S, command, until

COMMAND = [sys.executable, "-m", "distribank"]


def run(*arguments: str, within: float = SLOW_MACHINE_S) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DISTRIBANK_")}
    return subprocess.run(
        [*COMMAND, *arguments],
        capture_output=True,
        text=True,
        timeout=within,
        env={**environment, **CHEAP, "NO_COLOR": "1", "COLUMNS": "120"},
        check=False,
    )


def test_the_version_is_said() -> None:
    assert run("--version").stdout == f"distribank {__version__}\n"


def test_help_names_every_command_and_loads_nothing_heavy() -> None:
    program = (
        "import sys\n"
        "from distribank.cli import main\n"
        "try: main()\n"
        "finally: print(sorted({'fastapi', 'httpx', 'apsw', 'cryptography', 'pydantic'} & set(sys.modules)))"
    )
    said = subprocess.run([sys.executable, "-c", program, "--help"], capture_output=True, text=True, check=True).stdout

    named = ("network", "serve", "up", "demo", "compose", "freeze", "start", "trace", "transfer")
    assert all(command in said for command in named)
    assert said.endswith("[]\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ["no-such-command"],
        ["serve"],
        ["network", "init", "--banks", "0", "--data-dir", "d"],
        ["network", "init", "--banks", "two", "--data-dir", "d"],
        ["up", "--no-such-option"],
    ],
)
def test_a_mistyped_command_ends_with_status_2(arguments: list[str]) -> None:
    ended = run(*arguments)

    assert (ended.returncode, ended.stdout) == (2, "")


def test_what_breaks_is_one_clear_line_and_status_1(tmp_path: Path) -> None:
    ended = run("serve", "--env-file", str(tmp_path / "no.env"))

    assert ended.returncode == 1
    assert ended.stderr.startswith("distribank: cannot read the env file")
    assert "Traceback" not in ended.stderr


def test_init_prints_where_everything_is(tmp_path: Path) -> None:
    ended = run("network", "init", "--banks", "2", "--data-dir", str(tmp_path / "data"), "--base-port", "9100")

    assert ended.returncode == 0, ended.stderr
    assert "http://127.0.0.1:9101" in ended.stdout
    assert str(tmp_path / "data" / "99990002" / "bank.env") in ended.stdout
    assert [bank.code for bank in load(tmp_path / "data")] == ["99990001", "99990002"]
    secrets = [bank.operator_password for bank in load(tmp_path / "data")]
    assert not any(secret in ended.stdout for secret in secrets)
    again = [run("network", "init", "--banks", banks, "--data-dir", str(tmp_path / "data")).stdout for banks in "23"]
    assert ["The network has grown" in said for said in (ended.stdout, *again)] == [False, False, True]


def test_a_port_in_use_is_said_without_a_traceback(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        [bank] = init(tmp_path, 1, taken.getsockname()[1])

        ended = run("serve", "--env-file", str(bank.env_file))

    assert ended.returncode == 1
    assert f"port {bank.port}" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
async def test_up_runs_all_banks_until_it_is_told_to_stop(tmp_path: Path, how: signal.Signals) -> None:
    data, said = tmp_path / "data", tmp_path / "said"
    port = str(free_base_port(2))
    arguments = ("up", "--banks", "2", "--data-dir", str(data), "--base-port", port)
    with command(*arguments, out=said) as process:

        async def shown() -> bool:
            assert process.poll() is None, said.read_text()
            return said.read_text().count("  ready") == 2

        await until(shown, "both banks are shown as ready")
        process.send_signal(how)

        async def stopping() -> bool:
            return "stopping; " in said.read_text()

        await until(stopping, "it says that it stops")
        process.send_signal(how)  # somebody is impatient
        assert process.wait(SLOW_MACHINE_S) == 0

    lines = said.read_text()
    assert "Traceback" not in lines
    assert f"curl -s http://127.0.0.1:{port}/v1/holders" in lines
    assert "/docs" in lines
    assert "\x1b" not in lines
    assert all(is_free(bank.port) for bank in load(data))


def test_the_demo_tells_its_story_and_every_claim_holds(tmp_path: Path) -> None:
    ended = run("demo", "--json", "--data-dir", str(tmp_path / "data"), "--base-port", str(free_base_port(4)))

    assert ended.returncode == 0, ended.stderr
    report = json.loads(ended.stdout)
    assert report["ok"] is True
    assert len(report["claims"]) >= 35
    assert [claim["claim"] for claim in report["claims"] if not claim["held"]] == []


def test_the_demo_wants_a_directory_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "something").write_text("")

    ended = run("demo", "--data-dir", str(tmp_path))

    assert (ended.returncode, ended.stdout) == (1, "")
    assert "is not empty" in ended.stderr
