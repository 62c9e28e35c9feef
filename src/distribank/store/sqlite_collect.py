"""Collection: deleting protocol state about which no message can arrive any more, a bounded number of rows at a time.

Runs inside the atomic write of a group, before the group's own rows. Transfers stay for ever, with id, outcome and
commit timestamp, and answer for what was collected; nothing of an unfinished transaction is ever touched.
"""

from __future__ import annotations

from typing import Any, Final

import apsw

from distribank.store.group import Sweep
from distribank.store.rows_transfers import COLLECTABLE, DROP_HOLDS, DROP_RECORDS, DROP_TOMBSTONE, MARK_COLLECTED

DROP_KEYS: Final = """
    DELETE FROM idempotency_key
     WHERE rowid IN (SELECT rowid FROM (SELECT rowid, created_at FROM idempotency_key ORDER BY rowid LIMIT ?2)
                      WHERE created_at < ?1)
"""


def sweep_up(writer: apsw.Connection, sweep: Sweep) -> None:
    """Carry out *sweep* within the open transaction, and count in it what went."""
    found: list[tuple[Any, ...]] = writer.execute(COLLECTABLE, (sweep.protocol_before, sweep.limit)).fetchall()
    for (identity,) in found:
        for statement in (DROP_RECORDS, DROP_HOLDS):
            sweep.gone += _change(writer, statement, (identity, sweep.limit - sweep.gone))
        if sweep.gone >= sweep.limit:
            return
        sweep.gone += _change(writer, DROP_TOMBSTONE, (identity,))
        writer.execute(MARK_COLLECTED, (identity,))
    sweep.gone += _change(writer, DROP_KEYS, (sweep.keys_before, sweep.limit - sweep.gone))


def _change(writer: apsw.Connection, statement: str, parameters: tuple[str | int, ...]) -> int:
    writer.execute(statement, parameters)
    return writer.changes()
