"""The description of everything that stands here (OpenAPI 3.1), and its page, which needs no internet.

Endpoints say what is their own. What follows from their kind is added here: who may call them, that a body must be
JSON and how large it may be, that a bank may not be ready.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import fastapi_offline
from fastapi import FastAPI, Request
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.openapi.utils import get_openapi
from fastapi.responses import HTMLResponse
from fastapi.routing import APIRoute
from fastapi.staticfiles import StaticFiles

from distribank import __version__
from distribank.api.answers.problems import Problem
from distribank.api.problems import MEDIA_TYPE
from distribank.api.routes import Route
from distribank.api.tokens import Authority

ASSETS: Final = Path(fastapi_offline.__file__).parent / "static"
TITLES: Final = {
    400: "Not readable",
    401: "No valid token",
    403: "Another authority is needed",
    404: "Nothing that this caller may see",
    409: "Not in this state",
    413: "Body too large",
    415: "Body of another media type",
    422: "Refused",
    429: "Too many attempts; see Retry-After",
    503: "Not now; see Retry-After, where there is one",
}

DESCRIPTION: Final = """\
One bank of a payment network that has no centre: a transfer between banks is made atomic by two-phase commit.

**Try it**: register with `POST /v1/holders`, press *Authorize* (the CPF is the username), open an account, deposit,
transfer. Amounts are decimal strings in BRL such as `"150.00"`. Every no is a problem document (RFC 9457) with a
stable `code`, in English or, for `Accept-Language: pt-BR`, in Portuguese. Orders that move money carry an
`Idempotency-Key`.
"""

TAGS: Final = [
    {"name": "Holders and sign-in", "description": "Register, sign in."},
    {"name": "Accounts", "description": "Individual, joint and business accounts; cash, statements, events."},
    {"name": "Transfers", "description": "Atomic, over any number of accounts at any number of banks."},
    {"name": "Consents", "description": "What another bank may debit here."},
    {"name": "Network", "description": "This bank, its peers, its health."},
    {"name": "Operator", "description": "In doubt, forced, suspense, restored, positions, books, metrics."},
    {"name": "interbank", "description": "For other banks: signed messages (RFC 9421). See docs/wire.md."},
]

SIGN_IN: Final = "Sign in"
SECURITY_SCHEMES: Final = {
    SIGN_IN: {
        "type": "oauth2",
        "description": "`username`: a CPF, or `operator`.",
        "flows": {"password": {"tokenUrl": "/v1/token", "scopes": {}}},
    }
}
PROBLEM: Final = {"$ref": "#/components/schemas/Problem"}


def problems(codes: Mapping[int, str]) -> dict[int | str, dict[str, Any]]:
    """Statuses other than success that an endpoint answers with, each with its codes in words."""
    return {status: _problem(status, codes_) for status, codes_ in codes.items()}


def describe(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document of *app*, made once."""
    if app.openapi_schema is None:
        routes = [route for route in app.routes if isinstance(route, APIRoute) and route.include_in_schema]
        schema = get_openapi(
            title=app.title, version=__version__, description=DESCRIPTION, routes=app.routes, tags=TAGS
        )
        for route in routes:
            for method in route.methods or ():
                _complete(schema["paths"][route.path_format][method.lower()], route)
        components = schema.setdefault("components", {})
        components["securitySchemes"] = SECURITY_SCHEMES
        schemas = components.setdefault("schemas", {})
        schemas.pop("HTTPValidationError", None)
        schemas.pop("ValidationError", None)
        reference = "#/components/schemas/{model}"
        problem = Problem.model_json_schema(ref_template=reference)
        schemas.update(problem.pop("$defs", {}))
        schemas["Problem"] = problem
        app.openapi_schema = schema
    return app.openapi_schema


def serve_docs(app: FastAPI) -> None:
    """Add the description's page, with all that it loads served from here."""
    app.mount("/static", StaticFiles(directory=ASSETS), name="static")

    async def docs(_request: Request) -> HTMLResponse:
        return get_swagger_ui_html(
            openapi_url="/openapi.json",
            title=app.title,
            swagger_js_url="/static/swagger-ui-bundle.js",
            swagger_css_url="/static/swagger-ui.css",
            swagger_favicon_url="/static/favicon.png",
            swagger_ui_parameters={"persistAuthorization": True, "tryItOutEnabled": True},
        )

    app.add_route("/docs", docs, include_in_schema=False)


def _complete(operation: dict[str, Any], route: APIRoute) -> None:
    """Add to one operation what follows from its kind."""
    responses = operation["responses"]
    if "HTTPValidationError" in str(responses.get("422")):
        responses["422"] = _problem(422, "`invalid_request`, or a more precise code")
    authorities = route.authorities if isinstance(route, Route) else ()
    if authorities:
        operation["security"] = [{SIGN_IN: []}]
        needed = " or ".join("a holder's" if one is Authority.HOLDER else "the operator's" for one in authorities)
        responses.setdefault("401", _problem(401, "`unauthorized`"))
        responses.setdefault("403", _problem(403, f"`forbidden`: {needed} token is needed"))
    if "requestBody" in operation:
        json = "application/json" in operation["requestBody"]["content"]
        responses.setdefault("400", _problem(400, "`malformed_json`" if json else "`malformed_request`"))
        responses.setdefault("413", _problem(413, "`body_too_large`"))
        responses.setdefault("415", _problem(415, "`unsupported_media_type`"))
        responses.setdefault("422", _problem(422, "`invalid_request`"))
    if route.path.startswith("/v1/"):
        responses.setdefault("503", _problem(503, "`not_ready`, `busy`, `outcome_unknown`"))
    operation["responses"] = dict(sorted(responses.items()))


def _problem(status: int, codes: str) -> dict[str, Any]:
    return {"description": f"{TITLES[status]}: {codes}", "content": {MEDIA_TYPE: {"schema": PROBLEM}}}
