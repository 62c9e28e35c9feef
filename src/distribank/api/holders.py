"""Registering, signing in, and seeing oneself.

Failed attempts are throttled: guesses by document and address and by address, registrations of documents that are
taken by address. What succeeds is not charged, so that an honest crowd behind one address is not kept waiting. The
more throttled attempts there are at once, the later each is refused: a flood costs its sender time, and others little.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Final

from fastapi import Form, Request
from fastapi.responses import Response

from distribank.api.answering import answer
from distribank.api.answers import holders as answers
from distribank.api.docs import problems
from distribank.api.edge import Edge, bank_of, edge_of, holder_of
from distribank.api.orders import Registration, TokenForm
from distribank.api.problems import Problem, refused
from distribank.api.routes import HolderRoute, Route, router
from distribank.api.throttle import network_of
from distribank.api.tokens import Authority
from distribank.core.documents import parse_cpf
from distribank.core.refusals import Code, Refusal

OPERATOR: Final = "operator"
REFUSALS_PER_S: Final = 100
"""How many throttled attempts are refused per second, where that keeps none of them waiting for longer than:"""
LATEST_REFUSAL_S: Final = 1.0

anyone = router("Holders and sign-in", Route)
holders = router("Holders and sign-in", HolderRoute)


@anyone.post(
    "/v1/holders",
    status_code=201,
    response_model=answers.Person,
    responses=problems({409: "`holder_exists`", 422: "`invalid_cpf`, `invalid_request`", 429: "`too_many_requests`"}),
    summary="Register a person",
)
async def register(request: Request, registration: Registration) -> Response:
    """A CPF is registered once at each bank. The password has 1 to 1,024 characters; a long one is best."""
    edge, address = edge_of(request), _address(request)
    async with _refusing_in_turn(edge):
        _refuse_if_exhausted(edge.taken_documents.wait(address), edge.registrations.wait(address))
    if await edge.bank.custody.holder_by_cpf(registration.cpf) is not None:
        raise _taken(edge, address, Refusal(Code.HOLDER_EXISTS, "this CPF is registered at this bank"))
    async with edge.passwords.slot():
        password_hash = await edge.passwords.hash(registration.password)
    holder = await edge.bank.custody.register(registration.name, registration.cpf, password_hash, registration.email)
    if isinstance(holder, Refusal):
        raise _taken(edge, address, holder)
    if not edge.registrations.wait(address):
        edge.registrations.charge(address)
    return answer(answers.person(holder), 201)


@anyone.post(
    "/v1/token",
    response_model=answers.Token,
    responses=problems({401: "`invalid_credentials`", 422: "`invalid_request`", 429: "`too_many_requests`"}),
    summary="Sign in",
)
async def sign_in(request: Request, form: Annotated[TokenForm, Form()]) -> Response:
    """OAuth2's password form: `username` is a CPF, or `operator`. The token serves `expires_in` seconds, here only."""
    edge = edge_of(request)
    async with _refusing_in_turn(edge):
        if form.username == OPERATOR:
            _check_operator(edge, _address(request), form.password)
            token = edge.tokens.issue(Authority.OPERATOR, OPERATOR)
        else:
            token = edge.tokens.issue(Authority.HOLDER, await _check_holder(edge, _address(request), form))
    content = {"access_token": token, "token_type": "bearer", "expires_in": edge.tokens.lifetime}
    return answer(content, headers={"Cache-Control": "no-store"})


@holders.get("/v1/holders/me", response_model=answers.Person, summary="Who am I?")
async def me(request: Request) -> Response:
    """The holder whom the token speaks for."""
    holder = await bank_of(request).custody.holder_by_cpf(holder_of(request).cpf)
    assert holder is not None, "a holder's token outlives no holder"
    return answer(answers.person(holder))


async def _check_holder(edge: Edge, address: str, form: TokenForm) -> str:
    """The holder's id, if the password is theirs; else raises ``invalid_credentials``, at the same cost for anyone.

    The attempt is charged before the hash and given back if it succeeds, while one of the two hashing threads is
    held: so a thousand guesses at once are not a thousand hashes, and a crowd of good passwords is not refused.
    """
    try:
        cpf = parse_cpf(form.username)
    except ValueError:
        cpf = ""
    guess = (cpf or form.username, address)
    _refuse_if_exhausted(edge.guesses_at_document.wait(guess), edge.guesses_from_address.wait(address))
    async with edge.passwords.slot():
        _charge_guess(edge, guess, address)
        holder = await edge.bank.custody.holder_by_cpf(cpf)
        matches = await edge.passwords.matches(holder.password_hash if holder else None, form.password)
        if not matches or holder is None:
            raise _wrong_credentials()
        _refund_guess(edge, guess, address)
    return holder.holder_id


def _check_operator(edge: Edge, address: str, password: str) -> None:
    """Return if this is the operator's password; compared by digest, in constant time."""
    guess = (OPERATOR, address)
    _charge_guess(edge, guess, address)
    given, right = (
        hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
        for text in (password, edge.settings.operator_password.get_secret_value())
    )
    if not hmac.compare_digest(given, right):
        raise _wrong_credentials()
    _refund_guess(edge, guess, address)


def _charge_guess(edge: Edge, guess: tuple[str, str], address: str) -> None:
    _refuse_if_exhausted(edge.guesses_at_document.wait(guess), edge.guesses_from_address.wait(address))
    edge.guesses_at_document.charge(guess)
    edge.guesses_from_address.charge(address)


def _refund_guess(edge: Edge, guess: tuple[str, str], address: str) -> None:
    edge.guesses_at_document.refund(guess)
    edge.guesses_from_address.refund(address)


def _taken(edge: Edge, address: str, refusal: Refusal) -> Problem:
    """A registration that failed is charged: trying documents one by one is not to be cheap."""
    if not edge.taken_documents.wait(address):
        edge.taken_documents.charge(address)
    return refused(refusal)


def _refuse_if_exhausted(*waits: float) -> None:
    seconds = max(waits)
    if seconds > 0:
        retry_after = str(max(1, math.ceil(seconds)))
        detail = f"too many attempts from here; try again in {retry_after} s"
        raise Problem("too_many_requests", detail, headers={"Retry-After": retry_after})


@asynccontextmanager
async def _refusing_in_turn(edge: Edge) -> AsyncIterator[None]:
    """A throttled attempt is refused behind those that wait already; it holds no thread and no token meanwhile."""
    try:
        yield
    except Problem as problem:
        if problem.code == "too_many_requests":
            edge.refusals_waiting += 1
            try:
                await asyncio.sleep(min(LATEST_REFUSAL_S, (edge.refusals_waiting - 1) / REFUSALS_PER_S))
            finally:
                edge.refusals_waiting -= 1
        raise


def _wrong_credentials() -> Problem:
    return Problem("invalid_credentials", "the document or the password is wrong")


def _address(request: Request) -> str:
    return network_of(request.client.host) if request.client else ""
