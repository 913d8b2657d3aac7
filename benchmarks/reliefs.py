"""Tests verdicts by intervention: ``python -m benchmarks.reliefs [CONFIGURATIONS] [--first SEED]``.

For random configurations that miss their SLO, the verdict names the resource behind the missed bound. Then every
resource of every pool is relieved in turn (one more client, twice the KV memory, twice the seats, twice or half the
token budget, links twice as fast), and the whole run is simulated again. The verdict is right if no other relief
improves the missed bound by more. A configuration that no relief improves by 5 % is left out.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np

import hermes_flow as hf
from hermes_flow.config.schema import SLO
from hermes_flow.errors import HermesFlowError
from hermes_flow.pools.memory.schema import MemoryPool
from hermes_flow.program.pools import LLMClientSpec

_TIE = 0.01  # two reliefs whose improvements differ by less of the bound's value are equal
_LEAST = 0.05
_SPEED = {"h100_sxm": 1.0, "a100_sxm": 0.55, "l40s": 0.3}


@dataclass(frozen=True, slots=True)
class Tried:
    """One configuration: the named relief, and by which share each relief improves the missed bound."""

    seed: int
    overrides: tuple[str, ...]
    bound: str
    named: tuple[str | None, str] | None
    improvements: dict[tuple[str | None, str], float]

    @property
    def best(self) -> tuple[str | None, str]:
        """The relief that improves the bound most."""
        return max(self.improvements, key=lambda name: self.improvements[name])

    @property
    def right(self) -> bool:
        """Whether no other relief improves the bound by more than the named one."""
        if self.named is None:
            return False
        return self.improvements[self.named] >= self.improvements[self.best] - _TIE


def main() -> int:
    """Try random configurations and print a line for each; returns 1 if fewer than 9 of 10 verdicts are right."""
    parser = argparse.ArgumentParser(prog="benchmarks.reliefs", description=__doc__)
    parser.add_argument("configurations", nargs="?", type=int, default=50)
    parser.add_argument("--first", type=int, default=0, help="the seed of the first configuration")
    options = parser.parse_args()
    right = number = 0
    for tried in tries(options.configurations, options.first):
        number += 1
        right += tried.right
        named = "none" if tried.named is None else _words(tried.named, tried.improvements)
        print(
            f"{tried.seed:>4} {'right' if tried.right else 'WRONG':<6} {tried.bound:<12} named {named:<28} "
            f"best {_words(tried.best, tried.improvements)}",
            flush=True,
        )
        if not tried.right:
            print("      ", " ".join(tried.overrides), flush=True)
    print(f"{right} of {number} verdicts are right")
    return int(right < 0.9 * number)


def tries(count: int, first: int = 0) -> Iterator[Tried]:
    """Yield ``count`` configurations that some relief improves, from seed ``first`` on."""
    seed, found = first, 0
    while found < count:
        tried = attempt(seed)
        seed += 1
        if tried is not None:
            found += 1
            yield tried


def attempt(seed: int) -> Tried | None:
    """Return one random configuration with all its reliefs; None where it cannot run or none improves it."""
    rng = np.random.default_rng(seed)
    overrides = random_overrides(rng)
    metric = str(rng.choice(["ttft", "tpot", "e2e"], p=[0.5, 0.3, 0.2]))
    try:
        config = hf.compose([*overrides, "slo=none"])
        value_s = hf.simulate(hf.compile(config)).summary[f"{metric}_s"]["p90"]
        limit_ms = 1e3 * value_s * float(rng.uniform(0.4, 0.8))
        config = replace(config, slo=replace(SLO("tight"), **{f"{metric}_ms": {"p90": limit_ms}}))
        program = hf.compile(config)
        summary = hf.simulate(program).summary
    except HermesFlowError:
        return None
    before = summary["slo"]["bounds"][f"{metric}_p90_s"]["value_s"]
    improvements = {}
    for name, changed in reliefs(config, program):
        after = hf.simulate(hf.compile(changed)).summary[f"{metric}_s"]["p90"]
        improvements[name] = 1 - after / before
    if max(improvements.values()) < _LEAST:
        return None
    resource = summary["why"]["resource"]
    named = None if resource is None else (resource["pool"], resource["name"])
    return Tried(seed, tuple(overrides), f"{metric} p90", named, improvements)


def reliefs(config: hf.Config, program: hf.Program) -> Iterator[tuple[tuple[str | None, str], hf.Config]]:
    """Yield every relief of a configuration by pool and resource; the network has no pool."""
    for pool in program.pools:
        own = cast(Any, config.cluster.pools[pool.name])
        yield (pool.name, "clients"), _with_pool(config, pool.name, count=own.count + 1)
        spec = pool.client
        if isinstance(own, MemoryPool):
            tiers = {
                name: replace(tier, bandwidth_gb_s=2 * tier.bandwidth_gb_s)
                for name, tier in own.tiers.items()
            }
            yield (pool.name, "tiers"), _with_pool(config, pool.name, tiers=tiers)
        if not isinstance(spec, LLMClientSpec):
            continue
        for name, keys in (
            ("kv_memory", {"kv_blocks": 2 * spec.kv_blocks}),
            ("seats", {"max_num_seqs": 2 * spec.max_num_seqs}),
            ("larger_budget", {"max_num_batched_tokens": 2 * spec.max_num_batched_tokens}),
            (
                "smaller_budget",
                {"max_num_batched_tokens": max(spec.max_num_batched_tokens // 2, spec.max_num_seqs)},
            ),
        ):
            yield (pool.name, name), _with_pool(config, pool.name, **keys)
    if program.network is not None:
        pools = {name: _with_links(pool) for name, pool in config.cluster.pools.items()}
        yield (None, "network"), replace(config, cluster=replace(config.cluster, pools=pools))


def _with_pool(config: hf.Config, name: str, **keys: Any) -> hf.Config:
    pools = {**config.cluster.pools, name: replace(cast(Any, config.cluster.pools[name]), **keys)}
    return replace(config, cluster=replace(config.cluster, pools=pools))


def _with_links(pool: Any) -> Any:
    if not hasattr(pool, "hardware") or pool.hardware is None:
        return pool
    rates = {
        key: 2 * getattr(pool.hardware, key)
        for key in ("scale_up_gb_s", "network_gb_s", "host_link_gb_s")
        if getattr(pool.hardware, key) is not None
    }
    return replace(pool, hardware=replace(pool.hardware, **rates))


def random_overrides(rng: np.random.Generator) -> list[str]:
    """Return a random deployment and its load."""

    def one(*values: Any) -> Any:
        return values[int(rng.integers(len(values)))]

    layout = str(rng.choice(["replicas", "disaggregated", "rag"], p=[0.55, 0.3, 0.15]))
    hardware = one(*_SPEED)
    texts = [
        f"hardware={hardware}",
        "workload=azure_conv",
        "workload.requests=300",
        f"seed={rng.integers(1000)}",
    ]
    speed = _SPEED[hardware]
    if layout == "disaggregated":
        prefill, decode = int(one(1, 2, 3)), int(one(1, 2, 3))
        texts += [
            "pipeline=llm",
            "cluster=disaggregated",
            f"hardware.scale_up_gb_s={rng.choice([0.3, 1, 4, 200])}",
        ]
        texts += [f"cluster.pools.prefill.count={prefill}", f"cluster.pools.decode.count={decode}"]
        texts += _limits("decode", one)
        return [*texts, f"workload.rate_per_s={speed * rng.uniform(3, 25) * min(prefill, decode):.2f}"]
    count = int(one(1, 2, 3, 4))
    if layout == "rag":
        texts += [
            "pipeline=rag",
            f"cluster.pools.retrieval.count={one(1, 2)}",
            f"cluster.pools.llm.count={count}",
        ]
        return [*texts, f"workload.rate_per_s={rng.uniform(0.5, 5):.2f}"]
    texts += ["pipeline=llm", f"cluster.pools.llm.count={count}", "cluster.routing=least_requests"]
    texts += [f"cluster.pools.llm.batching={one('chunked', 'chunked', 'continuous')}", *_limits("llm", one)]
    return [*texts, f"workload.rate_per_s={speed * rng.uniform(4, 30) * count:.2f}"]


def _limits(pool: str, one: Any) -> list[str]:
    key = f"cluster.pools.{pool}"
    return [
        f"{key}.kv_blocks={one('null', 600, 1200, 2500, 5000)}",
        f"{key}.max_num_seqs={one(8, 16, 32, 64, 256)}",
        f"{key}.max_num_batched_tokens={one(512, 1024, 2048, 8192)}",
    ]


def _words(name: tuple[str | None, str], improvements: dict[tuple[str | None, str], float]) -> str:
    pool, resource = name
    shown = resource if pool is None else f"{pool} {resource}"
    return f"{shown} {100 * improvements.get(name, float('nan')):+.0f} %"


if __name__ == "__main__":
    sys.exit(main())
