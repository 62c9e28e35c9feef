"""The arrows of ``architecture.md`` point inward, and the rules of style that a machine can check are kept.

Only the source text is read (by ``ast``), so a module that does not exist yet is simply not checked yet.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import distribank

ROOT = Path(distribank.__file__).parent
FILES = sorted(path for path in ROOT.rglob("*.py"))
TREES = {path: ast.parse(path.read_text(), str(path)) for path in FILES}

INWARD: dict[str, set[str]] = {
    "__init__": set(),
    "breakages": set(),
    "files": set(),
    "locks": set(),
    "moments": set(),
    "strict_json": set(),
    "core": {"core"},
    "ports": {"core"},
    "bank": {"bank", "core", "ports", "breakages"},
    "recovery": {"bank", "core", "ports", "locks", "breakages"},
    "store": {"store", "core", "ports", "breakages", "files", "locks"},
    "peers": {"peers", "core", "ports", "breakages", "moments", "strict_json", "__init__"},
    "config": {"core", "breakages", "__init__"},
    "logs": {"config", "core", "breakages", "moments"},
    "tracing": {"api", "core", "ports", "logs", "__init__"},
    "api": {
        *("api", "bank", "recovery", "peers", "core", "ports", "breakages", "moments", "strict_json", "config"),
        "__init__",
    },
}
"""What each part may import of this package. Parts that are not named here are edges, and may choose any part."""

APP_CHOOSES = {"store", "service"}
"""``api/app`` stands at the edge as well: the diagram lets it choose the store."""

THIRD_PARTY: dict[str, set[str]] = {
    "__init__": set(),
    "breakages": set(),
    "files": set(),
    "locks": set(),
    "core": set(),
    "ports": set(),
    "bank": {"prometheus_client"},
    "recovery": set(),
    "store": {"apsw", "asyncpg"},
}
"""The libraries that the inner parts may use; core may use nothing but the standard library."""

COMPARED_WITH = "benchmarks/peers/postgres.py"
"""What ``distribank bench`` measures beside the banks keeps its money in another database."""

CORE_STANDARD_LIBRARY = {
    "__future__",
    "collections",
    "dataclasses",
    "enum",
    "hashlib",
    "json",
    "operator",
    "re",
    "typing",
}
"""None of these waits, tells the time, throws dice or touches a file."""

BROAD = {"Exception", "BaseException"}


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def part_of(path: Path) -> str:
    """The first step below the package: ``core`` for ``core/ledger.py``, ``ports`` for ``ports.py``."""
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imports_of(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, module) of every import anywhere in a module; names taken from the package itself count as modules."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports are absolute"
            assert node.module is not None
            if node.module == "distribank":
                yield from ((node.lineno, f"distribank.{alias.name}") for alias in node.names)
            else:
                yield node.lineno, node.module


def inner_part(module: str) -> str:
    part = module.split(".")[1] if "." in module else "__init__"
    exists = (ROOT / part).is_dir() or (ROOT / f"{part}.py").is_file()
    return part if exists else "__init__"


def is_ours(module: str) -> bool:
    return module == "distribank" or module.startswith("distribank.")


def calls_of(tree: ast.AST) -> Iterator[tuple[ast.Call, str, str]]:
    """(call, receiver, function) of every call; the receiver of ``a.b.c()`` is ``b``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            inner = node.func.value
            receiver = inner.attr if isinstance(inner, ast.Attribute) else getattr(inner, "id", "")
            yield node, receiver, node.func.attr
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            yield node, "", node.func.id


# Arrows -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_point_inward_only(path: Path) -> None:
    part = part_of(path)
    if part not in INWARD:
        return
    allowed = INWARD[part] | (APP_CHOOSES if name_of(path) == "api/app.py" else set())
    wrong = [
        f"{name_of(path)}:{line} imports {module}"
        for line, module in imports_of(TREES[path])
        if is_ours(module) and inner_part(module) not in allowed
    ]
    assert not wrong


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_inner_parts_use_no_library_that_is_not_theirs(path: Path) -> None:
    part = part_of(path)
    used = {module.partition(".")[0] for _, module in imports_of(TREES[path]) if not is_ours(module)}
    foreign = used - sys.stdlib_module_names
    if part in THIRD_PARTY:
        assert foreign <= THIRD_PARTY[part]
    if part == "core":
        assert used <= CORE_STANDARD_LIBRARY
    if part != "store" and name_of(path) != COMPARED_WITH:
        assert not foreign & {"apsw", "asyncpg", "psycopg"}


def test_nobody_imports_the_command() -> None:
    importers = {name_of(p) for p in FILES for _, module in imports_of(TREES[p]) if module.startswith("distribank.cli")}
    assert all(name.startswith("cli") or name == "__main__.py" for name in importers)


def test_between_banks_one_module_holds_the_http_client() -> None:
    def importers(module: str) -> set[str]:
        imported = {name_of(p): [m for _, m in imports_of(TREES[p])] for p in FILES if part_of(p) in INWARD}
        return {name for name, modules in imported.items() if any(f"{m}.".startswith(f"{module}.") for m in modules)}

    assert importers("httpx") <= {"peers/client.py", "peers/transport.py"}
    assert importers("distribank.peers.transport") == {"peers/client.py"}


# core is pure -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [p for p in FILES if part_of(p) == "core"], ids=name_of)
def test_core_neither_waits_nor_reads_nor_prints(path: Path) -> None:
    waiting = (ast.AsyncFunctionDef, ast.Await, ast.AsyncFor, ast.AsyncWith)
    assert not [node.lineno for node in ast.walk(TREES[path]) if isinstance(node, waiting)]
    outside = {"open", "print", "input", "eval", "exec", "__import__", "breakpoint"}
    assert not [call.lineno for call, _, function in calls_of(TREES[path]) if function in outside]
    assert not [node.lineno for node in ast.walk(TREES[path]) if isinstance(node, ast.Global)]


# Style that a machine can check -----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_every_module_opens_with_what_it_is_responsible_for(path: Path) -> None:
    docstring = ast.get_docstring(TREES[path])
    assert docstring
    assert docstring.rstrip()[-1] in ".:)`|"


@pytest.mark.parametrize("package", ["api", "bank", "core", "network", "peers", "store"])
def test_a_package_opens_with_what_each_of_its_rooms_is_for(package: str) -> None:
    docstring = ast.get_docstring(TREES[ROOT / package / "__init__.py"]) or ""
    rooms = {path.stem for path in (ROOT / package).glob("*.py")} - {"__init__"}
    assert not {room for room in rooms if f"``{room}``" not in docstring}


def is_broad(handler: ast.ExceptHandler) -> bool:
    if handler.type is None:
        return True
    types = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any((node.id if isinstance(node, ast.Name) else getattr(node, "attr", "")) in BROAD for node in types)


def only_passes_on(handler: ast.ExceptHandler) -> bool:
    """Whether the handler ends by raising again what it caught: it tidies up and swallows nothing."""
    last = handler.body[-1]
    leaves = any(isinstance(node, ast.Return | ast.Continue | ast.Break) for node in ast.walk(handler))
    return isinstance(last, ast.Raise) and last.exc is None and not leaves


def test_a_broad_except_stands_in_three_places_only() -> None:
    """The boundary of requests, that of what no request waits for, and that of a decision among those that share its
    write; tidying up and passing on is none of them."""
    found = [
        f"{name_of(path)}:{node.lineno}"
        for path in FILES
        for node in ast.walk(TREES[path])
        if isinstance(node, ast.ExceptHandler) and is_broad(node) and not only_passes_on(node)
    ]
    assert [place.partition(":")[0] for place in sorted(found)] == [
        *("api/boundary.py", "bank/tasks.py", "store/sharing.py")
    ]


def task_groups(tree: ast.AST) -> set[str]:
    """The names under which ``asyncio.TaskGroup`` is entered in a module."""
    return {
        item.optional_vars.id
        for node in ast.walk(tree)
        if isinstance(node, ast.AsyncWith)
        for item in node.items
        if isinstance(item.optional_vars, ast.Name) and "TaskGroup" in ast.dump(item.context_expr)
    }


WAITS_FOR_ITS_OWN = "store/sharing.py"
"""Two tasks that live as long as their store: its ``close`` waits for them."""


def test_every_task_has_a_parent() -> None:
    wrong = []
    for path in FILES:
        parents = (
            task_groups(TREES[path]) | {"group", "_group"} | ({"loop"} if name_of(path) == WAITS_FOR_ITS_OWN else set())
        )
        wrong += [
            f"{name_of(path)}:{call.lineno} {receiver}.{function}()"
            for call, receiver, function in calls_of(TREES[path])
            if function == "ensure_future" or (function == "create_task" and receiver not in parents)
            if name_of(path) != "store/postgres.py"  # its two tasks live as long as it is open, which awaits them
        ]
    assert not wrong


def is_assembled(node: ast.expr, assembled: set[str]) -> bool:
    """Whether a text is put together rather than written out: f-string, +, %, format, join, or a name for such."""
    if isinstance(node, ast.Name):
        return node.id in assembled
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Attribute) and node.func.attr in {"format", "join", "replace", "format_map"}
    if isinstance(node, ast.JoinedStr):
        return any(isinstance(value, ast.FormattedValue) for value in node.values)
    return isinstance(node, ast.BinOp)


@pytest.mark.parametrize("path", [p for p in FILES if part_of(p) == "store"], ids=name_of)
def test_sql_stands_in_sentences_that_nothing_is_pasted_into(path: Path) -> None:
    tree = TREES[path]
    assembled = {
        target.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None and is_assembled(node.value, set())
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Name)
    }
    wrong = [
        call.lineno
        for call, _, function in calls_of(tree)
        if function in {"execute", "executemany", "executescript"}
        and call.args
        and is_assembled(call.args[0], assembled)
    ]
    assert not wrong


# Importing does nothing -------------------------------------------------------------------------------------------

WATCHED_IMPORT = """
import importlib, sys
root, *modules = sys.argv[1:]
FORBIDDEN = ("socket.connect", "socket.bind", "socket.getaddrinfo", "subprocess.Popen", "os.system", "os.mkdir",
             "os.remove", "os.rename", "sqlite3.connect", "os.putenv")

def own_frame():
    frame = sys._getframe(2)
    while frame is not None and not frame.f_code.co_filename.startswith(root):
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return False
        frame = frame.f_back
    return frame is not None

found = []
def hook(event, arguments):
    if event in FORBIDDEN or (event == "open" and own_frame()):
        found.append((event, str(arguments)[:120]))
sys.addaudithook(hook)
for module in modules:
    importlib.import_module(module)
import asyncio, threading
assert threading.active_count() == 1, threading.enumerate()
assert not found, found
print(sorted(name.partition(".")[0] for name in sys.modules))
"""


def imported(modules: list[str]) -> set[str]:
    """Import *modules* in a clean process that watches what importing does; the top-level modules loaded by it."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT.parent), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", WATCHED_IMPORT, str(ROOT), *modules],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return set(ast.literal_eval(done.stdout))


def module_of(path: Path) -> str:
    name = ".".join(path.relative_to(ROOT.parent).with_suffix("").parts)
    return name.removesuffix(".__init__")


def test_importing_a_module_opens_nothing_starts_nothing_and_writes_nothing() -> None:
    imported([module_of(path) for path in FILES if path.name != "__main__.py"])


def test_core_loads_without_any_library() -> None:
    before = imported([])
    loaded = imported([module_of(path) for path in FILES if part_of(path) == "core"]) - before
    assert {name for name in loaded if name not in sys.stdlib_module_names} <= {"distribank"}
