"""The marker that tells a lost database from a bank that never had one.

A participant that finds nothing in its log about a transaction may promise never to vote on it. A log that was lost
cannot tell "never voted" from "the vote was lost", and must not promise (``protocol.md``, the inquiry column). So the
first database of a bank leaves a marker apart from it, beside the bank's private key; a bank with a marker but no
database has lost a disk: its new log reaches back to this moment and no further, and its new incarnation keeps it from
answering "aborted" for what the lost log may have decided. The marker also tells where the database stood, so that a
mistyped setting does not pass for a lost disk.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from distribank.breakages import StoreUnusable


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
    draft = marker.with_name(marker.name + ".new")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            file.write(f"{incarnation}\n{place}\n")
            file.flush()
            os.fsync(file.fileno())
        draft.replace(marker)
        directory = os.open(marker.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        raise StoreUnusable(f"cannot write the marker {marker}: {error.strerror}") from error
