"""Checks the answer of a plan by brute force: ``python -m benchmarks.plan_check``.

The question is that of the README: Llama-3.1-70B, conversations at 12 requests/s, p99 TTFT 2 s, p90 TPOT 50 ms, five
kinds of GPUs. First ``hf.plan`` answers it. Then every design of a grid that costs less is simulated to its end: five
GPUs, TP 1 to 8, 1 to 16 replicas with chunked prefill, and 1 to 16 clients in all with prefill : decode from 1:3 to
3:1. The plan is right if no cheaper design of the grid meets the SLO, or none that is more than 2 % cheaper. The
output is kept in docs/plan.md.
"""

from __future__ import annotations

import sys
import textwrap
import time
from collections.abc import Iterator

import hermes_flow as hf
from hermes_flow.config.schema import Hardware
from hermes_flow.errors import CompileError
from hermes_flow.planning.designs import Clients, Family, Layout, design_config
from hermes_flow.planning.plan import Design, priced
from hermes_flow.planning.processes import cores
from hermes_flow.planning.verdict import judge

QUESTION = (
    "model=llama3_70b",
    "workload.rate_per_s=12",
    "slo={name: service, ttft_ms: {p99: 2000}, tpot_ms: {p90: 50}}",
)
GPUS = ("h100_sxm", "a100_sxm", "h200_sxm", "l40s", "b200_sxm")
TENSOR_PARALLEL = (1, 2, 4, 8)
MOST_CLIENTS = 16
MOST_RATIO = 3
_CLOSE = 0.02


def main() -> int:
    """Plan, try every cheaper design, and print both; returns 1 if a design is more than 2 % cheaper."""
    config = hf.compose(QUESTION)
    gpus = [hf.compose([f"hardware={name}"]).hardware for name in GPUS]
    began, cpu = time.monotonic(), time.process_time()
    settings = {"tensor_parallel": TENSOR_PARALLEL, "most_clients": MOST_CLIENTS, "processes": cores()}
    found = hf.plan(config, gpus, **settings)
    best = found.best
    assert best is not None
    price = best.usd_per_hour
    assert price is not None
    planned = f"{time.monotonic() - began:.0f} s, {time.process_time() - cpu:.0f} CPU s of this process"
    print(f"plan: {_words(best)} at ${price:.2f} per hour ({planned})", flush=True)
    if best.sizes is not None:
        low, high = (best.price_of(clients) or float("inf") for clients in (best.sizes.low, best.sizes.high))
        alike = ", ".join(_words(design) for design in found.ranked if design.like_the_best)
        said = f"error bar: ${low:.2f} to ${high:.2f}; not distinguishable from it: {alike or 'none'}"
        print(textwrap.fill(said, 110, subsequent_indent="  ", break_on_hyphens=False), flush=True)
    began, cpu = time.monotonic(), time.process_time()
    tried = unfit = 0
    cheaper: list[tuple[float, str]] = []
    for family, clients in grid(config, gpus):
        cost = family.price_of(clients) or 0.0
        if cost >= price * 0.9995:
            continue
        try:
            verdict = judge(hf.compile(design_config(config, family, clients)), early=False)
        except CompileError:
            unfit += 1
            continue
        tried += 1
        if verdict.met and verdict.sustained is not False:
            cheaper.append((cost, f"{family.hardware.name} TP{family.tensor_parallel} {clients}"))
            print(f"cheaper: {cheaper[-1]}", flush=True)
    took = f"{time.monotonic() - began:.0f} s, {time.process_time() - cpu:.0f} CPU s"
    print(f"brute force: {tried} cheaper designs simulated, {unfit} do not fit ({took})")
    least = min((cost for cost, _ in cheaper), default=price)
    print(
        f"the cheapest of the grid that meets the SLO costs ${least:.2f} per hour: {price / least - 1:.1%} less"
    )
    return int(price / least - 1 > _CLOSE)


def grid(config: hf.Config, gpus: list[Hardware]) -> Iterator[tuple[Family, Clients]]:
    """Yield every design of the grid."""
    layouts: tuple[Layout, ...] = ("replicas", "disaggregated")
    pool = config.cluster.pools["llm"]
    for machine in gpus:
        for tensor in TENSOR_PARALLEL:
            for layout in layouts:
                budget = getattr(pool, "max_num_batched_tokens")  # noqa: B009
                family = Family(priced(machine, config), layout, tensor, 1, "chunked", budget)
                for prefill in range(1, MOST_CLIENTS + 1):
                    if layout == "replicas":
                        yield family, Clients(prefill)
                        continue
                    for decode in range(1, MOST_CLIENTS + 1 - prefill):
                        if max(prefill, decode) <= MOST_RATIO * min(prefill, decode):
                            yield family, Clients(prefill, decode)


def _words(design: Design) -> str:
    clients, family = design.sized.clients, design.family
    return f"{family.hardware.name} TP{family.tensor_parallel} {family.layout} {clients}"


if __name__ == "__main__":
    sys.exit(main())
