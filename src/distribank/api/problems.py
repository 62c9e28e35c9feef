"""Every answer that is a no: an RFC 9457 problem document with a stable code.

One table says which HTTP status a code has, whether it comes from a refusal, a breakage or the request itself.
Nothing that was sent is repeated in an answer, so that no secret can be; whoever reads it learns what to do instead.
Title and detail are told in the language that the request would rather have; code, type and status never change.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from pydantic_core import to_json
from starlette.exceptions import HTTPException

from distribank.api import portuguese
from distribank.api.languages import Language, wanted_by
from distribank.api.orders import ONE_AMOUNT, PATTERNS
from distribank.breakages import Breakage, Busy, KeyInProgress, KeyReused, OutcomeUnknown, StoreBreakage, Unreachable
from distribank.core.ledger import AccountType
from distribank.core.refusals import Code, Refusal

MEDIA_TYPE: Final = "application/problem+json"
URN: Final = "urn:distribank:problem:"

TABLE: Final[dict[str, tuple[int, str]]] = {
    "malformed_request": (400, "The request is not HTTP as this bank reads it"),
    "malformed_json": (400, "The body is not JSON as this bank reads it"),
    "idempotency_key_required": (400, "An Idempotency-Key header is required"),
    "invalid_idempotency_key": (400, "The Idempotency-Key header is not a key"),
    "unauthorized": (401, "A valid token is required"),
    "invalid_credentials": (401, "The document or the password is wrong"),
    "forbidden": (403, "This authority does not reach so far"),
    "not_found": (404, "There is nothing here"),
    "method_not_allowed": (405, "This method is not for this address"),
    "request_timeout": (408, "The request took too long to arrive"),
    "account_not_empty": (409, "The account is not empty"),
    "company_exists": (409, "The company has an account at this bank"),
    "holder_exists": (409, "The document is registered at this bank"),
    "not_in_suspense": (409, "There is not so much in suspense"),
    "not_resolvable": (409, "This part cannot be forced"),
    "not_settleable": (409, "This cannot be settled"),
    "idempotency_in_progress": (409, "The first request with this key is running"),
    "body_too_large": (413, "The body is too large"),
    "unsupported_media_type": (415, "The body's media type is not taken here"),
    "account_closed": (422, "The account is closed"),
    "account_not_found": (422, "There is no such account"),
    "approval_required": (422, "Other holders must approve"),
    "bank_refused": (422, "A bank refused"),
    "consent_exceeded": (422, "The consent does not reach so far"),
    "consent_expired": (422, "The consent has expired"),
    "consent_required": (422, "A consent is required"),
    "duplicate_holder": (422, "A document stands twice"),
    "holder_not_found": (422, "A co-holder is not registered here"),
    "idempotency_conflict": (422, "The key was used for something else"),
    "insufficient_funds": (422, "The available balance is too small"),
    "invalid_account_number": (422, "The account number is mistyped"),
    "invalid_amount": (422, "The amount is not valid"),
    "invalid_approval": (422, "The approval rule is not valid"),
    "invalid_cnpj": (422, "The CNPJ is not valid"),
    "invalid_cpf": (422, "The CPF is not valid"),
    "invalid_cursor": (422, "The cursor is not one of this bank's"),
    "invalid_request": (422, "The request is not valid"),
    "limit_exceeded": (422, "A limit would be exceeded"),
    "not_a_holder": (422, "The account is not the holder's"),
    "not_run": (422, "The transfer was not run"),
    "position_limit": (422, "A bank would owe more than its limit"),
    "too_many_legs": (422, "The transfer has too many legs"),
    "unbalanced_transfer": (422, "Debits and credits differ"),
    "unknown_bank": (422, "The network has no such bank"),
    "too_many_requests": (429, "Too many attempts"),
    "headers_too_large": (431, "The request's header is too large"),
    "internal_error": (500, "This bank made a mistake"),
    "bank_unreachable": (503, "A bank cannot be reached"),
    "busy": (503, "This bank is busy"),
    "interrupted": (503, "The transfer was interrupted"),
    "not_ready": (503, "This bank is not ready"),
    "outcome_unknown": (503, "The outcome is not known yet"),
}
"""Each code's HTTP status, and a title for people. Every ``core.refusals.Code`` stands here."""

RETRY_AFTER: Final = {"busy": "1", "idempotency_in_progress": "1", "not_ready": "1", "outcome_unknown": "1"}
"""Seconds after which asking again makes sense, for codes that pass by themselves."""


class Problem(HTTPException):
    """A no to one request. *extensions* are further members of the document; those that are ``None`` are left out."""

    def __init__(
        self, code: str, detail: str, *, headers: Mapping[str, str] | None = None, status: int = 0, **extensions: Any
    ) -> None:
        usual, title = TABLE[code]
        retry = {"Retry-After": RETRY_AFTER[code]} if code in RETRY_AFTER else {}
        challenge = {"WWW-Authenticate": "Bearer"} if usual == 401 else {}
        super().__init__(status or usual, detail, {**retry, **challenge, **(headers or {})})
        self.code = code
        self.title = title
        self.extensions = extensions

    def document(self, instance: str | None, language: Language = Language.ENGLISH) -> dict[str, Any]:
        """The members of the problem document."""
        members = {
            "type": URN + self.code,
            "title": self.title,
            "status": self.status_code,
            "detail": self.detail,
            "instance": instance,
            "code": self.code,
            **self.extensions,
            **(self.in_portuguese() if language is Language.PORTUGUESE else {}),
        }
        return {name: value for name, value in members.items() if value is not None}

    def in_portuguese(self) -> dict[str, Any]:
        """The members that are for people, in Portuguese."""
        return {"title": portuguese.title(self.code, self.title), "detail": portuguese.sentence(self.detail)}

    def response(self, instance: str | None = None, language: Language = Language.ENGLISH) -> Response:
        """The answer; *instance* is the address of what it is about. Without a request to read, it is in English."""
        content = to_json(self.document(instance, language))
        told = {"Content-Language": language.value, "Vary": "Accept-Language"}
        return Response(content, self.status_code, {**(self.headers or {}), **told}, MEDIA_TYPE)


def refused(refusal: Refusal, *, transfer_id: str | None = None, replayed: bool = False, status: int = 0) -> Problem:
    """The problem that a refusal is, naming the bank, the account and the leg concerned."""
    headers = {"Idempotency-Replayed": "true"} if replayed else None
    return Problem(
        refusal.code.value,
        refusal.detail,
        headers=headers,
        status=status,
        transfer_id=transfer_id,
        bank=refusal.bank,
        account=refusal.account,
        leg=refusal.leg,
    )


def broken(breakage: Breakage) -> Problem:
    """The problem that a breakage is to a client. What broke inside is for the log alone."""
    if isinstance(breakage, KeyReused):
        return Problem("idempotency_conflict", str(breakage))
    if isinstance(breakage, KeyInProgress):
        return Problem("idempotency_in_progress", str(breakage), transfer_id=breakage.transfer_id)
    if isinstance(breakage, Busy):
        return Problem("busy", str(breakage))
    if isinstance(breakage, OutcomeUnknown):
        return Problem("outcome_unknown", str(breakage), transfer_id=breakage.transfer_id)
    if isinstance(breakage, Unreachable):
        return Problem("bank_unreachable", "the bank did not answer in time", bank=breakage.bank)
    if isinstance(breakage, StoreBreakage):
        detail = "what was asked may or may not have happened; ask again with the same idempotency key"
        return Problem("outcome_unknown", detail)
    return Problem("internal_error", "this bank could not carry this out")


# Invalid requests -------------------------------------------------------------------------------------------------

PRECISE: Final = {
    "amount": "invalid_amount",
    "max_per_transfer": "invalid_amount",
    "max_total": "invalid_amount",
    ONE_AMOUNT: "invalid_amount",
    "account": "invalid_account_number",
    "cpf": "invalid_cpf",
    "co_holders": "invalid_cpf",
    "cnpj": "invalid_cnpj",
    "approval": "invalid_approval",
    "cursor": "invalid_cursor",
}
"""The code of a value that is there and wrong, by its field; everywhere else ``invalid_request``."""

UNKNOWN_BANKS: Final = {"bank", "initiator_bank"}
MAX_ERRORS: Final = 20
"""Errors that one answer lists."""

MAX_NAME: Final = 64
"""Characters of a field's name that are repeated: names of unknown fields come from outside."""

KINDS: Final = frozenset(AccountType)

_ECHOING: Final = {"union_tag_invalid": "the tag is not one of those expected"}
"""Messages of pydantic's that quote what was sent, and what is said instead."""


class Invalid(Problem):
    """The problem that failed validation is: the first error's code, and where each error stands; no value of any."""

    def __init__(self, errors: Sequence[Mapping[str, Any]]) -> None:
        self._errors = errors[:MAX_ERRORS]
        listed = [{"loc": _place(error), "msg": _words(error)} for error in self._errors]
        super().__init__(code_of(errors[0]), _first_of(listed), errors=listed)

    def in_portuguese(self) -> dict[str, Any]:
        listed = [{"loc": _place(error), "msg": portuguese.validation(error, _words(error))} for error in self._errors]
        return {**super().in_portuguese(), "detail": _first_of(listed), "errors": listed}


def code_of(error: Mapping[str, Any]) -> str:
    """The code that one validation error deserves."""
    if error["type"] in ("missing", "extra_forbidden"):
        return "invalid_request"
    names = [part for part in error["loc"] if isinstance(part, str)]
    if names and names[-1] in UNKNOWN_BANKS:
        return "unknown_bank" if error["type"] == "string_pattern_mismatch" else "invalid_request"
    if error["loc"][-1:] == ("co_holders",):
        return "invalid_request"  # the list itself, not a document in it
    for name in reversed(names):
        if name in PRECISE:
            return PRECISE[name]
    return "invalid_request"


def _first_of(listed: Sequence[Mapping[str, Any]]) -> str:
    return f"{'.'.join(str(part) for part in listed[0]['loc'])}: {listed[0]['msg']}"


def _place(error: Mapping[str, Any]) -> list[str | int]:
    """Where the value stands, without what pydantic names there beside fields: the kinds of a union.

    They stand in brackets, or are a kind of account.
    """
    *before, last = error["loc"]
    named = [part for part in before if "[" not in str(part) and part not in KINDS]
    if error["type"] == "extra_forbidden" or "[" not in str(last):
        named.append(last)
    return [part[:MAX_NAME] if isinstance(part, str) else part for part in named]


def _words(error: Mapping[str, Any]) -> str:
    message = _ECHOING.get(error["type"], str(error["msg"]))
    if error["type"] == "string_pattern_mismatch":
        message = PATTERNS.get(error["ctx"]["pattern"], message)
    return message.removeprefix("Value error, ")


# Handlers ---------------------------------------------------------------------------------------------------------


def nothing_there() -> Problem:
    """No route is at this address."""
    return Problem("not_found", "there is nothing at this address; all that there is stands at /docs")


REFUSALS: Final = (HTTPException, RequestValidationError, Breakage)
"""What an endpoint, or the framework, raises in place of an answer."""


async def on_refusal(request: Request, error: Exception) -> Response:
    """Answer a request in which one of ``REFUSALS`` was raised."""
    return _problem_of(request, error).response(request.url.path, wanted_by(request.scope))


def _problem_of(request: Request, error: Exception) -> Problem:
    if isinstance(error, Problem):
        return error
    if isinstance(error, Breakage):
        return broken(error)
    if isinstance(error, RequestValidationError):
        return Invalid(error.errors())
    assert isinstance(error, HTTPException)
    if error.status_code == 405:
        allowed = allowed_methods(request)
        return Problem("method_not_allowed", f"use {', '.join(allowed)}", headers={"Allow": ", ".join(allowed)})
    if error.status_code == 404:
        return nothing_there()
    if error.status_code == 413:
        return Problem("body_too_large", "the body is larger than this address takes")
    return Problem("malformed_request", "the request cannot be read", status=error.status_code)


def allowed_methods(request: Request) -> list[str]:
    """Every method that this address takes. What is named outright is not also an id at an address with one."""
    path = request.scope["path"]
    routes = [route for route in request.app.routes if getattr(route, "methods", None)]
    here = [route for route in routes if route.path == path] or [
        route for route in routes if route.path_regex.fullmatch(path)
    ]
    taken = {method for route in here for method in route.methods}
    return sorted(taken | {"HEAD"} if "GET" in taken else taken)


assert set(Code) <= set(TABLE), f"codes without a status: {set(Code) - set(TABLE)}"
