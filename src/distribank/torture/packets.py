"""The packets between the banks, dropped as a broken network drops them: below the messages of ``links``.

The whole run is in a network namespace of its own, in a user namespace where there is no root, and so is each bank; a
further one between them all is the wire, to which each is joined by a veth pair. Whatever goes from bank to proxy, from
proxy to bank and from client to bank is forwarded there, and there nftables drop the packets of the directions that are
cut, on connections that exist as on new ones: they hang half-open, send again, and go on where they were once it is
mended, or tell a bank much later what its peer has long given up. Nothing of the machine's own network is touched, and
all of it vanishes with the last process that is in it: nothing has to be cleaned up.

A packet is A's to B if it goes from A to B's proxy, or from A's proxy back to B: so, as in ``links``, the direction
(A, B) has A's requests to B in it and A's answers to B, and here also what acknowledges B's packets.

::

    bank A ──┐                    ┌── the run: all proxies, all clients
    bank B ──┴── the wire (drops) ┘

See namespaces(7), veth(4), nft(8).
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final, Self

from distribank.breakages import Breakage
from distribank.network.layout import LocalBank
from distribank.network.processes import BankProcess, Process
from distribank.torture.links import Direction

HERE: Final = "10.0.0.1"
"""Where the run itself is in its network."""
_WIRE: Final = "10.0.0.254"
_CLONE_NEWNET: Final = 0x40000000
_CLONE_NEWUSER: Final = 0x10000000
_OWN: Final = "/proc/thread-self/ns/net"
_TOOLS: Final = ("ip", "nft")
_PATH: Final = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
_TABLE: Final = """\
table inet torture {
    set requests { type ipv4_addr . inet_service; }
    set answers { type ipv4_addr . inet_service; }
    counter dropped { }
    chain forward {
        type filter hook forward priority 0;
        ip saddr . tcp dport @requests counter name dropped drop
        ip daddr . tcp sport @answers counter name dropped drop
    }
}
"""


def enter() -> str | None:
    """Put this process, which must have one thread, into a network of its own for the rest of its life.

    If that cannot be, or packets cannot be dropped there, say why; nothing has happened then.
    """
    if sys.platform != "linux":
        return "only Linux has network namespaces"
    missing = [tool for tool in _TOOLS if _found(tool) is None]
    if missing:
        return f"{' and '.join(missing)} not installed (Debian, Ubuntu: apt install iproute2 nftables)"
    why = None
    for flags in (_CLONE_NEWNET, _CLONE_NEWUSER | _CLONE_NEWNET):
        why = _trial(flags)
        if why is None:
            _enter(flags)
            break
    return why


def _trial(flags: int) -> str | None:
    """Try all of it in a child, for there is no way back out of a user namespace; why it failed, if it did."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            _enter(flags)
            with Wires({"A": 1, "B": 2}) as wires:
                wires.apply([("A", "B")])
            os._exit(0)
        except (OSError, Breakage) as error:
            os.write(writing, str(error).encode())
        finally:
            os._exit(1)
    os.close(writing)
    with open(reading, encoding="utf-8", errors="replace") as told:
        why = told.read()
    _pid, status = os.waitpid(child, 0)
    return f"namespaces cannot be had here ({why})" if status else None


def _enter(flags: int) -> None:
    user, group = os.geteuid(), os.getegid()
    _call("unshare", flags)
    if flags & _CLONE_NEWUSER:  # root in there, so that ip and nft may do what they have to
        Path("/proc/self/setgroups").write_text("deny", encoding="ascii")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1", encoding="ascii")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1", encoding="ascii")
    _ip("link set lo up")


def rules(cut: Iterable[Direction], addresses: Mapping[str, str], ports: Mapping[str, int]) -> str:
    """What nft reads so that exactly the packets of *cut* are dropped from now on, all at once. *addresses* are the
    banks', *ports* their proxies'.
    """
    lines = ["flush set inet torture requests", "flush set inet torture answers"]
    for sender, receiver in sorted(cut):
        lines.append(f"add element inet torture requests {{ {addresses[sender]} . {ports[receiver]} }}")
        lines.append(f"add element inet torture answers {{ {addresses[receiver]} . {ports[sender]} }}")
    return "\n".join(lines) + "\n"


class Wires:
    """The network that joins the run and its banks. A context manager, in a process that has entered its own."""

    def __init__(self, ports: Mapping[str, int]) -> None:
        """*ports* are those of the banks' proxies, at the address ``HERE``."""
        self.addresses: Mapping[str, str] = {code: f"10.0.1.{number}" for number, code in enumerate(ports, 1)}
        self._ports = ports
        self._rooms: dict[str, int] = {}
        self._wire = -1
        self._cut: Counter[Direction] = Counter()

    def __enter__(self) -> Self:
        self._wire = _new_namespace()
        with _inside(self._wire):
            _ip("link set lo up")
            Path("/proc/sys/net/ipv4/ip_forward").write_text("1", encoding="ascii")
            _nft(_TABLE)
        self._join(HERE, "run")
        for code, address in self.addresses.items():
            self._rooms[code] = _new_namespace()
            with self.room(code):
                self._join(address, f"bank-{code}")
        return self

    def __exit__(self, *_exception: object) -> None:
        for namespace in (self._wire, *self._rooms.values()):
            os.close(namespace)

    def room(self, code: str) -> contextlib.AbstractContextManager[None]:
        """Inside, this thread is in that bank's namespace, and so is what it starts and every socket that it makes."""
        return _inside(self._rooms[code])

    async def cut(self, directions: Iterable[Direction]) -> None:
        """From now on all packets in *directions* are dropped."""
        self._cut.update(directions)
        await self._apply()

    async def mend(self, directions: Iterable[Direction]) -> None:
        """Take back what ``cut`` did; what was cut twice is cut still."""
        self._cut.subtract(directions)
        await self._apply()

    async def _apply(self) -> None:
        await asyncio.to_thread(self.apply, [direction for direction, times in self._cut.items() if times])

    def apply(self, cut: Iterable[Direction]) -> None:
        """Let exactly the packets of *cut* be dropped."""
        with _inside(self._wire):
            _nft(rules(cut, self.addresses, self._ports))

    def dropped(self) -> int:
        """How many packets have been."""
        with _inside(self._wire):
            told = json.loads(_tool("nft", "-j", "list", "counter", "inet", "torture", "dropped"))
        return next(int(item["counter"]["packets"]) for item in told["nftables"] if "counter" in item)

    def _join(self, address: str, name: str) -> None:
        """Join the namespace that this thread is in to the wire, which calls it *name*."""
        _ip(
            "link set lo up",
            f"link add eth0 type veth peer name {name} netns /proc/{os.getpid()}/fd/{self._wire}",
            f"addr add {address} peer {_WIRE} dev eth0",
            "link set eth0 up",
            f"route add default via {_WIRE}",
        )
        with _inside(self._wire):
            _ip(f"addr add {_WIRE} peer {address} dev {name}", f"link set {name} up")


class RoomProcess(BankProcess):
    """A bank's process in its own namespace."""

    def __init__(self, wires: Wires, bank: LocalBank, env: Mapping[str, str], program: Iterable[str] = ()) -> None:
        super().__init__(bank, {**env, "DISTRIBANK_HOST": bank.host}, program)
        self._wires = wires

    def _begin(self, command: list[str], log: IO[bytes], env: Mapping[str, str], pid_file: int) -> Process:
        with self._wires.room(self.bank.code):
            return super()._begin(command, log, env, pid_file)


# What the system is asked ------------------------------------------------------------------------------------------


@contextmanager
def _and_back() -> Iterator[None]:
    """Behind it, this thread is in the namespace again in which it is now."""
    own = os.open(_OWN, os.O_RDONLY)
    try:
        yield
    finally:
        _call("setns", own, _CLONE_NEWNET)
        os.close(own)


@contextmanager
def _inside(namespace: int) -> Iterator[None]:
    """This thread is in *namespace*, and no other one."""
    with _and_back():
        _call("setns", namespace, _CLONE_NEWNET)
        yield


def _new_namespace() -> int:
    """A network namespace with nothing in it, which lasts as long as this descriptor or anybody inside."""
    with _and_back():
        _call("unshare", _CLONE_NEWNET)
        return os.open(_OWN, os.O_RDONLY)


def _call(name: str, *arguments: int) -> None:
    """A function of the C library that Python has from 3.12 on; ``OSError`` as it would be there."""
    if getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def _ip(*lines: str) -> None:
    _tool("ip", "-batch", "-", told="\n".join(lines) + "\n")


def _nft(text: str) -> None:
    _tool("nft", "-f", "-", told=text)


def _tool(name: str, *arguments: str, told: str = "") -> str:
    """What the tool says; ``Breakage`` if it fails. A terminal's Ctrl-C does not reach it."""
    found = _found(name)
    assert found is not None, f"{name} was there when this process entered its network"
    done = subprocess.run(  # noqa: S603
        [found, *arguments], input=told, capture_output=True, text=True, check=False, process_group=0
    )
    if done.returncode != 0:
        raise Breakage(f"{name} failed: {done.stderr.strip()}")
    return done.stdout


def _found(name: str) -> str | None:
    return shutil.which(name, path=_PATH)
