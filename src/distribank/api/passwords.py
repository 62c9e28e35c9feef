"""Passwords: argon2id, in two threads of their own, never on the loop and never on the transfer path.

A guess at a document that nobody has costs the same hash as any other, so that neither the answer nor its time tells
which documents exist.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Final

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from distribank.api.problems import Problem

THREADS: Final = 2
MAX_WAITING: Final = 2_000
"""Requests that may wait for a thread; one more is told to come back."""


class Passwords:
    """The hashing of one bank. *memory_kib* and *passes* are argon2id's costs, on one lane."""

    def __init__(self, memory_kib: int, passes: int) -> None:
        self._hasher = PasswordHasher(time_cost=passes, memory_cost=memory_kib, parallelism=1)
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="argon2")
        self._slots = asyncio.Semaphore(THREADS)
        self._waiting = 0
        self._nobodys = self._hasher.hash(secrets.token_hex(16))

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """One of the threads is the caller's meanwhile, in the order of asking; raises ``busy`` if too many wait."""
        if self._waiting >= MAX_WAITING:
            raise Problem("busy", "too many sign-ins and registrations wait; try again in a moment")
        self._waiting += 1
        try:
            await self._slots.acquire()
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._slots.release()

    async def hash(self, password: str) -> str:
        """argon2id's encoded form of *password*. The caller holds a slot."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._hasher.hash, password)

    async def matches(self, encoded: str | None, password: str) -> bool:
        """Whether *password* is the one that was hashed; without *encoded* it never is, at the same cost."""
        correct = await asyncio.get_running_loop().run_in_executor(
            self._pool, self._verify, encoded or self._nobodys, password
        )
        return correct and encoded is not None

    def close(self) -> None:
        """Let the threads go; what they compute now is not waited for."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _verify(self, encoded: str, password: str) -> bool:
        try:
            return self._hasher.verify(encoded, password)
        except (VerificationError, InvalidHashError):
            return False
