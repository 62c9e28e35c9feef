"""``distribank torture`` drops packets in one direction, on connections that exist and on new ones, and mends that."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from distribank.torture import packets
from distribank.torture.packets import rules


def test_a_direction_is_cut_while_the_other_one_works_and_what_was_lost_is_sent_again() -> None:
    """A's request does not arrive at B, nor A's answer to B's, which does; once mended, both do, and so does what A
    had given up by then.
    """
    done = subprocess.run([sys.executable, "-m", "tests.cut_packets"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    if "missing" in seen:
        pytest.skip(seen["missing"])
    assert seen["cut"] == {"requests": ["", "from B"], "answers": ["B's answer", ""]}
    assert not seen["connected"]
    assert seen["dropped"] >= 5
    assert seen["mended"] == {"requests": ["from A"], "answers": ["A's answer"], "late": ["given up"]}


def test_the_rules_name_requests_by_their_sender_and_answers_by_their_receiver() -> None:
    addresses, ports = {"A": "10.0.1.1", "B": "10.0.1.2"}, {"A": 9001, "B": 9002}
    nothing = "flush set inet torture requests\nflush set inet torture answers\n"
    assert rules([], addresses, ports) == nothing
    assert rules([("A", "B")], addresses, ports) == (
        f"{nothing}add element inet torture requests {{ 10.0.1.1 . 9002 }}\n"
        "add element inet torture answers { 10.0.1.2 . 9001 }\n"
    )


async def test_what_is_cut_twice_is_mended_by_the_second_mending(monkeypatch: pytest.MonkeyPatch) -> None:
    in_force: list[set[tuple[str, str]]] = []
    wires = packets.Wires({"A": 9001, "B": 9002})
    monkeypatch.setattr(wires, "apply", lambda cut: in_force.append(set(cut)))
    there, back = ("A", "B"), ("B", "A")
    await wires.cut([there, back])
    await wires.cut([there])
    await wires.mend([there, back])
    await wires.mend([there])
    assert in_force == [{there, back}, {there, back}, {there}, set()]


def test_a_machine_without_the_tools_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packets, "_PATH", "")
    told = packets.enter()
    assert told is not None
    assert "ip and nft" in told or "Linux" in told
