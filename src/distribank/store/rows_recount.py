"""The recount in SQL: every entry added up anew, in one read of one consistent picture.

Slow by design and meant for a connection of its own: it holds up nobody, but for SQLite's write-ahead log, which cannot
begin anew before it ends. The sentences are both engines'; each of them asks, and ``add_up`` says what it comes to.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from distribank.ports import Recount
from distribank.store.columns import Columns
from distribank.store.recount import MAX_FINDINGS, Findings, reserved_findings
from distribank.store.rows_transfers import HEURISTIC, UNFINISHED, heuristic_of, transfer_of

TOTALS: Final = """
    SELECT account.number, account.posted, account.held, coalesce(total, 0), coalesce(total_at, 0)
      FROM account
      LEFT JOIN (SELECT account, sum(CASE WHEN direction = 'credit' THEN amount ELSE -amount END) AS total,
                        sum(CASE WHEN stamp > ? THEN 0 WHEN direction = 'credit' THEN amount ELSE -amount END)
                          AS total_at
                   FROM entry GROUP BY account) AS sums ON sums.account = account.number
     ORDER BY account.number
"""
COUNT_ENTRIES: Final = "SELECT count(*) FROM entry"
COUNT_HOLDS: Final = "SELECT count(*) FROM hold WHERE state = 'placed'"
BALANCES_AFTER: Final = """
    SELECT account, change, balance_after, running
      FROM (SELECT account, change, balance_after,
                   sum(CASE WHEN direction = 'credit' THEN amount ELSE -amount END)
                     OVER (PARTITION BY account ORDER BY change) AS running
              FROM entry) AS found
     WHERE balance_after <> running LIMIT ?
"""
HOLDS: Final = """
    SELECT number, held, incoming, open_holds, placed_debits, placed_credits, placed
      FROM (SELECT account.number, account.held, account.incoming, account.open_holds,
                   coalesce(sum(CASE WHEN hold.direction = 'debit' THEN hold.amount ELSE 0 END), 0) AS placed_debits,
                   coalesce(sum(CASE WHEN hold.direction = 'credit' THEN hold.amount ELSE 0 END), 0) AS placed_credits,
                   count(hold.account) AS placed
              FROM account LEFT JOIN hold ON hold.account = account.number AND hold.state = 'placed'
             GROUP BY account.number) AS found
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
      LEFT JOIN (SELECT book, sum(amount) AS total, sum(CASE WHEN stamp > ? THEN 0 ELSE amount END) AS total_at
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
      FROM (SELECT operation, CASE WHEN direction = 'credit' THEN amount ELSE -amount END AS amount FROM entry
            UNION ALL
            SELECT operation, amount FROM book_entry) AS found
     GROUP BY operation HAVING sum(amount) <> 0 LIMIT ?
"""


def questions(at: int) -> list[tuple[str, Columns]]:
    """What an engine is asked, in one read of one picture, and what is bound; ``add_up`` takes the answers."""
    some = (MAX_FINDINGS,)
    return [
        (TOTALS, (at,)),
        (BOOKS, (at,)),
        (HELD_AT, (at,)),
        (UNFINISHED, ()),
        (BALANCES_AFTER, some),
        (HOLDS, some),
        (ORPHANS, some),
        (UNBALANCED, some),
        (COUNT_ENTRIES, ()),
        (COUNT_HOLDS, ()),
        (GUESSES, (at,)),
    ]


def add_up(answers: Sequence[Sequence[Columns]]) -> Recount:
    """Everything that ``ports.Recount`` promises, from the answers to ``questions``, in their order."""
    totals, books, held, open_ones, balances, holds, orphans, unbalanced, entries, placed, guesses = answers
    held_at: dict[Any, Any] = dict(held)
    unfinished = [transfer_of(columns) for columns in open_ones]
    findings = (
        [Findings.posted(number, posted, total) for number, posted, _, total, _ in totals if posted != total]
        + [Findings.balance_after(*found) for found in balances]
        + [Findings.negative(number, posted, held) for number, posted, held, *_ in totals if not 0 <= held <= posted]
        + [Findings.negative(n, total, held_at.get(n, 0)) for n, *_, total in totals if total < held_at.get(n, 0)]
        + [Findings.holds(found[0], found[1:4], found[4:7]) for found in holds]
        + [Findings.orphan(*found) for found in orphans]
        + [Findings.book(name, balance, total) for name, balance, _, total, _ in books if balance != total]
        + reserved_findings({name: reserved for name, _, reserved, *_ in books}, unfinished)
        + [Findings.unbalanced(*found) for found in unbalanced]
    )
    return Recount(
        sum(total for *_, total in totals),
        {name: total for name, *_, total in books},
        entries[0][0],
        placed[0][0],
        findings,
        unfinished,
        [heuristic_of(columns) for columns in guesses],
    )
