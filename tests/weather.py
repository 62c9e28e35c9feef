"""Weather between the banks of ``world``: which messages are lost or held back; and how it is seen to have passed."""

from __future__ import annotations

import asyncio
from typing import Any

from distribank.core.protocol import Abort, Commit, Inquire, Message, Prepare, State
from tests.world import World, codes

_A, B = codes(2)


def losing(kind: type[Message], fate: str, *, to: str | None = None) -> Any:
    """Weather in which every message of *kind* (to one bank, if named) meets *fate*, and all else arrives."""

    async def weather(_sender: str, bank: str, message: Message) -> str:
        return fate if isinstance(message, kind) and bank == (to or bank) else "deliver"

    return weather


class Gate:
    """Weather that holds messages of one kind back until it is opened; ``reached`` tells that one is waiting."""

    def __init__(self, kind: type[Message]) -> None:
        self.kind = kind
        self.reached = asyncio.Event()
        self.open = asyncio.Event()

    async def __call__(self, _sender: str, _bank: str, message: Message) -> str:
        if isinstance(message, self.kind):
            self.reached.set()
            await self.open.wait()
        return "deliver"


def once_voted(world: World, voted: str, held: str) -> Any:
    """Weather in which the prepare for *held* arrives once *voted* has answered its own."""

    async def weather(_sender: str, bank: str, message: Message) -> str:
        if bank == held and isinstance(message, Prepare):

            def answered() -> bool:
                return any(
                    to == voted and isinstance(asked, Prepare) and asked.transaction == message.transaction
                    for _, to, asked, _ in world.answered
                )

            await world.until(answered)
        return "deliver"

    return weather


async def nothing_about_outcomes(_sender: str, bank: str, message: Message) -> str:
    """Weather in which B votes, and neither hears of an outcome nor is answered when it asks."""
    lost = isinstance(message, Inquire) or (bank == B and isinstance(message, Commit | Abort))
    return "lose request" if lost else "deliver"


async def no_vote_arrives(_sender: str, bank: str, message: Message) -> str:
    """The same, where B's votes are lost as well: A aborts at its deadline."""
    if bank == B and isinstance(message, Prepare):
        return "lose answer"
    return await nothing_about_outcomes(_sender, bank, message)


async def only_inquiries(_sender: str, bank: str, message: Message) -> str:
    return "lose request" if bank == B and isinstance(message, Commit | Abort) else "deliver"


async def in_state(net: World, code: str, transaction: str, state: State) -> bool:
    known = await net.state(code, transaction)
    return known is not None and known.state is state


async def prepared(net: World, code: str, transaction: str) -> bool:
    return await in_state(net, code, transaction, State.PREPARED)
