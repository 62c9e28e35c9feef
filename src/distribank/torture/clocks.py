"""The banks' clocks, set wrong while they run, by libfaketime where it is installed.

A bank's process reads the time of day through the library, which every other second looks into that bank's file how far
to be off. Timers run by the monotonic clock and are left alone, as on a machine whose clock is set.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from distribank.network.layout import LocalBank

PLACES: Final = (
    "/usr/lib/*/faketime/libfaketime.so.1",
    "/usr/lib*/faketime/libfaketime.so.1",
    "/usr/local/lib/faketime/libfaketime.so.1",
)
MISSING: Final = "libfaketime is not installed (Debian, Ubuntu: apt install libfaketime): clocks are left as they are"


def library() -> Path | None:
    """Where libfaketime is; ``None`` if it is not installed."""
    return next((path for place in PLACES for path in sorted(Path("/").glob(place.lstrip("/")))), None)


def environment(bank: LocalBank, found: Path) -> Mapping[str, str]:
    """What a bank's process is started with, so that its clock can be set."""
    set_clock(bank, 0)
    return {
        "LD_PRELOAD": str(found),
        "FAKETIME_TIMESTAMP_FILE": str(_file(bank).resolve()),
        "FAKETIME_CACHE_DURATION": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_FORCE_MONOTONIC_FIX": "0",  # else every wait of a thread with a time-out is off, or spins
        "NO_FAKE_STAT": "1",
    }


def set_clock(bank: LocalBank, seconds: int) -> None:
    """From within two seconds on, the bank's clock is *seconds* ahead of the machine's, or behind it."""
    new = _file(bank).with_suffix(".new")
    new.write_text(f"{seconds:+d}\n", encoding="ascii")
    new.replace(_file(bank))


def _file(bank: LocalBank) -> Path:
    return bank.directory / "clock"
