"""Completes verbs for a shell: Hydra, which completes groups and keys, does not know them."""

from __future__ import annotations

from collections.abc import Collection


def with_verb(line: str, verbs: Collection[str]) -> tuple[str, list[str]]:
    """Return the command line as Hydra reads it, with its verb as ``task=VERB``, and the verbs that may be meant.

    ``line`` is what stands before the cursor; its last word is still being typed, unless a blank follows it.
    """
    program, *words = line.split()
    typed = "" if line[-1:].isspace() or not words else words.pop()
    found = next((word for word in words if word in verbs), None)
    rest = [f"task={word}" if word == found else word for word in words]
    offered = []
    if found is None and "=" not in typed:
        offered = sorted(verb for verb in verbs if verb.startswith(typed))
    return " ".join([program, *rest, typed]), offered
