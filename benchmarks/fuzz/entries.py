"""Writes entries of a user's own: a built-in file with some keys changed, lost, renamed or doubled."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.fuzz.outcome import Outcome, Try, attempt
from benchmarks.fuzz.overrides import entries
from hermes_flow.config.folders import config_folder

_GROUPS = ("cluster", "pipeline", "model", "hardware", "slo", "workload", "network", "engine", "cost", "pool")
ODD: tuple[Any, ...] = (
    *(None, 0, -1, 1, 0.5, 1e300, 1e-300, float("inf"), float("nan"), 2**63, 10**400, True, "", "x", "???"),
    *(
        [],
        [1, 2],
        {},
        {"a": 1},
        "${hardware}",
        "${nothing}",
        "${oc.env:HOME}",
        [[1]],
        {"kind": "x"},
        "\0",
        "é",
    ),
    *("2024-02-30", {1: 2}, [None], "inf", "1e5", "0x10"),
)
_LINES = (
    "\tx: 1",
    "x: [",
    "- a",
    ": b",
    "&a",
    "*a",
    "x: !!python/object:os.system 1",
    "? [a]",
    "{}}",
    "@",
    "%YAML",
)

Place = tuple[Any, ...]


def entry_of_ones_own(rng: random.Random) -> Try:
    """Draw an entry of a group, and one to three changes of it, which are the parts of the case."""
    group = rng.choice(_GROUPS)
    name = rng.choice(entries(group))
    text = (config_folder() / group / f"{name}.yaml").read_text(encoding="utf-8")
    seeds = tuple(f"change {rng.randrange(10**6)}" for _ in range(rng.choice((1, 1, 2, 3))))
    where = f"{group}/{name}"
    package = "pool@cluster.pools.llm" if group == "pool" else group

    def run(changes: tuple[str, ...]) -> Outcome:
        with tempfile.TemporaryDirectory() as folder:
            own = Path(folder) / group
            own.mkdir()
            (own / "mine.yaml").write_text(changed(text, changes), encoding="utf-8", errors="surrogatepass")
            given = (
                [f"{package}=mine"] if group == "workload" else [f"{package}=mine", "workload.requests=12"]
            )
            if group == "workload":
                given.append("workload.limit=12" if "kind: trace" in text else "workload.rate_scale=1")
            return attempt(given, names="mine", config_dir=Path(folder), shown=[where, *changes])

    return Try("entry", seeds, run)


def changed(text: str, changes: tuple[str, ...]) -> str:
    """Return a YAML text with these changes, each drawn from its own words."""
    for change in changes:
        rng = random.Random(change)
        text = _of_lines(rng, text) if rng.random() < 0.25 else _of_values(rng, text)
    return text


def _of_lines(rng: random.Random, text: str) -> str:
    """Damage the text itself."""
    lines = text.splitlines()
    at = rng.randrange(len(lines) + 1)
    way = rng.random()
    if way < 0.3 and lines:
        lines.insert(at, lines[rng.randrange(len(lines))])
    elif way < 0.5:
        lines.insert(at, rng.choice(_LINES))
    elif way < 0.75 and at < len(lines):
        del lines[at]
    elif at < len(lines):
        lines[at] = rng.choice((" ", "  ", "")) + lines[at][rng.choice((0, 1, 2)) :]
    return "\n".join(lines) + "\n"


def _of_values(rng: random.Random, text: str) -> str:
    """Change one place of the content."""
    import yaml  # type: ignore[import-untyped]

    header = "".join(f"{line}\n" for line in text.splitlines() if line.startswith("# @package"))
    try:
        content = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError):
        return text
    places = list(_places(content, ()))
    if not places:
        return text
    *above, last = rng.choice([place for place in places if place[0] != "defaults"] or places)
    if rng.random() < 0.1:
        *above, last = rng.choice(places)
    node = content
    for step in above:
        node = node[step]
    way = rng.random()
    if way < 0.6 or not isinstance(node, dict):
        node[last] = rng.choice(ODD)
    elif way < 0.75:
        del node[last]
    elif way < 0.9:
        node[f"{last}x" if rng.random() < 0.5 else str(last)[:-1] or "y"] = node.pop(last)
    else:
        node["more"] = rng.choice(ODD)
    return header + str(yaml.safe_dump(content, sort_keys=False, allow_unicode=True))


def _places(node: Any, above: Place) -> Iterator[Place]:
    steps: list[Any] = []
    if isinstance(node, dict):
        steps = list(node)
    elif isinstance(node, list):
        steps = list(range(len(node)))
    for step in steps:
        yield (*above, step)
        yield from _places(node[step], (*above, step))
