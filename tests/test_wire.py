"""The wire format: what the page says is what the code reads and writes, and nothing hostile gets further."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distribank.core.clock import MAX_STAMP
from distribank.core.ledger import AccountType
from distribank.core.money import MAX_AMOUNT, MAX_BALANCE
from distribank.core.protocol import (
    MAX_LINKED,
    Abort,
    Accounts,
    Acknowledged,
    Answer,
    ClockRead,
    Commit,
    Cut,
    Decision,
    Decisions,
    Fate,
    Inquire,
    LinkedAccount,
    Log,
    Message,
    No,
    Outcome,
    Prepare,
    Record,
    RecordKind,
    Refused,
    ShowAccounts,
    ShowDecisions,
    ShowLog,
    Sides,
    Violation,
    Yes,
)
from distribank.core.refusals import Code, Refusal
from distribank.core.restoration import PartFate
from distribank.core.transfer import Counterparty, Direction, Leg
from distribank.peers import fields, wire
from distribank.peers.messages import MAX_DETAIL
from distribank.peers.wire import InvalidBatch
from tests.between_banks import TRANSACTION, A, B, a_commit, a_prepare, an_inquiry

PAGE = (Path(__file__).parent.parent / "docs" / "wire.md").read_text()
EXAMPLES = re.findall(r"^```json ([a-z ]+)\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
MESSAGES = [(kind, json.loads(text)) for kind, text in EXAMPLES if kind in wire.KINDS]
ANSWERS = [(kind.split()[1], json.loads(text)) for kind, text in EXAMPLES if kind.startswith("answer ")]


# The page ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "example"), MESSAGES, ids=[kind for kind, _ in MESSAGES])
def test_each_message_of_the_page_is_read_and_written_back_field_by_field(kind: str, example: dict[str, Any]) -> None:
    message = wire.decode_message(kind, example)
    assert not isinstance(message, Refused)
    assert json.loads(wire.encode_message(message)) == example


@pytest.mark.parametrize(("kind", "example"), ANSWERS, ids=[f"{kind} {a['answer']}" for kind, a in ANSWERS])
def test_each_answer_of_the_page_is_read_and_written_back_field_by_field(kind: str, example: dict[str, Any]) -> None:
    answer = wire.decode_answer(kind, example)
    assert answer is not None
    assert json.loads(wire.encode_answers(A, 1, [answer]))["answers"] == [example]


def test_the_page_shows_every_kind_of_message_and_of_answer() -> None:
    assert list(dict.fromkeys(kind for kind, _ in MESSAGES)) == list(wire.KINDS)
    shown = {type(wire.decode_answer(kind, example)) for kind, example in ANSWERS}
    assert shown == {Yes, No, Acknowledged, Refused, Outcome, Log, Accounts, ClockRead, Cut, Sides, Decisions}
    assert {example["answer"] for kind, example in ANSWERS if kind == "inquire"} == {*Fate, "refused"}
    for violation in Violation:
        assert f"| `{violation}` |" in PAGE


def test_the_envelopes_of_the_page_are_read() -> None:
    (batch,) = [text for kind, text in EXAMPLES if kind == "request"]
    assert wire.decode_batch("prepare", batch.encode()) == wire.Batch(117964800000000000, [])
    (answers,) = [text for kind, text in EXAMPLES if kind == "answers inquire"]
    assert wire.decode_answers(A, [], answers.encode()) == wire.Answers(117964800000000001, [])


def test_no_example_of_the_page_is_left_out() -> None:
    known = {*wire.KINDS, "request", "answers inquire", "identity", *(f"answer {kind}" for kind in wire.KINDS)}
    assert {kind for kind, _ in EXAMPLES} == known
    assert PAGE.count("```json") == len(EXAMPLES)


# There and back ---------------------------------------------------------------------------------------------------

banks = st.from_regex(fields.BANK, fullmatch=True)
transactions = st.from_regex(fields.TRANSACTION, fullmatch=True)
numbers = st.integers(1, 64)
stamps = st.integers(0, MAX_STAMP)
moments = st.integers(0, 253_402_300_799_999)
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=140)
directions = st.sampled_from(Direction)
legs = st.builds(
    Leg, numbers, banks, st.from_regex(fields.ACCOUNT, fullmatch=True), directions, st.integers(1, MAX_AMOUNT)
)
words = st.text("abcdefghijklmnopqrstuvwxyz ,", min_size=1, max_size=64)
parties = st.builds(Counterparty, numbers, banks, directions, st.none() | texts)
many_legs = st.lists(legs, min_size=1, max_size=8).map(tuple)
many_parties = st.lists(parties, max_size=8).map(tuple)
refusals = st.builds(
    Refusal,
    st.sampled_from(Code),
    texts,
    st.none() | banks,
    st.none() | st.from_regex(fields.ACCOUNT, fullmatch=True),
    st.none() | numbers,
)
messages = (
    st.builds(
        Prepare,
        transactions,
        st.lists(banks, min_size=1, max_size=8, unique=True).map(tuple),
        many_legs,
        st.integers(-64 * MAX_AMOUNT, 64 * MAX_AMOUNT),
        st.from_regex(fields.CPF, fullmatch=True),
        st.from_regex(fields.END_TO_END_ID, fullmatch=True),
        st.none() | texts,
        moments,
        many_parties,
        moments,
    )
    | st.builds(Commit, transactions, stamps, many_legs, many_parties)
    | st.builds(Abort, transactions, refusals)
    | st.builds(Inquire, transactions, moments)
    | st.builds(ShowLog, transactions)
    | st.builds(ShowAccounts, st.from_regex(fields.CPF, fullmatch=True))
    | st.builds(ShowDecisions, moments, st.none() | st.tuples(moments, transactions))
)
logs = transactions.flatmap(
    lambda transaction: st.builds(
        Log,
        st.just(transaction),
        st.lists(
            st.builds(Record, st.just(transaction), stamps, st.sampled_from(RecordKind), words, words, texts),
            max_size=5,
        ).map(tuple),
    )
)
linked_accounts = st.builds(
    LinkedAccount,
    st.from_regex(fields.ACCOUNT, fullmatch=True),
    st.sampled_from(AccountType),
    st.integers(0, MAX_BALANCE),
    st.integers(0, MAX_BALANCE),
    st.from_regex(fields.NAME, fullmatch=True),
    st.integers(1, MAX_AMOUNT),
    st.none() | st.integers(1, MAX_AMOUNT),
    st.integers(0, MAX_BALANCE),
    moments,
)
decisions = st.builds(
    Decision,
    transactions,
    moments,
    st.sampled_from(PartFate),
    st.none() | stamps,
    st.lists(banks, min_size=1, max_size=8, unique=True).map(tuple),
    many_legs,
    st.just("") | st.from_regex(fields.CPF, fullmatch=True),
    st.from_regex(fields.END_TO_END_ID, fullmatch=True),
    st.none() | texts,
    moments,
    moments,
    many_parties,
)
answers = st.one_of(
    st.tuples(
        st.just("decisions"),
        st.builds(Decisions, st.lists(decisions, max_size=3).map(tuple), st.none() | st.tuples(moments, transactions)),
    ),
    st.tuples(st.just("prepare"), st.builds(Yes, stamps, many_parties) | st.builds(No, refusals)),
    st.tuples(st.sampled_from(["commit", "abort"]), st.builds(Acknowledged, st.booleans())),
    st.tuples(st.sampled_from(wire.KINDS), st.builds(Refused, st.sampled_from(Violation), texts)),
    st.tuples(st.just("inquire"), st.builds(Outcome, st.just(Fate.COMMITTED), stamps)),
    st.tuples(st.just("inquire"), st.builds(Outcome, st.sampled_from(list(Fate)[1:]))),
    st.tuples(st.just("log"), logs),
    st.tuples(st.just("accounts"), st.builds(Accounts, st.lists(linked_accounts, max_size=5).map(tuple))),
)


@given(messages)
def test_every_message_comes_back_as_it_was(message: Message) -> None:
    kind = wire.kind_of(message)
    batch = wire.decode_batch(kind, wire.encode_batch(5, [wire.encode_message(message)]))
    assert batch == wire.Batch(5, [message])


@given(answers)
def test_every_answer_comes_back_as_it_was(pair: tuple[str, Answer]) -> None:
    kind, answer = pair
    assert wire.decode_answers(A, [kind], wire.encode_answers(A, 5, [answer])) == wire.Answers(5, [answer])


def test_several_answers_keep_their_order() -> None:
    given_answers: list[Answer] = [Yes(1), No(Refusal(Code.INSUFFICIENT_FUNDS, "…", B, "00000012-4", 2)), Yes(2)]
    body = wire.encode_answers(A, 5, given_answers)
    assert wire.decode_answers(A, ["prepare"] * 3, body).answers == given_answers


def test_a_long_detail_is_cut_rather_than_refused() -> None:
    (answer,) = wire.decode_answers(
        A, ["prepare"], wire.encode_answers(A, 5, [Refused(Violation.CLOCK_AHEAD, "x" * 5000)])
    ).answers
    assert answer == Refused(Violation.CLOCK_AHEAD, "x" * MAX_DETAIL)


def test_a_record_of_a_later_version_is_left_out_and_the_others_are_read() -> None:
    record = {"stamp": "5", "record": "Begun", "from": "nothing known", "to": "preparing", "detail": "…"}
    later = {**record, "stamp": "6", "record": "Reconsidered"}
    log = wire.decode_answer("log", {"answer": "log", "transaction": TRANSACTION, "records": [record, later]})
    assert isinstance(log, Log)
    assert [known.stamp for known in log.records] == [5]


@pytest.mark.parametrize("field", ["record", "from", "to"])
@pytest.mark.parametrize("word", ["", "\x1b[2J", "a\nb", "<img>", "x" * 65, "`a`", "\u202e"])
def test_a_record_whose_words_a_terminal_or_a_page_would_take_for_its_own_is_no_answer(field: str, word: str) -> None:
    record = {"stamp": "5", "record": "Resolved", "from": "prepared", "to": "committed", "detail": "…", field: word}
    assert wire.decode_answer("log", {"answer": "log", "transaction": TRANSACTION, "records": [record]}) is None


def test_a_place_that_is_none_is_refused() -> None:
    assert wire.decode_answer("decisions", {"answer": "decisions", "decisions": [], "stopped_at": 7}) is None
    asked = {"kind": "decisions", "since": "2027-01-15T07:55:00.000Z", "after": "x"}
    assert refusal_of(asked, "decisions") is Violation.INVALID_MESSAGE


def test_more_accounts_than_any_bank_shows_are_no_answer() -> None:
    (example,) = [example for kind, example in ANSWERS if kind == "accounts"]
    crowd = {**example, "accounts": example["accounts"] * (MAX_LINKED + 1)}
    assert wire.decode_answer("accounts", crowd) is None
    assert wire.decode_answer("accounts", {**example, "accounts": [{**crowd["accounts"][0], "type": "odd"}]}) is None


# What does not count ----------------------------------------------------------------------------------------------


def prepare_with(**changes: Any) -> Any:
    return json.loads(wire.encode_message(a_prepare())) | changes


def leg_with(**changes: Any) -> Any:
    return prepare_with(legs=[prepare_with()["legs"][0] | changes])


def refusal_of(message: Any, kind: str = "prepare") -> Violation:
    refused = wire.decode_message(kind, message)
    assert isinstance(refused, Refused), refused
    return refused.code


@pytest.mark.parametrize("amount", [0, -1, MAX_AMOUNT + 1, 10**400, 1.0, 150.5, True, "150", "150.00", None, [1]])
def test_an_amount_is_a_bounded_integer_and_nothing_else(amount: object) -> None:
    assert refusal_of(leg_with(amount=amount)) is Violation.INVALID_MESSAGE


@pytest.mark.parametrize(
    "changes",
    [
        {"transaction": "x" * 97},
        {"transaction": TRANSACTION + "0"},
        {"transaction": TRANSACTION.upper()},
        {"transaction": TRANSACTION + "\n"},
        {"transaction": None},
        {"participants": []},
        {"participants": [B, B]},
        {"participants": [1]},
        {"participants": B},
        {"participants": [f"{number:08d}" for number in range(65)]},
        {"legs": []},
        {"legs": None},
        {"legs": [1]},
        {"legs": prepare_with()["legs"] * 65},
        {"flow": "15000"},
        {"flow": 1.0},
        {"flow": 2**63},
        {"holder_cpf": "529.982.247-25"},
        {"holder_cpf": "٥٢٩٩٨٢٢٤٧٢٥"},
        {"end_to_end_id": "E" * 36},
        {"end_to_end_id": ""},
        {"description": "x" * 141},
        {"description": "a\0b"},
        {"description": 7},
        {"ordered_at": "2027-01-15T08:00:00Z"},
        {"ordered_at": "2027-01-15T08:00:00.123+00:00"},
        {"ordered_at": "2027-02-30T08:00:00.123Z"},
        {"ordered_at": "1969-12-31T23:59:59.999Z"},
        {"ordered_at": 1_800_000_000_123},
        {"counterparties": [{"leg": 1}]},
        {"counterparties": None},
        {"vote_by": None},
        {"digest": "0" * 63},
        {"digest": None},
    ],
)
def test_a_prepare_with_a_wrong_field_is_refused_and_says_which(changes: dict[str, Any]) -> None:
    refused = wire.decode_message("prepare", prepare_with(**changes))
    assert isinstance(refused, Refused)
    assert refused.code is Violation.INVALID_MESSAGE
    assert next(iter(changes)) in refused.detail or "counterparties" in changes


@pytest.mark.parametrize(
    "changes",
    [
        {"leg": 0},
        {"leg": 65},
        {"leg": True},
        {"bank": "9999000"},
        {"bank": "9999000a"},
        {"account": "00000012"},
        {"account": "00000012-44"},
        {"direction": "DEBIT"},
        {"direction": None},
        {"direction": ["debit"]},
    ],
)
def test_a_leg_with_a_wrong_field_is_refused(changes: dict[str, Any]) -> None:
    assert refusal_of(leg_with(**changes)) is Violation.INVALID_MESSAGE


@pytest.mark.parametrize(
    "changes", [{"description": "other"}, {"flow": 15_001}, {"participants": [B]}, {"digest": "0" * 64}]
)
def test_a_prepare_whose_content_is_not_what_its_digest_says_is_refused(changes: dict[str, Any]) -> None:
    assert refusal_of(prepare_with(**changes)) is Violation.DIGEST_MISMATCH


@pytest.mark.parametrize("at", [7, "", "-1", "007", "1.0", str(MAX_STAMP + 1), "1" * 20, "٧", None])
def test_a_stamp_is_a_decimal_string_below_two_to_the_63(at: object) -> None:
    assert refusal_of(json.loads(wire.encode_message(a_commit())) | {"at": at}, "commit") is Violation.INVALID_MESSAGE


def test_unknown_fields_are_ignored() -> None:
    assert wire.decode_message("prepare", prepare_with(colour="blue")) == a_prepare()
    assert wire.decode_answer("commit", {"answer": "acknowledged", "colour": "blue"}) == Acknowledged()


def test_a_message_of_another_kind_is_refused_alone() -> None:
    unknown = b'{"kind":"prepay","transaction":"x"}'
    body = wire.encode_batch(5, [wire.encode_message(an_inquiry()), unknown, wire.encode_message(a_commit()), b"7"])
    first, *others = wire.decode_batch("inquire", body).messages
    assert first == an_inquiry()
    assert [refused.code for refused in others if isinstance(refused, Refused)] == [
        Violation.UNKNOWN_KIND,
        Violation.UNKNOWN_KIND,
        Violation.INVALID_MESSAGE,
    ]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "malformed_json"),
        (b'{"protocol_version":1,"clock":"1","messages":[NaN]}', "malformed_json"),
        (b'{"protocol_version":1,"clock":"1","messages":[],"messages":[]}', "malformed_json"),
        (b"[]", "invalid_request"),
        (b"null", "invalid_request"),
        (b'{"protocol_version":1,"clock":"1"}', "invalid_request"),
        (b'{"protocol_version":1,"clock":1,"messages":[]}', "invalid_request"),
        (b'{"protocol_version":1,"clock":"9223372036854775808","messages":[]}', "invalid_request"),
        (b'{"protocol_version":1,"clock":"1","messages":{}}', "invalid_request"),
        (b'{"protocol_version":1,"clock":"1","messages":[' + b",".join([b"1"] * 1001) + b"]}", "invalid_request"),
        (b'{"protocol_version":2,"clock":"1","messages":[]}', "unsupported_version"),
        (b'{"protocol_version":true,"clock":"1","messages":[]}', "unsupported_version"),
        (b'{"clock":"1","messages":[]}', "unsupported_version"),
    ],
)
def test_an_envelope_that_cannot_be_used_refuses_the_batch(body: bytes, code: str) -> None:
    with pytest.raises(InvalidBatch) as refused:
        wire.decode_batch("prepare", body)
    assert refused.value.code == code


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(st.sampled_from(MESSAGES), st.data())
def test_whatever_a_field_is_replaced_by_a_message_is_read_or_refused(
    example: tuple[str, dict[str, Any]], data: st.DataObject
) -> None:
    kind, fields_of = example
    name = data.draw(st.sampled_from(sorted(fields_of)))
    decoded = wire.decode_message(kind, fields_of | {name: data.draw(JSON)})
    assert isinstance(decoded, Message | Refused)


@given(st.sampled_from(ANSWERS), st.data())
def test_whatever_a_field_is_replaced_by_an_answer_is_read_or_counts_for_nothing(
    example: tuple[str, dict[str, Any]], data: st.DataObject
) -> None:
    kind, fields_of = example
    name = data.draw(st.sampled_from(sorted(fields_of)))
    decoded = wire.decode_answer(kind, fields_of | {name: data.draw(JSON)})
    assert decoded is None or isinstance(decoded, Answer)


@pytest.mark.parametrize(
    ("kind", "answer"),
    [
        ("prepare", {"answer": "acknowledged"}),
        ("prepare", {"answer": "committed", "at": "1"}),
        ("commit", {"answer": "yes", "prepared_at": "1", "names": []}),
        ("commit", {"answer": "no", "reason": {"code": "interrupted", "detail": ""}}),
        ("abort", {"answer": "aborted"}),
        ("inquire", {"answer": "acknowledged"}),
        ("inquire", {"answer": "committed"}),
        ("inquire", {"answer": "COMMITTED", "at": "1"}),
        ("inquire", {"answer": None}),
        ("inquire", "committed"),
        ("prepare", {"answer": "yes", "names": []}),
        ("prepare", {"answer": "no"}),
        ("prepare", {"answer": "no", "reason": {"code": "interrupted"}}),
    ],
)
def test_what_is_no_answer_to_a_message_counts_for_nothing(kind: str, answer: object) -> None:
    assert wire.decode_answer(kind, answer) is None


def test_codes_of_a_later_version_are_understood_as_far_as_they_can_be() -> None:
    no = wire.decode_answer("prepare", {"answer": "no", "reason": {"code": "full_moon", "detail": "tonight"}})
    assert no == No(Refusal(Code.BANK_REFUSED, "full_moon: tonight"))
    refused = wire.decode_answer("commit", {"answer": "refused", "code": "full_moon", "detail": "tonight"})
    assert refused == Refused(Violation.INVALID_MESSAGE, "full_moon: tonight")


def test_answers_meant_for_another_bank_or_of_another_number_are_refused() -> None:
    body = wire.encode_answers(A, 5, [Yes(1)])
    for own, kinds in ((B, ["prepare"]), (A, []), (A, ["prepare", "prepare"])):
        with pytest.raises(InvalidBatch):
            wire.decode_answers(own, kinds, body)
