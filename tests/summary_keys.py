"""The first parts of summary.json, and the keys of each."""

from __future__ import annotations

SUMMARY_KEYS: dict[str, set[str]] = {
    "requests": {"submitted", "completed", "failed"},
    "ttft_s": {"mean", "p50", "p90", "p99"},
    "tpot_s": {"mean", "p50", "p90", "p99"},
    "itl_s": {"mean", "p50", "p90", "p99"},
    "e2e_s": {"mean", "p50", "p90", "p99"},
    "throughput": {"requests_per_s", "output_tokens_per_s", "answer_tokens_per_s", "steady"},
}
