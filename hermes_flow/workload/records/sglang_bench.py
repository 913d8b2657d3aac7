"""The results of SGLang's ``bench_serving --output-details``: JSON lines, one run each.

https://docs.sglang.ai/developer_guide/bench_serving.html
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hermes_flow.workload.records.bench_serve import bench_run, has_lists, is_sglang
from hermes_flow.workload.records.record_format import Record, Run, Source, record_formats


@record_formats.register("sglang_bench")
class SGLangBench:
    """SGLang's serving benchmark: arrivals are drawn again at the rate of the run, or users wait for answers."""

    @staticmethod
    def fits(value: Any) -> bool:
        """Return whether it is a result of SGLang's benchmark."""
        return has_lists(value) and is_sglang(value)

    @staticmethod
    def runs(records: Sequence[Record], source: Source) -> list[Run]:
        """Return a run per line."""
        return [bench_run(record, source, "--output-details") for record in records]
