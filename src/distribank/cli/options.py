"""What several commands have in common: the headings of ``distribank --help``, where the banks' files are."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

from distribank.network import DEFAULT_DATA_DIR

TRYING: Final = "Try a network out"
BREAKING: Final = "Break its banks"
RUNNING: Final = "Run banks"

DataDir = Annotated[Path, typer.Option("--data-dir", envvar="DISTRIBANK_DATA_DIR", help="Where the banks' files are.")]
DEFAULT: Final = DEFAULT_DATA_DIR
