"""Banks that are born quickly: forked from a process that has all imports behind it, else the same in every way.

Each is a process of its own with the pid that it is killed by, its own files and its own end; only the second that an
interpreter and its imports take is spent once for all of them.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
from array import array
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from tests import crashing
from tests.processes import Begin


class Born:
    """A process that somebody else forked for us, in the words of ``subprocess.Popen``."""

    def __init__(self, pid: int, stdin: IO[bytes]) -> None:
        self.pid, self.stdin = pid, stdin
        self._handle: int | None = os.pidfd_open(pid)

    def poll(self) -> int | None:
        """``None`` while it runs; how it ended is not known here."""
        return None if self._handle is not None and not self._ended(0) else self._let_go()

    def wait(self) -> int:
        if self._handle is not None:
            self._ended(None)
        return self._let_go()

    def send_signal(self, number: int, /) -> None:
        if self._handle is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._handle, number)

    def _ended(self, timeout_ms: int | None) -> bool:
        poll = select.poll()
        poll.register(self._handle, select.POLLIN)  # type: ignore[arg-type]
        return bool(poll.poll(timeout_ms))

    def _let_go(self) -> int:
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None
        return 0


@contextmanager
def nursery(directory: Path) -> Iterator[Begin]:
    """A way to begin processes of ``tests.crashing``: a command is the arguments that it is given."""
    if not hasattr(os, "pidfd_open"):  # what is not our child can then not be waited for: Linux only
        yield begin_anew
        return
    ours, theirs = socket.socketpair()
    with (directory / "nursery.log").open("wb") as log:
        parent = subprocess.Popen(
            [sys.executable, "-m", "tests.nursery", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    theirs.close()

    def begin(command: list[str], log: IO[bytes], env: Mapping[str, str], pid_file: int) -> Born:
        out, into = os.pipe()
        order = json.dumps([command, dict(env)]).encode()
        passed = array("i", [out, log.fileno(), pid_file])
        ours.sendmsg([len(order).to_bytes(4, "big")], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, passed)])
        ours.sendall(order)
        os.close(out)
        return Born(int(ours.recv(16)), os.fdopen(into, "wb"))

    try:
        yield begin
    finally:
        ours.close()  # the nursery ends with it
        parent.wait()


def begin_anew(command: list[str], log: IO[bytes], env: Mapping[str, str], pid_file: int) -> subprocess.Popen[bytes]:
    """The same, each with an interpreter of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.crashing", *command],
        stdin=subprocess.PIPE,
        stdout=log,
        stderr=subprocess.STDOUT,
        env=env,
        process_group=0,
        pass_fds=[pid_file],
    )


def tend(line: socket.socket) -> None:
    """Fork whatever is asked for until the line closes."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody here asks how they ended
    while True:
        size, rights, _, _ = line.recvmsg(4, socket.CMSG_SPACE(3 * array("i").itemsize))
        if not size:
            return
        passed = array("i")
        passed.frombytes(rights[0][2])
        order = b""
        while len(order) < int.from_bytes(size, "big"):
            order += line.recv(65536)
        command, env = json.loads(order)
        pid = os.fork()
        if pid == 0:
            line.close()
            be_born(command, env, list(passed))
        for each in passed:
            os.close(each)
        line.sendall(str(pid).encode())


def be_born(command: list[str], env: dict[str, str], passed: list[int]) -> Any:
    """In the new process: take over what it was given, be a bank, and end with it."""
    status = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.setpgid(0, 0)
        os.dup2(passed[0], 0)
        os.dup2(passed[1], 1)
        os.dup2(passed[1], 2)
        os.close(passed[0])
        os.close(passed[1])  # the third is kept: it holds the lock
        os.environ.clear()
        os.environ.update(env)
        status = crashing.main(command)
    finally:
        os._exit(status)


if __name__ == "__main__":
    tend(socket.socket(fileno=int(sys.argv[1])))
