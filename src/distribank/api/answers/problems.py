"""What a no looks like, as a model; ``distribank.api.problems`` makes it."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from distribank.api.answers.words import Answer


class FieldError(Answer):
    loc: list[str | int] = Field(description="Where it stands: `body` or `query`, then names and places.")
    msg: str = Field(description="What is wrong there.")


class Problem(BaseModel):
    """RFC 9457: what went wrong. `code` is stable; further members name what it is about."""

    model_config = ConfigDict(
        extra="allow",
        json_schema_extra={
            "examples": [
                {
                    "type": "urn:distribank:problem:insufficient_funds",
                    "title": "The available balance is too small",
                    "status": 422,
                    "detail": "the available balance does not cover this debit",
                    "code": "insufficient_funds",
                    "bank": "99990001",
                    "account": "00000012-4",
                }
            ]
        },
    )

    type: str = Field(description="`urn:distribank:problem:` and the code.")
    title: str = Field(description="What went wrong, the same for every problem of this code.")
    status: int = Field(description="The HTTP status.")
    detail: str = Field(description="What went wrong this time, for people.")
    instance: str | None = Field(default=None, description="The address of what it is about.")
    code: str = Field(description="Stable: what programs go by.")
    transfer_id: str | None = Field(default=None, description="The transfer, where one was begun.")
    bank: str | None = Field(default=None, description="The bank concerned.")
    account: str | None = Field(default=None, description="The account concerned.")
    leg: int | None = Field(default=None, description="The leg concerned: debits first, from 1.")
    errors: list[FieldError] | None = Field(default=None, description="Every field that is not valid.")
