"""The results of LLMServingSim: a CSV file with a row per finished request, all times in ns.

https://github.com/casys-kaist/LLMServingSim, docs/docs/simulator/reading-output.md: input, output, arrival, end_time,
latency, queuing_delay, TTFT, TPOT, ITL.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hermes_flow.workload.records.fields import required_whole
from hermes_flow.workload.records.record_format import Record, Row, Run, Source, record_formats

_NAMES = {"input", "output", "arrival", "latency", "TTFT"}


@record_formats.register("llmservingsim_log")
class LLMServingSimLog:
    """LLMServingSim's results: requests at their arrival, with their latency and the time to the first token."""

    @staticmethod
    def fits(value: Any) -> bool:
        """Return whether it is the header of such results."""
        return isinstance(value, dict) and set(value) >= _NAMES

    @staticmethod
    def runs(records: Sequence[Record], source: Source) -> list[Run]:
        """Return the one run of the file."""
        rows = []
        for number, record in enumerate(records, 2):
            value = record.value
            cells = {
                name: required_whole(value[name], name, int(name in ("input", "output")), source, number)
                for name in sorted(_NAMES)
            }
            rows.append(
                Row(
                    cells["input"],
                    cells["output"],
                    cells["arrival"],
                    ttft_ns=cells["TTFT"],
                    e2e_ns=cells["latency"],
                    line=number,
                )
            )
        return [Run(rows)]
