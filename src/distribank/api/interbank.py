"""The routes that other banks use: thin, signed both ways, and closed to everyone else.

A request is verified over its raw bytes before anything in it is read, and against this bank's own url, so that
what was meant for another bank is refused here. Whoever is not in the roster learns nothing: a bare 401. What each
message means is the bank's to decide; here it is only taken from the wire and its answer put back, signed.

The routes and their bodies are described in ``docs/wire.md``. No holder's or operator's token opens them.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field
from pydantic_core import to_json

from distribank import __version__
from distribank.api.problems import MEDIA_TYPE, URN
from distribank.api.routes import PlainRoute
from distribank.breakages import StoreBreakage
from distribank.core.protocol import PROTOCOL_VERSION, Answer, Message, Refused
from distribank.peers import wire
from distribank.peers.roster import Roster, public_key_text
from distribank.peers.signatures import Flaw, NotSigned, Signer, Verified, Verifier

MAX_UNDER_WAY: Final = 32
"""Requests of one bank that are worked on at once; a peer of this program has at most one of each kind, and a probe."""
RETRY_AFTER_S: Final = 1
DECISIONS: Final = "decisions"
"""What banks that are being restored ask, and tell, one another before they are ready."""

logger = logging.getLogger(__name__)


class Receiver(Protocol):
    """What these routes need of a bank."""

    @property
    def incarnation(self) -> str: ...

    def clock_now(self) -> int:
        """The stamp that travels with an answer."""

    async def receive(self, sender: str, clock: int, messages: Sequence[Message]) -> list[Answer]:
        """Decide *messages* of bank *sender*, whose clock is *clock*; their answers, in order, once they are durable.

        Without messages it is a probe, whose clock counts all the same.
        """


class Versions(BaseModel):
    """What a bank speaks and runs."""

    protocol: list[int] = Field(description="versions of the interbank protocol")
    software: str = Field(description="the version of the program")


class Identity(BaseModel):
    """Who a bank is."""

    code: str = Field(description="the bank's code")
    name: str = Field(description="its name for people")
    public_keys: list[str] = Field(
        description='as the network file lists them: "<n>:<base64 of 32 raw bytes>", Ed25519'
    )
    versions: Versions
    incarnation: str | None = Field(description="the random name of its database; null until its log has been read")


class Interbank:
    """The interbank side of bank *code*. *bank* gives ``None`` for as long as its log has not been read.

    *heard_from* is called with the code of each bank that shows itself by a well-signed request. *restoring* gives a
    bank that has read its log and waits for what others know: its own records it can tell.
    """

    def __init__(
        self,
        code: str,
        roster: Roster,
        signer: Signer,
        verifier: Verifier,
        bank: Callable[[], Receiver | None],
        heard_from: Callable[[str], None],
        restoring: Callable[[], Receiver | None] = lambda: None,
    ) -> None:
        self._entry = roster.own(code)
        self._signer = signer
        self._verifier = verifier
        self._bank = bank
        self._heard_from = heard_from
        self._restoring = restoring
        self._under_way: Counter[str] = Counter()

    def router(self) -> APIRouter:
        """All interbank routes, described for OpenAPI."""
        router = APIRouter(prefix="/interbank/v1", tags=["interbank"])
        for kind in wire.KINDS:
            router.add_api_route(
                f"/{kind}",
                self._route(kind),
                methods=["POST"],
                name=f"interbank_{kind}",
                summary=_SUMMARIES[kind],
                description=_DESCRIPTION,
                response_class=Response,
                response_model=None,
                responses=_RESPONSES,
                openapi_extra=_request_body(kind),
                route_class_override=PlainRoute,
            )
        router.add_api_route(
            "/identity",
            self.identity,
            methods=["GET"],
            name="interbank_identity",
            summary="Who this bank is, under which keys it signs, and what it speaks",
        )
        return router

    def _route(self, kind: str) -> Callable[[Request], Any]:
        async def handle(request: Request) -> Response:
            return await self.handle(kind, request)

        return handle

    async def identity(self) -> Identity:
        """Public: whoever builds a roster compares this with what they were told by other means."""
        bank = self._bank()
        keys = self._entry.public_keys.items()
        return Identity(
            code=self._entry.code,
            name=self._entry.name,
            public_keys=[public_key_text(int(keyid.partition(":")[2]), key) for keyid, key in keys],
            versions=Versions(protocol=[PROTOCOL_VERSION], software=__version__),
            incarnation=bank.incarnation if bank else None,
        )

    async def handle(self, kind: str, request: Request) -> Response:
        """Answer one batch. Until its signature is verified nothing but bare problems leave, and nothing is parsed."""
        bank = self._bank() or (self._restoring() if kind == DECISIONS else None)
        if bank is None:
            return _problem(503, "not_ready", "This bank has not yet read its log")
        body = await _read_body(request)
        if body is None:
            return _problem(413, "body_too_large", f"A body here has at most {wire.MAX_BODY} bytes")
        try:
            sender = self._verify(kind, request, body)
        except NotSigned as error:
            logger.info("bank %s refused an interbank %s request: %s", self._entry.code, kind, error)
            return _problem(401, "unauthorized", "Unauthorized")
        self._heard_from(sender.bank)
        if self._under_way[sender.bank] >= MAX_UNDER_WAY:
            return _problem(503, "not_ready", "Too many requests of this bank are under way")
        self._under_way[sender.bank] += 1
        try:
            return await self._answer(bank, kind, sender, body)
        except StoreBreakage:
            # What was asked may or may not be durable: say nothing, as though the answer had been lost. The bank stops.
            return _problem(503, "not_ready", "This bank cannot write")
        finally:
            self._under_way[sender.bank] -= 1

    def _verify(self, kind: str, request: Request, body: bytes) -> Verified:
        query: bytes = request.scope["query_string"]
        target = f"{self._entry.url}/interbank/v1/{kind}{'?' + query.decode('latin-1') if query else ''}"
        sender = self._verifier.verify_request("POST", target, request.headers.raw, body)
        if sender.bank == self._entry.code:
            raise NotSigned(Flaw.SIGNER, "this bank does not send messages to itself")
        return sender

    async def _answer(self, bank: Receiver, kind: str, sender: Verified, body: bytes) -> Response:
        try:
            batch = wire.decode_batch(kind, body)
        except wire.InvalidBatch as error:
            status = 400 if error.code == "malformed_json" else 422
            return self._signed(
                _problem(status, error.code, "The batch cannot be used", detail=str(error)), sender.nonce
            )
        messages = [message for message in batch.messages if not isinstance(message, Refused)]
        decided = iter(await bank.receive(sender.bank, batch.clock, messages))
        answers = [message if isinstance(message, Refused) else next(decided) for message in batch.messages]
        content = wire.encode_answers(sender.bank, bank.clock_now(), answers)
        return self._signed(Response(content, media_type="application/json"), sender.nonce)

    def _signed(self, response: Response, nonce: str) -> Response:
        response.headers.update(self._signer.sign_response(response.status_code, bytes(response.body), nonce))
        return response


async def _read_body(request: Request) -> bytes | None:
    """The raw body; ``None`` once it is longer than allowed, read no further."""
    announced = request.headers.get("content-length", "0")
    if not announced.isdigit() or int(announced[:12]) > wire.MAX_BODY:
        return None
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > wire.MAX_BODY:
            return None
    return bytes(body)


def _problem(status: int, code: str, title: str, **members: str) -> Response:
    """A problem document (RFC 9457) that tells a stranger no more than its status does; in English, to machines."""
    content = to_json({"type": URN + code, "title": title, "status": status, "code": code, **members})
    more = {401: {"www-authenticate": "Signature"}, 503: {"retry-after": str(RETRY_AFTER_S)}}.get(status, {})
    return Response(content, status, {"content-language": "en", **more}, MEDIA_TYPE)


# For OpenAPI ------------------------------------------------------------------------------------------------------

_SUMMARIES: Final = {
    "prepare": "Ask for a vote on every leg at this bank",
    "commit": "Tell a decision to commit, until it is acknowledged",
    "abort": "Tell a decision to abort, once",
    "inquire": "Ask for the outcome of transactions in doubt; without messages, a probe",
    "log": "Show a transaction's records here, to a bank that takes part in it",
    "accounts": "Show a person's accounts on which they let the asking bank order debits",
    "decisions": "Tell a bank that was restored from a backup what concerns it among what began since",
    "snapshot": "Show the clock or, at a stamp, the books and on which side of it transactions lie, to an auditor",
}
_DESCRIPTION: Final = (
    "For banks of the roster only: signed both ways (RFC 9421, Ed25519, tag `distribank-v1`) over the raw body. "
    "Messages go in, answers in the same order come out. Every field is named in `docs/wire.md`."
)


def _request_body(kind: str) -> dict[str, Any]:
    subject = {"accounts": ["holder_cpf"], "snapshot": [], "decisions": ["since"]}.get(kind, ["transaction"])
    message = {"type": "object", "required": ["kind", *subject], "properties": {"kind": {"const": kind}}}
    schema = {
        "type": "object",
        "required": ["protocol_version", "clock", "messages"],
        "properties": {
            "protocol_version": {"const": PROTOCOL_VERSION},
            "clock": {"type": "string", "description": "the sender's stamp, decimal"},
            "messages": {"type": "array", "maxItems": wire.MAX_MESSAGES, "items": message},
        },
    }
    example = {"protocol_version": PROTOCOL_VERSION, "clock": "117688885248000000", "messages": []}
    content = {"application/json": {"schema": schema, "example": example}}
    return {"requestBody": {"required": True, "content": content}}


_ANSWERS: Final = {
    "type": "object",
    "required": ["protocol_version", "to", "clock", "answers"],
    "properties": {
        "protocol_version": {"const": PROTOCOL_VERSION},
        "to": {"type": "string", "description": "the bank that asked"},
        "clock": {"type": "string", "description": "this bank's stamp, decimal"},
        "answers": {
            "type": "array",
            "items": {"type": "object", "required": ["answer"], "properties": {"answer": {"type": "string"}}},
        },
    },
}


def _described(words: str) -> dict[str, Any]:
    return {"description": words, "content": {MEDIA_TYPE: {"schema": {"type": "object"}}}}


_RESPONSES: Final[dict[int | str, dict[str, Any]]] = {
    200: {"description": "One answer per message, signed", "content": {"application/json": {"schema": _ANSWERS}}},
    400: _described("`malformed_json`, signed"),
    401: _described("Not signed by a bank of the roster as the profile demands; no reason is given"),
    413: _described("`body_too_large`: more than 4 MiB"),
    422: _described("`invalid_request` or `unsupported_version`, signed"),
    503: _described("`not_ready`, with `Retry-After`: this bank has not yet read its log, or cannot write"),
}
