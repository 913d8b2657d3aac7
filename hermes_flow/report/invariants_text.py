"""The text of an invariant check: a line for each violation, what was checked, and the list of invariants."""

from __future__ import annotations

from collections.abc import Sequence

from hermes_flow.validation.invariants.check import INVARIANTS, CheckedRun


def violations_text(runs: Sequence[CheckedRun]) -> str:
    """Return a line for each violation of the runs; an empty text where there is none."""
    return "\n".join(str(violation) for run in runs for violation in run.violations)


def checked_text(runs: Sequence[CheckedRun]) -> str:
    """Return how many invariants were checked on how many runs, and which files were missing for the others."""
    count = len(INVARIANTS)
    full = sum(len(run.checked) == count for run in runs)
    lines = [f"{len(runs):,} {_plural('run', len(runs))}, {count} invariants: {_outcome(runs)}"]
    if full < len(runs):
        lines.append(f"{full:,} of {len(runs):,} runs have the files for all invariants; not checked:")
        lines += [f"  {line}" for line in _skipped(runs)]
    return "\n".join(lines)


def failure_text(runs: Sequence[CheckedRun]) -> str:
    """Return one sentence that says how many runs violate invariants, and which."""
    numbers = sorted({violation.invariant.number for run in runs for violation in run.violations})
    broken = sum(bool(run.violations) for run in runs)
    named = ", ".join(f"INV{number}" for number in numbers)
    verb = "violates" if broken == 1 else "violate"
    return f"{broken:,} of {len(runs):,} {_plural('run', len(runs))} {verb} invariants: {named}"


def invariants_table() -> str:
    """Return the list of invariants as a table in Markdown, the one of docs/invariants.md."""
    lines = ["| number | name | what holds | files |", "|---|---|---|---|"]
    for own in INVARIANTS:
        files = ", ".join(own.needs) or "all"
        lines.append(f"| INV{own.number} | {own.name} | {own.meaning} | {files} |")
    return "\n".join(lines) + "\n"


def _outcome(runs: Sequence[CheckedRun]) -> str:
    count = sum(len(run.violations) for run in runs)
    return f"{count:,} {_plural('violation', count)}" if count else "no violation"


def _skipped(runs: Sequence[CheckedRun]) -> list[str]:
    """Return a line for each set of missing files: the invariants that need them, and in how many runs."""
    reasons: dict[tuple[str, ...], tuple[set[int], int]] = {}
    for run in runs:
        own: dict[tuple[str, ...], set[int]] = {}
        for number, missing in run.skipped.items():
            own.setdefault(missing, set()).add(number)
        for missing, numbers in own.items():
            before, times = reasons.get(missing, (set(), 0))
            reasons[missing] = (before | numbers, times + 1)
    return [
        f"{', '.join(f'INV{number}' for number in sorted(numbers))} in {times:,} {_plural('run', times)} "
        f"without {' and '.join(missing)}"
        for missing, (numbers, times) in sorted(reasons.items(), key=lambda entry: min(entry[1][0]))
    ]


def _plural(word: str, count: int) -> str:
    return word if count == 1 else f"{word}s"
