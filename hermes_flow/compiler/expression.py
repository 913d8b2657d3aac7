"""Evaluates the conditions of ``when:``, a small checked language over request attributes."""

from __future__ import annotations

import ast
import functools
import itertools
import operator
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hermes_flow.errors import ConfigError, did_you_mean

_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
_ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Mod: operator.mod,
    ast.FloorDiv: operator.floordiv,
}
_MAY_USE = "numbers, request attributes, + - * // %, comparisons, and, or, not"
_LONGEST = 1000
_LARGEST = 1e15
_DEEPEST = 100
_TOO_DEEP = f"is nested too deeply; a condition has at most {_DEEPEST} levels of signs and brackets"


def evaluate(text: str, attributes: Mapping[str, NDArray[Any]], key: str) -> NDArray[np.bool_]:
    """Return, for every request, whether ``text`` (such as ``input_tokens > 2048``) holds.

    ``attributes`` are the columns it may name, of one length. Both sides of ``and`` and ``or`` are always
    evaluated. Raises ConfigError at ``key`` on anything else.
    """
    if len(text) > _LONGEST:
        raise ConfigError(key, f"{len(text):,} characters; a condition has at most {_LONGEST:,}")
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError) as error:
        reason = error.msg if isinstance(error, SyntaxError) else str(error)
        raise ConfigError(key, f"{text!r} is not an expression ({reason}); it may use {_MAY_USE}") from None
    except (MemoryError, RecursionError):
        raise ConfigError(key, _TOO_DEEP) from None
    if _levels(tree) > _DEEPEST:
        raise ConfigError(key, _TOO_DEEP)
    # As floats no product overflows silently; counts of tokens are exact.
    columns = {name: np.asarray(column, dtype=np.float64) for name, column in attributes.items()}
    holds = _condition(tree, columns, key)
    return np.array(
        np.broadcast_to(holds, np.broadcast_shapes(*(column.shape for column in columns.values())))
    )


def _levels(tree: ast.AST) -> int:
    """Return how deeply an expression is nested, however little room the stack has."""
    levels, row = 0, [tree]
    while row:
        levels += 1
        row = [child for node in row for child in ast.iter_child_nodes(node)]
    return levels


def _value(node: ast.expr, attributes: Mapping[str, NDArray[Any]], key: str) -> Any:
    if isinstance(node, ast.Name):
        if node.id not in attributes:
            raise ConfigError(key, f"unknown attribute {node.id!r}{did_you_mean(node.id, attributes)}")
        return attributes[node.id]
    if (
        isinstance(node, ast.Constant)
        and isinstance(node.value, (int, float))
        and not isinstance(node.value, bool)
    ):
        if abs(node.value) > _LARGEST:
            raise ConfigError(key, f"{ast.unparse(node)} is too large; expected at most {_LARGEST:g}")
        return float(node.value)
    if isinstance(node, ast.BoolOp):
        values = [_condition(value, attributes, key) for value in node.values]
        combine = np.logical_and if isinstance(node.op, ast.And) else np.logical_or
        return functools.reduce(combine, values)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        return np.logical_not(_condition(node.operand, attributes, key))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_number(node.operand, attributes, key)
    if isinstance(node, ast.BinOp) and type(node.op) in _ARITHMETIC:
        left, right = _number(node.left, attributes, key), _number(node.right, attributes, key)
        if isinstance(node.op, (ast.Mod, ast.FloorDiv)) and np.any(np.asarray(right) == 0):
            raise ConfigError(key, f"{ast.unparse(node)!r} divides by zero")
        return _ARITHMETIC[type(node.op)](left, right)
    if isinstance(node, ast.Compare) and all(type(op) in _COMPARE for op in node.ops):
        sides = [_number(side, attributes, key) for side in (node.left, *node.comparators)]
        pairs = zip(node.ops, itertools.pairwise(sides), strict=True)
        return functools.reduce(np.logical_and, [_COMPARE[type(op)](*pair) for op, pair in pairs])
    raise ConfigError(key, f"{ast.unparse(node)!r} is not allowed; it may use {_MAY_USE}")


def _condition(node: ast.expr, attributes: Mapping[str, NDArray[Any]], key: str) -> Any:
    value = _value(node, attributes, key)
    if np.asarray(value).dtype != np.bool_:
        raise ConfigError(key, f"{ast.unparse(node)!r} is not a condition; compare it with something")
    return value


def _number(node: ast.expr, attributes: Mapping[str, NDArray[Any]], key: str) -> Any:
    value = _value(node, attributes, key)
    if np.asarray(value).dtype == np.bool_:
        raise ConfigError(
            key, f"{ast.unparse(node)!r} is a condition, not a number; join it with and, or, not"
        )
    return value
