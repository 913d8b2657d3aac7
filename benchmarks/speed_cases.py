"""The loads of docs/speed.md, and the bounds that the project has set itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.cases import LARGEST, REQUEST_LISTS, SETTINGS, Case, drawn_load
from benchmarks.contended_reads import SETTINGS as CONTENDED
from benchmarks.contended_reads import STORES_PER_MEMORY

EIGHT = "cluster.pools.llm.count=8"
SYNTHETIC = ("workload=synthetic", "workload.requests=5000", "workload.rate_per_s=8", EIGHT)
REQUESTS = (10_000, 100_000, 1_000_000)
STREAMED = 10_000_000
CLIENTS = (1, 8, 64, 1000)
STAGES = (0, 1, 2, 4, 8)
READS = (1750, 3500, 7000)
CACHED = "cluster.pools.llm.prefix_cache=true"
UNCACHED = "cluster.pools.llm.prefix_cache=false"


@dataclass(frozen=True, slots=True)
class Load:
    """One run: the section of the page that it belongs to, its name there, and its overrides.

    A load that is ``large`` runs once, the others several times. ``compiled`` loads also run on the compiled core.
    """

    section: str
    name: str
    overrides: tuple[str, ...]
    large: bool = False
    compiled: bool = False


def loads(data: Path) -> list[Load]:
    """Return all loads; ``data`` has the request lists and, beside them, Mooncake's trace, if they are there."""
    return [*_pipelines(data), *_prefixes(data.parent / "mooncake"), *_curves(), *_contended(), *_lists(data)]


def _pipelines(data: Path) -> list[Load]:
    (largest,) = (entry.case(data) for entry in REQUEST_LISTS if entry.name == LARGEST)
    common = [text for text in largest.all_overrides if not text.startswith("pipeline=")]
    long = [Load("pipelines", name, (f"pipeline={name}", *common), compiled=True) for name in ("llm", "chat")]
    others = ("chat_guarded", "rag", "kv_reuse", "reasoning_multi", "agent")
    return long + [
        Load("pipelines", name, (f"pipeline={name}", *SYNTHETIC), compiled=True) for name in others
    ]


def _prefixes(folder: Path) -> list[Load]:
    sessions = ("pipeline=llm", "workload=sessions", "workload.sessions=1000", "workload.turns=8", EIGHT)
    found = {"sessions of 8 turns": sessions, "agent": ("pipeline=agent", *SYNTHETIC)}
    trace = folder / "conversation_trace.jsonl"
    if trace.is_file():
        roomy = ("model=llama3_70b", "cluster.pools.llm.tensor_parallel=4", EIGHT)
        read = (
            "pipeline=llm",
            "workload=trace",
            "workload.format=mooncake",
            f"workload.path='{trace.resolve()}'",
        )
        for size in (16, 512):
            name = f"Mooncake conversations, blocks of {size}"
            found[name] = (*read, *roomy, f"cluster.pools.llm.block_size={size}")
    return [
        Load("prefix caches", f"{name}, {words}", (*overrides, setting), compiled=True)
        for name, overrides in found.items()
        for words, setting in (("with", CACHED), ("without", UNCACHED))
    ]


def _curves() -> list[Load]:
    by_requests = [
        Load(
            "requests",
            f"{pipeline}, {count:,} requests",
            (f"pipeline={pipeline}", *SETTINGS[:2], EIGHT, *drawn_load(count, 80, "poisson")),
            large=count >= 1_000_000,
        )
        for pipeline in ("llm", "chat")
        for count in REQUESTS
    ]
    streamed = Load(
        "requests",
        f"chat, {STREAMED:,} requests, streamed",
        (
            *("pipeline=chat", *SETTINGS[:2], EIGHT, *drawn_load(STREAMED, 80, "poisson")),
            "output.stream_requests=100000",
        ),
        large=True,
    )
    by_clients = [
        Load(
            "clients",
            f"{routing}, {count:,} clients",
            (*SETTINGS, f"cluster.pools.llm.count={count}", f"cluster.routing={routing}", *_spread(count)),
        )
        for routing in ("round_robin", "least_requests")
        for count in CLIENTS
    ]
    by_stages = [
        Load("stages", f"{count} stages before the LLM", (_chain(count), *SETTINGS[:2], EIGHT, *_spread(8)))
        for count in STAGES
    ]
    return [*by_requests, streamed, *by_clients, *by_stages]


def _spread(clients: int) -> tuple[str, ...]:
    """Return 20,000 requests, ten a second for each client."""
    return drawn_load(20_000, 10 * clients, "poisson")


def _chain(count: int) -> str:
    """Return a pipeline with ``count`` stages of the host, one after the other, before prefill and decode."""
    stages = [f"t{index}: {{kind: tokenize, after: [{_before(index)}]}}" for index in range(count)]
    stages += [
        f"prefill: {{kind: prefill, after: [{_before(count)}]}}",
        "decode: {kind: decode, after: [prefill]}",
    ]
    return f"pipeline={{name: chain, stages: {{{', '.join(stages)}}}}}"


def _before(index: int) -> str:
    return f"t{index - 1}" if index else ""


def _contended() -> list[Load]:
    shared = f"cluster.pools.store.tiers.rack.shared_by={STORES_PER_MEMORY['C']}"
    return [
        Load("contended reads", f"{count:,} reads", (*CONTENDED, shared, f"workload.requests={count}"))
        for count in READS
    ]


def _lists(data: Path) -> list[Load]:
    cases: list[Case] = [entry.case(data) for entry in REQUEST_LISTS]
    return [Load("lists", case.name, case.all_overrides) for case in cases]


Figures = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True, slots=True)
class Bound:
    """A bound: what is bounded, in which unit, and how it is read from the figures (None if it was not measured)."""

    what: str
    limit: float
    unit: str
    reached: Callable[[Figures], float | None]


def multiple(name: str, figure: str = "simulate_us") -> Callable[[Figures], float | None]:
    """Return a reader of a load's time a request as a multiple of the yardstick."""

    def read(figures: Figures) -> float | None:
        entry = figures.get(name, {})
        return entry[figure] / entry["yardstick_us"] if figure in entry else None

    return read


def _figure(name: str, figure: str) -> Callable[[Figures], float | None]:
    return lambda figures: figures.get(name, {}).get(figure)


def _ratio(figure: str, over: str, under: str) -> Callable[[Figures], float | None]:
    def read(figures: Figures) -> float | None:
        pair = [figures.get(name, {}).get(figure) for name in (over, under)]
        return None if pair[0] is None or not pair[1] else pair[0] / pair[1]

    return read


def _tables(figures: Figures) -> float | None:
    found = figures.get("chat", {})
    return found["tables_us"] / found["simulate_us"] if found else None


BOUNDS = (
    Bound("`pipeline=llm`", 6, "×", multiple("llm")),
    Bound("`pipeline=chat`", 11, "×", multiple("chat")),
    Bound("`pipeline=rag`", 17, "×", multiple("rag")),
    Bound("`pipeline=chat_guarded`", 17, "×", multiple("chat_guarded")),
    Bound("`pipeline=kv_reuse`", 17, "×", multiple("kv_reuse")),
    Bound("`pipeline=agent`, with a prefix cache", 60, "×", multiple("agent, with")),
    Bound(
        "Mooncake conversations, with a prefix cache in blocks of 16",
        50,
        "×",
        multiple("Mooncake conversations, blocks of 16, with"),
    ),
    Bound("compiled core, `pipeline=llm`", 2, "×", multiple("llm", "compiled_us")),
    Bound("compiled core, `pipeline=chat`", 4, "×", multiple("chat", "compiled_us")),
    Bound("7,000 contended reads of 128 stores", 1.5, "CPU s", _figure("7,000 reads", "simulate_s")),
    Bound(
        "time of 7,000 contended reads against that of 3,500",
        2.2,
        "×",
        _ratio("simulate_s", "7,000 reads", "3,500 reads"),
    ),
    Bound("all tables on top of `simulate()`, chat", 0.25, "of it", _tables),
    Bound(
        "peak memory, 1,000,000 requests of chat", 1200, "MB", _figure("chat, 1,000,000 requests", "peak_mb")
    ),
    Bound(
        "peak memory, 10,000,000 requests of chat, streamed",
        2000,
        "MB",
        _figure(f"chat, {STREAMED:,} requests, streamed", "peak_mb"),
    ),
    Bound(
        "cost a request, 1,000,000 against 10,000 requests of llm",
        1.2,
        "×",
        _ratio("total_us", "llm, 1,000,000 requests", "llm, 10,000 requests"),
    ),
    Bound(
        "cost a request, 1,000 against 8 clients, least_requests",
        1.5,
        "×",
        _ratio("simulate_us", "least_requests, 1,000 clients", "least_requests, 8 clients"),
    ),
    Bound("`hermes-flow --help`", 0.7, "× bare imports", _figure("start-up", "help")),
    Bound("`hermes-flow`, the default job", 1.6, "× bare imports", _figure("start-up", "default_job")),
    Bound("a job of a sweep besides its own work", 0.10, "CPU s", _figure("start-up", "job_overhead_s")),
    Bound("8 tiny jobs, launcher joblib against basic", 1.0, "× wall time", _figure("start-up", "joblib")),
)
