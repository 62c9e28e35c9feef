"""Who may come in where: every route for clients, by every kind of caller, as its kind says; made from the routes."""

from __future__ import annotations

import pytest
from fastapi.routing import APIRoute

from distribank.api.routes import HolderRoute, OperatorRoute, SignedInRoute
from distribank.api.tokens import Authority
from tests.counter_hall import Hall, hall

OPEN = {"/v1/holders", "/v1/token", "/v1/network", "/livez", "/healthz", "/readyz"}
FILLED = {"{account}": "00000001-9", "{transfer_id}": "t1", "{batch_id}": "b1", "{consent_id}": "c1"}


def address(path: str) -> str:
    for name, value in FILLED.items():
        path = path.replace(name, value)
    assert "{" not in path
    return path


async def statuses(bank: Hall, route: APIRoute) -> dict[str, int]:
    """What each kind of caller gets from one route, with nothing in the body."""
    foreign = bank.apps["99990002"].state.edge.tokens.issue(Authority.OPERATOR, "operator")
    callers = {
        "nobody": {},
        "holder": await bank.sign_in(),
        "operator": await bank.operator(),
        "scraper": {"Authorization": "Bearer what the scraper was given"},
        "another bank's operator": {"Authorization": f"Bearer {foreign}"},
    }
    (method,) = route.methods or ()
    return {
        caller: (await bank.client().request(method, address(route.path), headers=headers)).status_code
        for caller, headers in callers.items()
    }


async def test_every_route_lets_in_whom_its_kind_says_and_nobody_else() -> None:
    """Pitfall 32: operator routes reachable without the operator's authority."""
    async with hall(2) as bank:
        routes = [route for route in bank.apps["99990001"].routes if isinstance(route, APIRoute)]
        assert len(routes) > 25
        for route in routes:
            got = await statuses(bank, route)
            where = f"{route.methods} {route.path}: {got}"
            if route.path in OPEN:
                assert not {401, 403} & set(got.values()), where
                continue
            assert got.pop("nobody") == 401, where
            assert got.pop("another bank's operator") == 401, where
            if route.path == "/metrics":
                assert got == {"holder": 403, "operator": 200, "scraper": 200}, where
                continue
            assert isinstance(route, HolderRoute | OperatorRoute | SignedInRoute), where
            if isinstance(route, SignedInRoute):
                assert got.pop("scraper") == 401, where
                assert not {401, 403} & set(got.values()), where
                continue
            let_in, kept_out = ("holder", "operator") if isinstance(route, HolderRoute) else ("operator", "holder")
            assert got["scraper"] == 401, where
            assert got[kept_out] == 403, where
            assert got[let_in] not in (401, 403), where


@pytest.mark.parametrize("path", ["/docs", "/openapi.json", "/static/swagger-ui.css", "/nothing"])
async def test_what_is_no_route_for_clients_shows_no_state(path: str) -> None:
    async with hall() as bank:
        await bank.account("123.45")

        assert "123.45" not in (await bank.client().get(path)).text
