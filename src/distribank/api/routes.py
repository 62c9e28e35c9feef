"""How a request reaches its endpoint: first its authority, then its body as strict JSON, then the endpoint's model.

Endpoints are FastAPI routes, declared and described as such. ``Route`` and its kin put authority and strictness in
front of FastAPI's own handling. ``PlainRoute`` goes further and takes its place, for the few routes on which every
transfer goes: FastAPI describes them, and nothing of its machinery runs between ``Boundary`` and the endpoint.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from email.message import Message
from typing import Any, ClassVar, Final

from fastapi import APIRouter, Request, params
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from distribank import strict_json
from distribank.api.edge import edge_of
from distribank.api.headers import values
from distribank.api.problems import REFUSALS, Problem, on_refusal
from distribank.api.tokens import Authority

Handler = Callable[[Request], Coroutine[Any, Any, Response]]
LONG_BODY: Final = 64 * 1024
"""Bytes beyond which a body is read in another thread; only batches may be so long."""

FORMS: Final = ("application/x-www-form-urlencoded", "multipart/form-data")


class StrictRequest(Request):
    """A request whose body is read in one go, and as strict JSON."""

    async def body(self) -> bytes:
        """The whole body, kept, as heavy as ``Boundary`` lets it be; raises ``ClientDisconnect`` if it never comes."""
        if not hasattr(self, "_body"):
            chunks, more = [], True
            while more:
                message = await self.receive()
                if message["type"] == "http.disconnect":
                    raise ClientDisconnect
                chunks.append(message.get("body", b""))
                more = message.get("more_body", False)
            self._body = b"".join(chunks)
        return self._body

    async def json(self) -> Any:
        """The body's value; raises ``malformed_json`` for anything but one JSON text that all would read alike."""
        return parse_json(await self.body())


class Route(APIRoute):
    """A route that anyone may take; see its kin for the others."""

    authorities: ClassVar[tuple[Authority, ...]] = ()
    """Who may take it; with none at all, anyone."""

    def get_route_handler(self) -> Handler:
        handle = super().get_route_handler()
        authorities, body = self.authorities, self.body_field
        form = body is not None and isinstance(body.field_info, params.Form)

        async def strict(request: Request) -> Response:
            if authorities:
                await edge_of(request).admit(request, *authorities)
            request = StrictRequest(request.scope, request.receive)
            if form:
                _check_media_type(request, FORMS)
            elif body is not None:
                await _check_json(request)
            return await handle(request)

        return strict


class HolderRoute(Route):
    """A route for holders, signed in."""

    authorities = (Authority.HOLDER,)


class OperatorRoute(Route):
    """A route for the operator, signed in."""

    authorities = (Authority.OPERATOR,)


class SignedInRoute(Route):
    """A route for holders and for the operator; its endpoint tells them apart."""

    authorities = (Authority.HOLDER, Authority.OPERATOR)


class PlainRoute(Route):
    """A route at one fixed address whose endpoint takes the request and nothing else, and is called with just that."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        handle = self.get_route_handler()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            request = StrictRequest(scope, receive, send)
            try:
                response = await handle(request)
            except REFUSALS as error:
                response = await on_refusal(request, error)
            await response(scope, receive, send)

        self.app = app

    def get_route_handler(self) -> Handler:
        endpoint: Handler = self.endpoint
        return endpoint


def plain_routes(routes: Iterable[BaseRoute]) -> dict[tuple[str, str], ASGIApp]:
    """By method and path, what among *routes* needs no search, no parameters and none of FastAPI's preparations."""
    plain = [route for route in routes if isinstance(route, PlainRoute)]
    return {(method, route.path): route.app for route in plain for method in route.methods or ()}


class OrderRoute(PlainRoute):
    """A holder's plain route, whose endpoint takes one body as well."""

    authorities = (Authority.HOLDER,)

    def get_route_handler(self) -> Handler:
        endpoint, (field,) = self.endpoint, self.dependant.body_params
        model = field.field_info.annotation
        assert isinstance(model, type)
        assert issubclass(model, BaseModel)

        async def plain(request: Request) -> Response:
            await edge_of(request).admit(request, Authority.HOLDER)
            _check_media_type(request, ("application/json",))
            body = await request.body()
            if len(body) <= LONG_BODY:
                order = _read(model, body)
            else:  # a batch of megabytes takes a second to read: votes must not wait for it
                order = await asyncio.to_thread(_read, model, body)
            response: Response = await endpoint(request, order)
            return response

        return plain


def _read(model: type[BaseModel], body: bytes) -> BaseModel:
    """What *body* orders; raises ``malformed_json``, or says what is not valid in it."""
    value = parse_json(body)
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise RequestValidationError(
            [{**e, "loc": ("body", *e["loc"])} for e in error.errors(include_url=False, include_input=False)]
        ) from None


def router(tag: str, route: type[Route]) -> APIRouter:
    """A router whose routes are of kind *route* and stand under *tag* in the description."""
    return APIRouter(tags=[tag], route_class=route, strict_content_type=False)


def parse_json(body: bytes) -> Any:
    """The value of a JSON body; raises ``malformed_json``."""
    if not body:
        raise Problem("malformed_json", "a JSON body is required here")
    try:
        return strict_json.loads(body)
    except strict_json.MalformedJSON as malformed:
        raise Problem("malformed_json", f"the body is not JSON as this bank reads it: {malformed}") from None


async def _check_json(request: Request) -> None:
    """Refuse what is not JSON before anyone interprets it. FastAPI would take an empty body for none at all."""
    _check_media_type(request, ("application/json",))
    if not await request.body():
        raise Problem("malformed_json", "a JSON body is required here")


def _check_media_type(request: Request, taken: tuple[str, ...]) -> None:
    """A body of another media type is refused; one without any is taken for what is expected (RFC 9110, 8.3).

    So is a compressed one: nothing here unpacks, so that no small body becomes a large one.
    """
    encodings, types = values(request, b"content-encoding"), values(request, b"content-type")
    if encodings and encodings[0].lower() not in ("identity", ""):
        raise Problem("unsupported_media_type", "send the body as it is, without a Content-Encoding")
    header = types[0] if types else ""
    if not header or header in taken:
        return
    message = Message()
    message["content-type"] = header
    given = message.get_content_type()
    if given in taken or (taken == ("application/json",) and given.endswith("+json")):
        return
    raise Problem("unsupported_media_type", f"send {' or '.join(taken)}")
