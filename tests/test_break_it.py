"""``docs/break-it.md`` keeps its word: every command of it is run, in one shell, and says what the page shows."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from distribank.network.processes import free_base_port
from tests.processes import command, until

PAGE = (Path(__file__).parent.parent / "docs" / "break-it.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```bash\n(.*?)```\n\n```text\n(.*?)```", PAGE, re.DOTALL)
BEHIND = "=== behind a block ==="


def what_matters(said: str) -> list[str]:
    """The lines, without what differs from run to run: ids, times, pids, addresses, paths."""
    for pattern, put in (
        (r"99990001\.[0-9a-f.]+", "ID"),
        (r"\d{4}-\d\d-\d\dT[0-9:.]+Z", "TIME"),
        (r"pid \d+", "PID"),
        (r"https?://\S+", "URL"),
        (r"with:  .*", "with"),
        (r"is in \S+", "is in DIR"),
        (r"(99990001: ).*not answered.*", r"\1not answered"),
        (r"said: (offline|no answer.*)", "said: nothing"),
    ):
        said = re.sub(pattern, put, said)
    return [line.rstrip() for line in said.splitlines()]


@pytest.mark.skipif(shutil.which("curl") is None and "CI" not in os.environ, reason="the page's commands need curl")
@pytest.mark.timeout(240)
async def test_the_page_shows_what_happens(tmp_path: Path) -> None:
    assert len(BLOCKS) == PAGE.count("```bash") == 6
    program = tmp_path / "bin" / "distribank"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m distribank "$@"\n')
    program.chmod(0o755)
    port, said = free_base_port(4), tmp_path / "said"
    up = ("up", "--banks", "4", "--people", "--vote-deadline", "60", "--base-port", str(port))
    with command(*up, "--data-dir", str(tmp_path / "data"), out=said) as process:

        async def shown() -> bool:
            assert process.poll() is None, said.read_text()
            return said.read_text().count("  ready") == 4

        await until(shown, "all banks are shown as ready", within=40)
        password = re.search(r"^export DISTRIBANK_PASSWORD='(.+)'$", said.read_text(), re.MULTILINE)
        assert password
        commands = f"echo '{BEHIND}'\n".join(block for block, _shown in BLOCKS)
        answered = bash(
            re.sub(r":800([1-4])", lambda found: f":{port - 1 + int(found[1])}", commands), tmp_path, password[1]
        )

    for (block, expected), answer in zip(BLOCKS, answered.split(f"{BEHIND}\n"), strict=True):
        assert what_matters(answer) == what_matters(expected), block


def bash(commands: str, directory: Path, password: str) -> str:
    environment = {
        **os.environ,
        "PATH": f"{directory / 'bin'}:{os.environ['PATH']}",
        "DISTRIBANK_PASSWORD": password,
        "NO_PROXY": "127.0.0.1",
    }
    done = subprocess.run(
        ["bash", "-c", commands],
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout
