"""Reads JSON and YAML so that a key that stands twice is an error with its line, and not silently the last one."""

from __future__ import annotations

import functools
import json
import re
from typing import Any, NoReturn

_TOKENS = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\],:]|\n', re.DOTALL)


class DocumentError(ValueError):
    """A text that cannot be read; ``problem`` is a clause without the file, ``line`` counts from 1 where known."""

    def __init__(self, problem: str, line: int | None = None) -> None:
        self.problem = problem
        self.line = line
        super().__init__(problem if line is None else f"line {line}: {problem}")


class _KeyTwice(Exception):  # noqa: N818
    pass


def read_json(text: str, *, finite: bool = False) -> Any:
    """Return what a JSON text holds; ``finite`` refuses NaN and Infinity, which JSON does not have.

    Raises DocumentError, also for a key that an object has twice.
    """
    try:
        return json.loads(text, object_pairs_hook=_mapping, parse_constant=_refused if finite else None)
    except _KeyTwice as error:
        raise _twice_in_json(text, str(error)) from None
    except RecursionError:
        raise DocumentError("is nested too deeply") from None
    except json.JSONDecodeError as error:
        raise DocumentError(f"is not JSON: {error.msg} at column {error.colno}", error.lineno) from None
    except ValueError as error:  # a constant, or an integer of thousands of digits
        raise DocumentError(f"is not JSON: {error}") from None


def read_yaml(text: str) -> Any:
    """Return what a YAML text holds, read as plain values; raises DocumentError, also for a key given twice."""
    import yaml  # type: ignore[import-untyped]

    try:
        return yaml.load(text, Loader=_strict_loader())
    except RecursionError:
        raise DocumentError("is nested too deeply") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        said = getattr(error, "problem", None) or str(error).splitlines()[0]
        if said == "found unhashable key":
            said = "a key is a list or a mapping; expected a text"
        twice = str(said).startswith("has the key")
        problem = said if twice else f"is not YAML: {' '.join(str(said).split())}"
        raise DocumentError(problem, None if mark is None else mark.line + 1) from None
    except ValueError as error:  # a date that no calendar has
        raise DocumentError(f"is not YAML: {error}") from None


def _mapping(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise _KeyTwice(next(name for place, name in enumerate(names) if name in names[:place]))
    return found


def _refused(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a number of JSON")


def _twice_in_json(text: str, name: str) -> DocumentError:
    """Find the line on which an object of a valid JSON text has ``name`` for the second time."""
    objects: list[set[str]] = []
    line, said = 1, ""
    for found in _TOKENS.finditer(text):
        token = found[0]
        if token == "\n":
            line += 1
        elif token in "{[":
            objects.append(set())
        elif token in "}]":
            objects.pop()
        elif token.startswith('"'):
            said = token
        elif token == ":":
            key = json.loads(said)
            if key == name and key in objects[-1]:
                return DocumentError(f"has the key {key!r} twice", line)
            objects[-1].add(key)
    return DocumentError(f"has the key {name!r} twice")


@functools.cache
def _strict_loader() -> Any:
    """Return the reader of plain YAML that refuses a key given twice."""
    import yaml

    class Strict(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            known = set()
            for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
                if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
                    continue
                if (key.tag, key.value) in known:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"has the key {key.value!r} twice", key.start_mark
                    )
                known.add((key.tag, key.value))
            return super().construct_mapping(node, deep=deep)

    return Strict
