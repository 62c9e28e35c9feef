"""SQL is made of named constants and parameters; no value is ever written into a sentence."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import distribank

ROOT = Path(distribank.__file__).parent
COMPARED_WITH = ROOT / "benchmarks/peers/postgres.py"
"""No bank runs it, and PostgreSQL's PREPARE TRANSACTION takes no parameters."""
SOURCES = sorted(set(ROOT.rglob("*.py")) - {COMPARED_WITH})
SQL = re.compile(r"\b(SELECT|INSERT|UPDATE|DELETE|REPLACE|CREATE|DROP|PRAGMA|WHERE)\b")


def _executions() -> Iterator[tuple[str, ast.expr]]:
    """Where something is executed, and what."""
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            called = getattr(node.func, "attr", "") if isinstance(node, ast.Call) else ""
            if called in ("execute", "executemany", "executescript"):
                yield f"{path.name}:{node.lineno}", node.args[0]


def _composed() -> Iterator[tuple[str, ast.expr]]:
    """Every text that a function puts together, and where."""
    for path in SOURCES:
        for function in ast.walk(ast.parse(path.read_text())):
            if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            for node in ast.walk(function):
                joined = isinstance(node, ast.JoinedStr) or (
                    isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Mod)
                )
                formatted = isinstance(node, ast.Call) and getattr(node.func, "attr", "") in ("format", "join")
                if joined or formatted:
                    yield f"{path.name}:{node.lineno}", node


def test_what_is_executed_is_a_constant_or_has_a_name() -> None:
    found = list(_executions())
    assert len(found) > 30
    for where, sentence in found:
        literal = isinstance(sentence, ast.Constant)
        named = isinstance(sentence, ast.Name | ast.Attribute)
        script = isinstance(sentence, ast.Call) and getattr(sentence.func, "id", "") == "_script"  # a packaged file
        assert literal or named or script, f"{where} executes {ast.unparse(sentence)}"


def test_no_function_puts_a_sentence_of_sql_together() -> None:
    for where, node in _composed():
        texts = [
            each.value for each in ast.walk(node) if isinstance(each, ast.Constant) and isinstance(each.value, str)
        ]
        assert not any(SQL.search(text) for text in texts), f"{where} composes {ast.unparse(node)}"
