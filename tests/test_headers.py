"""What travels beside a body: keys quoted or bare, preferences as RFC 7240 reads them, media types by weight."""

from __future__ import annotations

import pytest
from fastapi import Request

from distribank.api.headers import idempotency_key, last_event_id, preference, prefers_csv
from distribank.api.problems import Problem


def request(*headers: tuple[str, str]) -> Request:
    raw = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers]
    return Request({"type": "http", "headers": raw})


@pytest.mark.parametrize(
    ("given", "key"),
    [
        ("abc", "abc"),
        ('"abc"', "abc"),
        (" abc ", "abc"),
        ("x" * 255, "x" * 255),
        ('"' + "x" * 255 + '"', "x" * 255),
        (r'"a\"b\\c"', r'a"b\c'),
        ('a"b', 'a"b'),
        ("!~{}", "!~{}"),
    ],
)
def test_a_key_is_the_same_quoted_or_bare(given: str, key: str) -> None:
    assert idempotency_key(request(("Idempotency-Key", given))) == key


@pytest.mark.parametrize(
    "given", ["x" * 256, '"' + "x" * 256 + '"', "a b", '"a b"', '"', '""', '"abc', "é", "a\x7f", "\x80"]
)
def test_what_is_no_key_is_invalid(given: str) -> None:
    with pytest.raises(Problem) as problem:
        idempotency_key(request(("Idempotency-Key", given)))
    assert (problem.value.status_code, problem.value.code) == (400, "invalid_idempotency_key")


@pytest.mark.parametrize("headers", [(), (("Idempotency-Key", ""),), (("Idempotency-Key", "  "),)])
def test_no_key_is_a_required_key_missing(headers: tuple[tuple[str, str], ...]) -> None:
    with pytest.raises(Problem) as problem:
        idempotency_key(request(*headers))
    assert (problem.value.status_code, problem.value.code) == (400, "idempotency_key_required")


def test_two_keys_are_none() -> None:
    with pytest.raises(Problem):
        idempotency_key(request(("Idempotency-Key", "a"), ("Idempotency-Key", "b")))


@pytest.mark.parametrize(
    ("given", "wait", "applied"),
    [
        ([], 5.0, None),
        (["wait=10"], 10.0, "wait=10"),
        (['wait="10"'], 10.0, "wait=10"),
        (["Wait = 10"], 10.0, "wait=10"),
        (["wait=0"], 0.0, "wait=0"),
        (["wait=31"], 30.0, "wait=30"),
        (["wait=999999999"], 30.0, "wait=30"),
        (["respond-async"], 0.0, "respond-async"),
        (["Respond-Async, wait=10"], 10.0, "respond-async, wait=10"),
        (["respond-async", "wait=10"], 10.0, "respond-async, wait=10"),
        (["wait=3, wait=9"], 3.0, "wait=3"),
        (["respond-async; x=y"], 0.0, "respond-async"),
        (["wait"], 5.0, None),
        (["wait=-1"], 5.0, None),
        (["wait=1.5"], 5.0, None),
        (["wait=" + "9" * 5000], 5.0, None),
        (['wait="10'], 5.0, None),
        (["handling=lenient, ,;="], 5.0, None),
    ],
)
def test_preferences_are_taken_up_where_they_can_be_understood(
    given: list[str], wait: float, applied: str | None
) -> None:
    taken = preference(request(*(("Prefer", value) for value in given)))

    assert (taken.wait, taken.applied) == (wait, applied)


@pytest.mark.parametrize(
    ("accept", "csv"),
    [
        ([], False),
        (["*/*"], False),
        (["application/json"], False),
        (["text/csv"], True),
        (["text/*"], True),
        (["text/csv, */*;q=0.1"], True),
        (["text/csv;q=0.1", "application/json"], False),
        (["TEXT/CSV; Q=0.9, application/json;q=0.8"], True),
        (["text/csv;q=0"], False),
        (["text/csv;q=nonsense"], True),
        ([",;,"], False),
    ],
)
def test_a_file_is_given_to_who_prefers_it(accept: list[str], csv: bool) -> None:
    assert prefers_csv(request(*(("Accept", value) for value in accept))) is csv


@pytest.mark.parametrize(("given", "seen"), [("17", 17), ("", None), ("-1", None), ("１", None), ("9" * 40, None)])
def test_an_event_id_of_ours_is_a_number(given: str, seen: int | None) -> None:
    encoded = given.encode("utf-8").decode("latin-1")
    assert last_event_id(request(("Last-Event-ID", encoded))) == seen
