"""Requests that Schemathesis makes from a bank's own description, each answer held to all of its checks.

For every operation: the description's examples, every boundary of every schema, and what chance adds, valid and not.
They are sent to a bank behind which things have happened, by whom the operation is for; where a valid request names an
account, a transfer or a person, mostly one that exists, so that it reaches further than the first no.
``HOSTILE_EXAMPLES`` says how many chance adds for each operation; ``make hostile`` asks for more.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import AsyncExitStack
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, Phase, settings

pytest.importorskip("schemathesis", reason="pip install -e '.[hostile]'")

import requests
import schemathesis
from schemathesis.checks import CHECKS, load_all_checks
from schemathesis.core.transport import Response
from schemathesis.generation import GenerationMode

from tests.hostile.examples import ANA, MARIA, A, B, C, Scene, settled
from tests.hostile.town import Headers, Reply, ask, town
from tests.test_authority import POLICIES, Policy

pytestmark = [pytest.mark.filterwarnings("default"), pytest.mark.timeout(3_000)]

EXAMPLES: Final = int(os.environ.get("HOSTILE_EXAMPLES", "22"))
ANSWERED: Final[Counter[int]] = Counter()
"""How many inputs were answered with each status."""

load_all_checks()
NOT_HERE: Final = {
    "ignored_auth",  # sends by itself, over sockets: tests/test_authority.py asks more
    "positive_data_acceptance",  # what is valid may still be refused, by 422, for what is in the books
    "max_response_time",
    "use_after_free",
    "ensure_resource_availability",
}
ELSEWHERE: Final = {
    "/interbank/": {"negative_data_rejection"},  # a bad message is refused inside a 200, between the good ones
    "/events": {"response_schema_conformance"},  # holds each event to the schema, which is that of the whole text
}
"""Checks that mean something else for some addresses."""


def checks_for(path: str) -> list[Any]:
    """The checks that an answer at *path* is held to."""
    without = NOT_HERE.union(*(names for part, names in ELSEWHERE.items() if part in path))
    return [CHECKS.get_one(name) for name in CHECKS.get_all_names() if name not in without]


class Bench:
    """A busy bank A on a loop of its own, for tests that know nothing of loops."""

    def __init__(self) -> None:
        self.runner = asyncio.Runner()
        self.stack = AsyncExitStack()
        self.scene: Scene = self.runner.run(self.stack.enter_async_context(settled()))
        self.chance = random.Random(18)  # noqa: S311 - repeatable

    def close(self) -> None:
        self.runner.run(self.stack.aclose())
        self.runner.close()

    def send(self, case: Any) -> Response:
        """The bank's answer to *case*, sent by whom its operation is for."""
        if case.meta is None or case.meta.generation.mode is GenerationMode.POSITIVE:
            self._make_real(case)
        prepared = requests.Request(**case.as_transport_kwargs(base_url="http://bank")).prepare()
        reply = self.runner.run(self._answer(case, prepared))
        ANSWERED[reply.status] += 1
        told: dict[str, list[str]] = {}
        for name, value in reply.headers:
            told.setdefault(name.decode().lower(), []).append(value.decode("latin-1"))
        return Response(reply.status, told, reply.body, prepared, 0.01, verify=False)

    def _make_real(self, case: Any) -> None:
        for name, value in self.scene.values.items():
            if name in (case.path_parameters or {}) and self.chance.random() < 0.8:
                case.path_parameters[name] = value
        if isinstance(case.body, dict | list):
            self._fill(case.body)

    def _fill(self, value: Any) -> None:
        """Names in a valid body, made those of people, banks and accounts that exist, four times in five."""
        known = {
            "account": self.scene.values["account"],
            "bank": self.chance.choice([A, B, C]),
            "initiator_bank": self.chance.choice([B, C]),
            "amount": "1.00",
        }
        for key, member in list(value.items() if isinstance(value, dict) else enumerate(value)):
            if key in known and isinstance(member, str) and self.chance.random() < 0.8:
                value[key] = known[key]
            elif key == "co_holders" and self.chance.random() < 0.8:
                value[key] = [ANA]
            elif isinstance(member, dict | list):
                self._fill(member)

    async def _answer(self, case: Any, prepared: requests.PreparedRequest) -> Reply:
        app = self.scene.town.houses[A].app
        self.scene.town.stopwatch.seconds += 60  # no guess is throttled here
        path = re.sub("^http://bank", "", prepared.url or "")
        body = prepared.body.encode() if isinstance(prepared.body, str) else prepared.body or b""
        headers = [
            (_bytes(name), _bytes(value)) for name, value in prepared.headers.items() if name.lower() != "authorization"
        ]
        headers += await self._credentials(f"{case.operation.method.upper()} {case.operation.path}", path, body)
        return await ask(app, str(prepared.method), path or "/", headers, body)

    async def _credentials(self, operation: str, path: str, body: bytes) -> Headers:
        here, policy = self.scene.town, POLICIES[operation]
        if policy is Policy.BANK:
            signed = here.signer(B).sign_request("POST", here.roster.own(A).url + path, body)
            return [(_bytes(name), _bytes(value)) for name, value in signed.headers.items()]
        if policy is Policy.ANYONE:
            return []
        who = "operator" if policy in (Policy.OPERATOR, Policy.SCRAPER) else MARIA
        return [(b"authorization", f"Bearer {await here.token(A, who)}".encode())]


def _bytes(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.close()


async def _description() -> Any:
    async with town(1) as made:
        return (await ask(made.houses[A].app, "GET", "/openapi.json")).json()


schema = schemathesis.openapi.from_dict(asyncio.run(_description()))


@pytest.mark.parametrize("bench", [None], indirect=True, ids=[pytest.HIDDEN_PARAM])  # else all have one node id
@schema.parametrize()
@settings(
    max_examples=EXAMPLES,
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_every_answer_to_what_is_generated_is_as_described(case: Any, bench: Bench) -> None:
    case.validate_response(bench.send(case), checks=checks_for(case.operation.path))


def test_that_was_enough() -> None:
    assert ANSWERED.total() >= 2_000
    assert max(ANSWERED) < 500
    assert {200, 201, 400, 404, 409, 415, 422} <= set(ANSWERED), ANSWERED
