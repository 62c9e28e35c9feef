"""``docs/break-it.md`` as tests run it: its blocks in one shell, on processes or in containers, and what they said."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Final

PAGE: Final = (Path(__file__).parent.parent / "docs" / "break-it.md").read_text(encoding="utf-8")
BLOCKS: Final[list[tuple[str, str]]] = re.findall(r"```bash\n(.*?)```\n\n```text\n(.*?)```", PAGE, re.DOTALL)
"""What is to be pasted, and what it says."""
WITH_DOCKER: Final[list[str]] = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
"""The function ``distribank`` for containers, pasted before the rest."""
BEHIND: Final = "=== behind a block ==="


def pasted(
    directory: Path, password: str, *, prelude: str = "", base_port: int = 8001, path: Path | None = None
) -> list[str]:
    """What each of the blocks says, pasted into a bash in *directory* one behind another, after *prelude*.

    The banks are at *base_port* and the next three; *path* is where the command ``distribank`` is, if it is a program.
    """
    commands = prelude + f"echo '{BEHIND}'\n".join(block for block, _shown in BLOCKS)
    environment = {
        **os.environ,
        "PATH": f"{path}:{os.environ['PATH']}" if path else os.environ["PATH"],
        "DISTRIBANK_PASSWORD": password,
        "NO_PROXY": "127.0.0.1",
    }
    done = subprocess.run(
        ["bash", "-c", re.sub(r":800([1-4])", lambda found: f":{base_port - 1 + int(found[1])}", commands)],
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    return done.stdout.split(f"{BEHIND}\n")


def what_matters(said: str) -> list[str]:
    """The lines, without what differs from run to run: ids, times, pids, addresses, paths, how it was noticed that a
    bank is dead, and which of several banks did at the same moment what a trace tells of them.
    """
    for pattern, put in (
        (r"99990001\.[0-9a-f.]+", "ID"),
        (r"\d{4}-\d\d-\d\dT[0-9:.]+Z", "TIME"),
        (r"pid \d+", "PID"),
        (r"https?://\S+", "URL"),
        (r"with:  .*", "with"),
        (r"is in \S+", "is in DIR"),
        (r"(99990001: ).*not answered.*", r"\1not answered"),
        (r"said: (offline|no answer|ConnectError).*", "said: nothing"),
    ):
        said = re.sub(pattern, put, said)
    lines = [line.rstrip() for line in said.splitlines()]
    told = sorted(line for line in lines if line.startswith("TIME"))
    return [told.pop(0) if line.startswith("TIME") else line for line in lines]


def what_matters_in_containers(said: str) -> list[str]:
    """The same without what tells processes from containers: how a bank is named that was broken or mended, and why one
    is not asked.
    """
    broken = re.compile(
        r"bank-00\d$|\w+ \(\d+, PID\) (is (frozen|dead|ready again)|goes on)|(Let it go on|Start it again) with"
    )
    unasked = re.compile(r"(?<=^no list from \d{8}: ).*")
    return [unasked.sub("why", line) for line in what_matters(said) if not broken.match(line)]
