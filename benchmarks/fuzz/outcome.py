"""Judges one try: what it made hermes_flow do, and which promise of docs/trust.md that breaks, if any."""

from __future__ import annotations

import re
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import hermes_flow as hf
from hermes_flow.errors import HermesFlowError, InternalError

MOST_REQUESTS = 5000  # that a try simulates
_LEAKED = re.compile(
    r"Traceback|<class |object at 0x|DictConfig|ListConfig|NoneType|omegaconf|numpy\.|\bdtype|polars|pydantic"
    r"|'(?:str|int|float|list|dict|bool)' object|unhashable|not iterable|not subscriptable|Error\(|ErrorKind"
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What happened to a case: it ran, or it was refused; ``broken`` is the promise that it broke, if any."""

    overrides: tuple[str, ...]
    ran: bool
    broken: str | None = None


@dataclass(frozen=True, slots=True)
class Try:
    """One case: its kind, the parts that it is made of, and the function that runs some of these parts."""

    kind: str
    parts: tuple[str, ...]
    run: Callable[[tuple[str, ...]], Outcome]

    def outcome(self) -> Outcome:
        """Run the case with all of its parts."""
        return self.run(self.parts)

    def smallest(self) -> tuple[str, ...]:
        """Return as few of the parts as still break a promise."""
        kept = list(self.parts)
        for part in self.parts:
            fewer = list(kept)
            fewer.remove(part)
            if self.run(tuple(fewer)).broken is not None:
                kept = fewer
        return tuple(kept)


def attempt(
    overrides: Sequence[str],
    names: str | None = None,
    config_dir: Path | None = None,
    shown: Sequence[str] | None = None,
) -> Outcome:
    """Compose, compile, simulate and check; a refusal has to name a key, or the file ``names``.

    ``shown`` are the parts of the case, where these are not the overrides alone.
    """
    given = tuple(overrides if shown is None else shown)
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")
        try:
            program = hf.compile(hf.compose(overrides, config_dir))
            if program.requests and len(program.requests) > MOST_REQUESTS:
                return Outcome(given, ran=False)
            result = hf.simulate(program)
            result.write(folder)
        except InternalError as error:
            return Outcome(given, False, f"internal error: {error}")
        except HermesFlowError as error:
            return Outcome(given, False, unclear(str(error), overrides, names))
        except Exception as error:  # what the fuzz looks for
            return Outcome(given, False, f"{type(error).__name__}: {error}"[:300])
        found = [str(each) for run in hf.check_invariants(folder) for each in run.violations]
    return Outcome(given, True, f"invariant: {found[0]}"[:300] if found else None)


def unclear(message: str, overrides: Sequence[str], names: str | None) -> str | None:
    """Return what is wrong with the message of a refusal, or None."""
    if not message.strip():
        return "an empty message"
    plain = message
    for override in overrides:  # a message may quote what it was given
        plain = plain.replace(override, "").replace(override.partition("=")[2] or "\0", "")
    leaked = _LEAKED.search(plain)
    if leaked is not None:
        return f"the message shows {leaked[0]!r}: {message[:300]}"
    words = [each.split("=")[0].lstrip("+~").split(".")[-1] for each in overrides]
    named = any(word and word in message for word in words) or re.search(r"[a-z_]+(\.[\w-]+)+", message)
    if (
        not named
        and "key=value" not in message
        and ": no such file in " not in message
        and (names is None or names not in message)
    ):
        return f"the message names no key and no file: {message[:200]}"
    return None
