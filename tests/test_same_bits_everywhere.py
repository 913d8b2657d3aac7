"""No figure of a run depends on how Python, NumPy, a processor or a math library round the last bit."""

from __future__ import annotations

import ast
import builtins
import functools
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cli.command import ROOT
from tries import some_of

from benchmarks import everywhere, unchanged

PACKAGE = ROOT / "hermes_flow"
# These compare with tolerances, or write for people; docs/trust.md names what is not the same everywhere.
FREE = ("calibration", "validation", "report", "program/same_bits.py")
ROUNDED_ANYHOW = {
    "np": {
        "arctan", "average", "cbrt", "convolve", "cos", "cosh", "dot", "einsum", "exp", "exp2", "expm1",
        "float_power", "geomspace", "hypot", "inner", "log", "log10", "log1p", "log2", "logspace", "matmul",
        "mean", "nanmean", "nansum", "polyfit", "power", "prod", "sin", "sinh", "std", "tan", "tanh",
        "trapezoid", "var", "vdot",
    },
    "math": {
        "atan", "cos", "dist", "erf", "erfc", "exp", "exp2", "expm1", "gamma", "hypot", "lgamma", "log",
        "log10", "log1p", "log2", "pow", "sin", "sumprod", "tan", "tanh",
    },
    "statistics": {
        "NormalDist", "fmean", "geometric_mean", "mean", "pstdev", "pvariance", "stdev", "variance",
    },
    "rng": {
        "beta", "chisquare", "gamma", "lognormal", "pareto", "power", "rayleigh", "weibull", "zipf",
    },
}  # fmt: skip
# A rounded constant each, or a constant of the source.
KNOWN = {
    "cost/expert_routing.py: math.log",
    "cost/expert_routing.py: statistics.NormalDist",
    "cost/retrieval/index_operations.py: math.log",
    "workload/arrivals/normal.py: math.erf",
    "workload/arrivals/weibull.py: math.expm1",
    "workload/arrivals/weibull.py: math.gamma",
    "workload/arrivals/weibull.py: math.lgamma",
    "cost/kernels/reduce.py: np.linalg",
}


def refusing_sum(items: Iterable[Any], /, start: Any = 0) -> Any:
    """Add as the builtin does, and refuse floats of the package: Python 3.12 adds them otherwise than 3.11."""
    known = list(items)
    if sys._getframe(1).f_globals.get("__name__", "").startswith("hermes_flow."):
        assert not any(type(item) is float for item in (start, *known)), "a float in sum; use math.fsum"
    return _sum(known, start)


_sum = builtins.sum


@pytest.mark.parametrize("name", some_of(unchanged.names(), 6))
def test_no_saved_run_adds_floats_by_sum(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builtins, "sum", refusing_sum)
    assert unchanged.FAILED not in unchanged.tables(name)


@pytest.mark.parametrize("name", some_of(list(everywhere.configurations()), 6))
def test_no_composed_run_adds_floats_by_sum(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builtins, "sum", refusing_sum)
    assert "failed" not in everywhere.composed(name)


def test_a_float_in_a_sum_of_the_package_is_found() -> None:
    place: dict[str, Any] = {"__name__": "hermes_flow.metrics", "sum": refusing_sum}
    assert eval("sum([1, 2])", place) == 3
    with pytest.raises(AssertionError, match="fsum"):
        eval("sum(x / 2 for x in [1, 2])", place)


RUNS = ["drawn 0", "skewed mixture", "kernels"]


@functools.cache
def here() -> dict[str, Any]:
    return everywhere.in_place(sys.executable, {}, RUNS)


@pytest.mark.parametrize(
    "setting", ["NumPy without AVX2", "a math library without FMA", "BLAS for another processor"]
)
def test_another_processor_gives_the_same_draws_and_tables(setting: str) -> None:
    there = everywhere.in_place(sys.executable, everywhere.SETTINGS[setting], RUNS)
    assert everywhere.differences(here(), there) == []
    assert len(here()) == 1 + len(RUNS)
    assert not any("failed" in tables for tables in here().values())


def test_a_difference_is_told_with_its_table_and_column() -> None:
    first = {"run": {"stages": {"columns": {"a": "1", "b": "2"}}, "console": "x"}, "other": {"console": "y"}}
    now = {"run": {"stages": {"columns": {"a": "1", "b": "3"}}, "console": "z"}, "other": {"console": "y"}}
    assert everywhere.differences(first, now) == ["run: stages (b), console"]


def calls(path: Path) -> Iterator[str]:
    """Yield what a module uses whose last bit nobody promises: functions, products of matrices, sums of floats."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inside_int = {
        id(node.args[0])
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "int"
        and node.args
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.MatMult):
            yield "@"
        if isinstance(node, ast.ImportFrom) and node.module in ("math", "statistics"):
            for alias in node.names:
                if alias.name in ROUNDED_ANYHOW[node.module]:
                    yield f"{node.module}.{alias.name}"
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        owner, name = ast.unparse(node.func.value), node.func.attr
        if name in ROUNDED_ANYHOW.get(owner.rpartition(".")[2], ()):
            yield f"{owner}.{name}"
        elif owner == "np.linalg":
            yield owner
        elif name in ("mean", "std", "var") and owner != "np":
            yield f"{owner}.{name}"
        elif (
            name == "sum"
            and owner != "np"
            and not node.args
            and not node.keywords
            and id(node) not in inside_int
        ):
            yield f"{owner}.sum"


def test_functions_that_round_in_several_ways_stay_out_of_what_makes_tables() -> None:
    found = {
        f"{path.relative_to(PACKAGE).as_posix()}: {each}"
        for path in sorted(PACKAGE.rglob("*.py"))
        if not path.relative_to(PACKAGE).as_posix().startswith(FREE)
        for each in calls(path)
    }
    assert found == KNOWN


def test_the_rule_finds_what_it_should(tmp_path: Path) -> None:
    module = tmp_path / "module.py"
    module.write_text(
        "import math\nfrom statistics import NormalDist\na = np.exp(x) + x.mean() + (x @ y) + x.sum()\n"
        "c = int(x.sum())\n"
        "b = sizes.rng.weibull(2) + math.log(2) + np.linalg.qr(x) + math.sqrt(2)\n"
    )
    assert sorted(calls(module)) == sorted(
        [
            "@",
            "statistics.NormalDist",
            "np.exp",
            "x.mean",
            "x.sum",
            "sizes.rng.weibull",
            "math.log",
            "np.linalg",
        ]
    )
