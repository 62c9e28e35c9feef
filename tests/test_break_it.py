"""``docs/break-it.md`` keeps its word: every command of it is run, in one shell, and says what the page shows.

This is the page on processes; in containers, with Docker: `make test-compose`.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from distribank.network.processes import free_base_port
from tests.break_it import BLOCKS, PAGE, WITH_DOCKER, pasted, what_matters
from tests.processes import command, until

SHELLS = [shell for shell in ("sh", "bash", "zsh") if shutil.which(shell)]


@pytest.mark.skipif(shutil.which("curl") is None and "CI" not in os.environ, reason="the page's commands need curl")
@pytest.mark.timeout(1000)
async def test_the_page_shows_what_happens(tmp_path: Path) -> None:
    assert len(BLOCKS) == PAGE.count("```bash") == 8
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

        await until(shown, "all banks are shown as ready")
        password = re.search(r"^export DISTRIBANK_PASSWORD='(.+)'$", said.read_text(), re.MULTILINE)
        assert password
        answered = pasted(tmp_path, password[1], base_port=port, path=program.parent)

    for (block, expected), answer in zip(BLOCKS, answered, strict=True):
        assert what_matters(answer) == what_matters(expected), block


@pytest.mark.parametrize("shell", SHELLS)
def test_with_docker_each_command_goes_to_the_containers_that_can_take_it(tmp_path: Path, shell: str) -> None:
    """A program in docker's place says what it was told: bank-003 is paused, and only bank-002 is in doubt."""
    [function] = WITH_DOCKER
    docker = tmp_path / "docker"
    docker.write_text("""#!/bin/sh
case "$*" in
  inspect*bank-003) echo paused ;;
  inspect*) echo running ;;
  "exec bank-002 distribank in-doubt list") echo "99990002 is"; echo "          in doubt about ID" ;;
  exec*--forced*) echo "no outcome was forced" ;;
  exec*list*) echo "nothing is in doubt" ;;
  *) echo "$*" ;;
esac
""")
    docker.chmod(0o755)

    def said(line: str) -> str:
        environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
        asked = [shell, "-c", f"{function}\n{line}"]
        ended = subprocess.run(asked, env=environment, capture_output=True, text=True, timeout=10, check=False)
        return ended.stdout + ended.stderr

    silent = "no list from 99990003: bank-003 is paused\n"
    assert said("distribank freeze 4; distribank thaw 4; distribank kill 4") == (
        "pause bank-004\nunpause bank-004\nkill bank-004\n"
    )
    assert said("distribank in-doubt list") == f"99990002 is\n          in doubt about ID\n{silent}"
    assert said("distribank in-doubt list --forced") == f"no outcome was forced at the banks that answer\n{silent}"
    assert said("distribank in-doubt list --bank 1") == "nothing is in doubt\n"
    assert said("distribank in-doubt list --bank 3") == silent
    assert said("distribank in-doubt resolve ID commit --yes --reason 'a call'") == (
        "say at which bank: --bank 1, 2, 3 or 4\n"
    )
    forced = "exec bank-002 distribank in-doubt resolve ID commit --bank 99990002 --yes --reason a call\n"
    assert said("distribank in-doubt resolve ID commit --bank 99990002 --yes --reason 'a call'") == forced
    assert said("distribank trace ID") == "exec bank-001 distribank trace ID\n"
