"""The history of a run: one JSON line for all that was asked, answered or done to the banks, in the order seen.

``{"time", "process", "bank"?, "type", "f", "op"?, "value"}``. *time* is seconds since the run began, by the clock of
the one process that writes all lines, so that lines can be compared. *type* is as in Jepsen's histories: ``invoke``
before something is asked; then ``ok`` (it happened), ``fail`` (it did not, and never will) or ``info`` (not known, or
nothing that is asked: faults, what is seen at the end). *op* is the same in an ``invoke`` and its end. Amounts are
centavos, accounts ``bank/number``.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

FILE: Final = "history.jsonl"

Event = dict[str, Any]


class History:
    """Writes the lines, each to the system as it is seen. A context manager."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w", encoding="utf-8", buffering=1)
        self._begun = time.monotonic()
        self._ops = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def now(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self._begun

    def op(self) -> str:
        """A name for the next operation, never given before."""
        self._ops += 1
        return f"op-{self._ops}"

    def add(
        self, process: str, kind: str, f: str, value: Any, *, bank: str | None = None, op: str | None = None
    ) -> None:
        """One line, at the present time."""
        event: Event = {"time": round(self.now(), 6), "process": process, "type": kind, "f": f}
        if bank is not None:
            event["bank"] = bank
        if op is not None:
            event["op"] = op
        event["value"] = value
        self._file.write(json.dumps(event, ensure_ascii=False, separators=(",", ":")) + "\n")


def read(path: Path) -> Iterator[Event]:
    """The lines of a history."""
    with path.open(encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)
