"""A transfer that could be ordered."""

from __future__ import annotations

from collections.abc import Collection

from pydantic import Field

from distribank.api.answers.transfers import Leg, sides
from distribank.api.answers.words import Answer, Json
from distribank.core import transfer


class Plan(Answer):
    """A transfer that could be ordered as it stands here."""

    debits: list[Leg]
    credits: list[Leg]
    description: str | None = Field(default=None, description="As it was given.")


def plan(legs: Collection[transfer.Leg], description: str | None) -> Json:
    """These *legs* as they can be ordered."""
    return {**sides(legs), **({} if description is None else {"description": description})}
