"""The house's own rules: sizes, names, who imports whom, and that the documentation names what exists."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
SOURCE = REPOSITORY / "src" / "cryptoalpha"
MODULES = sorted(SOURCE.rglob("*.py"))
TESTS = sorted((REPOSITORY / "tests").rglob("*.py"))

LONGEST_FILE, LONGEST_CLASS, LONGEST_FUNCTION = 500, 250, 60
SHAPELESS = re.compile(r"(^|_)(utils?|helpers?|common|misc|managers?)(_|$)|_v\d+$")
ROOMS = {"core", "store", "monitoring", "data", "nets", "learn", "risk", "execution", "signals", "decisions", "lifecycle", "app"}
MAY_CATCH_EVERYTHING = {"app/engine.py", "app/frame.py"}
"""The loop, which must write down what killed it, and the exit frame, which turns anything into one line and a code."""


def named(path: Path) -> str:
    return path.relative_to(REPOSITORY).as_posix()


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def length(node: ast.stmt) -> int:
    assert node.end_lineno is not None
    return node.end_lineno - node.lineno + 1


@pytest.mark.parametrize("path", [*MODULES, *TESTS], ids=named)
def test_a_file_is_one_idea(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGEST_FILE
    assert not SHAPELESS.search(path.stem), "name it after what it does"


@pytest.mark.parametrize("path", MODULES, ids=named)
def test_classes_and_functions_are_short_and_the_module_says_what_it_is_for(path):
    module = tree(path)
    assert (ast.get_docstring(module) or "").strip(), "begin with a docstring: what it is for, what it promises, where it comes from"
    classes = [node for node in ast.walk(module) if isinstance(node, ast.ClassDef)]
    functions = [node for node in ast.walk(module) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    assert {node.name: length(node) for node in classes if length(node) > LONGEST_CLASS} == {}
    assert {node.name: length(node) for node in functions if length(node) > LONGEST_FUNCTION} == {}


@pytest.mark.parametrize("path", [path for path in MODULES if path.relative_to(SOURCE).as_posix() not in MAY_CATCH_EVERYTHING], ids=named)
def test_nothing_is_caught_blindly(path):
    def names(kind: ast.expr | None) -> list[str]:
        parts = kind.elts if isinstance(kind, ast.Tuple) else [kind]
        return [part.id if isinstance(part, ast.Name) else "" if part is not None else "everything" for part in parts]

    handlers = [node for node in ast.walk(tree(path)) if isinstance(node, ast.ExceptHandler)]
    blind = [node.lineno for node in handlers if {"Exception", "BaseException", "everything"} & set(names(node.type))]
    # A handler that only cleans up and raises again hides nothing.
    hiding = [node.lineno for node in handlers if node.lineno in blind and not isinstance(node.body[-1], ast.Raise)]
    assert hiding == []


@pytest.mark.parametrize("path", MODULES, ids=named)
def test_nothing_is_left_to_do(path):
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"\b(TODO|FIXME|XXX|HACK)\b|NotImplementedError", text)


def test_the_rooms_are_those_of_the_house():
    assert {path.name for path in SOURCE.iterdir() if path.is_dir() and path.name != "__pycache__"} == ROOMS


def test_rooms_import_downwards_only():
    done = subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports")), "--no-logo"], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_contracts_cover_every_room_and_forbid_networks_where_they_do_not_belong():
    contracts = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = next(contract for contract in contracts if contract["type"] == "layers")
    assert layers["exhaustive"] is True
    assert {room.strip() for layer in layers["layers"] for room in layer.split("|")} == {"__main__", *ROOMS}
    assert any("torch" in contract.get("forbidden_modules", []) for contract in contracts)


def test_the_lock_pins_every_package_and_nothing_of_this_machine():
    pins = [line for line in (REPOSITORY / "requirements.lock").read_text().splitlines() if line and not line.startswith("#")]
    assert [line for line in pins if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*", line)] == []
    assert "torch==2.13.0" in pins
    names = {line.partition("==")[0].lower().replace("_", "-") for line in pins}
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    wanted = [*project["project"]["dependencies"], *project["dependency-groups"]["dev"], *project["build-system"]["requires"]]
    asked = {re.split(r"[<>=!~\[ ;]", name)[0].lower().replace("_", "-") for name in wanted}
    assert asked - names == set()


def targets() -> set[str]:
    return set(re.findall(r"^([a-z][a-z-]*):", (REPOSITORY / "Makefile").read_text(), flags=re.MULTILINE))


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md", ".ci/run"])
def test_every_make_command_that_is_written_down_exists(document):
    text = (REPOSITORY / document).read_text(encoding="utf-8")
    written = set(re.findall(r"(?:^|`|\$ )make ([a-z][a-z-]*)", text, flags=re.MULTILINE))
    assert written - targets() == set()


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md", *sorted(named(path) for path in (REPOSITORY / "docs").rglob("*.md"))])
def test_every_verb_that_is_written_down_exists(document):
    from cryptoalpha.app.verbs import build

    app = build()
    verbs = {command.name or command.callback.__name__ for command in app.registered_commands} | {g.name for g in app.registered_groups}
    text = (REPOSITORY / document).read_text(encoding="utf-8")
    written = set(re.findall(r"(?:^|`|\$ )cryptoalpha ([a-z][a-z-]*)", text, flags=re.MULTILINE))
    assert written - verbs == set()
