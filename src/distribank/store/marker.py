"""The marker that tells a lost database from a bank that never had one.

A participant that finds nothing in its log about a transaction may promise never to vote on it. A log that was lost
cannot tell "never voted" from "the vote was lost", and must not promise (``protocol.md``, the inquiry column). So the
first database of a bank leaves a marker apart from it, beside the bank's private key; a bank with a marker but no
database has lost a disk: its new log reaches back to this moment and no further, and its new incarnation keeps it from
answering "aborted" for what the lost log may have decided. The marker also tells where the database stood, so that a
mistyped setting does not pass for a lost disk.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from distribank import files
from distribank.breakages import StoreUnusable


@dataclass(frozen=True, slots=True)
class Identity:
    """Whose database it is, and what its log can be relied on for."""

    bank: str
    incarnation: str
    reaches_back_to: int
    last_stamp: int


@dataclass(frozen=True, slots=True)
class Marker:
    """Which database is the bank's latest, and where it stood when it was last opened: a path, or an address."""

    incarnation: str
    place: str


def read_marker(marker: Path) -> Marker | None:
    """What *marker* says of the bank's latest database; ``None`` if there is none yet."""
    try:
        incarnation, _, place = marker.read_text(encoding="utf-8").partition("\n")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeError) as error:
        raise StoreUnusable(f"cannot read the marker {marker}: {error}; it is two lines of text") from error
    return Marker(incarnation.strip(), place.strip())


def write_marker(marker: Path, incarnation: str, place: str) -> None:
    """Replace the marker as a whole, durably."""
    try:
        files.replace(marker, f"{incarnation}\n{place}\n")
    except OSError as error:
        raise StoreUnusable(f"cannot write the marker {marker}: {error.strerror}") from error


def check_latest(
    identity: Identity, place: str, marker: Path, bank: str, moved_to: str | None, earlier: Collection[str] = ()
) -> None:
    """``StoreUnusable`` unless the database at *place* is *bank*'s latest; *marker* names it from then on.

    It is not where the bank has *moved to* another, and not where the marker names an incarnation that is neither its
    own nor one of those *earlier* that a restore has replaced by it: that is an old copy, and what the latest promised
    is not in it.
    """
    if identity.bank != bank:
        raise StoreUnusable(f"{place} belongs to bank {identity.bank}, not to {bank}; check DISTRIBANK_DATABASE_URL")
    if moved_to is not None:
        raise StoreUnusable(
            f"bank {bank} has moved from {place} to {moved_to}, and what it promised since is there: "
            "correct DISTRIBANK_DATABASE_URL"
        )
    named = read_marker(marker)
    if named is not None and named.incarnation not in (identity.incarnation, *earlier):
        raise StoreUnusable(
            f"{place} is not the latest database of bank {bank}: {marker} names {named.place}, incarnation "
            f"{named.incarnation}, and this one is {identity.incarnation}; an old copy has forgotten promises and must "
            "not be served: put the latest one back"
        )
    if named != Marker(identity.incarnation, place):
        write_marker(marker, identity.incarnation, place)
