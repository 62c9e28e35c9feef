"""The recount over SQLite: every entry added up anew, in one read of one consistent picture.

Slow by design and meant for a thread and a connection of its own: it holds up nobody, but for the write-ahead log,
which cannot begin anew before it ends.
"""

from __future__ import annotations

from typing import Any, Final

import apsw

from distribank.ports import Recount
from distribank.store.recount import MAX_FINDINGS, Findings, reserved_findings
from distribank.store.sqlite_transfers import HEURISTIC, UNFINISHED, heuristic_of, transfer_of

TOTALS: Final = """
    SELECT account.number, account.posted, account.held, coalesce(total, 0), coalesce(total_at, 0)
      FROM account
      LEFT JOIN (SELECT account, sum(iif(direction = 'credit', amount, -amount)) AS total,
                        sum(iif(stamp > ?, 0, iif(direction = 'credit', amount, -amount))) AS total_at
                   FROM entry GROUP BY account) AS sums ON sums.account = account.number
     ORDER BY account.number
"""
COUNT_ENTRIES: Final = "SELECT count(*) FROM entry"
COUNT_HOLDS: Final = "SELECT count(*) FROM hold WHERE state = 'placed'"
BALANCES_AFTER: Final = """
    SELECT account, change, balance_after, running
      FROM (SELECT account, change, balance_after,
                   sum(iif(direction = 'credit', amount, -amount))
                     OVER (PARTITION BY account ORDER BY change) AS running
              FROM entry)
     WHERE balance_after <> running LIMIT ?
"""
HOLDS: Final = """
    SELECT number, held, incoming, open_holds, placed_debits, placed_credits, placed
      FROM (SELECT account.number, account.held, account.incoming, account.open_holds,
                   coalesce(sum(iif(hold.direction = 'debit', hold.amount, 0)), 0) AS placed_debits,
                   coalesce(sum(iif(hold.direction = 'credit', hold.amount, 0)), 0) AS placed_credits,
                   count(hold.account) AS placed
              FROM account LEFT JOIN hold ON hold.account = account.number AND hold.state = 'placed'
             GROUP BY account.number)
     WHERE (held, incoming, open_holds) <> (placed_debits, placed_credits, placed) LIMIT ?
"""
ORPHANS: Final = """
    SELECT hold.account, hold.transaction_id
      FROM hold LEFT JOIN transfer ON transfer.id = hold.transaction_id
     WHERE hold.state = 'placed'
       AND (transfer.state IS NULL
            OR transfer.state NOT IN ('preparing', 'committing', 'prepared', 'forced commit', 'forced abort'))
     LIMIT ?
"""
BOOKS: Final = """
    SELECT name, balance, reserved, coalesce(total, 0), coalesce(total_at, 0)
      FROM book
      LEFT JOIN (SELECT book, sum(amount) AS total, sum(iif(stamp > ?, 0, amount)) AS total_at
                   FROM book_entry GROUP BY book) AS sums ON sums.book = book.name
     ORDER BY name
"""
HELD_AT: Final = """
    SELECT account, sum(amount) FROM hold
     WHERE direction = 'debit' AND prepared_at <= ?1
       AND (state = 'placed'
            OR (state = 'posted' AND resolved_at > ?1
                AND NOT EXISTS (SELECT 1 FROM entry WHERE operation = hold.transaction_id
                                                     AND entry.account = hold.account AND stamp <= ?1)))
     GROUP BY account
"""
GUESSES: Final = (
    HEURISTIC  # noqa: S608 - two constants # nosec B608
    + """
     WHERE truth_at IS NULL
        OR EXISTS (SELECT 1 FROM record WHERE record.transaction_id = heuristic.transaction_id AND stamp > ?)
     ORDER BY decided_at, transaction_id
"""
)
UNBALANCED: Final = """
    SELECT operation, sum(amount)
      FROM (SELECT operation, iif(direction = 'credit', amount, -amount) AS amount FROM entry
            UNION ALL
            SELECT operation, amount FROM book_entry)
     GROUP BY operation HAVING sum(amount) <> 0 LIMIT ?
"""


def recount(reader: apsw.Connection, at: int) -> Recount:
    """Everything ``ports.Recount`` promises, as one read: what is written meanwhile is not seen."""
    reader.execute("PRAGMA temp_store = FILE")
    reader.execute("BEGIN")
    totals = _all(reader, TOTALS, (at,))
    books = _all(reader, BOOKS, (at,))
    held_at: dict[Any, Any] = dict(_all(reader, HELD_AT, (at,)))
    unfinished = [transfer_of(columns) for columns in _all(reader, UNFINISHED)]
    findings = (
        [Findings.posted(number, posted, total) for number, posted, _, total, _ in totals if posted != total]
        + [Findings.balance_after(*found) for found in _some(reader, BALANCES_AFTER)]
        + [Findings.negative(number, posted, held) for number, posted, held, *_ in totals if not 0 <= held <= posted]
        + [Findings.negative(n, total, held_at.get(n, 0)) for n, *_, total in totals if total < held_at.get(n, 0)]
        + [Findings.holds(found[0], found[1:4], found[4:7]) for found in _some(reader, HOLDS)]
        + [Findings.orphan(*found) for found in _some(reader, ORPHANS)]
        + [Findings.book(name, balance, total) for name, balance, _, total, _ in books if balance != total]
        + reserved_findings({name: reserved for name, _, reserved, *_ in books}, unfinished)
        + [Findings.unbalanced(*found) for found in _some(reader, UNBALANCED)]
    )
    counted = Recount(
        sum(total for *_, total in totals),
        {name: total for name, *_, total in books},
        _all(reader, COUNT_ENTRIES)[0][0],
        _all(reader, COUNT_HOLDS)[0][0],
        findings,
        unfinished,
        [heuristic_of(columns) for columns in _all(reader, GUESSES, (at,))],
    )
    reader.execute("COMMIT")
    return counted


def _all(reader: apsw.Connection, sentence: str, parameters: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    return reader.execute(sentence, parameters).fetchall()


def _some(reader: apsw.Connection, sentence: str) -> list[tuple[Any, ...]]:
    return reader.execute(sentence, (MAX_FINDINGS,)).fetchall()
