"""The pages under ``docs/``: what they promise is there, and nothing is there that they do not name."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from tests.counter_hall import hall

ROOT = Path(__file__).parent.parent
VERBS = {"get", "post", "put", "patch", "delete"}


def docstrings_of_tests() -> list[str]:
    """The docstrings of all tests."""
    trees = [ast.parse(path.read_text()) for path in sorted(Path(__file__).parent.glob("test_*.py"))]
    return [
        ast.get_docstring(node) or ""
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    ]


def test_every_pitfall_has_a_test_whose_docstring_names_it() -> None:
    listed = set(re.findall(r"^([0-9]+[ab]?)\. ", (ROOT / "docs/pitfalls.md").read_text(), re.MULTILINE))
    assert len(listed) >= 37
    named: set[str] = set()
    for docstring in docstrings_of_tests():
        for numbers in re.findall(r"[Pp]itfalls?((?:[ ,]|and|why|[0-9]+[ab]?\b)+)", docstring):
            named |= set(re.findall(r"[0-9]+[ab]?", numbers))
    assert listed - named == set()


async def test_the_contract_names_every_route_and_every_route_is_in_the_contract() -> None:
    page = (ROOT / "docs/api.md").read_text().partition("## Still to come")[0]
    promised = set(re.findall(r"`(?:(?:GET|POST|DELETE) )?(/[a-z0-9/_{}-]+)", page))
    async with hall(1) as bank:
        schema = (await bank.client().get("/openapi.json")).json()
    served = {re.sub(r"\{[a-z_]+\}", "{}", path) for path in schema["paths"]}
    named = {re.sub(r"\{[a-z_]+\}", "{}", path) for path in promised}
    short = {path for path in served if not any(path == name or path.endswith(name) for name in named)}
    assert short == set()
    full = {name for name in named if name.startswith(("/v1/", "/livez", "/readyz", "/healthz", "/metrics"))}
    assert full - served == set()
