"""Bank processes: started, waited for, frozen, killed and stopped, each by its own pid and none but those started here.

A bank runs as ``python -m distribank serve``, one process whose pid is the bank, what it says going to its log file.
Its standard input is a pipe from us: when we end, however we end, the pipe closes and the bank stops by itself
(``serve --until-stdin-closes``). A terminal's Ctrl-C does not reach it, so that we stop it in order.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import IO, Any, Final, Protocol

import httpx

from distribank.breakages import Breakage, Misconfigured
from distribank.network.layout import HOST, LocalBank
from distribank.network.pids import locked

START_SECONDS: Final = 60.0
"""How long a bank may take until it is ready: a second where nothing else runs, many where a lot starts at once."""
STOP_SECONDS: Final = 10.0
"""How long it may take to stop after SIGTERM before it is killed."""
POLL_SECONDS: Final = 0.02
LOG_LINES: Final = 5
"""Lines of a bank's log that are shown when it did not start."""
_FREE_PORTS: Final = range(20_000, 32_000)
"""Where free ports are looked for: below what Linux hands out to outgoing connections."""
_OWN_SETTINGS: Final = frozenset(
    f"DISTRIBANK_{name}"
    for name in (
        "BANK_CODE",
        "BANK_NAME",
        "HOST",
        "PORT",
        "DATABASE_URL",
        "NETWORK_FILE",
        "PRIVATE_KEY_FILE",
        "TOKEN_SECRET",
        "OPERATOR_PASSWORD",
    )
)
"""Settings that differ from bank to bank: one of them in our own environment must not reach them all."""


class Process(Protocol):
    """What a bank's process is asked, in the words of ``subprocess.Popen``."""

    @property
    def pid(self) -> int: ...
    @property
    def stdin(self) -> IO[Any] | None: ...
    def poll(self) -> int | None: ...
    def wait(self) -> int: ...
    def send_signal(self, number: int, /) -> None: ...


class BankProcess:
    """One bank's process, over any number of starts. Its methods signal only a process that is still our child."""

    def __init__(self, bank: LocalBank, env: Mapping[str, str] | None = None, program: Iterable[str] = ()) -> None:
        """*env* adds to our environment; *program* is run in place of ``distribank serve``, by tests that crash it."""
        self.bank = bank
        self.started_at = 0.0
        self._env = dict(env or {})
        self._program = list(program) or [sys.executable, "-m", "distribank", "serve", "--until-stdin-closes"]
        self._process: Process | None = None

    @property
    def pid(self) -> int | None:
        """The running process's pid; ``None`` if there is none."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    @property
    def exit_status(self) -> int | None:
        """How the last process ended (minus the signal's number if by one); ``None`` while it runs."""
        return self._process.poll() if self._process is not None else None

    def start(self) -> None:
        """Start the process; it is not ready yet. ``Misconfigured`` if its port is taken, or it runs elsewhere."""
        assert self.pid is None, f"bank {self.bank.code} runs already as process {self.pid}"
        if not is_free(self.bank.port):
            raise Misconfigured(
                f"port {self.bank.port} of bank {self.bank.code} is in use: does the bank run already? If so, stop it "
                f"where it was started; if not, stop what listens there, or change DISTRIBANK_PORT in "
                f"{self.bank.env_file} and the url in network.json"
            )
        inherited = {name: value for name, value in os.environ.items() if name not in _OWN_SETTINGS}
        self._close_pipe()
        self.started_at = time.monotonic()
        runs = f"bank {self.bank.code} runs already, as the process in {self.bank.pid_file}"
        with self.bank.log_file.open("ab") as log, locked(self.bank.pid_file, runs) as pid_file:
            command = [*self._program, "--env-file", str(self.bank.env_file.resolve())]
            self._process = self._begin(command, log, {**inherited, **self._env}, pid_file)
            os.write(pid_file, str(self._process.pid).encode())

    def _begin(self, command: list[str], log: IO[bytes], env: Mapping[str, str], pid_file: int) -> Process:
        return subprocess.Popen(  # noqa: S603
            command,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=env,
            process_group=0,
            pass_fds=[pid_file],
        )

    async def wait_ready(self, within: float = START_SECONDS) -> float:
        """Return once the bank is ready: seconds since its start. ``Breakage`` if it ends first, or takes too long."""
        async with httpx.AsyncClient(base_url=self.bank.url, trust_env=False, timeout=2.0) as probe:
            while not await _says_ready(probe):
                took = time.monotonic() - self.started_at
                if self.pid is None:
                    raise Breakage(f"bank {self.bank.code} ended with status {self.exit_status}: {self.last_words()}")
                if took > within:
                    raise Breakage(f"bank {self.bank.code} was not ready after {took:.0f} s: {self.last_words()}")
                await asyncio.sleep(POLL_SECONDS)
        return time.monotonic() - self.started_at

    def freeze(self) -> None:
        """SIGSTOP: it neither answers nor ends, as though its machine hung."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT: it goes on where it was frozen."""
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone: nothing of it runs any more when this returns."""
        self._signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait()

    def terminate(self) -> None:
        """Ask it to stop (SIGTERM), thawed if it was frozen, without waiting."""
        self._signal(signal.SIGCONT)
        self._signal(signal.SIGTERM)

    async def stop(self, within: float = STOP_SECONDS) -> int | None:
        """SIGTERM, then SIGKILL after *within* seconds; the exit status, ``None`` if it never ran."""
        self.terminate()
        give_up = time.monotonic() + within
        while self.pid is not None and time.monotonic() < give_up:  # noqa: ASYNC110 - a process sets no event
            await asyncio.sleep(POLL_SECONDS)
        self.kill()
        self._close_pipe()
        return self.exit_status

    async def restart(self) -> float:
        """Start it again, or kill it first if it runs; seconds from the start until it was ready."""
        if self.pid is not None:
            self.kill()
        self.start()
        return await self.wait_ready()

    def last_words(self, lines_shown: int = LOG_LINES) -> str:
        """The last lines of its log."""
        return last_words(self.bank, lines_shown)

    def _signal(self, number: int) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)

    def _close_pipe(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()


def last_words(bank: LocalBank, lines_shown: int) -> str:
    """The last lines of a bank's log."""
    try:
        lines = bank.log_file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return f"no log at {bank.log_file}"
    return "\n  ".join([f"the end of {bank.log_file}:", *lines[-lines_shown:]])


@asynccontextmanager
async def running(processes: Iterable[BankProcess]) -> AsyncIterator[None]:
    """All *processes* ready inside the block, all gone behind it, whatever happened in between."""
    started = list(processes)
    try:
        await start_all(started)
        yield
    finally:
        await stop_all(started)


async def start_all(processes: Iterable[BankProcess]) -> list[float]:
    """Start all of them; the seconds that each took to be ready. ``Breakage`` if one does not get there: the caller
    then stops the others.
    """
    started = list(processes)
    for process in started:
        process.start()
    try:
        async with asyncio.TaskGroup() as waiting:
            ready = [waiting.create_task(process.wait_ready()) for process in started]
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None  # one is enough to say; the others fell with it
    return [task.result() for task in ready]


async def stop_all(processes: Iterable[BankProcess]) -> None:
    """Stop all of them at once."""
    await asyncio.gather(*(process.stop() for process in processes))


def is_free(port: int) -> bool:
    """Whether a bank could listen on *port* now."""
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((HOST, port))
        except OSError:
            return False
    return True


def free_base_port(banks: int, preferred: int | None = None) -> int:
    """A port from which *banks* ports in a row are free: *preferred* if it will do."""
    tries = [random.choice(_FREE_PORTS) for _ in range(200)]  # noqa: S311
    for base in tries if preferred is None else [preferred, *tries]:
        if base + banks <= 65_536 and all(is_free(base + place) for place in range(banks)):
            return base
    raise Misconfigured(f"no {banks} free ports in a row between {_FREE_PORTS.start} and {_FREE_PORTS.stop}")


def stop_when_stdin_closes() -> None:
    """In the bank's own process: stop as on SIGTERM once whoever started it is gone, however it went."""

    def watch() -> None:
        with contextlib.suppress(OSError):
            while os.read(0, 1024):
                pass
        os.kill(os.getpid(), signal.SIGTERM)

    # Not sys.stdin: a daemon thread inside its buffer at the interpreter's end would abort the process.
    threading.Thread(target=watch, name="until stdin closes", daemon=True).start()


async def _says_ready(probe: httpx.AsyncClient) -> bool:
    try:
        return (await probe.get("/readyz")).status_code == 200
    except httpx.HTTPError:
        return False
