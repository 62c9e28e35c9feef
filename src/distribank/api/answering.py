"""Answers as bytes: made once, by pydantic's own serializer, with no model in between."""

from __future__ import annotations

from collections.abc import Mapping

from fastapi.responses import Response
from pydantic_core import to_json

from distribank.api.answers.words import Json

REPLAYED = {"Idempotency-Replayed": "true"}


def answer(content: Json, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """*content* as a JSON answer."""
    return Response(to_json(content), status, headers, "application/json")
