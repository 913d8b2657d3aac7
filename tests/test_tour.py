"""The notebook docs/tour.ipynb was run from the first cell to the last without an error (``nox -s tour`` runs it)."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import hermes_flow as hf

NOTEBOOK = Path(__file__).resolve().parents[1] / "docs" / "tour.ipynb"


def code_cells() -> list[dict[str, Any]]:
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def test_every_cell_was_run_once_in_order_and_none_failed() -> None:
    cells = code_cells()
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    kinds = {output["output_type"] for cell in cells for output in cell["outputs"]}
    assert "error" not in kinds


def test_the_notebook_uses_public_names_only_and_goes_from_compose_to_a_front_and_a_plan() -> None:
    tree = ast.parse("\n".join("".join(cell["source"]) for cell in code_cells()))
    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "hf"
    }
    assert used <= set(hf.__all__)
    assert {"compose", "compile", "simulate", "capacity", "compare", "plan"} <= used
    assert any(isinstance(node, ast.Attribute) and node.attr == "pareto" for node in ast.walk(tree))
