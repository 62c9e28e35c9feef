"""Signatures between banks: the profile and nothing else, checked against an independent library and RFC 9421."""

from __future__ import annotations

import base64
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from http_message_signatures import HTTPMessageSigner, HTTPMessageVerifier
from http_message_signatures.algorithms import ED25519
from http_message_signatures.resolvers import MappingKeyResolver

from distribank.peers import signatures
from distribank.peers.signatures import Flaw, NotSigned, Signer, Verifier, content_digest, signature_base

KEYID, OTHER = "99990001:1", "99990002:1"
KEY, OTHER_KEY = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
KEYS = {KEYID: KEY.public_key(), OTHER: OTHER_KEY.public_key()}
TARGET = "http://bank-b.test:8002/interbank/v1/prepare"
BODY = b'{"protocol_version":1,"clock":"7","messages":[]}'

Headers = list[tuple[bytes, bytes]]


class Clock:
    def __init__(self, now: int = 1_800_000_000_000) -> None:
        self.now = now

    def wall_ms(self) -> int:
        return self.now


def signer(clock: Clock, keyid: str = KEYID, key: Ed25519PrivateKey = KEY) -> Signer:
    return Signer(keyid, key, clock, random.SystemRandom())


def raw(headers: dict[str, str]) -> Headers:
    return [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]


def request(clock: Clock | None = None) -> Headers:
    return raw(signer(clock or Clock()).sign_request("POST", TARGET, BODY).headers)


def refused(flaw: Flaw, headers: Headers, *, body: bytes = BODY, target: str = TARGET, method: str = "POST") -> None:
    with pytest.raises(NotSigned) as failure:
        Verifier(KEYS, Clock()).verify_request(method, target, headers, body)
    assert failure.value.flaw is flaw


def altered(headers: Headers, name: bytes, old: bytes, new: bytes) -> Headers:
    assert any(old in value for header, value in headers if header == name)
    return [(header, value.replace(old, new) if header == name else value) for header, value in headers]


# Requests ---------------------------------------------------------------------------------------------------------


def test_what_a_bank_signs_another_verifies_and_knows_who_it_was() -> None:
    signed = signer(Clock()).sign_request("POST", TARGET, BODY)
    verified = Verifier(KEYS, Clock()).verify_request("POST", TARGET, raw(signed.headers), BODY)
    assert (verified.bank, verified.keyid, verified.nonce) == ("99990001", KEYID, signed.nonce)


def test_a_bank_that_rotates_signs_under_either_of_its_keys() -> None:
    keys = {**KEYS, "99990001:2": OTHER_KEY.public_key()}
    for keyid, key in (("99990001:1", KEY), ("99990001:2", OTHER_KEY)):
        headers = raw(signer(Clock(), keyid, key).sign_request("POST", TARGET, BODY).headers)
        assert Verifier(keys, Clock()).verify_request("POST", TARGET, headers, BODY).bank == "99990001"


def test_no_byte_of_a_signed_request_can_be_changed() -> None:
    verifier, headers = Verifier(KEYS, Clock()), request()
    accepted = 0
    for changed_headers, body, method, target in _flips(headers):
        try:
            verifier.verify_request(method, target, changed_headers, body)
            accepted += 1
        except NotSigned:
            continue
    assert accepted == 0
    assert verifier.verify_request("POST", TARGET, headers, BODY).bank == "99990001"


def _flips(headers: Headers) -> Iterator[tuple[Headers, bytes, str, str]]:
    """Every one-bit change of every header value, of the body, of method and target."""
    for index, (name, value) in enumerate(headers):
        for changed in _bits(value):
            yield [*headers[:index], (name, changed), *headers[index + 1 :]], BODY, "POST", TARGET
    for body in _bits(BODY):
        yield headers, body, "POST", TARGET
    for method in _bits(b"POST"):
        yield headers, BODY, method.decode("latin-1"), TARGET
    for target in _bits(TARGET.encode()):
        yield headers, BODY, "POST", target.decode("latin-1")


def _bits(value: bytes) -> Iterator[bytes]:
    for place in range(len(value)):
        for bit in range(8):
            yield value[:place] + bytes([value[place] ^ 1 << bit]) + value[place + 1 :]


def test_a_body_cut_short_or_made_longer_is_refused() -> None:
    refused(Flaw.DIGEST, request(), body=BODY[:-1])
    refused(Flaw.DIGEST, request(), body=BODY + b" ")
    refused(Flaw.DIGEST, request(), body=b"")


def test_a_message_to_one_bank_cannot_be_played_to_another() -> None:
    refused(Flaw.SIGNATURE, request(), target="http://bank-c.test:8003/interbank/v1/prepare")
    refused(Flaw.SIGNATURE, request(), target=TARGET.replace("prepare", "commit"))
    refused(Flaw.SIGNATURE, request(), method="PUT")


def test_a_request_counts_once() -> None:
    verifier, headers = Verifier(KEYS, Clock()), request()
    verifier.verify_request("POST", TARGET, headers, BODY)
    with pytest.raises(NotSigned) as failure:
        verifier.verify_request("POST", TARGET, headers, BODY)
    assert failure.value.flaw is Flaw.REPLAYED


def test_a_request_created_ahead_counts_once_for_as_long_as_it_is_acceptable() -> None:
    clock = Clock()
    verifier, headers = Verifier(KEYS, clock), request(Clock(clock.now + 60_000))
    verifier.verify_request("POST", TARGET, headers, BODY)
    for passed in (1_000, 60_000, 119_999, 120_000, 121_000, 200_000):
        clock.now = 1_800_000_000_000 + passed
        with pytest.raises(NotSigned):
            verifier.verify_request("POST", TARGET, headers, BODY)


def test_the_same_message_sent_again_is_signed_anew_and_counts() -> None:
    verifier, sender = Verifier(KEYS, Clock()), signer(Clock())
    for _ in range(3):
        verifier.verify_request("POST", TARGET, raw(sender.sign_request("POST", TARGET, BODY).headers), BODY)


def test_a_refused_request_does_not_use_up_its_nonce() -> None:
    verifier, headers = Verifier(KEYS, Clock()), request()
    with pytest.raises(NotSigned):
        verifier.verify_request("POST", TARGET, headers, BODY + b" ")
    verifier.verify_request("POST", TARGET, headers, BODY)


def test_one_bank_cannot_use_up_the_nonces_of_another() -> None:
    verifier = Verifier(KEYS, Clock())
    for keyid, key in ((OTHER, OTHER_KEY), (KEYID, KEY)):
        same = Signer(keyid, key, Clock(), random.Random(1))  # noqa: S311 - the same nonce twice is the point
        verifier.verify_request("POST", TARGET, raw(same.sign_request("POST", TARGET, BODY).headers), BODY)


def test_the_memory_of_nonces_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signatures, "MAX_NONCES", 5)
    verifier, headers = Verifier(KEYS, Clock()), [request() for _ in range(20)]
    for each in headers:
        verifier.verify_request("POST", TARGET, each, BODY)
    assert len(verifier._nonces) == 5


@pytest.mark.parametrize("off", [-61_000, -3_600_000, 61_000, 3_600_000])
def test_a_request_from_too_long_ago_or_from_the_future_is_refused(off: int) -> None:
    refused(Flaw.STALE, request(Clock(1_800_000_000_000 + off)))


@pytest.mark.parametrize("off", [-60_000, -30_000, 30_000, 60_000])
def test_clocks_may_differ_within_the_window(off: int) -> None:
    headers = request(Clock(1_800_000_000_000 + off))
    assert Verifier(KEYS, Clock()).verify_request("POST", TARGET, headers, BODY).bank == "99990001"


def test_a_key_that_the_roster_does_not_list_is_refused() -> None:
    stranger = signer(Clock(), "99990009:1")
    refused(Flaw.UNKNOWN_KEY, raw(stranger.sign_request("POST", TARGET, BODY).headers))
    revoked = signer(Clock(), "99990001:9")
    refused(Flaw.UNKNOWN_KEY, raw(revoked.sign_request("POST", TARGET, BODY).headers))


def test_a_bank_cannot_sign_in_anothers_name() -> None:
    impostor = signer(Clock(), OTHER, KEY)
    refused(Flaw.SIGNATURE, raw(impostor.sign_request("POST", TARGET, BODY).headers))


def test_an_unsigned_request_is_refused() -> None:
    refused(Flaw.MALFORMED, [])
    for missing in (b"content-digest", b"signature-input", b"signature"):
        headers = [(name, value) for name, value in request() if name != missing]
        refused(Flaw.DIGEST if missing == b"content-digest" else Flaw.MALFORMED, headers)


def test_a_second_signature_or_digest_is_refused() -> None:
    for name, value in request():
        refused(Flaw.MALFORMED, [*request(), (name.title(), value)])
    both = altered(request(), b"signature", b"db=", b"x=:AAAA:, db=")
    refused(Flaw.MALFORMED, both)


@pytest.mark.parametrize(
    ("old", "new", "flaw"),
    [
        (b'"@method" ', b"", Flaw.COMPONENTS),
        (b' "@target-uri"', b"", Flaw.COMPONENTS),
        (b' "content-digest"', b"", Flaw.COMPONENTS),
        (b' "content-digest"', b' "content-digest" "date"', Flaw.COMPONENTS),
        (b'"@method" "@target-uri"', b'"@target-uri" "@method"', Flaw.COMPONENTS),
        (b'"@method" "@target-uri" "content-digest"', b'"@status" "content-digest"', Flaw.COMPONENTS),
        (b'tag="distribank-v1"', b'tag="distribank-v2"', Flaw.TAG),
        (b';tag="distribank-v1"', b"", Flaw.MALFORMED),
        (b';alg="ed25519"', b"", Flaw.MALFORMED),
        (b'alg="ed25519"', b'alg="hmac-sha256"', Flaw.MALFORMED),
        (b"expires=1800000060", b"expires=1900000000", Flaw.MALFORMED),
        (b"created=1800000000;", b"", Flaw.MALFORMED),
        (b"created=1800000000", b'created="1800000000"', Flaw.MALFORMED),
        (b"created=1800000000", b"created=01800000000", Flaw.MALFORMED),
        (b"created=1800000000", b"created=1800000000;created=1800000000", Flaw.MALFORMED),
        (b'nonce="', b'nonce="0', Flaw.MALFORMED),
        (b';keyid="', b';keyid="99990002:1";keyid="', Flaw.MALFORMED),
        (b';alg="ed25519"', b';alg="ed25519";extra="x"', Flaw.MALFORMED),
        (b"db=(", b"sig=(", Flaw.MALFORMED),
        (b"db=(", b"db= (", Flaw.MALFORMED),
    ],
)
def test_what_is_not_exactly_the_profile_is_refused(old: bytes, new: bytes, flaw: Flaw) -> None:
    refused(flaw, altered(request(), b"signature-input", old, new))


def test_a_signature_has_one_written_form() -> None:
    headers = request()
    value = dict(headers)[b"signature"]
    for last in b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/":
        other = value[:-4] + bytes([last]) + value[-3:]
        if other != value:
            refused(
                Flaw.SIGNATURE if _canonical(other) else Flaw.MALFORMED, altered(headers, b"signature", value, other)
            )


def _canonical(value: bytes) -> bool:
    text = value.removeprefix(b"db=:").removesuffix(b":")
    return base64.b64encode(base64.b64decode(text)) == text


# Answers ----------------------------------------------------------------------------------------------------------


def answer(nonce: str = "0" * 32, status: int = 200, keyid: str = OTHER, key: Ed25519PrivateKey = OTHER_KEY) -> Headers:
    return raw(signer(Clock(), keyid, key).sign_response(status, b"yes", nonce))


def answer_refused(flaw: Flaw, headers: Headers, *, status: int = 200, body: bytes = b"yes") -> None:
    with pytest.raises(NotSigned) as failure:
        Verifier(KEYS, Clock()).verify_response(status, headers, body, bank="99990002", nonce="0" * 32)
    assert failure.value.flaw is flaw


def test_an_answer_is_evidence_of_who_gave_it_to_which_request() -> None:
    verified = Verifier(KEYS, Clock()).verify_response(200, answer(), b"yes", bank="99990002", nonce="0" * 32)
    assert verified.keyid == OTHER


def test_an_answer_cannot_be_swapped_for_the_answer_to_another_request() -> None:
    answer_refused(Flaw.NONCE, answer(nonce="1" * 32))


def test_an_answer_counts_only_from_the_bank_that_was_asked() -> None:
    answer_refused(Flaw.SIGNER, answer(keyid=KEYID, key=KEY))


def test_neither_status_nor_body_of_an_answer_can_be_changed() -> None:
    answer_refused(Flaw.SIGNATURE, answer(), status=503)
    answer_refused(Flaw.DIGEST, answer(), body=b"no")
    answer_refused(Flaw.MALFORMED, [])


def test_a_request_is_no_answer_and_an_answer_no_request() -> None:
    answer_refused(Flaw.COMPONENTS, raw(signer(Clock(), OTHER, OTHER_KEY).sign_request("POST", TARGET, b"yes").headers))
    refused(Flaw.COMPONENTS, answer())


# An independent implementation ------------------------------------------------------------------------------------


class LibraryMessage(SimpleNamespace):
    """What the library takes for a message; with a ``status_code`` it is a response."""


def _library(**more: Any) -> dict[str, Any]:
    keys = MappingKeyResolver(public_keys=dict(KEYS), private_keys={KEYID: KEY, OTHER: OTHER_KEY})
    return {"signature_algorithm": ED25519, "key_resolver": keys, **more}


def _now() -> Clock:
    return Clock(int(datetime.now(UTC).timestamp() * 1000))


def test_the_library_accepts_our_requests() -> None:
    signed = signer(_now()).sign_request("POST", TARGET, BODY)
    message = LibraryMessage(method="POST", url=TARGET, headers=signed.headers)
    (result,) = HTTPMessageVerifier(**_library()).verify(
        message,
        max_age=timedelta(seconds=60),
        expect_tag="distribank-v1",
        require_components=("@method", "@target-uri", "content-digest"),
        body=BODY,
    )
    assert result.parameters["keyid"] == KEYID
    assert result.nonce == signed.nonce


def test_the_library_accepts_our_answers() -> None:
    headers = signer(_now(), OTHER, OTHER_KEY).sign_response(200, b"yes", "0" * 32)
    message = LibraryMessage(status_code=200, headers=headers, request=None)
    (result,) = HTTPMessageVerifier(**_library()).verify(
        message,
        max_age=timedelta(seconds=60),
        expect_tag="distribank-v1",
        require_components=("@status", "content-digest"),
        body=b"yes",
    )
    assert result.nonce == "0" * 32


def _by_library(message: LibraryMessage, keyid: str, components: tuple[str, ...], clock: Clock) -> Headers:
    created = datetime.fromtimestamp(clock.now // 1000, UTC)
    HTTPMessageSigner(**_library()).sign(
        message,
        key_id=keyid,
        created=created,
        expires=created + timedelta(seconds=60),
        nonce="0" * 32,
        label="db",
        tag="distribank-v1",
        covered_component_ids=components,
        use_existing_digest=True,
    )
    return raw({name.lower(): value for name, value in message.headers.items()})


def test_we_accept_the_requests_of_the_library() -> None:
    message = LibraryMessage(method="POST", url=TARGET, headers={"Content-Digest": content_digest(BODY)})
    headers = _by_library(message, KEYID, ("@method", "@target-uri", "content-digest"), Clock())
    assert Verifier(KEYS, Clock()).verify_request("POST", TARGET, headers, BODY).bank == "99990001"


def test_we_accept_the_answers_of_the_library() -> None:
    message = LibraryMessage(status_code=200, request=None, headers={"Content-Digest": content_digest(b"yes")})
    headers = _by_library(message, OTHER, ("@status", "content-digest"), Clock())
    Verifier(KEYS, Clock()).verify_response(200, headers, b"yes", bank="99990002", nonce="0" * 32)


def test_the_signature_base_is_that_of_rfc_9421_appendix_b_2_6() -> None:
    pem = b"-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIJ+DYvh6SEqVTm50DFtMDoQikTmiCqirVv9mWG9qfSnF\n"
    key = serialization.load_pem_private_key(pem + b"-----END PRIVATE KEY-----\n", password=None)
    assert isinstance(key, Ed25519PrivateKey)
    lines = (
        '"date": Tue, 20 Apr 2021 02:07:55 GMT\n"@method": POST\n"@path": /foo\n"@authority": example.com\n'
        '"content-type": application/json\n"content-length": 18\n'
    )
    parameters = (
        '("date" "@method" "@path" "@authority" "content-type" "content-length")'
        ';created=1618884473;keyid="test-key-ed25519"'
    )
    expected = base64.b64decode(
        "wqcAqbmYJ2ji2glfAMaRy4gruYYnx2nEFN2HN6jrnDnQCK1u02Gb04v9EDgwUPiu4A0w6vuQv5lIp5WPpBKRCw=="
    )
    assert key.sign(signature_base(lines, parameters)) == expected
    with pytest.raises(InvalidSignature):
        key.public_key().verify(expected, signature_base(lines, parameters + " "))
