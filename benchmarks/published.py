"""Published single figures beside what the simulator says: the runs behind docs/known_misses.md."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np

import hermes_flow as hf
from benchmarks import silicon
from benchmarks.silicon_engines import with_flashinfer
from hermes_flow.config.schema import Config, EngineOverhead, Hardware
from hermes_flow.cost import cost_models
from hermes_flow.cost.model import Deployment
from hermes_flow.program.step_cost import StepCost

LLM = "cluster.pools.llm"
LOOP = ("pipeline=llm", "slo=none", "workload=closed_loop")
SPECULATION = f"{LLM}.speculative"
# Stages of a published load ladder: requests per second and seconds. Each begins when the one before is done.
LADDER = (
    *((3, 20), (10, 20), (15, 20), (20, 38), (22, 34), (25, 30), (30, 25), (35, 21)),
    *((40, 38), (43, 36), (46, 33), (49, 30), (52, 29), (55, 27), (57, 26), (60, 25)),
)
WARM_UP, PAUSE_S = (15, 50), 350


@dataclass(frozen=True, slots=True)
class Figure:
    """One published figure: what it is, where it stands, its value and ours in one unit."""

    what: str
    source: str
    metric: str
    unit: str
    measured: float
    simulated: float

    @property
    def error(self) -> float:
        """(simulated − measured) / measured, in percent."""
        return 100.0 * (self.simulated / self.measured - 1.0)


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage of the ladder, measured or simulated: output tokens per second, TTFT in seconds, TPOT in ms."""

    rate: int
    requests: int
    tokens_per_s: float
    ttft_s: float
    tpot_ms: float


def run(*overrides: str) -> hf.Result:
    """Return the result of one configuration."""
    return hf.simulate(hf.compile(hf.compose([*overrides])))


def users(count: int, prompt: int | str, answer: int | str, requests: int) -> tuple[str, ...]:
    """Return the overrides of a closed loop of users with fixed lengths, or with distributions of them."""
    return (
        *LOOP,
        f"workload.arrivals.concurrency={count}",
        f"workload.input_tokens={prompt}",
        f"workload.output_tokens={answer}",
        f"workload.requests={requests}",
    )


def ms(result: hf.Result, metric: str) -> float:
    """Return the mean of a latency in milliseconds."""
    return 1e3 * float(result.summary[f"{metric}_s"]["mean"])


def eagle() -> list[Figure]:
    """Return the gains of EAGLE on Llama-3-8B at batch 1."""
    base = (*users(1, 366, 1000, 2), "model=llama3_8b", "hardware=h100_sxm", "model.sampling.sorted=false")
    plain = ms(run(*base), "tpot")
    found = []
    for tokens, length, gain in ((2, 1.89, 1.36), (4, 2.08, 1.28)):
        head = (f"{SPECULATION}.head=eagle", f"{SPECULATION}.tokens={tokens}")
        drafted = ms(run(*base, *head, f"{SPECULATION}.acceptance_length={length}"), "tpot")
        what = f"EAGLE, Llama-3-8B, one H100, one user, {tokens} drafted tokens"
        found.append(Figure(what, "vLLM, pull request 16035", "gain", "", gain, plain / drafted))
    return found


@dataclass(frozen=True, slots=True)
class ServedOnAMD:
    """A published run on MI300X: a closed loop of users with fixed lengths, and its mean TTFT and TPOT in ms."""

    what: str
    source: str
    engine: str
    model: str
    users: int
    answer: int
    requests: int
    tpot_ms: float
    ttft_ms: float
    overrides: tuple[str, ...] = ()

    def simulated(self) -> tuple[float, float]:
        """Return our TTFT and TPOT in ms."""
        load = users(self.users, self.answer, self.answer, self.requests)
        chosen = ("hardware=mi300x", f"engine={self.engine}", f"model={self.model}")
        result = run(*load, *chosen, "model.sampling.sorted=false", *self.overrides)
        return ms(result, "ttft"), ms(result, "tpot")


def amd_runs() -> list[ServedOnAMD]:
    """Return the published runs on MI300X: two dense models on vLLM, and a mixture on SGLang."""
    found = [
        ServedOnAMD(
            *("Ministral-3-8B, one MI300X, 32 users", "vLLM recipes, pull request 443", "vllm", "llama3_8b"),
            *(32, 1024, 100, 11.88, 618.96),
            ("model.layers=34", "model.vocab_size=131072"),
        ),
        ServedOnAMD(
            *("Qwen3Guard-8B, one MI300X, 32 users", "vLLM recipes, pull request 431", "vllm", "qwen3_8b"),
            *(32, 1024, 100, 9.42, 645.02),
        ),
    ]
    for devices, load, tpot, ttft in (
        *((2, 1, 14.94, 210.0), (2, 16, 31.80, 167.0)),
        *((4, 64, 42.48, 419.0), (4, 256, 71.72, 337.0)),
    ):
        own = (
            f"{LLM}.tensor_parallel={devices}",
            f"{LLM}.expert_parallel=true",
            "model.precision.kv_cache=fp8",
        )
        what = f"MiniMax-M2.7, {devices} MI300X, {load} user{'s' if load > 1 else ''}"
        found.append(
            ServedOnAMD(
                *(what, "sglang, pull request 31044", "sglang", "minimax_m2_5", load, 1000),
                *(max(8, 2 * load), tpot, ttft),
                own,
            )
        )
    return found


def amd() -> list[Figure]:
    """Return the TPOT of the published runs on MI300X."""
    return [
        Figure(each.what, each.source, "TPOT", "ms", each.tpot_ms, each.simulated()[1]) for each in amd_runs()
    ]


def a100(*overrides: str) -> Figure:
    """Return Qwen3-14B on an A100 with one user: the mean over seven shapes, which scatter from 22.8 to 29.1 ms."""
    shapes = ((128, 128), (128, 1024), (1024, 128), (2048, 128), (3072, 128), (4096, 128), (8192, 128))
    measured = (24.3, 28.2, 28.9, 27.6, 29.1, 22.8, 28.3)
    chosen = ("model=qwen3_14b", "hardware=a100_sxm", *overrides)
    simulated = [ms(run(*users(1, prompt, answer, 2), *chosen), "tpot") for prompt, answer in shapes]
    return Figure(
        "Qwen3-14B, one A100, one user, mean of seven shapes" + (" (40 GB)" if overrides else ""),
        "tt-inference-server, issue 340",
        *("TPOT", "ms"),
        float(np.mean(measured)),
        float(np.mean(simulated)),
    )


def two_nodes() -> Figure:
    """Return DeepSeek-R1 with TP16 on two nodes of H100 with one user."""
    result = run(
        *users(1, 128, 128, 4), "model=deepseek_v3", "hardware=h100_sxm", f"{LLM}.tensor_parallel=16"
    )
    what = "DeepSeek-R1, TP16 on two nodes of eight H100, one user"
    return Figure(what, "tt-inference-server, issue 356 (SGLang)", "TPOT", "ms", 23.1, ms(result, "tpot"))


def reasoning(seed: int) -> tuple[float, float]:
    """Return the mean and the p99 of TTFT in ms of a reasoning load on one H100, with the arrivals of a seed.

    That is run 46 of vLLM 0.15: 4,800 requests in 20 minutes, 100 prompts in turn, at most 128 sequences.
    The 1,034 tokens of a prompt are 1,083 as Llama 3 counts them (benchmarks/measured_runs.py).
    """
    result = run(
        *(
            "pipeline=llm",
            "slo=none",
            "workload=synthetic",
            "model=llama3_8b",
            "hardware=h100_sxm",
            f"seed={seed}",
        ),
        *("workload.requests=4800", "workload.rate_per_s=4", "workload.arrivals=poisson_fixed_count"),
        "+workload.repeated_prompts={prefixes: 10, per_prefix: 10, prefix_tokens: 100}",
        *("workload.input_tokens=983", "workload.output_tokens=1448"),
        *(f"{LLM}.max_num_seqs=128", f"{LLM}.max_num_batched_tokens=2048", f"{LLM}.prefix_cache=true"),
    )
    return ms(result, "ttft"), 1e3 * float(result.summary["ttft_s"]["p99"])


def ladder(
    model: str, devices: int, clients: int, question: int, answer: int, routing: str, *overrides: str
) -> list[Stage]:
    """Return the stages of llm-d's benchmark of routing: 150 beginnings of 6,000 tokens with five prompts each."""
    stages = [WARM_UP, (0, PAUSE_S)]
    for stage in LADDER:
        stages += [stage, (0, PAUSE_S)]
    text = ", ".join(f"{{rate_per_s: {rate}, duration_s: {seconds}}}" for rate, seconds in stages)
    result = run(
        *("pipeline=llm", "slo=none", "workload=synthetic", "hardware=h100_sxm", f"model={model}"),
        f"{LLM}.tensor_parallel={devices}",
        f"{LLM}.count={clients}",
        f"cluster.routing={routing}",
        f"workload.arrivals={{process: stages, stages: [{text}]}}",
        *("workload.requests=1000000", "workload.rate_per_s=null"),
        f"workload.input_tokens={question}",
        f"workload.output_tokens={answer}",
        "+workload.repeated_prompts={prefixes: 150, per_prefix: 5, prefix_tokens: 6000}",
        *overrides,
    )
    return list(_stages(result))


def _stages(result: hf.Result) -> Iterable[Stage]:
    columns = ("arrival_s", "finish_s", "output_tokens", "ttft_s", "tpot_s")
    arrival, finish, tokens, ttft, tpot = (result.requests[name].to_numpy() for name in columns)
    start = float(WARM_UP[1] + PAUSE_S)
    for rate, seconds in LADDER:
        own = (arrival >= start) & (arrival < start + seconds)
        yield Stage(
            rate,
            int(own.sum()),
            float(tokens[own].sum() / (finish[own].max() - start)),
            float(ttft[own].mean()),
            float(1e3 * tpot[own].mean()),
        )
        start += seconds + PAUSE_S


# source: srt-slurm, pull request 210 (SGLang): output tokens per second, and means in seconds. Its sa-bench draws
# prompts and answers of 80 to 100 % of these lengths: 1,280 requests took 585.3 s, so answers have 920 tokens
MEASURED_PAIR = {"output tokens/s": 2012.18, "TTFT": 9.321, "E2E": 56.303}
PAIR_USERS, PAIR_PROMPT, PAIR_ANSWER = 128, 8192, 1024
PAIR_TOKENS = MEASURED_PAIR["output tokens/s"] * 585.3 / (10 * PAIR_USERS)  # of an answer, on average
MEASURED_PAIR_TPOT_S = (MEASURED_PAIR["E2E"] - MEASURED_PAIR["TTFT"]) / (PAIR_TOKENS - 1)


def wide_pair() -> tuple[str, ...]:
    """Return the overrides of DeepSeek on B200 with one prefill and one decode client of eight devices each.

    The settings are those of the recipe of this layout (srt-slurm, recipes/b200-fp8/8k1k/stp/max-tpt-dep8-1p1d.yaml):
    SGLang divides chunked-prefill-size 131,072 and max-running-requests among the eight ranks of attention. The
    recipe switches DeepGEMM off, and SGLang's own choice on Blackwell is FlashInfer's products then.
    """
    chosen = [
        *users(PAIR_USERS, _drawn(PAIR_PROMPT), _drawn(PAIR_ANSWER), 10 * PAIR_USERS),
        "cluster=disaggregated",
        "engine=sglang",
        "model=deepseek_v3",
        "hardware=b200_sxm",
    ]
    for pool, seats in (("prefill", 2), ("decode", 128)):
        key = f"cluster.pools.{pool}"
        chosen += [f"{key}.count=1", f"{key}.tensor_parallel=1", f"{key}.data_parallel=8"]
        chosen += [
            f"{key}.expert_parallel=true",
            f"{key}.max_num_seqs={seats}",
            f"{key}.memory_utilization=0.6",
            f"{key}.hardware.engine.kernels={_flashinfer()}",
        ]
    prompts = ("max_prefill_tokens", "chunked_prefill_size")
    chosen += [f"cluster.pools.prefill.{name}=16384" for name in prompts]
    return (*chosen, "model.precision.kv_cache=fp8", "model.sampling.sorted=false")


@cache
def _flashinfer() -> str:
    hardware = with_flashinfer(hf.compose(["engine=sglang", "hardware=b200_sxm"]).hardware)
    assert hardware.engine is not None
    assert hardware.engine.kernels is not None
    fit = hardware.engine.kernels.gemm["fp8"]
    figures = (
        f"compute: {fit.compute}, memory: {fit.memory}, launch_us: {fit.launch_us}, quantize: {fit.quantize}"
    )
    return f"{{source: FlashInfer as measured by SGLang, gemm: {{fp8: {{{figures}}}}}}}"


def _drawn(length: int) -> str:
    """Return the lengths that sa-bench draws where so many tokens are stated."""
    return f"{{distribution: uniform, min: {int(silicon.SHORTEST * length)}, max: {length}}}"


def step_parts(sequences: int, context: int) -> list[tuple[str, float]]:
    """Return the parts of a decode step of that decode client in ms, for so many sequences of ``context`` tokens."""
    config = hf.compose([*wide_pair()])
    whole = _step(config, lambda hardware: hardware)
    no_engine = _step(config, _without_engine)
    no_exchange = _step(config, _without_exchange)

    def at(cost: StepCost) -> float:
        return cost.step_ps([], sequences, sequences * context) / 1e9

    each = -(-sequences // 8)
    read = (whole.decode_attention_ps[each] + whole.context_ps * sequences * context) / 1e9
    experts, head = no_exchange.experts_ps[sequences] / 1e9, whole.sequences_ps[each] / 1e9
    engine, exchange = at(whole) - at(no_engine), at(whole) - at(no_exchange)
    rest = at(whole) - read - experts - head - engine - exchange
    return [
        ("attention over the context", read),
        ("routed experts", experts),
        ("exchange between experts, out and back", exchange),
        ("projections of attention, dense layers, shared experts, router", rest),
        ("output head and sampler", head),
        ("the engine's time for each layer and layer of experts (fitted on H100)", engine),
    ]


@cache
def _roofline() -> Any:
    config = hf.compose([])
    return cost_models.parse(config.cost, "cost")


def _step(config: Config, change: Callable[[Hardware], Hardware]) -> StepCost:
    pool: Any = config.cluster.pools["decode"]
    shape = Deployment(
        key="cluster.pools.decode",
        model=config.model,
        hardware=change(pool.hardware),
        tensor_parallel=1,
        max_tokens=8192,
        max_sequences=256,
        data_parallel=pool.data_parallel,
        expert_parallel=True,
    )
    cost: StepCost = _roofline().lower(shape)
    return cost


def _without_engine(hardware: Hardware) -> Hardware:
    engine = hardware.engine
    assert isinstance(engine, EngineOverhead)
    return replace(hardware, engine=replace(engine, layer_us=0.0, experts_us=0.0))


def _without_exchange(hardware: Hardware) -> Hardware:
    assert hardware.efficiency is not None
    reduces = {
        devices: replace(fit, alpha_us=0.0, one_shot=None)
        for devices, fit in hardware.efficiency.all_reduce.items()
    }
    gathers = {devices: replace(fit, alpha_us=0.0) for devices, fit in hardware.efficiency.gather.items()}
    efficiency = replace(hardware.efficiency, all_reduce=reduces, gather=gathers)
    return replace(hardware, scale_up_gb_s=1e8, efficiency=efficiency)
