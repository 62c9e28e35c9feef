"""Freezing, thawing, killing and starting the banks of a running ``distribank up``, from another process.

Only processes that hold their own ``bank.pid`` are signalled (``pids``). A bank is started by ``up`` alone, which is
asked to by an empty file ``DIR/<code>/start``: so the table shows the bank, and what stops the others stops it, too.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import httpx

from distribank.breakages import Breakage
from distribank.network.layout import LocalBank
from distribank.network.pasting import bank_command, data_option, own_command
from distribank.network.pids import is_frozen, is_locked, running_pid
from distribank.network.processes import LOG_LINES, POLL_SECONDS, START_SECONDS, is_free, last_words

SIGNAL_SECONDS: Final = 5.0
"""How long a signal may take to show."""
TAKEN_SECONDS: Final = 5.0
"""How long ``up`` may take to take a request."""
UP_LOCK: Final = "up.lock"


def freeze(bank: LocalBank) -> int:
    """Stop it where it stands (SIGSTOP); its pid. Nothing of it runs any more when this returns."""
    pid = _pid_of(bank)
    if is_frozen(pid):
        raise Breakage(f"bank {bank.name} is frozen already (pid {pid})")
    os.kill(pid, signal.SIGSTOP)
    _until(lambda: is_frozen(pid), SIGNAL_SECONDS, f"bank {bank.name} is frozen")
    return pid


def thaw(bank: LocalBank) -> int:
    """Let it go on where it was frozen; its pid."""
    pid = _pid_of(bank)
    if not is_frozen(pid):
        raise Breakage(f"bank {bank.name} is not frozen (pid {pid})")
    os.kill(pid, signal.SIGCONT)
    _until(lambda: not is_frozen(pid), SIGNAL_SECONDS, f"bank {bank.name} goes on")
    return pid


def kill(bank: LocalBank) -> int:
    """End it without warning (SIGKILL), frozen or not; the pid that it had. It is gone when this returns."""
    pid = _pid_of(bank)
    os.kill(pid, signal.SIGKILL)
    _until(lambda: not is_locked(bank.pid_file), SIGNAL_SECONDS, f"bank {bank.name} is gone")
    return pid


def start(data_dir: Path, bank: LocalBank) -> int:
    """Have ``distribank up`` start it again; its pid. It is ready when this returns."""
    pid = running_pid(bank.pid_file)
    if pid is not None:
        thaw_it = f"frozen (pid {pid}); thaw it instead, with  {bank_command('thaw', bank.code, data_dir)}"
        raise Breakage(f"bank {bank.name} is {thaw_it if is_frozen(pid) else f'running already (pid {pid})'}")
    if not is_locked(data_dir / UP_LOCK):
        raise Breakage(_no_up(data_dir))
    if not is_free(bank.port):
        raise Breakage(f"port {bank.port} of bank {bank.name} is in use: stop what listens there first")
    bank.start_file.touch(mode=0o600)
    try:
        _until(lambda: not bank.start_file.exists(), TAKEN_SECONDS, f"distribank up starts bank {bank.name}")
    finally:
        bank.start_file.unlink(missing_ok=True)
    _until(lambda: _is_ready(bank), START_SECONDS, f"bank {bank.name} is ready")
    return _pid_of(bank)


def _pid_of(bank: LocalBank) -> int:
    pid = running_pid(bank.pid_file)
    if pid is None:
        data_dir = bank.directory.parent
        again = f"start it with  {bank_command('start', bank.code, data_dir)}"
        what_next = again if is_locked(data_dir / UP_LOCK) else _no_up(data_dir)
        raise Breakage(f"bank {bank.name} ({bank.code}) is not running here: {what_next}")
    return pid


def _no_up(data_dir: Path) -> str:
    return f"no  distribank up  runs on {data_dir}; start all banks with  {own_command('up', *data_option(data_dir))}"


def _is_ready(bank: LocalBank) -> bool:
    if not is_locked(bank.pid_file):
        raise Breakage(f"bank {bank.name} ended: {last_words(bank, LOG_LINES)}")
    try:
        return httpx.get(f"{bank.url}/readyz", trust_env=False, timeout=2.0).status_code == 200
    except httpx.HTTPError:
        return False


def _until(holds: Callable[[], bool], within: float, what: str) -> None:
    give_up = time.monotonic() + within
    while not holds():
        if time.monotonic() > give_up:
            raise Breakage(f"waited {within:.0f} s until {what}, in vain")
        time.sleep(POLL_SECONDS)
