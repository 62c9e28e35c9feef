"""Under which heading ``distribank --help`` lists a command."""

from __future__ import annotations

from typing import Final

TRYING: Final = "Try a network out"
BREAKING: Final = "Break its banks"
RUNNING: Final = "Run banks"
