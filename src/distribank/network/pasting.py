"""Command lines for people to paste: this program again, as they called it."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path

from distribank.network import DEFAULT_DATA_DIR


def own_command(*arguments: str) -> str:
    """A command line to paste: this program again, however it was called, with *arguments*."""
    typed = sys.argv[0]
    if typed.endswith("__main__.py"):
        return shlex.join([sys.executable, "-m", "distribank", *arguments])
    name = Path(typed).name
    found = shutil.which(name)
    on_the_path = found is not None and Path(found).absolute() == Path(typed).absolute()
    return shlex.join([name if on_the_path else typed, *arguments])


def bank_command(verb: str, bank: str, data_dir: Path) -> str:
    """The command line that does *verb* to *bank*, named as `find` takes it, of *data_dir*."""
    return own_command(verb, bank, *data_option(data_dir))


def data_option(data_dir: Path) -> list[str]:
    """What tells a command where the banks' files are; nothing where it looks there anyhow."""
    return [] if data_dir == DEFAULT_DATA_DIR else ["--data-dir", str(data_dir)]
