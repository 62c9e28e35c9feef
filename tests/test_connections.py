"""An answer's head and body leave in one write, and joining them neither loses nor adds anything."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from distribank.api.connections import _Joining


class Wire:
    """A transport that notes what is asked of it."""

    def __init__(self) -> None:
        self.seen: list[bytes | str] = []

    def write(self, data: bytes) -> None:
        self.seen.append(data)

    def close(self) -> None:
        self.seen.append("closed")

    def abort(self) -> None:
        self.seen.append("aborted")

    def is_closing(self) -> bool:
        return "closed" in self.seen


@pytest.fixture
async def wire() -> Wire:
    return Wire()


@pytest.fixture
async def joining(wire: Wire) -> _Joining:
    return _Joining(cast(asyncio.Transport, wire), asyncio.get_running_loop())


async def test_a_head_and_its_body_leave_in_one_write(wire: Wire, joining: _Joining) -> None:
    joining.write(b"head ")
    joining.write(b"body")
    assert wire.seen == [b"head body"]
    await asyncio.sleep(0)
    assert wire.seen == [b"head body"]


async def test_what_is_written_alone_leaves_with_this_turn_of_the_loop(wire: Wire, joining: _Joining) -> None:
    joining.write(b"an event")
    await asyncio.sleep(0)
    assert wire.seen == [b"an event"]


async def test_two_answers_in_one_turn_keep_their_order(wire: Wire, joining: _Joining) -> None:
    for part in (b"head 1 ", b"body 1 ", b"head 2 ", b"", b"body 2 ", b"alone"):
        joining.write(part)
    await asyncio.sleep(0)
    assert b"".join(part for part in wire.seen if isinstance(part, bytes)) == b"head 1 body 1 head 2 body 2 alone"


async def test_closing_sends_what_is_held_first_and_then_nothing(wire: Wire, joining: _Joining) -> None:
    joining.write(b"the last words")
    joining.close()
    await asyncio.sleep(0)
    assert wire.seen == [b"the last words", "closed"]
    assert joining.is_closing()


async def test_aborting_sends_nothing_more(wire: Wire, joining: _Joining) -> None:
    joining.write(b"never to be heard")
    joining.abort()
    await asyncio.sleep(0)
    assert wire.seen == ["aborted"]
