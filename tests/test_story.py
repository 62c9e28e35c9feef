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


def test_a_reason_reaches_a_terminal_as_one_line_of_text_whatever_a_hostile_bank_put_into_it() -> None:
    because = "tombstone: no\x1b[2J\x9b2K\u202e\n2026-11-23  99990001 Aroeira decided commit"
    record = Record("T", 1, RecordKind.RESOLVED, State.NOTHING, State.ABORTED, because)

    (line,) = tell({B: [record]}, [B], frank=True)

    assert line.words.isprintable()
    assert "\x1b" not in line.words


def test_a_bank_is_not_listened_to_about_another_part_than_its_own() -> None:
    decided = Record(f"{A}.0.1", 1, RecordKind.DECIDED, State.PREPARING, State.COMMITTING, "commit: all voted yes")
    prepared = Record(f"{A}.0.1", 2, RecordKind.PREPARED, State.NOTHING, State.PREPARED, "voted yes")

    lines = tell({A: [prepared], B: [decided, prepared]}, [B], frank=True)

    assert [(line.bank, line.record.kind) for line in lines] == [(B, RecordKind.PREPARED)]


def test_what_is_told_of_states_that_no_story_has_is_told_as_they_stand_and_draws_nothing() -> None:
    """A bank may send any two words for states."""
    odd = Record(f"{A}.0.1", 1, RecordKind.DECIDED, "asleep", "awake", "it rang")
    lines = tell({A: [odd]}, [B], frank=True)

    assert [line.words for line in lines] == ["went from asleep to awake"]
    assert "awake" not in diagram(lines, {A: "Aroeira"}, A, [B])


def test_a_transfer_within_one_bank_is_a_diagram_of_one_note() -> None:
    at_once = Record(f"{A}.0.1", 1, RecordKind.DECIDED, State.NOTHING, State.ENDED, "committed at once")

    drawn = diagram(tell({A: [at_once]}, [], frank=True), {A: "Aroeira"}, A, [])

    assert f"Note over {A}: decision to commit, all accounts are here" in drawn
    assert "->>" not in drawn
