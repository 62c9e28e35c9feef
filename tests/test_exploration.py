"""Every reachable state of one transaction on the shipped machines (``tests.exploring``), and bugs that must be found.

``pytest -s tests/test_exploration.py`` prints the figures, and the shortest way to each seeded bug, in words.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from distribank.core import coordinator, participant
from distribank.core import ledger as books
from distribank.core.protocol import IN_DOUBT, State, Step
from tests.exploring import CELL_BITS, COMMITTED, Explorer, World, explore

UNFORCED_STATES = {None, State.PREPARING, State.PREPARED, State.ABORTED, *COMMITTED}


@pytest.mark.parametrize(
    ("participants", "crashes", "forced", "at_least"),
    [(2, 3, 1, 40_000), (2, 2, 0, 3_000), (3, 2, 0, 20_000), (4, 2, 0, 100_000)],
)
@pytest.mark.timeout(600)
def test_no_order_of_messages_flushes_and_crashes_breaks_a_promise_or_leaves_anything_stuck(
    participants: int, crashes: int, forced: int, at_least: int
) -> None:
    explored = explore(participants, crashes, forced)
    print(f"\n{explored}")
    assert explored.wrong is None, str(explored)
    assert explored.met == UNFORCED_STATES | (set(IN_DOUBT) if forced else set())
    assert explored.worlds > at_least


def test_the_reductions_hide_nothing() -> None:
    """Walked without them, no state of all banks is met that the reduced walk has not met with as many messages."""
    explorer = Explorer(2, 1, 0)
    assert explorer.walk().wrong is None
    reduced: dict[World, list[World]] = {}
    for number, left, *cells in explorer.worlds:
        for renamed, ordered in ((number, cells), (explorer.renamed(number, (1, 0)), cells[::-1])):
            reduced.setdefault(banks_of(renamed, left, ordered), []).append((left, *ordered))
    fewer, explorer.worlds, explorer.reduced = len(explorer.worlds), {}, False
    explored = explorer.walk()
    print(f"\nwithout reductions, {explored}")
    assert explored.wrong is None, str(explored)
    assert explored.worlds > 4 * fewer
    met = set()
    for number, left, *cells in explorer.worlds:
        banks = banks_of(number, left, cells)
        met.add(banks)
        assert any(not left & ~a and not b & ~c and not d & ~e for a, c, e in reduced[banks] for b, d in [cells])
    assert met == reduced.keys()


def banks_of(number: int, left: int, cells: list[int]) -> World:
    """What the banks know and the crashes left, without messages."""
    return (number, left >> 2, *(cell >> CELL_BITS for cell in cells))


def unforced(handler: Callable[[Any], Step]) -> Callable[[Any], Step]:
    return lambda situation: replace(handler(situation), forced=False)


def twice(handler: Callable[[Any], Step]) -> Callable[[Any], Step]:
    """All that *handler* posts, posted twice."""
    return lambda situation: (step := handler(situation)) and replace(step, changes=(*step.changes, *step.changes))


def holds_kept(handler: Callable[[Any], Step]) -> Callable[[Any], Step]:
    return without(handler, books.Account, books.Hold)


def without(handler: Callable[[Any], Step], *rows: type) -> Callable[[Any], Step]:
    return lambda situation: (
        (step := handler(situation))
        and replace(step, changes=tuple(row for row in step.changes if not isinstance(row, rows)))
    )


C, P = coordinator.Event, participant.Event
BUGS: list[tuple[str, Any, Any, Any, int]] = [
    ("answered while voting", coordinator, (State.PREPARING, C.INQUIRE), coordinator._say_aborted, 0),
    ("commit told before it is forced", coordinator, (State.PREPARING, C.YES), unforced(coordinator._count_yes), 0),
    ("answered while deciding", coordinator, (State.DECIDING, C.INQUIRE), coordinator._say_committed, 0),
    ("a commit aborted at restart", coordinator, (State.COMMITTING, C.RESTART), coordinator._presume_abort, 0),
    ("a commit not sent again", coordinator, (State.COMMITTING, C.RESTART), coordinator._ignore, 0),
    ("a begun transfer left at restart", coordinator, (State.PREPARING, C.RESTART), coordinator._ignore, 0),
    ("acknowledgements dropped", coordinator, (State.COMMITTING, C.ACKNOWLEDGE), coordinator._ignore, 0),
    ("nothing known is undecided", coordinator, (State.NOTHING, C.INQUIRE), coordinator._say_undecided, 0),
    (
        "an abort keeps the coordinator's holds",
        coordinator,
        (State.PREPARING, C.NO),
        holds_kept(coordinator._refused),
        0,
    ),
    ("a time-out releases", participant, (State.PREPARED, P.NOT_TOLD), participant._release, 0),
    ("vote not forced", participant, (State.NOTHING, P.PREPARE), unforced(participant._vote), 0),
    (
        "vote repeated before it is forced",
        participant,
        (State.PREPARED, P.PREPARE),
        unforced(participant._same_vote),
        0,
    ),
    (
        "a promise not to vote that is not forced",
        participant,
        (State.NOTHING, P.INQUIRE),
        unforced(participant._promise_never_to_vote),
        0,
    ),
    ("no tombstone for whom it is told to", participant, (State.NOTHING, P.INQUIRE), participant._say_aborted, 0),
    ("acknowledged before it is forced", participant, (State.PREPARED, P.COMMIT), unforced(participant._post), 0),
    (
        "acknowledged again before it is forced",
        participant,
        (State.COMMITTED, P.COMMIT),
        unforced(participant._acknowledge_again),
        0,
    ),
    ("in doubt, and says aborted", participant, (State.PREPARED, P.INQUIRE), participant._say_aborted, 0),
    (
        "an abort keeps holds at a participant",
        participant,
        (State.PREPARED, P.ABORT),
        holds_kept(participant._release),
        0,
    ),
    (
        "a consent is not given back",
        participant,
        (State.PREPARED, P.ABORT),
        without(participant._release, participant.Consent),
        0,
    ),
    ("posted twice", participant, (State.PREPARED, P.COMMIT), twice(participant._post), 0),
    ("forced, and it can be lost", participant, (State.PREPARED, P.RESOLVE), unforced(participant._force), 1),
    ("a guess spreads", participant, (State.FORCED_ABORT, P.INQUIRE), participant._say_aborted, 1),
    ("truth not forced", participant, (State.FORCED_ABORT, P.COMMIT), unforced(participant._learn_commit), 1),
    ("truth turned round", participant, (State.FORCED_ABORT, P.TOLD_COMMITTED), participant._learn_abort, 1),
    ("a guess is the truth", participant, (State.FORCED_COMMIT, P.COMMIT), participant._acknowledge_again, 1),
    ("an abort is a commit", participant, (State.FORCED_COMMIT, P.ABORT), participant._learn_commit, 1),
    ("corrected twice", participant, (State.FORCED_COMMIT, P.ABORT), twice(participant._learn_abort), 1),
]


@pytest.mark.parametrize(("bug", "machine", "cell", "handler", "forced"), BUGS, ids=[bug[0] for bug in BUGS])
def test_a_seeded_bug_is_found(
    monkeypatch: pytest.MonkeyPatch, bug: str, machine: Any, cell: Any, handler: Any, forced: int
) -> None:
    monkeypatch.setitem(machine.TABLE, cell, handler)
    explored = explore(2, 2, forced)
    print(f"\n{bug}: {explored}")
    assert explored.wrong is not None
    assert explored.story, "the way there is told"
