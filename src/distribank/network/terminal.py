"""What commands that run banks owe whoever sits before them: a console, a sign of waiting, an end on Ctrl-C.

Colour follows the terminal and ``NO_COLOR`` (rich's own rules).
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn


def console(*, stderr: bool = False) -> Console:
    """A console that never breaks a line or fails on a character: it writes what the stream's encoding can take."""
    stream = sys.stderr if stderr else sys.stdout
    with contextlib.suppress(AttributeError):  # a stream that somebody put in place of the real one
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    return Console(stderr=stderr, highlight=False, soft_wrap=True)


@contextmanager
def waiting(console: Console, what: str) -> Iterator[None]:
    """Show *what* is waited for, with a running timer where the console is a terminal, with one line where not."""
    if not console.is_terminal:
        console.print(f"  … {what}")
        yield
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        progress.add_task(what, total=None)
        yield


def cancel_on_signals() -> None:
    """From now on SIGINT and SIGTERM cancel the current task, once; whatever it has started, it then stops, however
    often one is impatient.
    """
    task = asyncio.current_task()
    assert task is not None, "called from a task"
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, lambda: task.cancelling() or task.cancel())
