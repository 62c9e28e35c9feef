"""The roster and a bank's own key: whatever is wrong is said before the bank serves anyone."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from distribank.breakages import Misconfigured
from distribank.peers.roster import (
    Roster,
    bank_of,
    create_private_key,
    load_private_key,
    own_keyid,
    public_key_text,
    raw_public_key,
)


def key_text(number: int = 1) -> str:
    return public_key_text(number, Ed25519PrivateKey.generate().public_key())


def bank(code: str = "99990001", url: str = "http://127.0.0.1:8001", **changes: Any) -> dict[str, Any]:
    return {"code": code, "name": f"Bank {code}", "url": url, "public_keys": [key_text()], **changes}


def roster(tmp_path: Path, *banks: Any) -> Roster:
    path = tmp_path / "network.json"
    path.write_text(json.dumps({"banks": list(banks)}))
    return Roster.load(path)


def test_a_roster_gives_each_bank_by_its_code_and_each_key_by_its_keyid(tmp_path: Path) -> None:
    second = bank("9999000B", "https://bank-b.example/pay/", public_keys=[key_text(7), key_text(8)], founded=1999)
    loaded = roster(tmp_path, second, bank())

    assert loaded.codes == ("99990001", "9999000B")
    assert len(loaded) == 2
    assert loaded.own("9999000B").url == "https://bank-b.example/pay"
    assert list(loaded.keys) == ["99990001:1", "9999000B:7", "9999000B:8"]
    assert bank_of("9999000B:8") == "9999000B"
    assert [entry.code for entry in loaded.others("99990001")] == ["9999000B"]
    assert loaded.get("00000000") is None


@pytest.mark.parametrize(
    ("url", "canonical"),
    [
        ("HTTP://Bank.Example:80/", "http://bank.example"),
        ("https://bank.example:443", "https://bank.example"),
        ("http://[::1]:8001", "http://[::1]:8001"),
        ("http://bank_one:8001/a/b/", "http://bank_one:8001/a/b"),
    ],
)
def test_both_ends_of_a_signature_write_a_url_alike(tmp_path: Path, url: str, canonical: str) -> None:
    assert roster(tmp_path, bank(url=url)).own("99990001").url == canonical


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"code": "9999000"}, "code"),
        ({"code": "9999000a"}, "code"),
        ({"code": 99990001}, "code"),
        ({"code": "99990001\n"}, "code"),
        ({"name": " "}, "name"),
        ({"name": None}, "name"),
        ({"url": "127.0.0.1:8001"}, "url"),
        ({"url": "ftp://bank.example"}, "url"),
        ({"url": "http://user:secret@bank.example"}, "url"),
        ({"url": "http://bank.example/?a=1"}, "url"),
        ({"url": "http://bank.example/#a"}, "url"),
        ({"url": "http://bank.example:port"}, "url"),
        ({"url": "http://bank.example:0"}, "url"),
        ({"url": "http://bänk.example"}, "url"),
        ({"url": "http://bank.example/\n"}, "url"),
        ({"url": "http://"}, "url"),
        ({"url": None}, "url"),
        ({"public_keys": []}, "public_keys"),
        ({"public_keys": "1:x"}, "public_keys"),
        ({"public_keys": [1]}, "public_keys"),
        ({"public_keys": [key_text().removeprefix("1:")]}, "public_keys"),
        ({"public_keys": ["1:" + base64.b64encode(b"short").decode()]}, "public_keys"),
        ({"public_keys": [key_text(1), key_text(1)]}, "public_keys"),
        ({"public_keys": [key_text(n) for n in range(1, 6)]}, "public_keys"),
    ],
)
def test_a_bank_that_is_listed_wrongly_is_refused_naming_the_place(
    tmp_path: Path, changes: dict[str, Any], where: str
) -> None:
    with pytest.raises(Misconfigured, match=where) as refused:
        roster(tmp_path, bank() | changes)
    assert "network.json" in str(refused.value)
    assert "secret" not in str(refused.value)


def test_two_banks_may_share_neither_code_nor_url_nor_key(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="99990001 is listed twice"):
        roster(tmp_path, bank(), bank(url="http://127.0.0.1:8002"))
    with pytest.raises(Misconfigured, match="same url"):
        roster(tmp_path, bank(), bank("99990002", "http://127.0.0.1:8001/"))
    shared = key_text()
    with pytest.raises(Misconfigured, match="are the same"):
        roster(
            tmp_path,
            bank(public_keys=[shared]),
            bank("99990002", "http://127.0.0.1:8002", public_keys=[shared]),
        )


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"banks": []}', '{"banks": {}}', '{"banks": [1]}', "{'banks'"])
def test_a_file_that_is_no_network_file_is_refused_by_name(tmp_path: Path, text: str) -> None:
    path = tmp_path / "network.json"
    path.write_text(text)
    with pytest.raises(Misconfigured, match=r"network\.json"):
        Roster.load(path)


def test_a_missing_network_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match=r"network\.json: cannot be read"):
        Roster.load(tmp_path / "network.json")


def test_a_bank_that_the_roster_does_not_list_may_not_start(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="99990009 is not in the network file"):
        roster(tmp_path, bank()).own("99990009")


# Keys -------------------------------------------------------------------------------------------------------------


def test_a_fresh_key_is_kept_for_its_owner_alone_and_signs_under_its_keyid(tmp_path: Path) -> None:
    path = tmp_path / "private_key.pem"
    public = create_private_key(path)

    assert path.stat().st_mode & 0o777 == 0o600
    key = load_private_key(path)
    assert raw_public_key(key.public_key()) == raw_public_key(public)
    loaded = roster(tmp_path, bank(public_keys=[key_text(1), public_key_text(2, public)]))
    assert own_keyid(loaded, "99990001", key, path) == "99990001:2"


def test_a_key_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "private_key.pem"
    create_private_key(path)
    before = path.read_bytes()
    with pytest.raises(FileExistsError):
        create_private_key(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o660, 0o601])
def test_a_key_that_others_may_use_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "private_key.pem"
    create_private_key(path)
    path.chmod(mode)
    with pytest.raises(Misconfigured, match="chmod 0600"):
        load_private_key(path)


def test_the_key_of_another_bank_is_refused_naming_the_file(tmp_path: Path) -> None:
    path = tmp_path / "private_key.pem"
    create_private_key(path)
    with pytest.raises(Misconfigured, match=r"private_key\.pem belongs to none"):
        own_keyid(roster(tmp_path, bank()), "99990001", load_private_key(path), path)


def _pem(key: Any, password: bytes | None = None) -> bytes:
    encryption = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    pem: bytes = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
    return pem


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        _pem(ec.generate_private_key(ec.SECP256R1())),
        _pem(Ed25519PrivateKey.generate(), b"password"),
    ],
    ids=["empty", "garbage", "another curve", "encrypted"],
)
def test_a_file_that_is_no_ed25519_key_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "private_key.pem"
    path.touch(0o600)
    path.write_bytes(content)
    with pytest.raises(Misconfigured, match="private_key"):
        load_private_key(path)


def test_a_missing_key_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match=r"private_key\.pem: cannot be read"):
        load_private_key(tmp_path / "private_key.pem")
