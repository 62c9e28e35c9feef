"""The README keeps its word: what it tells people to type is typed here, as it stands, at real banks."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from distribank.config import environment_names
from distribank.network.people import seed
from tests.processes import CPFS, RealBank, network_of, until

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
IN_PORTUGUESE = (ROOT / "README.pt-BR.md").read_text(encoding="utf-8")
EXAMPLE = ROOT / "examples" / "first_transfer.py"
PASSWORD = "correct-horse-battery"

needs_curl = pytest.mark.skipif(
    shutil.which("curl") is None and "CI" not in os.environ, reason="the README's commands need curl"
)


def block(name: str) -> str:
    """The commands behind the README's marker of that name."""
    found = re.search(rf"<!-- tested: {name} -->\n```bash\n(.*?)```", README, re.DOTALL)
    assert found, f"the README has no block {name!r}"
    return found[1]


def at(commands: str, banks: list[RealBank]) -> str:
    """*commands* for banks that listen elsewhere."""
    for port, bank in zip((8001, 8002), banks, strict=True):
        commands = commands.replace(f"http://127.0.0.1:{port}", bank.client.url)
    return commands


def bash(commands: str, cwd: Path, **environment: str) -> str:
    ended = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands],
        capture_output=True,
        text=True,
        timeout=30,
        cwd=cwd,
        env={
            **os.environ,
            "NO_PROXY": "127.0.0.1",
            "PATH": f"{cwd / '.venv' / 'bin'}:{os.environ['PATH']}",
            **environment,
        },
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def with_the_program(directory: Path) -> Path:
    """*directory*, where the commands find ``distribank`` as they do behind ``make``."""
    program = directory / ".venv" / "bin" / "distribank"
    program.parent.mkdir(parents=True)
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m distribank "$@"\n')
    program.chmod(0o755)
    return directory


def run_example(banks: list[RealBank]) -> str:
    command = [sys.executable, str(EXAMPLE), *(bank.client.url for bank in banks)]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout


def test_the_first_transfer_takes_less_than_ten_lines() -> None:
    assert len(block("first transfer").splitlines()) < 10


@needs_curl
async def test_the_first_transfer_by_hand_works_as_printed(tmp_path: Path) -> None:
    async with network_of(tmp_path / "data", 2) as banks:
        said = bash(at(block("first transfer"), banks), tmp_path)

        assert '"status":"completed"' in said.splitlines()[-1]
        for bank, expected in zip(banks, ("70.00", "30.00"), strict=True):
            maria = await bank.client.sign_in(CPFS[0], PASSWORD)
            [account] = (await maria.get("/v1/accounts")).expect(200)["items"]
            assert account["posted_balance"] == expected


async def test_a_transfer_by_command_is_shown_as_it_happens(tmp_path: Path) -> None:
    async with network_of(tmp_path / "data", 4):
        await seed(tmp_path / "data", str, password=PASSWORD)
        said = bash(block("by command"), with_the_program(tmp_path), DISTRIBANK_PASSWORD=PASSWORD)

        *phases, last = said.splitlines()
        assert [phase.split()[2] for phase in phases if " began, and asked 99990002, 99990004 " in phase] == ["Aroeira"]
        assert sum(" and voted yes; " in phase for phase in phases) == 2
        assert last.endswith(" is completed")


@needs_curl
async def test_a_bank_killed_by_hand_leaves_a_doubt_that_its_return_settles(tmp_path: Path) -> None:
    async with network_of(tmp_path / "data", 2) as banks:
        a, b = banks

        said = bash(at(block("first transfer") + block("in doubt"), banks), with_the_program(tmp_path))

        *_, doubt, transfer_id, unanswered = said.splitlines()
        assert doubt.startswith("99990002  Pitanga      participant since ")
        assert doubt.endswith("voted yes to 99990001; no outcome heard yet")
        assert transfer_id.strip().startswith("99990001.")
        assert unanswered.startswith("no list from 99990001: ")
        assert a.exit_status == -9
        await a.restart()

        async def settled() -> bool:
            return await b.client.in_doubt() == []

        await until(settled, "nothing is in doubt at B")
        maria = await a.client.sign_in(CPFS[0], PASSWORD)
        [account] = (await maria.get("/v1/accounts")).expect(200)["items"]
        assert (account["posted_balance"], account["held"]) == ("70.00", "0.00")


async def test_the_example_may_be_run_again_and_moves_money_once(tmp_path: Path) -> None:
    async with network_of(tmp_path, 2) as banks:
        first, again = run_example(banks), run_example(banks)

    assert first.startswith("completed 99990001.")
    assert first.splitlines()[1:] == [
        "99990001 debit 30.00 balance 70.00",
        "99990001 credit 100.00 balance 100.00",
        "99990002 credit 30.00 balance 30.00",
    ]
    assert again == first


def test_the_example_is_short_and_knows_nothing_of_the_code() -> None:
    text = EXAMPLE.read_text(encoding="utf-8")

    assert len(text.splitlines()) < 60
    assert "import distribank" not in text
    assert "from distribank" not in text


def test_every_setting_is_in_the_table_and_nothing_else() -> None:
    named = re.findall(r"^\| `(DISTRIBANK_[A-Z_]+)` \|", README, re.MULTILINE)

    assert sorted(named) == sorted(environment_names())


@pytest.mark.parametrize("text", [README, IN_PORTUGUESE], ids=["en", "pt-BR"])
def test_every_file_that_is_linked_exists(text: str) -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", text)

    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def commands_of(text: str) -> list[str]:
    """Every block of *text* that is typed, without its comments, which are prose; so are blocks marked ``text``."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [re.sub(r"\s+# .*", "", typed) for language, typed in blocks if language != "text"]


def settings_of(text: str) -> list[tuple[str, str]]:
    """Each setting and its default."""
    rows = re.findall(r"^\| `(DISTRIBANK_[A-Z_]+)` \|.*\|(.*)\|$", text, re.MULTILINE)
    return [(name, default.strip().replace("nenhum", "none")) for name, default in rows]


def test_the_portuguese_readme_has_the_same_commands_settings_links_and_sections() -> None:
    for what in (
        commands_of,
        settings_of,
        lambda text: re.findall(r"^<!-- .* -->$", text, re.MULTILINE),
        lambda text: re.findall(r"^\| `(distribank [^`]+)` \|", text, re.MULTILINE),
        lambda text: sorted(set(re.findall(r"\]\(([^)#:]+)\)", text)) - {"README.md", "README.pt-BR.md"}),
        lambda text: len(re.findall(r"^#+ ", text, re.MULTILINE)),
    ):
        assert what(README)
        assert what(IN_PORTUGUESE) == what(README)
