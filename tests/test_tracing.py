"""One transfer is one trace over all its banks, what recovery does included; a collector that is away costs nothing.

Real banks, and a collector of the test's own that decodes what they send.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.processes import CPFS, PASSWORD, SLOW_MACHINE_S, People, RealBank, network_of, until

pytest.importorskip(
    "opentelemetry.exporter.otlp.proto.http", reason="traces need the extra: pip install 'distribank[otel]'"
)
collector = pytest.importorskip("tests.collector")
trace_id = pytest.importorskip("distribank.tracing").trace_id

QUICK_S = 5.0
"""A bank whose collector is away is gone by then, on however busy a machine: measured are 0.6 to 1.2 s."""


async def pay_over_three_banks(banks: list[RealBank]) -> str:
    """Maria pays Ana at A and B out of her accounts at A and C."""
    maria = [await bank.client.join("Maria da Silva", CPFS[0], PASSWORD) for bank in banks]
    ana = await banks[1].client.join("Ana Souza", CPFS[1], PASSWORD)
    here, there, hers = await maria[0].open_account(), await maria[2].open_account(), await ana.open_account()
    (await maria[0].deposit(here, 100_00)).expect(201)
    (await maria[2].deposit(there, 100_00)).expect(201)
    (await maria[2].consent(there, banks[0].code, 50_00)).expect(201)
    paid = await maria[0].transfer([(here, 10_00), (there, 5_00)], [(hers, 15_00)], description="rent")
    return str(paid.expect(201)["transfer_id"])


async def test_a_transfer_over_three_banks_is_one_trace_with_spans_of_all_three(tmp_path: Path) -> None:
    with collector.collecting() as traces:
        async with network_of(tmp_path, 3, env={"DISTRIBANK_OTLP_ENDPOINT": traces.endpoint}) as banks:
            transfer = await pay_over_three_banks(banks)
            a, b, c = (bank.code for bank in banks)
            for bank in banks:
                assert await bank.stop() == 0  # what waited is sent before it ends
        spans = traces.of(transfer)

    assert {span.trace for span in spans} == {hashlib.sha256(transfer.encode()).hexdigest()[:32]}
    assert Counter((span.bank, span.name) for span in spans) == {
        **{(a, name): 1 for name in ("transfer", "order", "begun", "decided", "ended")},
        (a, "prepare"): 2,
        (a, "commit"): 2,
        **{(bank, name): 1 for bank in (b, c) for name in ("decide prepare", "prepared", "decide commit", "resolved")},
    }
    assert len({span.own for span in spans}) == len(spans)
    by_id = {span.own: span for span in spans}
    roots = [span for span in spans if not span.above]
    assert [span.name for span in roots] == ["transfer"]
    above = {(span.bank, span.name, by_id[span.above].name) for span in spans if span.above}
    assert above == {
        *((a, name, "transfer") for name in ("order", "begun", "decided", "ended", "prepare", "commit")),
        *((bank, name, "prepare") for bank in (b, c) for name in ("decide prepare", "prepared")),
        *((bank, "decide commit", "commit") for bank in (b, c)),
        *((bank, "resolved", "transfer") for bank in (b, c)),
    }
    for span in spans:
        assert span.began <= span.ended
        if span.name.startswith("decide "):
            assert by_id[span.above].attributes["distribank.peer"] == span.bank
            assert (by_id[span.above].began, span.ended) <= (span.began, by_id[span.above].ended)
    answers = {
        span.name: span.attributes["distribank.answer"] for span in spans if "distribank.peer" in span.attributes
    }
    assert answers == {
        "prepare": "yes",
        "decide prepare": "yes",
        "commit": "acknowledged",
        "decide commit": "acknowledged",
    }
    assert not [span for span in spans if span.error]
    assert not [value for span in spans for value in span.attributes.values() if CPFS[0] in str(value)]


def test_the_manual_works_out_the_trace_of_a_transfer() -> None:
    text = (Path(__file__).parent.parent / "docs" / "observability.md").read_text(encoding="utf-8")
    (typed,) = re.findall(r"^```bash\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    transfer = f"99990001.{'0a' * 16}.{'1b' * 16}"

    said = subprocess.run(
        ["bash", "-c", typed], env={**os.environ, "TRANSFER_ID": transfer}, capture_output=True, check=True
    )

    assert int(said.stdout, 16) == trace_id(transfer)


async def test_what_was_refused_at_once_and_what_was_refused_by_a_vote_have_a_trace_with_the_reason(
    tmp_path: Path,
) -> None:
    with collector.collecting() as traces:
        async with network_of(tmp_path, 2, env={"DISTRIBANK_OTLP_ENDPOINT": traces.endpoint}) as banks:
            people = await People(banks).settle_in(100_00)
            here, there = people.accounts
            at_once = (await people.sessions[0].pay(here, there, 100_01)).expect(422)["transfer_id"]
            by_vote = (await people.sessions[0].pay(there, here, 100_01)).expect(422)["transfer_id"]
            for bank in banks:
                await bank.stop()
        decided, order = sorted(traces.of(at_once), key=lambda span: span.name)
        voted = {span.name: span for span in traces.of(by_vote)}

    assert (decided.name, decided.above, order.name, order.above) == ("decided", "", "order", decided.own)
    assert "insufficient_funds" in str(decided.attributes["distribank.because"])
    assert voted["prepare"].attributes["distribank.answer"] == "no: insufficient_funds"
    assert voted["decided"].above == voted["transfer"].own


async def test_what_recovery_does_later_joins_the_trace(tmp_path: Path) -> None:
    """The coordinator dies before it hears the vote; both it and the participant in doubt go on from their logs."""
    with collector.collecting() as traces:
        async with network_of(tmp_path, 2, env={"DISTRIBANK_OTLP_ENDPOINT": traces.endpoint}) as (a, b):
            people = await People([a, b]).settle_in(100_00)
            b.freeze()
            ordered = await people.sessions[0].pay(*people.accounts, 1_00, prefer="respond-async")
            transfer = ordered.expect(202)["transfer_id"]
            a.kill()
            b.thaw()
            await until(lambda: in_doubt_at(b), "the vote is in doubt", SLOW_MACHINE_S)
            await a.restart()
            await people.quiet()
            for bank in (a, b):
                await bank.stop()
        spans = traces.of(transfer)

    assert {span.trace for span in spans} == {hashlib.sha256(transfer.encode()).hexdigest()[:32]}
    told = {(span.bank, span.name) for span in spans}
    assert told >= {(b.code, "prepared"), (b.code, "resolved"), (a.code, "decided")}
    again = [span for span in spans if span.attributes.get("distribank.again")]
    assert {span.name for span in again} & {"abort", "inquire"}
    assert len({span.own for span in spans}) == len(spans)


async def in_doubt_at(bank: RealBank) -> bool:
    return bool(await bank.client.in_doubt())


@pytest.mark.parametrize("listens", [False, True], ids=["nobody listens", "nobody answers"])
async def test_a_bank_whose_collector_is_away_works_says_so_once_and_stops_at_once(
    listens: bool, tmp_path: Path
) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        if listens:
            silent.listen()
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        async with network_of(tmp_path, 2, env={"DISTRIBANK_OTLP_ENDPOINT": endpoint}) as banks:
            people = await People(banks).settle_in(100_00)
            for _ in range(40):
                await asyncio.gather(*(people.sessions[0].pay(*people.accounts, 1) for _ in range(5)))
            await people.check_books()
            await until(lambda: said_so(banks[0]), "that nobody takes them is said", SLOW_MACHINE_S)
            (await people.sessions[0].pay(*people.accounts, 1)).expect(201)
            took = [await seconds_to_stop(bank) for bank in banks]
            log = banks[0].bank.log_file.read_text()
    print(f"SIGTERM to exit: {', '.join(f'{seconds:.2f} s' for seconds in took)}")
    assert max(took) < QUICK_S
    assert log.count("does not take traces") == 1
    assert "Traceback" not in log


async def said_so(bank: RealBank) -> bool:
    return "does not take traces" in bank.bank.log_file.read_text()


async def seconds_to_stop(bank: RealBank) -> float:
    began = time.monotonic()
    assert await bank.stop() == 0
    return time.monotonic() - began


WITHOUT = "import sys; sys.modules['opentelemetry.sdk'] = None; from distribank.cli import main; main()"
"""The command, as it is where the extra is not installed."""


async def test_an_endpoint_without_the_extra_is_refused_with_what_to_install(tmp_path: Path) -> None:
    def program(_: object) -> list[str]:
        return [sys.executable, "-c", WITHOUT, "serve"]

    async with network_of(tmp_path, 1, program=program) as (bank,):
        await bank.stop()
        bank._env["DISTRIBANK_OTLP_ENDPOINT"] = "http://127.0.0.1:4318"
        bank.start()
        await until(lambda: has_ended(bank), "it has ended", SLOW_MACHINE_S)
        assert bank.exit_status != 0
        words = bank.last_words(3)
    assert "pip install 'distribank[otel]'" in words
    assert "Traceback" not in words


async def has_ended(bank: RealBank) -> bool:
    return bank.exit_status is not None


TELLS = """
import atexit, sys
from distribank.cli import main
wanted = ("opentelemetry.sdk", "opentelemetry.exporter", "distribank.tracing", "requests", "google.protobuf")
atexit.register(lambda: print("loaded:", [name for name in wanted if name in sys.modules]))
main()
"""


async def test_without_an_endpoint_nothing_of_it_is_loaded(tmp_path: Path) -> None:
    def program(_: object) -> list[str]:
        return [sys.executable, "-c", TELLS, "serve"]

    async with network_of(tmp_path, 2, program=program) as banks:
        people = await People(banks).settle_in(100_00)
        (await people.sessions[0].pay(*people.accounts, 1)).expect(201)
        await banks[0].stop()
        words = banks[0].last_words(3)
    assert words.endswith("loaded: []")
