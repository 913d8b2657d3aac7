"""Runs one case in this process and checks the promises of docs/trust.md; a broken promise is a text."""

from __future__ import annotations

import random
import re
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path

import hermes_flow as hf
from benchmarks.fuzz.overrides import command
from benchmarks.fuzz.traces import write_trace
from hermes_flow.errors import HermesFlowError, InternalError

_LEAKED = re.compile(r"Traceback|<class |object at 0x|DictConfig|ListConfig|NoneType|omegaconf|numpy\.|dtype")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What happened to a case: it ran, or it was refused; ``broken`` is the promise that it broke, if any."""

    overrides: tuple[str, ...]
    ran: bool
    broken: str | None = None


def case(seed: int) -> Outcome:
    """Run the case of a seed: three of four have random overrides, the others a random trace."""
    rng = random.Random(f"fuzz {seed}")
    if rng.random() < 0.75:
        return attempt(command(rng))
    with tempfile.TemporaryDirectory() as folder:
        path = write_trace(rng, Path(folder))
        extra = rng.choice(
            ([], [], ["workload.limit=3"], ["pipeline=llm"], ["cluster.pools.llm.prefix_cache=true"])
        )
        return attempt(["workload=trace", f"workload.path={path}", *extra], names=path.name)


def attempt(overrides: list[str], names: str | None = None) -> Outcome:
    """Compose, compile, simulate and check; a refusal has to name a key, or the file ``names``."""
    given = tuple(overrides)
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")
        try:
            program = hf.compile(hf.compose(overrides))
            if program.requests and len(program.requests) > 5000:
                return Outcome(given, ran=False)
            result = hf.simulate(program)
            result.write(folder)
        except InternalError as error:
            return Outcome(given, False, f"internal error: {error}")
        except HermesFlowError as error:
            return Outcome(given, False, _unclear(str(error), overrides, names))
        except Exception as error:  # what the fuzz looks for
            return Outcome(given, False, f"{type(error).__name__}: {error}"[:300])
        found = [str(each) for run in hf.check_invariants(folder) for each in run.violations]
    return Outcome(given, True, f"invariant: {found[0]}"[:300] if found else None)


def _unclear(message: str, overrides: list[str], names: str | None) -> str | None:
    leaked = _LEAKED.search(message)
    if leaked is not None:
        return f"the message shows {leaked[0]!r}: {message[:200]}"
    if not message.strip():
        return "an empty message"
    words = [each.split("=")[0].lstrip("+~").split(".")[-1] for each in overrides]
    named = any(word and word in message for word in words) or re.search(r"[a-z_]+(\.[\w-]+)+", message)
    if not named and "key=value" not in message and (names is None or names not in message):
        return f"the message names no key and no file: {message[:200]}"
    return None


def smallest(overrides: tuple[str, ...]) -> tuple[str, ...]:
    """Return as few of the overrides as still break a promise."""
    kept = list(overrides)
    for override in overrides:
        fewer = [each for each in kept if each is not override]
        if attempt(fewer).broken is not None:
            kept = fewer
    return tuple(kept)
