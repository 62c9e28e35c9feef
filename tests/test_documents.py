"""CPF, CNPJ and account numbers, by the vectors of ``facts.md`` and against two libraries as oracles."""

from __future__ import annotations

import string
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from stdnum.br import cnpj as stdnum_cnpj
from stdnum.br import cpf as stdnum_cpf
from validate_docbr import CNPJ, CPF

from distribank.core.documents import (
    account_number,
    mask_cpf,
    mask_name,
    parse_account_number,
    parse_cnpj,
    parse_cpf,
)

VALID_CPFS = [
    "52998224725",
    "11144477735",
    "12345678909",
    "39053344705",
    "98765432100",
    "22233366638",
    "00000000191",
]
INVALID_CPFS = ["00000000000", "11111111111", "52998224724", "12345678900"]
VALID_CNPJS = [
    "12ABC34501DE35",
    "12ABC345000188",
    "11222333000181",
    "00000000000191",
    "ABCDEFGHIJKL80",
    "1A2B3C4D5E6F34",
]
INVALID_CNPJS = ["00000000000000", "12abc34501de35", "12ABC34501DE36", "12ABC34501DE45", "50685362000135"]
FULL_WIDTH = str.maketrans(string.digits, "".join(chr(0xFF10 + n) for n in range(10)))
ARABIC = str.maketrans(string.digits, "".join(chr(0x0660 + n) for n in range(10)))
NOT_DOCUMENTS = ["", "-", "1", "529.982.247-2", "5299822472 5", "52998224725\n", "x52998224725", "529982247250"]

nine_digits = st.text(string.digits, min_size=9, max_size=9)
eleven_digits = st.text(string.digits, min_size=11, max_size=11)
twelve_characters = st.text(string.digits + string.ascii_uppercase, min_size=12, max_size=12)


def accepts(parse: Any, text: str) -> bool:
    try:
        parse(text)
    except ValueError:
        return False
    return True


def completed(parse: Any, start: str) -> list[str]:
    """Every completion of *start* by two digits that *parse* accepts."""
    return [whole for n in range(100) if accepts(parse, whole := f"{start}{n:02d}")]


@pytest.mark.parametrize("cpf", VALID_CPFS)
def test_a_valid_cpf_is_kept_as_eleven_digits_with_or_without_its_dots(cpf: str) -> None:
    assert parse_cpf(cpf) == cpf
    assert parse_cpf(f"{cpf[:3]}.{cpf[3:6]}.{cpf[6:9]}-{cpf[9:]}") == cpf


@pytest.mark.parametrize("cpf", INVALID_CPFS + NOT_DOCUMENTS + [str(n) * 11 for n in range(10)])
def test_what_is_no_cpf_is_refused(cpf: str) -> None:
    with pytest.raises(ValueError, match="CPF"):
        parse_cpf(cpf)


@pytest.mark.parametrize("table", [FULL_WIDTH, ARABIC])
def test_digits_that_only_look_like_ascii_are_refused_or_one_person_has_two_documents(table: dict[int, int]) -> None:
    for cpf in VALID_CPFS:
        assert not accepts(parse_cpf, cpf.translate(table))
        assert not accepts(parse_cpf, cpf[:10] + cpf[10].translate(table))
    for cnpj in VALID_CNPJS:
        assert not accepts(parse_cnpj, cnpj.translate(table))
    assert not accepts(parse_account_number, "00000012-4".translate(table))


@given(eleven_digits)
def test_a_cpf_is_accepted_exactly_when_the_oracles_accept_it(cpf: str) -> None:
    assume(len(set(cpf)) > 1)
    assert accepts(parse_cpf, cpf) is stdnum_cpf.is_valid(cpf) is CPF().validate(cpf)


@given(nine_digits)
@example("1" * 9)
def test_nine_digits_have_exactly_one_pair_of_check_digits_and_the_oracles_agree(start: str) -> None:
    found = completed(parse_cpf, start)
    oracle = [cpf for n in range(100) if stdnum_cpf.is_valid(cpf := f"{start}{n:02d}")]
    assert found == [cpf for cpf in oracle if len(set(cpf)) > 1], "the oracle lets all-equal numbers pass"
    assert len(found) == (len(set(start)) > 1)


@pytest.mark.parametrize("cnpj", VALID_CNPJS)
def test_a_valid_cnpj_letters_included_is_kept_as_fourteen_characters(cnpj: str) -> None:
    assert parse_cnpj(cnpj) == cnpj
    assert parse_cnpj(f"{cnpj[:2]}.{cnpj[2:5]}.{cnpj[5:8]}/{cnpj[8:12]}-{cnpj[12:]}") == cnpj


@pytest.mark.parametrize("cnpj", INVALID_CNPJS + NOT_DOCUMENTS + ["12ABC34501DEA5", "1122233300018"])
def test_what_is_no_cnpj_is_refused(cnpj: str) -> None:
    with pytest.raises(ValueError, match="CNPJ"):
        parse_cnpj(cnpj)


@given(twelve_characters)
def test_twelve_characters_have_exactly_one_pair_of_check_digits_and_the_oracle_agrees(start: str) -> None:
    oracle = CNPJ()
    found = completed(parse_cnpj, start)
    assert len(found) == 1 or len(set(start)) == 1
    assert found == [cnpj for n in range(100) if oracle.validate(cnpj := f"{start}{n:02d}")]


@given(st.text(string.digits, min_size=14, max_size=14))
def test_a_cnpj_of_digits_is_accepted_exactly_when_the_oracles_accept_it(cnpj: str) -> None:
    assume(len(set(cnpj)) > 1)
    assert accepts(parse_cnpj, cnpj) is stdnum_cnpj.is_valid(cnpj) is CNPJ().validate(cnpj)


@pytest.mark.parametrize("number", ["00000001-9", "00000003-5", "00000007-8", "00000012-4", "00012345-5"])
def test_an_account_number_carries_the_check_digit_of_the_contract(number: str) -> None:
    assert account_number(int(number[:8])) == number
    assert parse_account_number(number) == number


@given(st.integers(0, 10**8 - 1), st.integers(0, 7), st.sampled_from(string.digits))
def test_one_mistyped_digit_of_an_account_number_is_noticed_unless_the_check_digit_is_the_shared_zero(
    serial: int, place: int, digit: str
) -> None:
    number = account_number(serial)
    typed = number[:place] + digit + number[place + 1 :]
    if typed != number and not number.endswith("-0"):
        assert not accepts(parse_account_number, typed)


@given(st.integers(0, 10**8 - 1))
def test_an_account_number_has_exactly_one_check_digit_the_one_of_modulo_eleven(serial: int) -> None:
    remainder = sum(weight * int(digit) for weight, digit in zip(range(9, 1, -1), f"{serial:08d}", strict=True)) % 11
    found = [digit for digit in string.digits if accepts(parse_account_number, f"{serial:08d}-{digit}")]
    assert found == [str(11 - remainder) if remainder > 1 else "0"]


@pytest.mark.parametrize("text", ["", "12-4", "00000012-5", "000000124", "00000012-4 ", "00000012-4\n", "0000001a-4"])
def test_what_is_no_account_number_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="account number"):
        parse_account_number(text)


def test_a_serial_beyond_eight_digits_is_a_bug() -> None:
    with pytest.raises(AssertionError, match="eight digits"):
        account_number(10**8)


def test_others_see_six_digits_of_a_cpf_and_the_first_name() -> None:
    assert mask_cpf("52998224725") == "***.982.247-**"
    assert mask_name("Maria da Silva") == "Maria d*** S***"
    assert mask_name("  Ana  ") == "Ana"
    assert mask_name("") == ""
