"""The compiled core is made of modules that the package has, and no other module derives from its closed classes."""

from __future__ import annotations

import ast
from pathlib import Path

from compile_core import MODULES

PACKAGE = Path(__file__).parents[1] / "hermes_flow"


def classes() -> dict[str, tuple[str, list[str], bool]]:
    """Return module and bases of every class of the package, and whether any class may derive from it."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        module = path.relative_to(PACKAGE).with_suffix("").as_posix()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                bases = [ast.unparse(base).split("[")[0] for base in node.bases]
                is_open = any("allow_interpreted_subclasses" in ast.unparse(d) for d in node.decorator_list)
                found[node.name] = (module, bases, is_open)
    return found


def test_every_module_of_the_core_is_there() -> None:
    assert [name for name in MODULES if not (PACKAGE / f"{name}.py").is_file()] == []
    assert list(MODULES) == sorted(set(MODULES))


def test_classes_outside_of_the_core_derive_from_open_classes_only() -> None:
    known = classes()
    closed = {
        f"{module}: {name} derives from {base}"
        for name, (module, bases, _) in known.items()
        for base in bases
        if module not in MODULES and base in known and known[base][0] in MODULES and not known[base][2]
    }
    assert closed == set()


def test_no_class_of_the_core_derives_from_a_built_in_container() -> None:
    built_in = {"deque", "dict", "list", "set", "tuple", "int"}
    found = {
        name for name, (module, bases, _) in classes().items() if module in MODULES and built_in & set(bases)
    }
    assert found == set()


def test_the_steps_of_chunked_prefill_are_planned_in_the_core() -> None:
    planners = {
        path.relative_to(PACKAGE).with_suffix("").as_posix()
        for path in (PACKAGE / "pools/llm/batching").glob("*_steps.py")
    }
    assert "pools/llm/batching/limited_chunk_steps" in planners
    assert planners <= set(MODULES)
