"""Sample outputs and what their commands print today: what is left out, what is kept, and which numbers changed.

A line ``…`` in a sample stands for lines that are left out. Dates, and how long a command took, are no change.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher

LEFT_OUT = "…"
LARGE = 0.05  # a change of a number that the prose around it may not survive
_ALIKE = 0.6  # of the words of a part of a sample, in the output that stands for it
_A_LINE = 0.02  # what a line more or less counts against a part of the output
_CANDIDATES = 5

_VOLATILE = (
    re.compile(r"\d{4}-\d\d-\d\d/\d\d-\d\d-\d\d-\d{6}"),  # the folder of a run
    re.compile(r"(?<=steps in )[\d.,]+ \w+$|(?<=events in )[\d.,]+ \w+$|^ +[\d.,]+ (?:ms|s)$"),  # simulated …
    re.compile(r", about [\d.]+ \w+ left"),
    re.compile(r"[\d.,]+ s, [\d.,]+ CPU s"),
)
_NUMBER = re.compile(r"(?<![\w.])\d[\d,.]*\d|(?<![\w.])\d")
_QUANTITY = re.compile(r"(?<![\w.])(\d[\d,.]*\d|\d)( ?(?:%|µs|ms|s|min|h|kJ|J|GB|tok/s|requests/s)(?!\w))?")


class NotShownError(LookupError):
    """No part of the output resembles a part of the sample."""


def refreshed(shown: str, printed: str) -> str:
    """Return the sample with what the command printed.

    Lines in which only dates and durations differ stay as they are. Raises NotShownError where the sample leaves
    lines out, and what it shows is not in the output.
    """
    old = shown.rstrip("\n").split("\n")
    output = [line.rstrip() for line in printed.rstrip().split("\n")]
    new = _excerpt(old, output) if any(line.strip() == LEFT_OUT for line in old) else output
    kept: dict[str, list[str]] = {}
    for line in old:
        kept.setdefault(steady(line), []).append(line)
    lines = [kept[key].pop(0) if kept.get(key := steady(line)) else line for line in new]
    return "\n".join(lines) + "\n"


def steady(line: str) -> str:
    """Return a line without the date and the durations of the command itself."""
    for pattern in _VOLATILE:
        line = pattern.sub("", line)
    return line


def _excerpt(old: Sequence[str], output: Sequence[str]) -> list[str]:
    """Return the lines of the output that stand for the shown ones, with … where lines are left out."""
    parts: list[list[str]] = [[]]
    for line in old:
        if line.strip() == LEFT_OUT:
            parts.append([])
        else:
            parts[-1].append(line)
    lines: list[str] = []
    place = 0
    for number, part in enumerate(parts):
        if number:
            lines.append(LEFT_OUT)
        if part:
            bound = (number == 0, number == len(parts) - 1)
            first, last = _stands_for(part, output, place, *bound)
            lines += output[first:last]
            place = last
    return lines


def _stands_for(
    part: Sequence[str], output: Sequence[str], start: int, at_start: bool, at_end: bool
) -> tuple[int, int]:
    """Return the first line of the output that stands for ``part``, and the one after the last.

    The part begins the output with ``at_start``, and ends it with ``at_end``.
    """
    wanted = _words(part)
    best = (0.0, 0, 0)
    for first in [0] if at_start else _likely_starts(part, output, start):
        for last in [len(output)] if at_end else range(first + 1, len(output) + 1):
            found = _words(output[first:last])
            if not at_end and len(found) > 2 * len(wanted) + 20:
                break
            likeness = SequenceMatcher(None, wanted, found, autojunk=False).ratio()
            likeness -= _A_LINE * abs(last - first - len(part))
            if likeness > best[0]:
                best = (likeness, first, last)
    if best[0] < _ALIKE:
        raise NotShownError(f"nothing in the output resembles the part that begins with {part[0].strip()!r}")
    return best[1], best[2]


def _likely_starts(part: Sequence[str], output: Sequence[str], start: int) -> list[int]:
    """Return the lines that most resemble the first one of ``part``, in their order."""
    wanted = _skeleton(part[0])
    likeness = {
        place: SequenceMatcher(None, wanted, _skeleton(output[place]), autojunk=False).ratio()
        for place in range(start, len(output))
    }
    return sorted(sorted(likeness, key=lambda place: -likeness[place])[:_CANDIDATES])


def _words(lines: Sequence[str]) -> list[str]:
    return [word for line in lines for word in _skeleton(line).split()]


def _skeleton(line: str) -> str:
    """Return a line without its numbers and without its columns."""
    return " ".join(_NUMBER.sub("#", line).split())


def differences(old: str, new: str) -> Iterator[tuple[str, str, bool]]:
    """Yield the lines that differ, before and after, and whether a number changed by more than 5 % or words did."""
    before, after = old.splitlines(), new.splitlines()
    for kind, a, b, c, d in SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        if kind == "equal":
            continue
        for place in range(max(b - a, d - c)):
            was = before[a + place] if a + place < b else ""
            is_now = after[c + place] if c + place < d else ""
            yield was, is_now, bool(large_changes(was, is_now)) or _skeleton(was) != _skeleton(is_now)


def large_changes(was: str, is_now: str) -> list[str]:
    """Return the quantities of a line that changed by more than 5 %, as they were, with their units."""
    if _skeleton(steady(was)) != _skeleton(steady(is_now)):
        return []
    pairs = zip(
        _QUANTITY.finditer(steady(was)), _QUANTITY.finditer(steady(is_now)), strict=False
    )  # a unit may be another one
    return [
        old[0]
        for old, new in pairs
        if old[0] != new[0]
        and (old[2] != new[2] or abs(_value(new[1]) - _value(old[1])) > LARGE * _value(old[1]))
    ]


def _value(text: str) -> float:
    try:
        return float(text.replace(",", ""))
    except ValueError:  # a version, an address
        return 0.0
