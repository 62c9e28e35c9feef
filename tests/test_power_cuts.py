"""Power cuts and failing disks under the shipped store (``tests.power_cuts``): nothing acknowledged is lost."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from distribank.store.group import GroupCommit
from tests.power_cuts import CONTROLS, at_every_operation, control, cut, quiet_logs, somewhere_fast
from tests.power_scenes import MANY, SCENES

pytestmark = pytest.mark.timeout(600)
TRANSFERS = [name for name in SCENES if name.startswith("transfers")]
LENGTH = {"deposits": 150, "first start": 120, "opening schema 1": 60, "opening schema 2": 35}
"""Operations on the disk that each scene has at least: fewer, and it would not do its work."""


@pytest.fixture
def place() -> Iterator[Path]:
    with quiet_logs(), somewhere_fast() as place:
        yield place


@pytest.mark.parametrize("name", LENGTH)
def test_a_power_cut_at_any_operation_loses_nothing_that_was_acknowledged(place: Path, name: str) -> None:
    outcomes = list(at_every_operation(SCENES[name], place))
    assert {n: outcome for n, outcome in enumerate(outcomes) if outcome.findings} == {}
    assert len(outcomes) > LENGTH[name]
    reached = {str(outcome.at).split()[0] + str(outcome.at)[-4:] for outcome in outcomes}
    assert reached >= {"write-wal", "sync-wal", "writek.db", "synck.db"}  # the log and, at checkpoints, the database


@pytest.mark.parametrize("name", TRANSFERS)
def test_a_bank_that_lost_power_finishes_its_transfers_as_it_had_told_them(place: Path, name: str) -> None:
    """Cuts at random operations; ``make powercuts`` cuts at every one."""
    length = cut(SCENES[name], MANY, 0, place).operations
    for seed in range(60):
        at = Random(seed).randrange(length)  # noqa: S311
        outcome = cut(SCENES[name], at, seed, place)
        assert outcome.findings == (), f"seed {seed}, after operation {at}"
        assert outcome.at is not None


@pytest.mark.parametrize("how", CONTROLS)
def test_these_cuts_would_notice_a_commit_that_does_not_wait_for_the_disk(place: Path, how: str) -> None:
    assert control(place, **CONTROLS[how]) > 0


@pytest.mark.parametrize("name", LENGTH)
def test_whichever_operation_on_the_disk_fails_the_bank_stops_and_restarts_clean(place: Path, name: str) -> None:
    """The disk fails once and then works again: nothing may be retried as though nothing had happened (pitfall 26)."""
    outcomes = list(at_every_operation(SCENES[name], place, once=True))
    assert {n: outcome for n, outcome in enumerate(outcomes) if outcome.findings} == {}
    assert len(outcomes) > LENGTH[name]


@pytest.mark.parametrize("name", TRANSFERS[:2])
def test_these_cuts_would_notice_a_bank_that_answers_before_its_log_is_forced(
    place: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def at_once(store: GroupCommit) -> None:
        if store._broken is not None:
            raise store._lost()
        if store._dirty.waiting:
            store._schedule()

    length = cut(SCENES[name], MANY, 0, place).operations
    monkeypatch.setattr(GroupCommit, "flushed", at_once)
    cuts = [cut(SCENES[name], Random(seed).randrange(length), seed, place) for seed in range(10)]  # noqa: S311
    assert any(outcome.findings for outcome in cuts)
