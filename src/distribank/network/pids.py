"""Which process is a bank: ``DIR/<code>/bank.pid``, written by whoever starts it, and believed by nobody unproven.

The file holds the pid, and the bank itself holds a lock on it (``flock``, taken before the bank starts and inherited
by it) that the system lets go of when the process ends, however it ends. So a file that is not locked names nobody, and
a pid that a stranger has got since is never signalled. ``DIR/up.lock`` is locked in the same way by ``distribank up``.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from distribank.breakages import Misconfigured

LOCK_SECONDS: Final = 1.0
"""How long a lock is tried for: whoever looks at one holds it for an instant."""
TRY_SECONDS: Final = 0.01


@contextmanager
def locked(path: Path, otherwise: str) -> Iterator[int]:
    """The open file *path*, emptied and locked; ``Misconfigured``, saying *otherwise*, if somebody else has the lock.

    Behind the block this process has let go of it; a process started inside the block that inherited it has not.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        give_up = time.monotonic() + LOCK_SECONDS
        while not _lock(handle, fcntl.LOCK_EX):
            if time.monotonic() > give_up:
                raise Misconfigured(otherwise)
            time.sleep(TRY_SECONDS)
        os.ftruncate(handle, 0)
        yield handle
    finally:
        os.close(handle)


def is_locked(path: Path) -> bool:
    """Whether a living process holds the lock on *path*."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        return not _lock(handle, fcntl.LOCK_SH)
    finally:
        os.close(handle)


def running_pid(path: Path) -> int | None:
    """The pid in *path* if the process that it names runs, frozen or not; else ``None``."""
    if not is_locked(path):
        return None
    with contextlib.suppress(ValueError, FileNotFoundError):
        return int(path.read_text(encoding="ascii"))
    return None  # it is just being started


def is_frozen(pid: int) -> bool:
    """Whether a process has been stopped by SIGSTOP. Where there is no ``/proc``, ``ps`` is asked."""
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2]
        return after_name.split()[0] == "T"
    except FileNotFoundError:
        if Path("/proc/self").exists():
            return False  # gone
    command = ["ps", "-o", "stat=", "-p", str(pid)]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.startswith("T")  # noqa: S603


def _lock(handle: int, kind: int) -> bool:
    """Take a lock, or let it be: whether it was taken."""
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
