"""The roster: which banks there are, where they are reached, and which keys speak for them.

It is read once, at start-up, from the network file; there is no other authority. Whatever is wrong in it, or in a
bank's own private key file, is ``Misconfigured`` with the place named, before the bank serves anyone. Private keys
never leave this module but as objects that can sign.

The file is JSON::

    {"banks": [{"code": "99990001", "name": "Banco Um", "url": "http://127.0.0.1:8001",
                "public_keys": ["1:11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="]}]}

A public key is ``<n>:<base64 of the 32 raw bytes>`` (Ed25519, RFC 8032); *n* is a number that its bank never uses
for another key, and ``<code>:<n>`` is the ``keyid`` under which it signs. To rotate: list the new key beside the old
one everywhere, give the bank its new private key, then strike the old one out. Unknown members are ignored.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from distribank import strict_json
from distribank.breakages import Misconfigured
from distribank.core.documents import BANK_CODE_PATTERN

MAX_BANKS: Final = 1000
MAX_KEYS: Final = 4
"""Active public keys of one bank: two while it rotates, and some room."""
MAX_NAME: Final = 100
"""Characters of a bank's name."""
MAX_PRIVATE_KEY_FILE: Final = 16_384
"""Bytes; a PKCS #8 file with an Ed25519 key has about 120."""

_CODE: Final = re.compile(BANK_CODE_PATTERN)
_PUBLIC_KEY: Final = re.compile(r"([1-9][0-9]{0,3}):([A-Za-z0-9+/]{43}=)")
_HOST: Final = re.compile(r"[a-z0-9._\-]+|[0-9a-f:.]+")


@dataclass(frozen=True, slots=True)
class RosterEntry:
    """One bank. *url* has no trailing slash; *public_keys* maps keyids to keys, in the file's order."""

    code: str
    name: str
    url: str
    public_keys: dict[str, Ed25519PublicKey]


class Roster:
    """The banks by code, sorted; every key by its keyid."""

    def __init__(self, entries: Iterable[RosterEntry]) -> None:
        """*entries* must differ in code, url and keys; ``Misconfigured`` says which do not."""
        self._entries: dict[str, RosterEntry] = {}
        self.keys: dict[str, Ed25519PublicKey] = {}
        urls: dict[str, str] = {}
        owners: dict[bytes, str] = {}
        for entry in sorted(entries, key=lambda entry: entry.code):
            if entry.code in self._entries:
                raise Misconfigured(f"bank {entry.code} is listed twice")
            if urls.setdefault(entry.url, entry.code) != entry.code:
                raise Misconfigured(f"banks {urls[entry.url]} and {entry.code} have the same url {entry.url}")
            for keyid, key in entry.public_keys.items():
                if raw_public_key(key) in owners:
                    raise Misconfigured(f"the keys {owners[raw_public_key(key)]} and {keyid} are the same")
                owners[raw_public_key(key)] = keyid
                self.keys[keyid] = key
            self._entries[entry.code] = entry

    @classmethod
    def load(cls, path: Path) -> Roster:
        """The roster in the network file at *path*; ``Misconfigured`` names the file and the place in it."""
        try:
            entries = _parse_banks(strict_json.loads(path.read_bytes()))
            return cls(entries)
        except OSError as error:
            raise Misconfigured(
                f"network file {path}: cannot be read: {error.strerror}; set DISTRIBANK_NETWORK_FILE to where it is"
            ) from error
        except strict_json.MalformedJSON as error:
            raise Misconfigured(f"network file {path}: not valid JSON: {error}") from error
        except Misconfigured as error:
            raise Misconfigured(f"network file {path}: {error}") from error

    @property
    def codes(self) -> tuple[str, ...]:
        """Every bank's code, sorted."""
        return tuple(self._entries)

    def get(self, code: str) -> RosterEntry | None:
        return self._entries.get(code)

    def own(self, code: str) -> RosterEntry:
        """The entry of the bank that is starting; ``Misconfigured`` if the network file does not list it."""
        entry = self._entries.get(code)
        if entry is None:
            raise Misconfigured(
                f"bank {code} is not in the network file, which lists {', '.join(self.codes) or 'none'}: add it there, "
                "or correct DISTRIBANK_BANK_CODE"
            )
        return entry

    def others(self, code: str) -> tuple[RosterEntry, ...]:
        """Everyone but *code*, by code."""
        return tuple(entry for entry in self if entry.code != code)

    def __iter__(self) -> Iterator[RosterEntry]:
        return iter(self._entries.values())

    def __len__(self) -> int:
        return len(self._entries)


def bank_of(keyid: str) -> str:
    """The code of the bank for which *keyid* speaks."""
    return keyid.partition(":")[0]


# The network file -------------------------------------------------------------------------------------------------


def _parse_banks(document: Any) -> list[RosterEntry]:
    banks = document.get("banks") if isinstance(document, dict) else None
    if not isinstance(banks, list) or not 1 <= len(banks) <= MAX_BANKS:
        raise Misconfigured(f'it must be {{"banks": […]}} with 1 to {MAX_BANKS} banks')
    return [_parse_bank(bank, f"banks[{place}]") for place, bank in enumerate(banks)]


def _parse_bank(bank: Any, place: str) -> RosterEntry:
    if not isinstance(bank, dict):
        raise Misconfigured(f"{place} must be an object with code, name, url and public_keys")
    code, name = bank.get("code"), bank.get("name")
    if not isinstance(code, str) or not _CODE.fullmatch(code):
        raise Misconfigured(f"{place}.code must be eight digits or capitals, as in 99990001")
    if not isinstance(name, str) or not 1 <= len(name.strip()) <= MAX_NAME:
        raise Misconfigured(f"{place}.name must be a text of 1 to {MAX_NAME} characters")
    url = parse_url(bank.get("url"), f"{place}.url")
    return RosterEntry(code, name.strip(), url, _parse_keys(code, bank.get("public_keys"), f"{place}.public_keys"))


def parse_url(text: Any, place: str) -> str:
    """*text* as both ends of a signature write it: lower-case scheme and host, no default port, no slash at the end."""
    explain = f"{place} must be http:// or https://, a host, perhaps a port and a path, and nothing else"
    try:
        parts = urlsplit(text if isinstance(text, str) and text.isascii() and text.isprintable() else "")
        port = parts.port
    except ValueError:
        raise Misconfigured(explain) from None
    host = parts.hostname or ""
    if parts.scheme not in ("http", "https") or not _HOST.fullmatch(host) or " " in text:
        raise Misconfigured(explain)
    if "@" in parts.netloc or "?" in text or "#" in text or port == 0:
        raise Misconfigured(explain)
    default = {"http": 80, "https": 443}[parts.scheme]
    authority = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{authority}{'' if port in (None, default) else f':{port}'}{parts.path.rstrip('/')}"


def _parse_keys(code: str, listed: Any, place: str) -> dict[str, Ed25519PublicKey]:
    if not isinstance(listed, list) or not 1 <= len(listed) <= MAX_KEYS:
        raise Misconfigured(f"{place} must list 1 to {MAX_KEYS} keys")
    keys: dict[str, Ed25519PublicKey] = {}
    for index, text in enumerate(listed):
        number, key = _parse_key(text, f"{place}[{index}]")
        if f"{code}:{number}" in keys:
            raise Misconfigured(f"{place} has two keys with the number {number}")
        keys[f"{code}:{number}"] = key
    return keys


def _parse_key(text: Any, place: str) -> tuple[str, Ed25519PublicKey]:
    match = _PUBLIC_KEY.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise Misconfigured(f'{place} must be "<n>:<base64>": a number and the 32 raw bytes of an Ed25519 public key')
    try:
        raw = base64.b64decode(match[2], validate=True)
        return match[1], Ed25519PublicKey.from_public_bytes(raw)
    except (binascii.Error, ValueError):
        raise Misconfigured(f"{place} is not an Ed25519 public key") from None


# Keys -------------------------------------------------------------------------------------------------------------


def raw_public_key(key: Ed25519PublicKey) -> bytes:
    """The 32 bytes of RFC 8032."""
    return key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)


def public_key_text(number: int, key: Ed25519PublicKey) -> str:
    """*key* as the network file lists it."""
    return f"{number}:{base64.b64encode(raw_public_key(key)).decode()}"


def create_private_key(path: Path) -> Ed25519PublicKey:
    """Make a key pair and write its private half to *path*, a new file of mode 0600; the public half is returned.

    ``FileExistsError`` if there is such a file: a key is never overwritten.
    """
    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(pem)
        file.flush()
        os.fsync(file.fileno())
    return key.public_key()


def load_private_key(path: Path) -> Ed25519PrivateKey:
    """The Ed25519 key in the PEM (PKCS #8) file at *path*; ``Misconfigured`` if it is none, or others may read it."""
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            if os.name == "posix" and mode & 0o077:
                raise Misconfigured(
                    f"private key file {path} has mode {mode:04o}; others may use it: chmod 0600 {path}"
                )
            pem = file.read(MAX_PRIVATE_KEY_FILE)
    except OSError as error:
        raise Misconfigured(
            f"private key file {path}: cannot be read: {error.strerror}; set DISTRIBANK_PRIVATE_KEY_FILE to where it is"
        ) from error
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise Misconfigured(f"private key file {path}: not an unencrypted PEM (PKCS #8) private key") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise Misconfigured(f"private key file {path}: not an Ed25519 key")
    return key


def own_keyid(roster: Roster, code: str, key: Ed25519PrivateKey, path: Path) -> str:
    """The keyid under which *key* signs for bank *code*; ``Misconfigured``, naming *path*, if the roster lists none."""
    raw = raw_public_key(key.public_key())
    for keyid, public in roster.own(code).public_keys.items():
        if raw_public_key(public) == raw:
            return keyid
    raise Misconfigured(
        f"private key file {path} belongs to none of the public keys that the network file lists for bank {code}: "
        "set DISTRIBANK_PRIVATE_KEY_FILE to the key that does, or have its public half added there, at every bank"
    )
