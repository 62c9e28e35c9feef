"""The application of one bank: its routes, its limits, its description.

``create_app`` builds it around a bank that already exists. What the bank is made of (store, peers, recovery) and when
it starts and stops is the caller's to say, in *lifespan*.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request
from fastapi.middleware.asyncexitstack import AsyncExitStackMiddleware
from fastapi.responses import Response
from pydantic_core import to_json
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.routing import BaseRoute
from starlette.types import ASGIApp

from distribank import __version__
from distribank.api import (
    accounts,
    audits,
    batches,
    consents,
    docs,
    events,
    holders,
    network,
    operator,
    plans,
    restoration,
    statements,
    traces,
    transfers,
)
from distribank.api.boundary import Boundary
from distribank.api.edge import Edge
from distribank.api.problems import REFUSALS, on_refusal
from distribank.api.routes import plain_routes
from distribank.config import Settings
from distribank.ports import Clock

if TYPE_CHECKING:
    from distribank.bank import Bank

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[Any]]


class Application(FastAPI):
    """FastAPI with a shorter way in.

    Its own outer layers do nothing here: ``Boundary`` answers bugs and bounds bodies, and nothing is traced.
    """

    def build_middleware_stack(self) -> ASGIApp:
        routing = ExceptionMiddleware(AsyncExitStackMiddleware(self.router), dict.fromkeys(REFUSALS, on_refusal))
        return Boundary(routing, plain_routes(self.routes), self.state.edge)


def create_app(
    settings: Settings,
    bank: Bank,
    *,
    clock: Clock,
    inquire_now: Callable[[str], Awaitable[None]],
    interbank: Sequence[BaseRoute] = (),
    lifespan: Lifespan | None = None,
    monotonic: Callable[[], float] = time.monotonic,
) -> FastAPI:
    """The application that serves *bank*, with the routes for other banks given as *interbank*.

    *lifespan* is entered before the first request and left after the last; *inquire_now* is recovery's.
    """
    edge = Edge(bank, settings, inquire_now, clock.wall_ms, monotonic)
    app = Application(
        title=f"{settings.bank_name} ({settings.bank_code}) · DistriBank",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
        routes=[*_routes(), *interbank],
        lifespan=partial(_lifespan, edge, lifespan),
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    app.state.edge = edge
    app.add_route("/openapi.json", _openapi, include_in_schema=False)
    docs.serve_docs(app)
    app.openapi = partial(docs.describe, app)  # type: ignore[method-assign]
    return app


def _routes() -> list[BaseRoute]:
    """Every route for clients. They are tried in this order, so those that every transfer takes come first."""
    routers = (
        transfers.ordering,
        batches.ordering,
        transfers.transfers,
        accounts.accounts,
        traces.traces,
        plans.plans,
        statements.statements,
        events.events,
        batches.batches,
        consents.consents,
        holders.anyone,
        holders.holders,
        network.network,
        operator.operator,
        restoration.restoration,
        audits.audits,
        operator.scraping,
    )
    return [route for router in routers for route in router.routes]


@asynccontextmanager
async def _lifespan(edge: Edge, inner: Lifespan | None, app: FastAPI) -> AsyncIterator[None]:
    """The caller's lifespan, with the hashing threads let go behind it."""
    try:
        if inner is None:
            yield
        else:
            async with inner(app):
                yield
    finally:
        edge.stopping.set()
        edge.passwords.close()


async def _openapi(request: Request) -> Response:
    """The description, written once: anybody may ask for it, as often as they like."""
    state = request.app.state
    if not hasattr(state, "description"):
        state.description = to_json(docs.describe(request.app))
    return Response(state.description, media_type="application/json")
