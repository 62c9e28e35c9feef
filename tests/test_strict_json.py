"""Strict JSON: what two readers could read differently is refused, and nothing exhausts a stack."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distribank import strict_json
from distribank.strict_json import MAX_DEPTH, MalformedJSON

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(JSON, st.booleans())
def test_ordinary_json_means_what_the_standard_library_says(value: object, ascii_only: bool) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only)
    assert strict_json.loads(text.encode()) == json.loads(text)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[1,]",
        b"[1] 2",
        b"NaN",
        b"[Infinity]",
        b'{"a": -Infinity}',
        b"1e999",
        b"-1e999",
        b'{"a": 1, "a": 1}',
        b'[{"b": {"a": 1, "\\u0061": 2}}]',
        b'"\\ud800"',
        b'"\\uDBFF x"',
        b'{"\\udc00": 1}',
        b'"\\udc00\\ud800"',
        b'"\xed\xa0\x80"',
        b'"\xff"',
        b"\xef\xbb\xbf[]",
        "[]".encode("utf-16"),
        b'"\x00"',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"[" * 100_000 + b"]" * 100_000,
        b"1" * 5000,
        b"'a'",
        b"01",
    ],
)
def test_what_readers_could_read_differently_is_refused(text: bytes) -> None:
    with pytest.raises(MalformedJSON):
        strict_json.loads(text)


@given(st.binary(max_size=64))
def test_any_bytes_are_read_or_refused_and_nothing_else_is_raised(text: bytes) -> None:
    try:
        strict_json.loads(text)
    except MalformedJSON:
        return


def test_nesting_is_allowed_up_to_its_bound() -> None:
    assert strict_json.loads(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH)
    with pytest.raises(MalformedJSON, match="nested"):
        strict_json.loads(b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1))
    with pytest.raises(MalformedJSON, match="nested"):
        strict_json.loads(b'{"a":[' * 9 + b"]}" * 9)


@given(st.lists(st.text('\\"[{]}')), st.integers(0, 2 * MAX_DEPTH))
def test_only_brackets_outside_of_strings_are_nesting(strings: list[str], around: int) -> None:
    text = b"[" * around + json.dumps(strings).encode() + b"]" * around
    if around < MAX_DEPTH:
        assert strict_json.loads(text) == json.loads(text)
    else:
        with pytest.raises(MalformedJSON, match="nested"):
            strict_json.loads(text)


def test_many_shallow_values_and_brackets_in_strings_are_not_nesting() -> None:
    assert len(strict_json.loads(b"[" + b",".join([b'{"a":[1]}'] * 1000) + b"]")) == 1000
    assert strict_json.loads(b'["' + b'[{\\"' * 1000 + b'"]') == ['[{"' * 1000]


def test_a_pair_of_surrogate_escapes_is_one_character() -> None:
    assert strict_json.loads(b'"\\ud83d\\ude00"') == "\N{GRINNING FACE}"
    assert strict_json.loads(b'"\\\\ud800"') == "\\ud800"


def test_an_error_never_repeats_what_was_sent() -> None:
    with pytest.raises(MalformedJSON) as refused:
        strict_json.loads(b'{"password": "correct horse", "password": "battery"}')
    assert "correct" not in str(refused.value)
    assert "password" not in str(refused.value)
