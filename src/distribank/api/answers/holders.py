"""A person as they see themselves, and a token."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from distribank.api.answers.words import Answer, Json, MaskedCpf, Name, Time
from distribank.core.documents import mask_cpf
from distribank.core.holders import Holder
from distribank.moments import format_ms


class Token(Answer):
    """A token, to be sent as `Authorization: Bearer …`."""

    access_token: str = Field(description="Opaque; sent as `Authorization: Bearer …`.")
    token_type: Literal["bearer"]
    expires_in: int = Field(description="Seconds.")


class Person(Answer):
    """A registered holder."""

    holder_id: str = Field(description="The holder's id at this bank.")
    name: Name
    cpf_masked: MaskedCpf
    created_at: Time = Field(description="When they registered.")


def person(holder: Holder) -> Json:
    return {
        "holder_id": holder.holder_id,
        "name": holder.name,
        "cpf_masked": mask_cpf(holder.cpf),
        "created_at": format_ms(holder.created_at),
    }
