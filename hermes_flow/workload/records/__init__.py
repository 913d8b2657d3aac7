"""Files of JSON records: benchmark logs, agentic workloads, conversations. Each module is one format."""

from __future__ import annotations

from hermes_flow.workload.records.open_table import open_table
from hermes_flow.workload.records.record_format import record_formats
from hermes_flow.workload.records.table import RecordTable

__all__ = ["RecordTable", "open_table", "record_formats"]
