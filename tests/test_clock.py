"""The arithmetic of the hybrid logical clock."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from distribank.core.clock import CLOCK_BOUND_MS, MAX_STAMP, merge, stamp_at, tick, too_far_ahead, wall_of

stamps = st.integers(0, MAX_STAMP - 1)
walls = st.integers(0, 2**47 - 1)


@given(stamps, walls)
def test_a_tick_is_later_than_all_that_was_said_and_not_before_the_wall_clock(last: int, wall: int) -> None:
    stamp = tick(last, wall)
    assert stamp > last
    assert wall_of(stamp) >= wall
    assert stamp in (last + 1, stamp_at(wall))


@given(stamps, stamps, walls)
def test_what_is_said_after_hearing_a_stamp_is_later_than_it(last: int, heard: int, wall: int) -> None:
    assert tick(merge(last, heard), wall) > max(last, heard)
    assert merge(last, heard) in (last, heard)


@given(walls)
def test_a_stamp_keeps_its_milliseconds(wall: int) -> None:
    assert wall_of(stamp_at(wall)) == wall


@given(walls, st.integers(-(10**6), 10**6))
def test_a_clock_is_believed_up_to_the_bound_and_no_further(wall: int, ahead: int) -> None:
    assert too_far_ahead(stamp_at(max(wall + ahead, 0)), wall) is (ahead > CLOCK_BOUND_MS)


def test_the_counter_of_one_millisecond_runs_over_into_the_next_without_going_back() -> None:
    full = stamp_at(1000) + 2**16 - 1
    assert tick(full, 1000) == stamp_at(1001)


def test_the_greatest_stamp_is_far_away() -> None:
    assert datetime.fromtimestamp(wall_of(MAX_STAMP) // 1000, UTC).year == 6429
