"""A data directory: the network file, and per bank its settings, its private key, its database and its log.

::

    DIR/network.json            code, name, url and public keys of every bank
    DIR/99990001/bank.env       its settings, mode 0600: every secret is made afresh, for this bank alone
    DIR/99990001/key.pem        its private key, mode 0600
    DIR/99990001/bank.db        its database, made by the bank itself
    DIR/99990001/bank.log       what it said, where ``distribank up`` started it
    DIR/99990001/bank.pid       which process it is (``pids``), while it runs
    DIR/99990001/start          asks ``distribank up`` to start it again (``breaking``)
    DIR/up.lock                 locked by ``distribank up``, while that runs

What a bank has is never made anew: its key, its secrets and its port stay as they are, so a network may grow. A bank's
own files are complete before the network file names it, and the network file is replaced in one step: wherever this
stops, doing it again finishes it.
"""

from __future__ import annotations

import json
import re
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from dotenv import dotenv_values

from distribank import files, strict_json
from distribank.breakages import Misconfigured
from distribank.network import MAX_BANKS
from distribank.network.pasting import data_option, own_command
from distribank.peers.roster import Roster, create_private_key, load_private_key, parse_url, public_key_text

HOST: Final = "127.0.0.1"
ADDRESS: Final = f"http://{HOST}:{{port}}"
"""Where other banks reach a bank, if nothing else is said."""
DEFAULT_BASE_PORT: Final = 8001
FIRST: Final = "99990001"
"""The first of the plainly fictional bank codes."""

NAMES: Final = (
    "Aroeira",
    "Pitanga",
    "Sapucaia",
    "Imbuia",
    "Juazeiro",
    "Cerejeira",
    "Guabiroba",
    "Mangaba",
    "Cambuci",
    "Umbuzeiro",
    "Sucupira",
    "Buriti",
)
"""One word each, without accents: the env file's ``NAME=value`` lines then mean the same to every reader of them."""

_LISTEN: Final = re.compile(r"[0-9A-Za-z.:_-]+")

_ENV: Final = """\
# Settings of one bank, made by `distribank network init`. The project's .env.example says what each of them is.
DISTRIBANK_BANK_CODE={code}
DISTRIBANK_BANK_NAME={name}
DISTRIBANK_HOST={host}
DISTRIBANK_PORT={port}
DISTRIBANK_DATABASE_URL={database_url}
DISTRIBANK_NETWORK_FILE=../network.json
DISTRIBANK_PRIVATE_KEY_FILE=key.pem
DISTRIBANK_TOKEN_SECRET={token_secret}
DISTRIBANK_OPERATOR_PASSWORD={operator_password}
"""


@dataclass(frozen=True, slots=True)
class LocalBank:
    """A bank whose files are in a data directory of this machine, where *url* reaches it. *operator_password* is in
    clear. *host* is the machine itself, unless the bank is in a network of its own.
    """

    code: str
    name: str
    port: int
    directory: Path
    operator_password: str
    host: str = HOST

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    @property
    def env_file(self) -> Path:
        return self.directory / "bank.env"

    @property
    def log_file(self) -> Path:
        return self.directory / "bank.log"

    @property
    def pid_file(self) -> Path:
        return self.directory / "bank.pid"

    @property
    def start_file(self) -> Path:
        return self.directory / "start"


@dataclass(frozen=True, slots=True)
class Place:
    """Where new banks *listen*, and at which *address* the others reach them: a URL in which ``{number}`` is the bank's
    place in the series, from 1, ``{port}`` its port and ``{code}`` its code.
    """

    listen: str = HOST
    address: str = ADDRESS

    def url(self, number: int, code: str, port: int) -> str:
        """One bank's address; ``Misconfigured`` if that makes no URL."""
        try:
            url = self.address.format(number=number, code=code, port=port)
        except (LookupError, ValueError, AttributeError, TypeError):
            raise Misconfigured(
                f"the address {self.address!r} may hold {{number}}, {{code}} and {{port}}, as in "
                "http://bank-{number:03}:{port}, and no other braces"
            ) from None
        return parse_url(url, "the address")


@dataclass(frozen=True, slots=True)
class Database:
    """On what new banks stand: a URL in which ``{number}`` and ``{code}`` are the bank's and ``{password}`` is made
    afresh for it. *password_file*, which may hold the first two, is where the database's server reads that password.
    """

    url: str = "sqlite:///bank.db"
    password_file: str = ""

    @property
    def scheme(self) -> str:
        return urlsplit(self.url).scheme

    def url_of(self, number: int, code: str, password: str) -> str:
        """One bank's; ``Misconfigured`` if there are other braces, or if it is no single word."""
        url = self._filled(self.url, "database", number=number, code=code, password=password)
        if len(url.split()) != 1 or not urlsplit(url).scheme:
            raise Misconfigured(f"the database {self.url!r} is no URL such as sqlite:///bank.db or postgresql://…")
        return url

    def password_file_of(self, number: int, code: str) -> Path:
        return Path(self._filled(self.password_file, "password file", number=number, code=code))

    def _filled(self, text: str, what: str, **values: Any) -> str:
        try:
            return text.format(**values)
        except (LookupError, ValueError, AttributeError, TypeError):
            names = ", ".join(f"{{{name}}}" for name in values)
            raise Misconfigured(f"the {what} {text!r} may hold {names}, and no other braces") from None


def init(
    data_dir: Path,
    banks: int,
    base_port: int | None = None,
    place: Place | None = None,
    database: Database | None = None,
) -> list[LocalBank]:
    """Make sure that *data_dir* holds at least *banks* banks, and return all that it holds, by code.

    New banks listen on *base_port*, *base_port* + 1, … by their place in the series of codes; where none is given, in
    the row that the directory's first bank begins, or from 8001. No port is opened here. *place* says where they listen
    and are reached, this machine alone if it is left out; *database*, on what they stand, a file beside their settings.
    ``Misconfigured`` if that cannot be: a port that another bank of the directory has, a listed bank without its key, a
    bank that stands on something else than *database*.
    """
    if not 1 <= banks <= MAX_BANKS:
        raise Misconfigured(f"a data directory holds 1 to {MAX_BANKS} banks, not {banks}")
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        return _init(data_dir, banks, base_port, place or Place(), database)
    except OSError as error:
        raise Misconfigured(f"cannot write {error.filename or data_dir}: {error.strerror}") from error


def load(data_dir: Path) -> list[LocalBank]:
    """The banks whose files *data_dir* holds, by code; none if there is no network file."""
    listed = _read_listed(data_dir)
    found = [_read_bank(data_dir / code) for code in sorted(listed) if (data_dir / code / "bank.env").exists()]
    for bank in found:
        if bank.code != bank.directory.name:
            raise Misconfigured(f"{bank.env_file} is bank {bank.code}'s, in the directory of {bank.directory.name}")
    return found


def load_some(data_dir: Path) -> list[LocalBank]:
    """The same, for whoever cannot do without: ``Misconfigured`` if there is none."""
    banks = load(data_dir)
    if not banks:
        raise no_banks(data_dir)
    return banks


def find(data_dir: Path, wanted: str) -> LocalBank:
    """The bank that ``code_of`` finds; ``Misconfigured`` if there is none, or if its files are not in *data_dir*."""
    code = code_of(data_dir, wanted)
    if not (data_dir / code / "bank.env").exists():
        raise Misconfigured(f"{data_dir} does not hold the files of bank {code}: try where that bank runs")
    return _read_bank(data_dir / code)


def code_of(data_dir: Path, wanted: str) -> str:
    """The code of the bank with this code, this number (its place in the network file, by code, from 1) or this name;
    ``Misconfigured`` if the network file lists none.
    """
    listed = sorted(_read_listed(data_dir).items())
    if not listed:
        raise no_banks(data_dir)
    for number, (code, entry) in enumerate(listed, 1):
        if wanted in (code, str(number)) or wanted.casefold() == entry["name"].casefold():
            return code
    known = ", ".join(f"{number} = {code} {entry['name']}" for number, (code, entry) in enumerate(listed, 1))
    raise Misconfigured(f"no bank {wanted!r} in {data_dir}; there are {known}")


def no_banks(data_dir: Path) -> Misconfigured:
    """What to say where a network was looked for in vain."""
    return Misconfigured(
        f"{data_dir} holds no banks; say where they are with --data-dir, or make some with  "
        f"{own_command('up', *data_option(data_dir))}"
    )


def _init(
    data_dir: Path, banks: int, base_port: int | None, where: Place, database: Database | None
) -> list[LocalBank]:
    if not _LISTEN.fullmatch(where.listen):
        raise Misconfigured(f"banks listen on an address such as {HOST} or 0.0.0.0, not {where.listen!r}")
    where.url(1, FIRST, base_port or DEFAULT_BASE_PORT)  # refused before anything is written
    if database is not None:
        _check_database(data_dir, database)
    listed = _read_listed(data_dir)
    ports = {urlsplit(entry["url"]).port: code for code, entry in listed.items()}
    if base_port is None:
        base_port = _read_bank(data_dir / FIRST).port if (data_dir / FIRST / "bank.env").exists() else DEFAULT_BASE_PORT
    if not 1 <= base_port <= 65_536 - banks:
        raise Misconfigured(f"the base port must be 1 to {65_536 - banks} for {banks} banks, not {base_port}")
    for place in range(banks):
        code = str(int(FIRST) + place)
        directory = data_dir / code
        if code in listed and not (directory / "key.pem").exists():
            raise Misconfigured(
                f"{data_dir / 'network.json'} lists bank {code}, whose private key {directory / 'key.pem'} is missing: "
                "bring it back, or strike the bank out of the network file"
            )
        port = urlsplit(listed[code]["url"]).port if code in listed else None
        bank, public_key = _make_bank(
            directory,
            code,
            name_of(place),
            port or base_port + place,
            where.listen,
            (database or Database()).url_of(place + 1, code, secrets.token_hex(24)),
        )
        if database is not None and database.password_file:
            _hand_over_password(bank, database.password_file_of(place + 1, code))
        if ports.setdefault(bank.port, code) != code:
            raise Misconfigured(
                f"port {bank.port} for bank {code} is bank {ports[bank.port]}'s already; choose another --base-port"
            )
        url = where.url(place + 1, code, bank.port)
        listed.setdefault(code, {"code": code, "name": bank.name, "url": url, "public_keys": [public_key]})
    document = {"banks": [listed[code] for code in sorted(listed)]}
    files.replace(data_dir / "network.json", json.dumps(document, indent=2, ensure_ascii=False) + "\n", 0o644)
    return load(data_dir)


def name_of(place: int) -> str:
    """The name of the bank at *place* of the series, from 0."""
    again, index = divmod(place, len(NAMES))
    return f"{NAMES[index]}-{again + 1}" if again else NAMES[index]


def _check_database(data_dir: Path, database: Database) -> None:
    """A bank keeps the kind of database that it began with: on another one it would have forgotten all its promises."""
    database.url_of(1, FIRST, "")
    database.password_file_of(1, FIRST)
    for env_file in sorted(data_dir.glob("*/bank.env")):
        scheme = urlsplit(_database_url(env_file)).scheme
        if scheme != database.scheme:
            raise Misconfigured(
                f"the banks of {data_dir} stand on {scheme}, not on {database.scheme}, as {env_file.parent.name} does: "
                "a bank keeps the kind of database that it began with; make another network in another place"
            )


def _hand_over_password(bank: LocalBank, password_file: Path) -> None:
    """Where the database's server has no password yet, it gets the one in the bank's settings."""
    if not password_file.exists():
        files.replace(password_file, f"{urlsplit(_database_url(bank.env_file)).password or ''}\n", 0o600)


def _database_url(env_file: Path) -> str:
    return dotenv_values(env_file, interpolate=False).get("DISTRIBANK_DATABASE_URL") or Database().url


def _make_bank(
    directory: Path, code: str, name: str, port: int, listen: str, database_url: str
) -> tuple[LocalBank, str]:
    """The bank of *directory* and its public key; whatever of its files is missing is made, what is there stays."""
    directory.mkdir(mode=0o700, exist_ok=True)
    key_file, env_file = directory / "key.pem", directory / "bank.env"
    public = load_private_key(key_file).public_key() if key_file.exists() else create_private_key(key_file)
    if not env_file.exists():
        lines = _ENV.format(
            code=code,
            name=name,
            host=listen,
            port=port,
            database_url=database_url,
            token_secret=secrets.token_hex(32),
            operator_password=secrets.token_hex(16),
        )
        files.replace(env_file, lines, 0o600)
    return _read_bank(directory), public_key_text(1, public)


def _read_listed(data_dir: Path) -> dict[str, dict[str, Any]]:
    """The network file's banks by code, as they stand there, once the file has passed every check of the roster."""
    path = data_dir / "network.json"
    if not path.exists():
        return {}
    Roster.load(path)
    return {entry["code"]: entry for entry in strict_json.loads(path.read_bytes())["banks"]}


def _read_bank(directory: Path) -> LocalBank:
    env_file = directory / "bank.env"
    values = dotenv_values(env_file, interpolate=False)
    try:
        bank = LocalBank(
            code=values["DISTRIBANK_BANK_CODE"] or "",
            name=values["DISTRIBANK_BANK_NAME"] or "",
            port=int(values["DISTRIBANK_PORT"] or ""),
            directory=directory,
            operator_password=values["DISTRIBANK_OPERATOR_PASSWORD"] or "",
        )
    except KeyError as error:
        raise Misconfigured(f"{env_file} does not set {error.args[0]}") from None
    except ValueError:
        raise Misconfigured(f"{env_file}: DISTRIBANK_PORT must be a number from 1 to 65535") from None
    if not 1 <= bank.port <= 65_535:
        raise Misconfigured(f"{env_file}: DISTRIBANK_PORT must be a number from 1 to 65535, not {bank.port}")
    return bank
