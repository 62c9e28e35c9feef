"""Several banks on one machine: their files, their processes, and how to talk to them as a holder would.

``layout`` writes and reads a data directory; ``processes`` starts, freezes, kills and stops real bank processes;
``speaking`` is a small client of the public contract (``docs/api.md``) and knows nothing of a bank's inside. The
demo, ``distribank up`` and the tests that kill banks all stand on these three. ``composing`` writes the compose file,
for banks in containers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

DEFAULT_DATA_DIR: Final = Path("data")
"""Where commands look for the banks' files if they are told nothing."""
