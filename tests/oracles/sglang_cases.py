"""From a recorded case of SGLang's scheduler to the naive simulator that can run it."""

from __future__ import annotations

from typing import Any

from oracles.sglang_scheduler import Request, Settings, SGLangScheduler


def oracle_of(case: dict[str, Any]) -> SGLangScheduler:
    """Return the naive simulator of a case: requests with every token's content."""
    ids: dict[tuple[Any, ...], int] = {}

    def token(*of: Any) -> int:
        return ids.setdefault(of, len(ids))

    requests: list[Request] = []
    for number, row in enumerate(case["requests"]):
        total = row["prompt"] + row["output"]
        if row.get("after") is not None:
            before = requests[row["after"]].content
            content = before + [token("own", number, place) for place in range(len(before), total)]
        else:
            shared = row["shared"]
            content = [
                token("family", row["family"], place) if place < shared else token("own", number, place)
                for place in range(total)
            ]
        requests.append(
            Request(
                number,
                row["arrival_us"],
                row["prompt"],
                row["output"],
                row["max_new_tokens"],
                row["ignore_eos"],
                content[:total],
            )
        )
    chunk = case["chunked_prefill_size"]
    settings = Settings(
        case["max_running_requests"],
        case["max_prefill_tokens"],
        None if chunk < 0 else chunk,
        case["page_size"],
        case["max_total_num_tokens"],
        case["schedule_policy"],
        case["schedule_conservativeness"],
        case["mixed_chunk"],
        case["radix_cache"],
        case["overlap"],
        **case["cost"],
        scheduler_recv_interval=case.get("scheduler_recv_interval", 1),
    )
    return SGLangScheduler(settings, requests)
