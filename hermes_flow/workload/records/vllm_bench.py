"""The results of ``vllm bench serve --save-result --save-detailed``: a JSON document, or lines of such.

https://docs.vllm.ai/en/latest/cli/bench/serve.html
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hermes_flow.workload.records.bench_serve import bench_run, has_lists, is_sglang
from hermes_flow.workload.records.record_format import Record, Run, Source, record_formats


@record_formats.register("vllm_bench")
class VLLMBench:
    """vLLM's serving benchmark: requests at their start times, or by the users of ``max_concurrency``."""

    @staticmethod
    def fits(value: Any) -> bool:
        """Return whether it is a result of vLLM's benchmark."""
        return has_lists(value) and not is_sglang(value)

    @staticmethod
    def runs(records: Sequence[Record], source: Source) -> list[Run]:
        """Return a run per result."""
        return [bench_run(record, source, "--save-result --save-detailed") for record in records]
