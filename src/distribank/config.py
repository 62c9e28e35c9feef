"""Every setting of a bank: read once, from an env file and the environment, and refused here if no bank may start so.

Environment variables carry the prefix ``DISTRIBANK_`` and win over the env file. Relative paths are relative to the
env file. ``.env.example`` documents every variable; a test compares the two. What is wrong is said with the
variable's name and what to put there; the value of a secret is never repeated.
"""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from dotenv import dotenv_values
from pydantic import AfterValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from distribank.breakages import Misconfigured
from distribank.core.documents import BANK_CODE_PATTERN
from distribank.core.money import parse_amount

PREFIX: Final = "DISTRIBANK_"
EXAMPLE: Final = "change-me"
"""How every secret in ``.env.example`` begins; none that begins so is accepted."""

_COLLECTOR: Final = re.compile(r"https?://[A-Za-z0-9.\-\[\]:]+(/[A-Za-z0-9._~/\-]*)?", re.ASCII)

_NAME: Final = re.compile(r"[A-Z_]{1,40}")

SQLITE: Final = "sqlite:///"
PASSWORD_COST: Final[dict[str, tuple[int, int]]] = {
    "owasp": (19_456, 2),
    "rfc9106": (65_536, 3),
    "cheap-for-tests": (64, 1),
}
"""argon2id's memory in KiB and its passes, per profile; one lane each."""


class PasswordProfile(StrEnum):
    """How much work a guess costs. ``owasp`` is OWASP's minimum, ``rfc9106`` the RFC's low-memory recommendation."""

    OWASP = "owasp"
    RFC9106 = "rfc9106"
    CHEAP = "cheap-for-tests"


class LogFormat(StrEnum):
    """How a bank's log is written: lines for people, or a JSON object a line for programs."""

    TEXT = "text"
    JSON = "json"


def _secret(shortest: int) -> AfterValidator:
    """A check that a secret was made for this bank: not empty, not an example, long enough."""

    def check(secret: SecretStr) -> SecretStr:
        text = secret.get_secret_value()
        if not text:
            raise ValueError("is empty; put a secret there, such as the output of `openssl rand -hex 32`")
        if text.lower().startswith(EXAMPLE):
            raise ValueError("is the example value; make one, such as with `openssl rand -hex 32`")
        if len(text) < shortest:
            raise ValueError(f"is too short: at least {shortest} characters, such as from `openssl rand -hex 32`")
        return secret

    return AfterValidator(check)


def checked_database(url: str) -> str:
    """*url*; ``ValueError``, with what it must be, if no engine is known by it."""
    if not url.startswith((SQLITE, "postgresql://")) or url == SQLITE:
        raise ValueError("must be sqlite:///relative/bank.db, sqlite:////absolute/bank.db or postgresql://…")
    return url


def _collector(url: str) -> str:
    if url and not _COLLECTOR.fullmatch(url):
        raise ValueError("must be the address of an OTLP/HTTP collector, such as http://127.0.0.1:4318, or empty")
    return url.rstrip("/")


def _amount(text: str) -> str:
    parse_amount(text)
    return text


class Settings(BaseSettings):
    """One bank's settings. ``Settings.load`` is how a bank reads them; tests may also build one from arguments."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid", hide_input_in_errors=True, frozen=True)

    bank_code: str = Field(pattern=BANK_CODE_PATTERN)
    bank_name: str = Field(min_length=1, max_length=140)
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=1, le=65_535)
    database_url: Annotated[str, AfterValidator(checked_database)] = "sqlite:///bank.db"
    network_file: Path
    private_key_file: Path
    token_secret: Annotated[SecretStr, _secret(32)]
    operator_password: Annotated[SecretStr, _secret(12)]
    metrics_token: Annotated[SecretStr, _secret(16)] | None = None
    vote_deadline: float = Field(default=2.0, gt=0, le=120)
    token_lifetime: int = Field(default=3_600, ge=60, le=86_400)
    position_limit: Annotated[str, AfterValidator(_amount)] | None = None
    retention_days: int = Field(default=7, ge=1, le=3_650)
    password_profile: PasswordProfile = PasswordProfile.OWASP
    max_connections: int = Field(default=1_000, ge=16, le=100_000)
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_format: LogFormat = LogFormat.TEXT
    otlp_endpoint: Annotated[str, AfterValidator(_collector)] = ""

    @classmethod
    def load(cls, env_file: Path) -> Settings:
        """The settings in *env_file*, the environment winning; raises ``Misconfigured`` with what to do about it."""
        values = _read(env_file)
        known = {PREFIX + name.upper(): name for name in cls.model_fields}
        unknown = sorted(name for name in values if name.upper() not in known)
        if unknown:
            raise Misconfigured(
                f"{env_file} sets {_repeatable(unknown[0])}, which no bank knows: see .env.example for the names"
            )
        given = {known[name.upper()]: value for name, value in values.items()}
        try:
            settings = cls(**_without_empty_options(given))
        except ValidationError as error:
            raise Misconfigured(_what_to_do(error, env_file)) from None
        return settings.resolved(env_file.absolute().parent)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment first, then what the env file (or a test) gives. Nothing else is read."""
        return env_settings, init_settings

    def resolved(self, directory: Path) -> Settings:
        """The same settings with every relative path made absolute, from *directory*."""
        url = self.database_url
        if url.startswith(SQLITE):
            url = SQLITE + str(directory / url.removeprefix(SQLITE))
        changes = {
            "database_url": url,
            "network_file": directory / self.network_file,
            "private_key_file": directory / self.private_key_file,
        }
        return self.model_copy(update=changes)

    @property
    def database_file(self) -> Path | None:
        """The file of an embedded database; ``None`` where a server has it."""
        return Path(self.database_url.removeprefix(SQLITE)) if self.database_url.startswith(SQLITE) else None

    @property
    def marker_file(self) -> Path:
        """Beside the key, what names the bank's latest database (see ``store.marker``)."""
        return self.private_key_file.with_suffix(".incarnation")

    @property
    def position_limit_centavos(self) -> int | None:
        """What a peer may come to owe this bank, in centavos; ``None`` where there is no limit."""
        return None if self.position_limit is None else parse_amount(self.position_limit)

    @property
    def password_cost(self) -> tuple[int, int]:
        """argon2id's memory in KiB and its number of passes."""
        return PASSWORD_COST[self.password_profile]


def _read(env_file: Path) -> dict[str, str]:
    """The ``NAME=value`` lines of *env_file*, taken literally; refused if others than its owner may read it."""
    try:
        if env_file.is_dir():
            raise Misconfigured(f"{env_file} is a directory; the env file in it is {env_file / 'bank.env'}")
        mode = env_file.stat().st_mode
        if mode & 0o077:
            raise Misconfigured(
                f"{env_file} holds secrets and others may read it (mode {mode & 0o777:04o}): chmod 600 {env_file}"
            )
        with env_file.open(encoding="utf-8") as lines:
            values = dotenv_values(stream=lines, interpolate=False)
    except (OSError, UnicodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise Misconfigured(
            f"cannot read the env file {env_file}: {why}; `distribank network init` writes one"
        ) from None
    for name, value in values.items():
        if value is None:
            raise Misconfigured(f"{env_file} has {_repeatable(name)} without a value: write NAME=value")
    return {name: value for name, value in values.items() if value is not None}


def _repeatable(name: str) -> str:
    """*name*, unless it might be no name at all but a secret that slipped to a line of its own."""
    return name if _NAME.fullmatch(name) else "something that is no variable's name"


def _without_empty_options(given: dict[str, str]) -> dict[str, Any]:
    """An option that may be left out counts as left out where its line is empty, as in ``.env.example``."""
    optional = {name for name, field in Settings.model_fields.items() if not field.is_required()}
    return {name: value for name, value in given.items() if value or name not in optional}


def _what_to_do(error: ValidationError, env_file: Path) -> str:
    """Every variable that is wrong, each with the reason; no value of any."""
    lines = []
    for problem in error.errors(include_url=False, include_context=False, include_input=False):
        name = PREFIX + str(problem["loc"][0]).upper()
        missing = problem["type"] == "missing"
        why = "is missing; .env.example says what it is" if missing else problem["msg"].removeprefix("Value error, ")
        lines.append(f"{name}: {why}")
    origin = f"(env file {env_file}; variables of the environment win over it)"
    return "\n".join(["a bank cannot start with these settings " + origin, *lines])


def environment_names() -> frozenset[str]:
    """Every variable that a bank reads."""
    return frozenset(PREFIX + name.upper() for name in Settings.model_fields)
