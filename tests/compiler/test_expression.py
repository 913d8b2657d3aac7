from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tries import tries

from hermes_flow.compiler.expression import evaluate
from hermes_flow.errors import ConfigError

# The product of four of them is below 2^53, where floats still count exactly.
COLUMNS = {
    "input_tokens": np.array([1, 7, 512, 2048, 2049, 9000]),
    "output_tokens": np.array([5, 1, 90, 2048, 3, 1000]),
    "priority": np.array([0, 1, 2, 0, -1, 3]),
}


def holds(text: str) -> list[bool]:
    found = evaluate(text, COLUMNS, "pipeline.stages.guard.when")
    assert found.dtype == np.bool_
    assert found.shape == (6,)
    return [bool(value) for value in found]


def refusal(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        evaluate(text, COLUMNS, "when")
    assert caught.value.key == "when"
    return caught.value.problem


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("input_tokens > 2048", [0, 0, 0, 0, 1, 1]),
        ("input_tokens >= 2048 and output_tokens >= 1000", [0, 0, 0, 1, 0, 1]),
        ("not (input_tokens > 7 or priority == 0)", [0, 1, 0, 0, 0, 0]),
        ("1 < input_tokens <= 512", [0, 1, 1, 0, 0, 0]),
        ("input_tokens + output_tokens == 4096", [0, 0, 0, 1, 0, 0]),
        ("input_tokens % 2 != 0", [1, 1, 0, 0, 1, 0]),
        ("input_tokens // 512 == 4", [0, 0, 0, 1, 1, 0]),
        ("-priority > 0", [0, 0, 0, 0, 1, 0]),
        ("input_tokens < 7.5", [1, 1, 0, 0, 0, 0]),
        ("  priority*2 == 4\n", [0, 0, 1, 0, 0, 0]),
        ("1 < 2", [1, 1, 1, 1, 1, 1]),
        ("priority > 0 or 2 < 1", [0, 1, 1, 0, 0, 1]),
        ("input_tokens * input_tokens * input_tokens * input_tokens * input_tokens > 0", [1, 1, 1, 1, 1, 1]),
    ],
)
def test_a_condition_holds_request_by_request(text: str, expected: list[int]) -> None:
    assert holds(text) == [bool(value) for value in expected]


names = st.sampled_from(sorted(COLUMNS))
numbers = st.integers(0, 5000).map(str)
amounts = st.recursive(
    names | numbers,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from("+-*"), inner).map(lambda part: f"({' '.join(part)})"),
        st.tuples(inner, st.sampled_from(["%", "//"]), st.integers(1, 99)).map(
            lambda part: f"({part[0]} {part[1]} {part[2]})"
        ),
        inner.map(lambda part: f"(-{part})"),
    ),
    max_leaves=4,
)
orders = st.sampled_from(["<", "<=", ">", ">=", "==", "!="])
comparisons = st.one_of(
    st.tuples(amounts, orders, amounts).map(" ".join),
    st.tuples(amounts, orders, amounts, orders, amounts).map(" ".join),
)
conditions = st.recursive(
    comparisons,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(lambda part: f"({' '.join(part)})"),
        inner.map(lambda part: f"not ({part})"),
    ),
    max_leaves=5,
)


@settings(max_examples=tries(100, of=300))
@given(conditions)
def test_a_condition_means_what_it_means_in_python(text: str) -> None:
    if len(text) > 1000:
        return
    rows = [dict(zip(COLUMNS, map(int, row), strict=True)) for row in zip(*COLUMNS.values(), strict=True)]
    assert holds(text) == [eval(text, {"__builtins__": {}}, row) for row in rows]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("input_token > 5", "unknown attribute 'input_token'; did you mean 'input_tokens'?"),
        ("x > 5", "unknown attribute 'x'; expected one of: input_tokens, output_tokens, priority"),
        ("input_tokens", "'input_tokens' is not a condition; compare it with something"),
        ("5", "'5' is not a condition; compare it with something"),
        ("input_tokens > 5 and 3", "'3' is not a condition; compare it with something"),
        ("not input_tokens", "'input_tokens' is not a condition; compare it with something"),
        ("input_tokens % 0 == 1", "'input_tokens % 0' divides by zero"),
        ("output_tokens // (priority * 1) > 1", "'output_tokens // (priority * 1)' divides by zero"),
        ("input_tokens > 1e16", "1e+16 is too large; expected at most 1e+15"),
        (f"input_tokens > 1{'0' * 400}", f"1{'0' * 400} is too large; expected at most 1e+15"),
        ("input_tokens > 1e999", "1e309 is too large; expected at most 1e+15"),
        (f"input_tokens > {'1 + ' * 300}1", "1,216 characters; a condition has at most 1,000"),
    ],
)
def test_what_makes_no_sense_is_refused(text: str, problem: str) -> None:
    assert refusal(text) == problem


@pytest.mark.parametrize(
    "text",
    ["-(input_tokens < 5) < 1", "(input_tokens < 5) * 2 > 1", "(input_tokens < 5) == (priority < 1)"],
)
def test_a_condition_is_no_number(text: str) -> None:
    assert refusal(text).endswith("is a condition, not a number; join it with and, or, not")


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("__import__('os').system('true') == 0", "__import__('os').system('true')"),
        ("abs(priority) > 1", "abs(priority)"),
        ("input_tokens.real > 1", "input_tokens.real"),
        ("input_tokens[0] > 1", "input_tokens[0]"),
        ("'a' < 'b'", "'a'"),
        ("True", "True"),
        ("input_tokens / 2 > 1", "input_tokens / 2"),
        ("input_tokens ** 9 > 1", "input_tokens ** 9"),
        ("input_tokens in (1, 2)", "input_tokens in (1, 2)"),
        ("input_tokens is None", "input_tokens is None"),
        ("(lambda: 1)() > 0", "(lambda: 1)()"),
        ("[x for x in ()] == 1", "[x for x in ()]"),
        ("(x := 5) > 1", "(x := 5)"),
        ("1 if priority > 0 else 0", "1 if priority > 0 else 0"),
        ("~priority > 1", "~priority"),
        ("f'{priority}' == 1", "f'{priority}'"),
    ],
)
def test_nothing_but_arithmetic_and_comparison_is_allowed(text: str, part: str) -> None:
    allowed = "numbers, request attributes, + - * // %, comparisons, and, or, not"
    assert refusal(text) == f"{part!r} is not allowed; it may use {allowed}"


@pytest.mark.parametrize(
    "text", ["", "input_tokens >", "a b", "x = 5", "import os", "1 <\n2", "\0", "(" * 500]
)
def test_what_is_no_expression_is_refused(text: str) -> None:
    assert "is not an expression" in refusal(text)


def test_a_condition_may_not_be_nested_deeper_than_the_stack_allows() -> None:
    assert evaluate("-" * 90 + "1 > 0", COLUMNS, "when").all()

    def deep(frames: int) -> None:
        if frames:
            deep(frames - 1)
        else:
            evaluate("-" * 900 + "1 > 0", COLUMNS, "when")

    for frames in (0, 500):
        with pytest.raises(
            ConfigError, match="when: is nested too deeply; a condition has at most 100 levels"
        ):
            deep(frames)
