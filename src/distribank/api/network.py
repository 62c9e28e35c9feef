"""This bank among the others, and whether it is well. A peer that is down makes no bank unwell."""

from __future__ import annotations

from collections.abc import Collection

from fastapi import Request
from fastapi.responses import Response

from distribank.api.answering import answer
from distribank.api.answers import network as answers
from distribank.api.docs import problems
from distribank.api.edge import bank_of
from distribank.api.problems import Problem
from distribank.api.routes import Route, router

network = router("Network", Route)


@network.get("/v1/network", response_model=answers.Network, summary="This bank and its peers")
async def see_network(request: Request) -> Response:
    """Who is online is learnt from traffic and, when there is none, from a probe every few seconds."""
    bank = bank_of(request)
    return answer(answers.network(bank.code, bank.name, bank.peers.views()))


@network.get("/livez", response_model=answers.Health, summary="Alive")
@network.get("/healthz", response_model=answers.Health, summary="Alive (the same)")
async def alive(request: Request) -> Response:
    """The process runs and answers, whether or not it is ready."""
    return answer({"status": "alive", "bank": bank_of(request).code})


@network.get("/readyz", response_model=answers.Health, responses=problems({503: "`not_ready`"}), summary="Ready")
async def ready(request: Request) -> Response:
    """Recovery has read the log, and the bank can write: its database is within reach."""
    bank = bank_of(request)
    if not bank.ready:
        raise not_ready(bank.restoring.awaited)
    if not bank.store.within_reach:
        raise Problem("not_ready", "this bank's database is out of reach; try again in a moment")
    return answer({"status": "ready", "bank": bank.code})


def not_ready(awaited: Collection[str] = ()) -> Problem:
    """What everyone hears until the log has been read, and when nothing can be made durable any more.

    A bank that was restored from a backup says whose answers are *awaited*.
    """
    if awaited:
        banks = ", ".join(sorted(awaited))
        return Problem("not_ready", f"this bank was restored from a backup and waits for what {banks} knows of it")
    return Problem("not_ready", "this bank is reading its log, or is stopping; try again in a moment")
