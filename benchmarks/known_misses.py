"""Writes docs/known_misses.md: published figures that the simulator misses or missed, each with what is behind it.

``python -m benchmarks.known_misses [--check]``, about half a minute. With ``--check`` nothing is written, and the
exit status is 1 where the page is not what the simulator says today.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence

from benchmarks import published
from benchmarks.known_misses_text import (
    AFFINITY,
    AMD,
    GPT_OSS,
    INTRODUCTION,
    ONE_USER,
    SPECULATION,
    TAILS,
    TWO_NODES,
    WIDE_PAIR,
)
from benchmarks.processes import ROOT
from benchmarks.published import MEASURED_PAIR, MEASURED_PAIR_TPOT_S, Figure, Stage
from benchmarks.published_tpu import TPU, tpus
from benchmarks.wrapping import wrapped

PAGE = ROOT / "docs" / "known_misses.md"
SMALL_MEMORY = ("hardware.memory_gb=40", "hardware.usable_gb=null", "hardware.bandwidth_gb_s=1555")
# Published stages of the ladder: output tokens per second and mean TTFT in seconds, by rate. llm-d,
# guides/optimized-baseline: README.md (Qwen3-32B on eight clients of two H100) and
# benchmark-results/vllm-gpt-oss-120b-h100 (sixteen clients of one)
ROUND_ROBIN = {
    3: (1797, 0.415),
    10: (4215, 0.630),
    15: (5381, 0.881),
    20: (6205, 18.103),
    22: (5517, 20.171),
    25: (5965, 21.842),
    30: (5702, 24.597),
    35: (5890, 24.162),
    40: (6336, 68.673),
    43: (6588, 72.429),
    46: (6459, 70.084),
    49: (6265, 70.659),
    52: (6303, 74.326),
    55: (6290, 72.564),
    57: (6089, 72.329),
    60: (6551, 75.586),
}
AFFINE = {
    3: (1777, 0.133),
    10: (5066, 0.125),
    15: (7053, 0.122),
    20: (11688, 0.174),
    22: (12436, 0.116),
    25: (12501, 0.116),
    30: (13862, 0.117),
    35: (14026, 0.117),
    40: (16041, 0.153),
    43: (16339, 0.254),
    46: (16665, 0.154),
    49: (16126, 0.151),
    52: (16474, 0.152),
    55: (16854, 0.153),
    57: (16641, 0.153),
    60: (17064, 0.154),
}
OPEN_WEIGHTS = {
    3: (1160, 0.176),
    10: (4836, 0.180),
    15: (6986, 0.184),
    20: (9077, 0.243),
    22: (9346, 0.245),
    25: (10579, 0.263),
    30: (12211, 0.285),
    35: (11861, 0.598),
    40: (13889, 2.588),
    43: (14089, 2.664),
    46: (14603, 3.545),
    49: (14562, 4.727),
    52: (15158, 5.238),
    55: (14644, 5.735),
    57: (15330, 5.630),
    60: (13234, 7.194),
}
SEEDS = range(9)
SHOWN = (3, 15, 30, 40, 60)
# Sequences of that pair that decode at a time (47 of 56.3 s of 128 users), and their tokens: prompts of 7,387 tokens,
# as its total tokens per second say, and half an answer
DECODING, CONTEXT = 107, 7847
# DeepEP/docs/legacy.md of version 2: dispatch and combine of 128 tokens on eight H800, in each of 58 layers
EXCHANGE_MS = (77 + 114) * 58 / 1000


def main() -> None:
    """Simulate everything, then write the page or compare with it."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--check", action="store_true", help="compare with the page, write nothing")
    options = parser.parse_args()
    text = page()
    if not options.check:
        PAGE.write_text(text, encoding="utf-8")
        print(f"Written to {PAGE}")
    elif PAGE.read_text(encoding="utf-8") != text:
        sys.exit("docs/known_misses.md is old; python -m benchmarks.known_misses writes it anew")


def page() -> str:
    """Return the page."""
    robin = published.ladder("qwen3_32b", 2, 8, 1200, 1000, "round_robin")
    affine = published.ladder("qwen3_32b", 2, 8, 1200, 1000, "prefix_affinity")
    # The size of its KV cache says that it had the limits of vLLM's server
    server = ("engine.server_limits=by_gpu", f"{published.LLM}.memory_utilization=0.95")
    open_weights = published.ladder("gpt_oss_120b", 1, 16, 500, 500, "round_robin", *server)
    eagle, amd, nodes = published.eagle(), published.amd(), published.two_nodes()
    one_user = [published.a100(), published.a100(*SMALL_MEMORY)]
    name = "llm-d, Qwen3-32B on eight clients of two H100"
    source = "llm-d, guides/optimized-baseline"
    ladders = [
        Figure(f"{name}, prefix affinity", source, "ITL", "ms", 47.0, _mean_tpot(affine)),
        Figure(f"{name}, round robin", source, "ITL", "ms", 44.0, _mean_tpot(robin)),
        Figure(
            "llm-d, gpt-oss-120b on sixteen H100, round robin",
            *(source, "ITL", "ms", 20.94),
            _mean_tpot(open_weights),
        ),
    ]
    pair = _pair_figures()
    sections = [
        INTRODUCTION,
        figures([*ladders, *amd, *tpus(), *one_user, nodes, *eagle, *pair]),
        AFFINITY,
        _ladder_table((("round robin", ROUND_ROBIN, robin), ("prefix affinity", AFFINE, affine))),
        GPT_OSS,
        _ladder_table((("round robin", OPEN_WEIGHTS, open_weights),)),
        AMD,
        TPU,
        ONE_USER,
        TWO_NODES,
        SPECULATION,
        WIDE_PAIR,
        _parts(),
        TAILS,
        _draws(),
    ]
    return "\n".join(wrapped(section.strip("\n")) + "\n" for section in sections)


def figures(rows: Iterable[Figure]) -> str:
    """Return the table of figures."""
    lines = [row_of(row) for row in rows]
    return "\n".join(
        ["| what | source | figure | published | simulated | error |", "|---|---|---|---|---|---|", *lines]
    )


def row_of(row: Figure) -> str:
    """Return the line of one figure."""
    unit = f" {row.unit}" if row.unit else ""
    values = (f"{_number(value)}{unit}" for value in (row.measured, row.simulated))
    error = f"{row.error:+.0f} %".replace("-", "−")
    return f"| {' | '.join((row.what, row.source, row.metric, *values, error))} |"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _mean_tpot(stages: Sequence[Stage]) -> float:
    return sum(stage.tpot_ms for stage in stages) / len(stages)


def _ladder_table(runs: Sequence[tuple[str, dict[int, tuple[float, float]], Sequence[Stage]]]) -> str:
    lines = [
        "| routing | requests/s | tokens/s published | simulated | TTFT published | simulated | TPOT simulated |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, measured, simulated in runs:
        for stage in simulated:
            if stage.rate not in SHOWN:
                continue
            tokens, ttft = measured[stage.rate]
            cells = (
                name,
                str(stage.rate),
                f"{tokens:,.0f}",
                f"{stage.tokens_per_s:,.0f}",
                f"{ttft:.2f} s",
                f"{stage.ttft_s:.2f} s",
                f"{stage.tpot_ms:.0f} ms",
            )
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _pair_figures() -> list[Figure]:
    result = published.run(*published.wide_pair())
    summary = result.summary
    simulated = {
        "output tokens/s": float(summary["throughput"]["output_tokens_per_s"]),
        "TTFT": float(summary["ttft_s"]["mean"]),
        "E2E": float(summary["e2e_s"]["mean"]),
    }
    return [
        Figure(
            "DeepSeek on B200, prefill and decode on eight each, 128 users",
            *("srt-slurm, pull request 210 (SGLang)", metric, "" if "tokens" in metric else "s"),
            measured,
            simulated[metric],
        )
        for metric, measured in MEASURED_PAIR.items()
    ]


def _draws() -> str:
    """Return TTFT of the reasoning load by seed, beside what was measured once."""
    lines = ["| arrivals | mean TTFT | p99 of TTFT |", "|---|---|---|"]
    for seed in SEEDS:
        mean, p99 = published.reasoning(seed)
        lines.append(f"| seed {seed} | {mean:.0f} ms | {p99:,.0f} ms |")
    return "\n".join([*lines, "| measured | 50 ms | 67 ms |"])


def _parts() -> str:
    """Return the parts of a decode step of the pair, each with the most that anything published says."""
    parts = published.step_parts(DECODING, CONTEXT)
    measured = 1e3 * MEASURED_PAIR_TPOT_S
    bounds = {
        "exchange between experts, out and back": (EXCHANGE_MS, "DeepEP's times on eight H800"),
    }
    lines = ["| part of a step | simulated | at most | why |", "|---|---|---|---|"]
    most = 0.0
    for name, value in parts:
        bound, why = bounds.get(name, (value, ""))
        most += bound
        lines.append(f"| {name} | {value:.1f} ms | {bound:.1f} ms | {why} |")
    total = sum(value for _, value in parts)
    lines.append(f"| **step** | {total:.1f} ms | {most:.1f} ms | |")
    lines.append(f"| measured time per token | {measured:.1f} ms | {measured:.1f} ms | |")
    lines.append(f"| **not explained** | {measured - total:.1f} ms | {measured - most:.1f} ms | |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
