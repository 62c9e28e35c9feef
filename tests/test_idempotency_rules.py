"""What a retry with an idempotency key means."""

from __future__ import annotations

from dataclasses import replace

from distribank.core.idempotency import IdempotencyKey, Retry, judge
from distribank.core.refusals import Code, Refusal

KNOWN = IdempotencyKey("holder-ana", "transfers", "key-1", "fingerprint", "transaction", 0)
INTERRUPTED = Refusal(Code.INTERRUPTED, "the bank stopped")


def test_a_key_never_seen_is_new() -> None:
    assert judge(None, "fingerprint") is Retry.NEW


def test_the_same_key_with_the_same_content_answers_again() -> None:
    assert judge(KNOWN, "fingerprint") is Retry.REPLAY


def test_the_same_key_with_other_content_is_a_conflict_whatever_became_of_the_first() -> None:
    assert judge(KNOWN, "other") is Retry.CONFLICT
    assert judge(KNOWN, "other", INTERRUPTED) is Retry.CONFLICT


def test_a_refusal_is_answered_again_and_not_tried_again() -> None:
    assert judge(KNOWN, "fingerprint", Refusal(Code.INSUFFICIENT_FUNDS, "not enough")) is Retry.REPLAY
    assert judge(KNOWN, "fingerprint", Refusal(Code.BANK_UNREACHABLE, "away")) is Retry.REPLAY


def test_what_a_crash_interrupted_before_anyone_was_told_runs_anew() -> None:
    assert judge(KNOWN, "fingerprint", INTERRUPTED) is Retry.NEW


def test_what_a_crash_interrupted_after_a_202_is_found_again_and_never_run_twice() -> None:
    assert judge(replace(KNOWN, answered=True), "fingerprint", INTERRUPTED) is Retry.REPLAY
