"""What became of a transaction where an operator forced a part: told as the guess it was, and then as the truth."""

from __future__ import annotations

import pytest

from distribank.core.protocol import Record, RecordKind, State
from distribank.core.story import diagram, tell

A, B = "99990001", "99990002"


def resolved(before: State, after: State, stamp: int) -> Record:
    return Record("T", stamp, RecordKind.RESOLVED, before, after, "the operator forced it: a phone call")


@pytest.mark.parametrize("forced", [State.FORCED_COMMIT, State.FORCED_ABORT])
@pytest.mark.parametrize("truth", [State.COMMITTED, State.ABORTED])
def test_a_forced_part_is_told_as_a_guess_and_then_compared_with_the_truth(forced: State, truth: State) -> None:
    records = [resolved(State.PREPARED, forced, 1), resolved(forced, truth, 2)]
    guess, heard = [line.words for line in tell({B: records}, [B], frank=True)]

    right = (forced is State.FORCED_COMMIT) == (truth is State.COMMITTED)
    assert "a guess" in guess
    assert "a phone call" not in guess + heard, "an operator's reason is for operators, who have the list"
    assert ("as its operator had guessed" in heard) is right
    assert ("corrected" in heard) is not right


def test_a_diagram_notes_what_was_forced_and_draws_no_message_for_it() -> None:
    lines = tell({B: [resolved(State.PREPARED, State.FORCED_COMMIT, 1)]}, [B], frank=True)

    drawn = diagram(lines, {A: "Aroeira", B: "Pitanga"}, A, [B])

    assert f"Note over {B}: forced commit by an operator" in drawn
    assert "->>" not in drawn
