"""Signatures between banks: one fixed profile of HTTP Message Signatures (RFC 9421) with Ed25519, and nothing else.

A request is signed over its method, its whole target (so that a message to one bank cannot be played to another)
and the digest (RFC 9530) of its raw body; an answer over its status, its digest and the request's nonce, so that a
vote is evidence and cannot be swapped for another. One signature covers a whole batch::

    Content-Digest: sha-256=:<base64>:
    Signature-Input: db=("@method" "@target-uri" "content-digest");created=1767225600;expires=1767225660;
                     nonce="<32 hex>";keyid="99990001:1";alg="ed25519";tag="distribank-v1"
    Signature: db=:<base64>:

What is not exactly this is refused: other components, parameters missing, unknown or repeated, a second signature.
Only the order of the parameters is the signer's. Nothing here parses a body; that comes after.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from distribank.breakages import Breakage
from distribank.peers.roster import bank_of
from distribank.ports import Chance, Clock

WINDOW_S: Final = 60
"""Seconds around now in which ``created`` must lie; ``expires`` is as much later."""
NONCE_MEMORY_MS: Final = 2 * WINDOW_S * 1000
"""How long a nonce must be remembered: what was created a window ahead is acceptable until two windows from now."""
MAX_NONCES: Final = 200_000
"""Nonces remembered at once. Only signed requests add to them; beyond this the oldest go, and the protocol's own
idempotency is what makes a replay harmless."""
TAG: Final = "distribank-v1"

_REQUEST_COMPONENTS: Final = '("@method" "@target-uri" "content-digest")'
_RESPONSE_COMPONENTS: Final = '("@status" "content-digest")'
_PARAMETERS: Final = {"created", "expires", "nonce", "keyid", "alg", "tag"}
_INPUT: Final = re.compile(r"db=((\([^()]{0,200}\));([^()]{1,600}))")
_PARAMETER: Final = re.compile(r'(created|expires)=([0-9]{1,12})|(nonce|keyid|alg|tag)="([ !#-:<-\[\]-~]{0,100})"')
_SIGNATURE: Final = re.compile(r"db=:([A-Za-z0-9+/]{86}==):")
_NONCE: Final = re.compile(r"[0-9a-f]{32}")

RawHeaders = Iterable[tuple[bytes, bytes]]


class Flaw(StrEnum):
    """Why a signature was refused. For this bank's own log: whoever sent it is told nothing."""

    MALFORMED = "malformed"
    UNKNOWN_KEY = "unknown_key"
    COMPONENTS = "components"
    TAG = "tag"
    STALE = "stale"
    DIGEST = "digest"
    SIGNATURE = "signature"
    REPLAYED = "replayed"
    NONCE = "nonce"
    """An answer signed for another request."""
    SIGNER = "signer"
    """An answer signed by another bank than was asked."""


class NotSigned(Breakage):
    """This message is not signed as the profile demands: treat it as though it had never arrived."""

    def __init__(self, flaw: Flaw, detail: str) -> None:
        super().__init__(f"{flaw}: {detail}")
        self.flaw = flaw


@dataclass(frozen=True, slots=True)
class Verified:
    """Who signed a message, under which key, with which nonce."""

    bank: str
    keyid: str
    nonce: str


@dataclass(frozen=True, slots=True)
class Signed:
    """The headers that carry a signature, and the nonce that the answer must repeat."""

    headers: dict[str, str]
    nonce: str


class Signer:
    """Signs for one bank, under the keyid by which the roster lists its key."""

    def __init__(self, keyid: str, key: Ed25519PrivateKey, clock: Clock, chance: Chance) -> None:
        self.keyid = keyid
        self.bank = bank_of(keyid)
        self._key = key
        self._clock = clock
        self._chance = chance

    def sign_request(self, method: str, target_uri: str, body: bytes) -> Signed:
        """Sign one request; each call draws a fresh nonce, a repeated message included."""
        digest = content_digest(body)
        nonce = f"{self._chance.getrandbits(128):032x}"
        lines = f'"@method": {method}\n"@target-uri": {target_uri}\n"content-digest": {digest}\n'
        return Signed(self._sign(_REQUEST_COMPONENTS, lines, digest, nonce), nonce)

    def sign_response(self, status: int, body: bytes, nonce: str) -> dict[str, str]:
        """The headers that make an answer to the request with *nonce* evidence."""
        digest = content_digest(body)
        return self._sign(_RESPONSE_COMPONENTS, f'"@status": {status}\n"content-digest": {digest}\n', digest, nonce)

    def _sign(self, components: str, lines: str, digest: str, nonce: str) -> dict[str, str]:
        created = self._clock.wall_ms() // 1000
        parameters = (
            f'{components};created={created};expires={created + WINDOW_S};nonce="{nonce}"'
            f';keyid="{self.keyid}";alg="ed25519";tag="{TAG}"'
        )
        signature = self._key.sign(signature_base(lines, parameters))
        return {
            "content-digest": digest,
            "signature-input": f"db={parameters}",
            "signature": f"db=:{base64.b64encode(signature).decode()}:",
        }


class Verifier:
    """Verifies what others signed, by the roster's *keys*; remembers nonces so that no request counts twice."""

    def __init__(self, keys: Mapping[str, Ed25519PublicKey], clock: Clock) -> None:
        self._keys = keys
        self._clock = clock
        self._nonces: dict[str, int] = {}

    def verify_request(self, method: str, target_uri: str, headers: RawHeaders, body: bytes) -> Verified:
        """Who sent this; raises ``NotSigned``. *target_uri* is this bank's own url, never what the request claims."""
        signature = _read(headers)
        self._check_form(signature, _REQUEST_COMPONENTS)
        _check_digest(signature, body)
        lines = f'"@method": {method}\n"@target-uri": {target_uri}\n"content-digest": {signature.digest}\n'
        self._check_signature(signature, lines)
        self._check_unseen(f"{bank_of(signature.keyid)} {signature.nonce}")
        return Verified(bank_of(signature.keyid), signature.keyid, signature.nonce)

    def verify_response(self, status: int, headers: RawHeaders, body: bytes, *, bank: str, nonce: str) -> Verified:
        """Check that *bank* gave this answer to the request with *nonce*; raises ``NotSigned``."""
        signature = _read(headers)
        self._check_form(signature, _RESPONSE_COMPONENTS)
        if bank_of(signature.keyid) != bank:
            raise NotSigned(Flaw.SIGNER, f"{signature.keyid} does not speak for {bank}")
        if signature.nonce != nonce:
            raise NotSigned(Flaw.NONCE, "the answer to another request")
        _check_digest(signature, body)
        self._check_signature(signature, f'"@status": {status}\n"content-digest": {signature.digest}\n')
        return Verified(bank, signature.keyid, nonce)

    def _check_form(self, signature: _Signature, components: str) -> None:
        """Everything that needs no arithmetic, in the order of the profile."""
        if signature.keyid not in self._keys:
            raise NotSigned(Flaw.UNKNOWN_KEY, "no bank of the roster signs under this keyid")
        if signature.components != components:
            raise NotSigned(Flaw.COMPONENTS, f"not signed over exactly {components}")
        if signature.tag != TAG:
            raise NotSigned(Flaw.TAG, "signed for another purpose")
        if abs(self._clock.wall_ms() - signature.created * 1000) > WINDOW_S * 1000:
            raise NotSigned(Flaw.STALE, f"created more than {WINDOW_S} s from now: check both clocks")

    def _check_signature(self, signature: _Signature, lines: str) -> None:
        try:
            self._keys[signature.keyid].verify(signature.signature, signature_base(lines, signature.parameters))
        except InvalidSignature:
            raise NotSigned(Flaw.SIGNATURE, f"not made by the key {signature.keyid}") from None

    def _check_unseen(self, nonce: str) -> None:
        """Last of all, so that only who holds a key can fill the memory. Forgets what has become too old to matter."""
        now = self._clock.wall_ms()
        while self._nonces:
            oldest = next(iter(self._nonces))
            if self._nonces[oldest] >= now and len(self._nonces) < MAX_NONCES:
                break
            del self._nonces[oldest]
        if nonce in self._nonces:
            raise NotSigned(Flaw.REPLAYED, "this request has been seen before")
        self._nonces[nonce] = now + NONCE_MEMORY_MS


def content_digest(body: bytes) -> str:
    """The value of ``Content-Digest`` (RFC 9530) for *body* as it travels."""
    return f"sha-256=:{base64.b64encode(hashlib.sha256(body).digest()).decode()}:"


# Reading ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Signature:
    """One signature as its headers wrote it: nothing in it has been verified."""

    components: str
    parameters: str
    created: int
    nonce: str
    keyid: str
    tag: str
    digest: str
    signature: bytes


def _read(headers: RawHeaders) -> _Signature:
    """The one signature in *headers*; ``NotSigned`` unless each of its headers stands once and is well-formed."""
    values = {"content-digest": "", "signature-input": "", "signature": ""}
    for raw_name, raw_value in headers:
        name = raw_name.decode("latin-1").lower()
        if name in values:
            if values[name]:
                raise NotSigned(Flaw.MALFORMED, f"{name} stands twice")
            values[name] = raw_value.decode("latin-1")
    match = _INPUT.fullmatch(values["signature-input"])
    if match is None:
        raise NotSigned(Flaw.MALFORMED, "no signature-input of this profile")
    parts = match[3].split(";")
    parameters = dict(_parameter(part) for part in parts)
    if len(parts) != len(_PARAMETERS) or parameters.keys() != _PARAMETERS:
        raise NotSigned(Flaw.MALFORMED, "not exactly the parameters of this profile")
    return _Signature(
        match[2],
        match[1],
        _created(parameters),
        parameters["nonce"],
        parameters["keyid"],
        parameters["tag"],
        values["content-digest"],
        _signature_bytes(values["signature"]),
    )


def _parameter(text: str) -> tuple[str, str]:
    """One parameter's name and value; times are bare integers, the others strings."""
    match = _PARAMETER.fullmatch(text)
    if match is None:
        raise NotSigned(Flaw.MALFORMED, "a parameter that this profile does not know")
    return (match[1], match[2]) if match[1] else (match[3], match[4])


def _created(parameters: Mapping[str, str]) -> int:
    """The second of signing, once the parameters that leave no choice have the value they must have."""
    created = int(parameters["created"])
    if parameters["expires"] != str(created + WINDOW_S) or parameters["created"] != str(created):
        raise NotSigned(Flaw.MALFORMED, f"expires is not {WINDOW_S} s after created")
    if parameters["alg"] != "ed25519" or not _NONCE.fullmatch(parameters["nonce"]):
        raise NotSigned(Flaw.MALFORMED, "not ed25519, or a nonce that is not 32 hexadecimal characters")
    return created


def _signature_bytes(value: str) -> bytes:
    match = _SIGNATURE.fullmatch(value)
    if match is None:
        raise NotSigned(Flaw.MALFORMED, "no signature of 64 bytes")
    try:
        signature = base64.b64decode(match[1], validate=True)
    except binascii.Error:
        raise NotSigned(Flaw.MALFORMED, "the signature is not base64") from None
    if base64.b64encode(signature).decode() != match[1]:
        # The last character of 64 bytes in base64 has spare bits: without this, sixteen texts would be one signature.
        raise NotSigned(Flaw.MALFORMED, "the signature is not written in its one form")
    return signature


def _check_digest(signature: _Signature, body: bytes) -> None:
    if signature.digest != content_digest(body):
        raise NotSigned(Flaw.DIGEST, "the body is not what was signed")


def signature_base(lines: str, parameters: str) -> bytes:
    """The signature base of RFC 9421, section 2.5: the components' *lines*, each ending its line, then *parameters*."""
    return f'{lines}"@signature-params": {parameters}'.encode("latin-1")
