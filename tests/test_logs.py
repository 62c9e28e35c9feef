"""What a bank says of itself: an object a line with fields that are allowed, and no document or foreign word in it."""

from __future__ import annotations

import json
import logging
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from distribank.breakages import DurabilityLost
from distribank.logs import FIELDS, JsonLine, TextLine, masked
from tests.processes import CPFS, PASSWORD, network_of

TRANSACTION = f"99990001.{'0a' * 16}.{'1b' * 16}"
CNPJ, WITH_LETTERS = "11222333000181", "12ABC34501DE35"


def line(message: str, *words: object, logger: str = "distribank.bank", **more: Any) -> dict[str, Any]:
    record = logging.LogRecord(logger, logging.WARNING, __file__, 1, message, words, more.pop("exc_info", None))
    record.__dict__.update(more)
    said = JsonLine("99990001").format(record)
    assert "\n" not in said
    read: dict[str, Any] = json.loads(said)
    assert list(read) == [name for name in FIELDS if name in read]
    return read


def raised(error: Exception) -> Any:
    try:
        raise error
    except Exception:
        return sys.exc_info()


def test_a_line_has_its_time_level_logger_bank_and_message() -> None:
    said = line("%d banks", 3)

    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", said.pop("time"))
    assert said == {"level": "WARNING", "logger": "distribank.bank", "bank": "99990001", "message": "3 banks"}


def test_a_line_about_a_transaction_names_it_and_a_transition_says_from_to_and_because() -> None:
    said = line(
        "99990001 %s: a → b, because c", TRANSACTION, **{"from": "a", "to": "b", "because": "c", "holder": "Maria"}
    )

    assert {name: said[name] for name in ("transaction", "from", "to", "because")} == {
        "transaction": TRANSACTION,
        "from": "a",
        "to": "b",
        "because": "c",
    }
    assert "holder" not in said


@pytest.mark.parametrize(
    ("document", "mask"),
    [
        (CPFS[0], "***.982.247-**"),
        ("529.982.247-25", "***.982.247-**"),
        (CNPJ, "**.222.333/****-**"),
        ("11.222.333/0001-81", "**.222.333/****-**"),
        (WITH_LETTERS, "**.ABC.345/****-**"),
    ],
)
def test_a_document_is_masked_wherever_it_stands(document: str, mask: str) -> None:
    said = line("holder %s of 'x'", document, because=f"({document})")

    assert (said["message"], said["because"]) == (f"holder {mask} of 'x'", f"({mask})")
    record = logging.LogRecord("distribank", logging.INFO, __file__, 1, "cpf=%s", (document,), None)
    assert TextLine().format(record).endswith(f"INFO cpf={mask}")


@pytest.mark.parametrize(
    "words",
    ["52998224726", "1764374400000", "00000012-4", TRANSACTION, f"E99990001202611290044{CPFS[0]}", "11222333000182"],
)
def test_what_is_no_document_stays_as_it_is(words: str) -> None:
    assert masked(words) == words


def test_an_exception_is_told_by_its_class_and_places_and_its_words_only_where_they_are_ours() -> None:
    foreign = line("stumbled", exc_info=raised(KeyError("canary")))
    ours = line("stumbled", exc_info=raised(DurabilityLost(f"the disk is full, says {CPFS[0]}")))

    assert (foreign["exception"]["class"], foreign["exception"].keys()) == ("KeyError", {"class", "stack"})
    assert all(re.fullmatch(r".+:\d+ in \w+", place) for place in foreign["exception"]["stack"])
    assert ours["exception"]["words"] == "the disk is full, says ***.982.247-**"


def test_of_what_libraries_say_only_the_first_line_is_told() -> None:
    said = line("Task exception was never retrieved\nfuture: <Task exception=KeyError('canary')>", logger="asyncio")

    assert said["message"] == "Task exception was never retrieved"


async def test_a_transfers_way_can_be_read_off_the_lines_of_its_banks(tmp_path: Path) -> None:
    env = {"DISTRIBANK_LOG_FORMAT": "json", "DISTRIBANK_LOG_LEVEL": "DEBUG"}
    async with network_of(tmp_path, 2, env=env) as banks:
        maria = await banks[0].client.join("Maria da Silva", CPFS[0], PASSWORD)
        ana = await banks[1].client.join("Ana Souza", CPFS[1], PASSWORD)
        hers, theirs = await maria.open_account(), await ana.open_account()
        (await maria.deposit(hers, 100_00)).expect(201)
        transfer = (await maria.pay(hers, theirs, 1_00)).expect(201)["transfer_id"]
        for bank in banks:
            await bank.stop()
        logs = [bank.bank.log_file.read_text() for bank in banks]

    told = [json.loads(each) for log in logs for each in log.splitlines()]
    ways = [
        [
            (each["from"], each["to"])
            for each in told
            if each.get("transaction") == transfer and each["bank"] == bank.code
        ]
        for bank in banks
    ]
    assert ways == [
        [("nothing known", "preparing"), ("preparing", "committing"), ("committing", "ended")],
        [("nothing known", "prepared"), ("prepared", "committed")],
    ]
