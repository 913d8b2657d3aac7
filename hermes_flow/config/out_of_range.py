"""Finds every number of a configuration that is out of its range, so that one error names all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hermes_flow.config.quantities import RangeError
from hermes_flow.errors import ConfigError


def all_out_of_range(convert: Callable[[Any], object], value: Any, key: str, first: RangeError) -> RangeError:
    """Return ``first``, with the other numbers out of range in ``value``, a plain mapping at ``key``.

    ``convert`` has raised ``first`` for ``value``. It is called again with numbers that are in range in the place of
    those found, until it finds no others. A number that pools take from a group of the configuration is named once.
    """
    found = _single(first)
    new = found
    while new:
        for error in new:
            path = error.key.removeprefix(key).removeprefix(".").split(".")
            value = _replaced(value, path, error.inside)
        try:
            convert(value)
        except RangeError as error:
            known = {each.key for each in found}
            new = [each for each in _single(error) if each.key not in known]
            found = [*found, *new]
        except ConfigError:  # a mistake of another kind, which is named when these are mended
            break
        else:
            break
    named = [error for error in found if not any(_is_copy(error, other) for other in found)]
    return RangeError(named[0].key, named[0].problem, named[0].inside, named[1:])


def _single(error: RangeError) -> list[RangeError]:
    return [RangeError(each.key, each.problem, each.inside) for each in (error, *error.others)]


def _is_copy(error: RangeError, other: RangeError) -> bool:
    return error.problem == other.problem and error.key.endswith(f".{other.key}")


def _replaced(value: Any, path: Sequence[str], number: float) -> Any:
    """Return ``value`` with ``number`` at ``path``; the value itself where it has no such path."""
    if not path:
        return number
    if isinstance(value, Mapping):
        names = {str(name): name for name in value}
        if path[0] not in names:
            return value
        name = names[path[0]]
        return {**value, name: _replaced(value[name], path[1:], number)}
    if isinstance(value, list) and path[0].isdigit() and int(path[0]) < len(value):
        place = int(path[0])
        return [*value[:place], _replaced(value[place], path[1:], number), *value[place + 1 :]]
    return value
