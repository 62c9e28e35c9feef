"""Every seeded bug of ``tests.mutants`` is found by the test that stands beside it, each in a process of its own.

``make mutants`` runs them alone, as they end, and writes ``docs/reports/mutants.md``.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.mutants import EQUIVALENT, MUTANTS, Mutant
from tests.mutating import ROOT, planted

WAIT_S = 900


@pytest.fixture(scope="module")
def found(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What became of each bug that this run asks about, by its name. They share one reading of all libraries."""
    said = tmp_path_factory.mktemp("mutants") / "said.json"
    wanted = [item.callspec.params["mutant"].name for item in request.session.items if _is_about_one(item)]
    command = [sys.executable, "-m", "tests.mutating", "--json", str(said), *wanted]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=WAIT_S, check=False)
    assert said.exists(), run.stdout + run.stderr
    return {each["name"]: each for each in json.loads(said.read_text())}


def _is_about_one(item: pytest.Item) -> bool:
    return getattr(item, "function", None) is test_a_seeded_bug_is_found


@pytest.mark.timeout(WAIT_S)
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_seeded_bug_is_found(found: dict[str, Any], mutant: Mutant) -> None:
    assert found[mutant.name]["found"], f"{mutant.breaks}: {found[mutant.name]['words']}"


def test_every_bug_can_be_planted_and_has_its_own_name_and_place() -> None:
    assert len({mutant.name for mutant in MUTANTS} | EQUIVALENT.keys()) == len(MUTANTS) + len(EQUIVALENT)
    assert len({planted(mutant) for mutant in MUTANTS}) == len(MUTANTS)


@pytest.mark.parametrize("readme", ["README.md", "README.pt-BR.md"])
def test_the_readme_says_how_many_there_are(readme: str) -> None:
    (said,) = re.findall(r"`make mutants` \| \[(\d+)", (ROOT / readme).read_text())
    assert int(said) == len(MUTANTS)


def test_a_bug_whose_place_is_gone_fails_the_run() -> None:
    gone = Mutant("gone", "nothing", "distribank.core.clock", "no such line", "", "tests/test_clock.py")
    with pytest.raises(ValueError, match="mend the table"):
        planted(gone)


def test_what_no_test_fails_on_is_not_found(tmp_path: Path) -> None:
    """A control: a change of words alone, and tests that cannot be collected, find nothing."""
    script = (
        "from tests.mutants import Mutant; from tests.mutating import run\n"
        "harmless = Mutant('harmless', '', 'distribank.core.clock', 'The next stamp', 'The following stamp', '')\n"
        "runs = [(harmless, ['tests/test_clock.py'], 1), (harmless, ['tests/test_clock.py::no_such_test'], 1)]\n"
        "print([(outcome.found, outcome.words) for outcome in run(runs)])\n"
    )
    said = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert said.count("()") == 2
    assert "status: [0]" in said
    assert "status: [4]" in said
