"""What a report in ``docs/reports`` says of itself: which Python, which revision, which day."""

from __future__ import annotations

import platform
from datetime import UTC, datetime


def provenance() -> str:
    """``Python 3.11.7, revision 0123456789ab, 23 November 2026``."""
    from distribank.simulation.many import revision  # not before bugs are planted in what it imports

    today = datetime.now(UTC)
    return f"Python {platform.python_version()}, revision {revision()}, {today.day} {today:%B %Y}"
