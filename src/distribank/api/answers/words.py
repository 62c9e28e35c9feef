"""The words and shapes that all answers share. A field that may be left out (``?`` in the contract) has a default."""

from __future__ import annotations

from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from distribank.core.documents import ACCOUNT_NUMBER_PATTERN

Item = TypeVar("Item")
Money = Annotated[str, Field(pattern=r"^[0-9]{1,17}\.[0-9]{2}$", description="BRL.", examples=["150.00"])]
SignedMoney = Annotated[
    str, Field(pattern=r"^-?[0-9]{1,17}\.[0-9]{2}$", description="BRL, signed.", examples=["-1.00"])
]
Time = Annotated[
    str,
    Field(
        pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z$",
        description="RFC 3339, UTC.",
        examples=["2026-11-23T12:00:00.000Z"],
    ),
]
Number = Annotated[
    str, Field(pattern=ACCOUNT_NUMBER_PATTERN, description="An account's number at its bank.", examples=["00000012-4"])
]
Name = Annotated[str, Field(description="A person's full name.", examples=["Maria da Silva"])]
MaskedCpf = Annotated[str, Field(description="A CPF's middle digits.", examples=["***.982.247-**"])]
Bank = Annotated[str, Field(description="A bank's code.", examples=["99990001"])]
DirectionName = Literal["debit", "credit"]
Json = dict[str, Any]
"""An answer as it is made."""


class Answer(BaseModel):
    """The root of all answers."""

    model_config = ConfigDict(extra="forbid")


class Page(Answer, Generic[Item]):
    """One page of a list."""

    items: list[Item]
    next_cursor: str | None = Field(description="Send it as `cursor` for the next page; null on the last.")


class Items(Answer, Generic[Item]):
    """All of them at once."""

    items: list[Item]
