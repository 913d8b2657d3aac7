"""Compares all tables of the saved runs with what they were: ``python -m benchmarks.unchanged``.

A saved run is a fully resolved configuration in benchmarks/unchanged: no default, no catalog entry and no built-in
file can change it. hashes.json beside them has the fingerprints of all tables. A change that may not alter any answer
shows that every run is unchanged; a change that alters some writes the new fingerprints with ``--write`` and names
the runs in its commit. The traces and measurements that the runs read are drawn or computed by hand, not recorded.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import yaml
from omegaconf import OmegaConf

import hermes_flow as hf
from benchmarks.fingerprints import Fingerprint, difference, fingerprints
from benchmarks.processes import ROOT
from hermes_flow.config.compose import to_config
from hermes_flow.config.convert import settings
from hermes_flow.config.quick_yaml import fast_yaml
from hermes_flow.errors import HermesFlowError

RUNS = Path(__file__).with_suffix("")
HASHES = RUNS / "hashes.json"
FAILED = "failed"  # in place of the tables of a run that ends with an error

Tables = dict[str, Fingerprint]


def main() -> int:
    """Run what the arguments ask for; returns 1 if a run differs from what was saved, else 0."""
    options = _options()
    if options.save:
        save(options.save[0], options.save[1:])
        return 0
    chosen = _chosen(options.only)
    saved, started = expected(), time.process_time()
    differing = 0
    for name in chosen:
        found = tables(name)
        lines = differences(saved.get(name), found)
        differing += bool(lines)
        for line in lines:
            print(f"{name}: {line}", flush=True)
        saved[name] = found
    if not options.only:
        for name in sorted(set(saved) - set(chosen)):
            print(f"{name}: its configuration is missing")
            differing += 1
            del saved[name]
    if options.write:
        _write(saved)
    seconds = time.process_time() - started
    print(
        f"{len(chosen)} runs, {differing} differ, {seconds:.0f} CPU s"
        + (", written" if options.write else "")
    )
    return int(differing > 0 and not options.write)


def names() -> list[str]:
    """Return the names of all saved runs, in order."""
    return sorted(path.stem for path in RUNS.glob("*.yaml"))


def expected() -> dict[str, Tables]:
    """Return the saved fingerprints by run and table."""
    if not HASHES.is_file():
        return {}
    saved: dict[str, Tables] = json.loads(HASHES.read_text(encoding="utf-8"))
    return saved


def tables(name: str) -> Tables:
    """Simulate a saved run and return the fingerprints of its tables, or its error in place of them."""
    try:
        with contextlib.chdir(ROOT):  # the runs name their traces and measurements from there
            config = load(RUNS / f"{name}.yaml")
            return fingerprints(hf.simulate(hf.compile(config)), steps=config.output.steps)
    except HermesFlowError as error:
        return {FAILED: {"rows": None, "columns": {str(error): ""}}}


def load(path: Path) -> hf.Config:
    """Return a saved configuration, converted and checked as one that Hydra has composed."""
    with fast_yaml():
        container = OmegaConf.load(path)
    assert OmegaConf.is_dict(container)
    return to_config(container)


def differences(before: Tables | None, now: Tables) -> list[str]:
    """Return a line for every table that differs from what was saved."""
    if FAILED in now:
        return [f"does not run: {next(iter(now[FAILED]['columns']))}"]
    if before is None:
        return ["has no saved fingerprints; --write saves them"]
    lines = []
    for table in dict.fromkeys((*before, *now)):
        words = difference(before.get(table), now.get(table))
        if words is not None:
            lines.append(f"{table}: {words}")
    return lines


def save(name: str, overrides: Sequence[str]) -> None:
    """Save what ``overrides`` compose to as a run; every key is written, also those left at their default."""
    with contextlib.chdir(ROOT):
        config = hf.compose(overrides)
    path = RUNS / f"{name}.yaml"
    text = yaml.safe_dump(settings(config), sort_keys=False, default_flow_style=None, width=110)
    path.write_text(f"# Saved from: {' '.join(overrides)}\n{text}", encoding="utf-8")
    if load(path) != config:
        raise HermesFlowError(f"{path}: the saved configuration is not the composed one")
    print(f"{path}: saved; --write adds its fingerprints")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.unchanged", description=__doc__)
    parser.add_argument("--write", action="store_true", help="save the fingerprints found")
    parser.add_argument(
        "--only", nargs="+", metavar="NAME", help="these runs alone; the first characters of a name will do"
    )
    parser.add_argument("--save", nargs="+", metavar="WORD", help="a name, then overrides: save one more run")
    return parser.parse_args()


def _chosen(words: Sequence[str] | None) -> list[str]:
    """Return the names that begin with one of the words, all names without words."""
    if words is None:
        return names()
    for word in words:
        if not any(name.startswith(word) for name in names()):
            raise SystemExit(f"no run begins with {word!r}; there are {', '.join(names())}")
    return [name for name in names() if name.startswith(tuple(words))]


def _write(saved: dict[str, Tables]) -> None:
    """Write the fingerprints with one table a line, so that a diff shows which tables changed."""
    runs = []
    for name, found in sorted(saved.items()):
        if FAILED in found:
            raise SystemExit(f"{name} does not run; nothing was written")
        lines = (f"  {json.dumps(table)}: {json.dumps(entry)}" for table, entry in found.items())
        runs.append(f" {json.dumps(name)}: {{\n" + ",\n".join(lines) + "\n }")
    HASHES.write_text("{\n" + ",\n".join(runs) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
