"""Finds the keys that a user gave and that the program does not depend on.

A key has an effect when another value for it gives another program, or an error that names other keys. So each key is
compiled again with other values until one of them shows an effect, which is mostly the first. A few requests are
enough to see that; a key that shows none is tried once more with many.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable

from hermes_flow.compiler.what_runs import what_runs
from hermes_flow.config.convert import shown
from hermes_flow.config.given_keys import CHOSEN, Given
from hermes_flow.config.remembered import remembering
from hermes_flow.config.schema import Config
from hermes_flow.errors import CompileError, ConfigError, HermesFlowError
from hermes_flow.program.program import Program

_FEW, _MANY = 16, 2000

Compile = Callable[[Config], Program]


def unused_keys(given: Given, compile_anew: Compile, problems: list[str]) -> list[str]:
    """Return a warning for every key without an effect.

    ``compile_anew`` compiles a configuration without this check. A figure of a model or hardware that no pool takes
    is appended to ``problems``.
    """
    warnings = [_unused_choice(group, given) for group in given.choices if not given.pools(group, own=False)]
    unseen = [key for key in given.keys if not _reaches_no_pool(key, given, problems)]
    for most in (_FEW, _MANY):
        if unseen:
            sample = given.smaller(most)
            with remembering():
                program = _bytes(sample, compile_anew)
                unseen = [
                    key
                    for key in unseen
                    if program is not None and _unused(key, sample, program, compile_anew)
                ]
    return [*warnings, *(_without_effect(key, given) for key in unseen)]


def _unused(key: str, given: Given, program: bytes, compile_anew: Compile) -> bool:
    """Tell whether other values of ``key`` compile, and all of them to the same ``program``."""
    compiled = False
    for other in given.others(key):
        try:
            if pickle.dumps(what_runs(compile_anew(other.config()))) != program:
                return False
            compiled = True
        except CompileError as error:
            if not all(_is_about(problem.partition(":")[0], key) for problem in error.problems):
                return False
        except ConfigError as error:
            if not _is_about(error.key, key):
                return False
        except Exception:  # whatever a value of ours meets in the compiler must not end the user's run
            return False
    return compiled and given.varies(key)


def _without_effect(key: str, given: Given) -> str:
    value = shown(given.value(key))
    return f"{key}: {value} has no effect; the compiled program is the same for any other value{given.place(key)}"


def _is_about(named: str, key: str) -> bool:
    """Tell whether a problem is that of the value itself: it says nothing about what the value does to others."""
    return named == key or named.startswith(f"{key}.") or key.startswith(f"{named}.")


def _bytes(given: Given, compile_anew: Compile) -> bytes | None:
    """Return the program as bytes; None where so few requests cannot be compiled, or a plug-in cannot be pickled."""
    try:
        return pickle.dumps(what_runs(compile_anew(given.config())))
    except (HermesFlowError, pickle.PicklingError, AttributeError, TypeError):
        return None


def _reaches_no_pool(key: str, given: Given, problems: list[str]) -> bool:
    """Append a problem where ``key`` is a figure of a model or of hardware that no pool takes."""
    group, _, _ = key.partition(".")
    if group not in CHOSEN or given.pools(group, own=False):
        return False
    keys = [f"cluster.pools.{name}.{key}" for name in given.pools(group, own=True)]
    expected = f"; expected {' or '.join(keys)}" if keys else ""
    problems.append(f"{key}: no pool takes the {group} chosen for the whole configuration{expected}")
    return True


def _unused_choice(group: str, given: Given) -> str:
    name = given.plain[group]["name"]
    keys = [f"{group}@cluster.pools.{pool}.{group}={name}" for pool in given.pools(group, own=True)]
    expected = f"; {' or '.join(keys)} chooses it for a pool" if keys else ""
    return f"{group}: {name} has no effect; no pool takes the {group} chosen for the whole configuration{expected}"
