"""The conditions of ``when:``: a tiny checked expression over request attributes, no eval."""

from __future__ import annotations

import ast
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


def evaluate(text: str, attributes: Mapping[str, NDArray[Any]], key: str) -> NDArray[np.bool_]:
    """Return, for every request, whether ``text`` (such as ``input_tokens > 2048``) holds.

    ``attributes`` are the columns it may name. Raises ConfigError at ``key`` on anything else.
    """
    try:
        tree = ast.parse(text, mode="eval").body
    except SyntaxError as error:
        raise ConfigError(
            key, f"{text!r} is not an expression ({error.msg}); it may use {_MAY_USE}"
        ) from None
    value = _value(tree, attributes, key)
    if getattr(value, "dtype", None) != np.bool_:
        raise ConfigError(key, f"{text!r} is not a condition over request attributes; compare something")
    result: NDArray[np.bool_] = value
    return result


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
        return node.value
    if isinstance(node, ast.BoolOp):
        values = [_condition(value, attributes, key) for value in node.values]
        combine = np.logical_and if isinstance(node.op, ast.And) else np.logical_or
        return combine.reduce(values)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        return ~_condition(node.operand, attributes, key)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_value(node.operand, attributes, key)
    if isinstance(node, ast.BinOp) and type(node.op) in _ARITHMETIC:
        left, right = _value(node.left, attributes, key), _value(node.right, attributes, key)
        if isinstance(node.op, (ast.Mod, ast.FloorDiv)) and np.any(np.asarray(right) == 0):
            raise ConfigError(key, f"{ast.unparse(node)!r} divides by zero")
        return _ARITHMETIC[type(node.op)](left, right)
    if isinstance(node, ast.Compare) and all(type(op) in _COMPARE for op in node.ops):
        sides = [_value(side, attributes, key) for side in (node.left, *node.comparators)]
        pairs = zip(node.ops, sides, sides[1:], strict=False)
        return np.logical_and.reduce([_COMPARE[type(op)](left, right) for op, left, right in pairs])
    raise ConfigError(key, f"{ast.unparse(node)!r} is not allowed; it may use {_MAY_USE}")


def _condition(node: ast.expr, attributes: Mapping[str, NDArray[Any]], key: str) -> Any:
    value = _value(node, attributes, key)
    if getattr(value, "dtype", None) != np.bool_:
        raise ConfigError(key, f"{ast.unparse(node)!r} is not a condition; compare something")
    return value
