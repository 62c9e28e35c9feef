"""Several banks on one machine: their files, their processes, and how to talk to them as a holder would.

``layout`` writes and reads a data directory; ``processes`` starts, freezes, kills and stops real bank processes;
``client`` is a small client of the public contract (``docs/api.md``) and knows nothing of a bank's inside. The
demo, ``distribank up`` and the tests that kill banks all stand on these three.

``up`` runs banks and shows them, with ``figures`` of each and what a ``terminal`` is owed. ``breaking`` freezes, thaws,
kills and starts one of them, which ``pids`` finds. ``people`` brings somebody to try them with; ``transfers`` orders
one and tells where it is; ``desk`` is the operator's, ``auditing`` the auditor's. ``restoring`` takes backups and puts
them back, ``moving`` brings a bank to another database. ``composing`` writes the compose files, for banks in
containers, ``replicating`` its part on banks of two replicas, ``observing`` that on what watches them; ``pasting`` the
command lines that people are told.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

DEFAULT_DATA_DIR: Final = Path("data")
"""Where commands look for the banks' files if they are told nothing."""

MAX_BANKS: Final = 99
"""Banks of one data directory."""
