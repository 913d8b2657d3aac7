"""The quantities of a configuration: types of numbers, each with the range that its values may have.

A key is declared with its quantity (``memory_gb: PositiveGB``), and ``convert`` refuses a value outside the range.
The limits are wide: they exclude what cannot be meant, what would overflow the clock, and what would take all memory.
docs/configuration.md prints the range of every key.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated

from hermes_flow.errors import ConfigError
from hermes_flow.program.quick_dataclass import dataclass

_PERCENT = re.compile(r"\s*([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*%\s*")
_LIKELY_PERCENT = 10  # a smaller number above 1 is more likely a slip than a share in percent
_EXACT = 10**6  # larger limits are written as powers of ten


@dataclass(frozen=True, slots=True)
class Range:
    """The numbers from ``low`` to ``high``; ``above`` and ``below`` exclude these two themselves.

    ``or_zero`` adds 0, for "never" or "none".
    """

    low: float
    high: float
    above: bool = False
    below: bool = False
    or_zero: bool = False

    def holds(self, value: float) -> bool:
        """Return whether ``value`` is in the range."""
        if self.or_zero and value == 0:
            return True
        over = value > self.low if self.above else value >= self.low
        under = value < self.high if self.below else value <= self.high
        return over and under

    @property
    def text(self) -> str:
        """The range in words."""
        low, high = _text(self.low), _text(self.high)
        if self.above:
            return f"above {low} and {'below' if self.below else 'at most'} {high}"
        zero = "0, or " if self.or_zero else ""
        return f"{zero}from {low} to {'below ' if self.below else ''}{high}"

    def check(self, value: float, key: str, what: str) -> None:
        """Raise RangeError at ``key`` where ``value`` is not in the range; ``what`` is "a number" or the like."""
        if not self.holds(value):
            problem = f"{_value(value)} is out of range; expected {what} {self.text}"
            likely = self._as_share(value) if value >= _LIKELY_PERCENT else ""
            raise RangeError(key, problem + likely, self._inside)

    def check_percent(self, text: str, key: str, what: str) -> None:
        """Raise RangeError at ``key`` where ``text`` is a number with a percent sign, and a share is expected."""
        number = _PERCENT.fullmatch(text)
        if number is not None and self.high == 1:
            problem = f"{text!r} is not {what}; expected one {self.text}"
            raise RangeError(key, problem + self._as_share(float(number[1])), self._inside)

    def _as_share(self, percent: float) -> str:
        """Return a text with the share that ``percent`` may have meant, "" where it is none of this range."""
        if self.high != 1 or percent > 100 or not self.holds(percent / 100):
            return ""
        return f"; {percent:g} % is {percent / 100:g}"

    @property
    def _inside(self) -> float:
        """A number that is in the range."""
        if not self.above:
            return self.low
        return (self.low + self.high) / 2 if self.below else self.high


class RangeError(ConfigError):
    """A number has the right type and is outside the range of its key; ``inside`` is a number of the range.

    ``others`` are the same for other keys of one configuration. The message names all of them.
    """

    def __init__(self, key: str, problem: str, inside: float, others: Sequence[RangeError] = ()) -> None:
        self.inside = inside
        self.others = tuple(others)
        super().__init__(key, problem)

    def __str__(self) -> str:
        if not self.others:
            return super().__str__()
        lines = [f"  - {error.key}: {error.problem}" for error in (self, *self.others)]
        return "\n".join([f"{len(lines)} problems found:", *lines])


def _text(limit: float) -> str:
    if float(limit).is_integer() and abs(limit) <= _EXACT:
        return f"{int(limit):,}"
    short = f"{limit:.3g}"
    if float(short) != limit:
        return f"{limit:,}"
    return short.replace("e+", "e").replace("e0", "e").replace("e-0", "e-")


def _value(value: float) -> str:
    try:
        return f"{value:,}" if isinstance(value, int) and abs(value) < 10**15 else f"{value:g}"
    except OverflowError:  # a whole number beyond every float
        return f"a number of {len(str(abs(value) // 10**300)) + 300} digits"


# Counts.
MOST_CLIENTS = 100_000  # of one pool
Count = Annotated[int, Range(1, MOST_CLIENTS)]  # clients, devices, cores, layers, users: each takes memory
CountOrZero = Annotated[int, Range(0, 100_000)]
Branches = Annotated[int, Range(1, 4096)]
Turns = Annotated[int, Range(1, 4096)]
RequestCount = Annotated[int, Range(1, 2**31)]
Many = Annotated[int, Range(1, 100_000_000)]  # sessions, contexts, system prompts: each takes memory
Sequences = Annotated[int, Range(1, 1_000_000)]  # of one step, whose table has an entry for each
StepTokens = Annotated[int, Range(1, 10_000_000)]  # of one step, whose table has an entry for each
StepTokensOrZero = Annotated[int, Range(0, 10_000_000)]
BlockTokens = Annotated[int, Range(1, 1_000_000)]
Blocks = Annotated[int, Range(1, 10**12)]
Tokens = Annotated[int, Range(0, 10**12)]  # sums over millions of requests fit 64 bits
PositiveTokens = Annotated[int, Range(1, 10**12)]
Pixels = Annotated[int, Range(1, 100_000)]
Width = Annotated[int, Range(1, 10**9)]  # a dimension of a model or of a vector
Priority = Annotated[int, Range(-1_000_000, 1_000_000)]  # the class of a request
Seed = Annotated[int, Range(0, 2**63 - 1)]
Bytes = Annotated[int, Range(0, 10**15)]

# Times, each up to 10^6 s, which is 11.6 days. The clock of a run ends after 106 days.
Seconds = Annotated[float, Range(0, 1e6)]
PositiveSeconds = Annotated[float, Range(0, 1e6, above=True)]
Period = Annotated[float, Range(0.01, 1e9, or_zero=True)]  # in ms; a run does something at each multiple
Milliseconds = Annotated[float, Range(0, 1e9)]
PositiveMilliseconds = Annotated[float, Range(0, 1e9, above=True)]
Microseconds = Annotated[float, Range(0, 1e12)]
PositiveMicroseconds = Annotated[float, Range(0, 1e12, above=True)]
Nanoseconds = Annotated[float, Range(0, 1e15)]
HourOfDay = Annotated[float, Range(0, 24, below=True)]
Instant = Annotated[float, Range(0, 9e9)]  # on the clock of a file, which may count from 1970
PositiveDuration = Annotated[float, Range(0, 9e9, above=True)]
RatePerSecond = Annotated[float, Range(1e-9, 1e9)]
RateOrPause = Annotated[float, Range(0, 1e9)]
Interval = Annotated[float, Range(0.1, 1e6)]  # in s; a run does something at each multiple

# Sizes and speeds of machines.
GB = Annotated[float, Range(0, 1e9)]
PositiveGB = Annotated[float, Range(1e-6, 1e9)]
MB = Annotated[float, Range(1e-6, 1e12)]
GBPerSecond = Annotated[float, Range(1e-6, 1e8)]
Tera = Annotated[float, Range(1e-6, 1e9)]  # 10^12 operations per second
Giga = Annotated[float, Range(1e-6, 1e12)]  # 10^9 operations per second
Watts = Annotated[float, Range(1e-3, 1e7)]
USD = Annotated[float, Range(0, 1e9)]

# Shares, factors and sizes without a unit.
Share = Annotated[float, Range(0, 1)]
ShareBelowOne = Annotated[float, Range(0, 1, below=True)]
PositiveShare = Annotated[float, Range(1e-6, 1)]
Factor = Annotated[float, Range(1e-6, 1e6)]
FactorOrZero = Annotated[float, Range(0, 1e6)]
FactorFromOne = Annotated[float, Range(1, 1e6)]
Weight = Annotated[float, Range(0, 1e12)]
Exponent = Annotated[float, Range(0, 100)]
Variation = Annotated[float, Range(1e-3, 100)]  # a coefficient of variation; draws degenerate beyond
VariationOrZero = Annotated[float, Range(0, 100)]
Size = Annotated[float, Range(0, 1e12)]  # tokens that need not be whole, or a time in the unit of its key
Vectors = Annotated[float, Range(1, 1e15)]
ClientsOrShare = Annotated[float, Range(1e-6, 100_000)]  # a share below 1, a number of clients from 1
Billions = Annotated[float, Range(1e-6, 1e6)]
BillionsOrZero = Annotated[float, Range(0, 1e6)]
