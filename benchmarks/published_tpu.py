"""Published figures of LLMs on TPUs beside what the simulator says; nothing of a TPU is fitted to anything."""

from __future__ import annotations

from benchmarks.published import LLM, Figure, ms, run, users

_V6E = "pytorch/xla, pull request 9376"
_V7 = "tpu-inference, pull request 3050"
# Users, tokens of a prompt, and the median time per token in ms, on four chips with experts spread over them
_MIXTURE = ((4, 1024, 13.1), (16, 1024, 14.9), (32, 8192, 23.9), (256, 8192, 75.4))

TPU = """
## TPUs

Nothing of a TPU was measured kernel by kernel, and no power. The predictions have the mean efficiencies of NVIDIA's
accelerators, and of the engine the times of an H100's host. All-reduces use the links that a slice of the torus
has. Times per token are 24 to 37 % too short: those of a dense model on one v6e (vLLM of June 2025 on PyTorch/XLA,
steps of 512 tokens), and of a mixture on four v7, with few users as with many. The engine compiles its steps for a
few sizes (16, 32, 64 tokens and so on) and fills them up. This is not modelled, and how much of the difference it
explains is not known. No published run separates the engine from the kernels, so TPUs have no engine of their own
here. Error bars on TPUs are those of accelerators of makers that were not measured ([error bars](error_bars.md)),
and hold these figures. The energy of TPUs is not known, so they never take part in a ranking by energy
([energy](energy.md)).
"""


def tpus() -> list[Figure]:
    """Return the published runs on TPU v6e (a dense model) and v7 (a mixture with layers that keep a state)."""
    steps = (f"{LLM}.max_num_batched_tokens=512", f"{LLM}.max_num_seqs=512", f"{LLM}.memory_utilization=0.9")
    plain = "model.sampling.sorted=false"
    dense = run(*users(1000, 1799, 121, 1000), "model=llama3_8b", "hardware=tpu_v6e", plain, *steps)
    what = "Llama-3.1-8B, one TPU v6e, 1,000 requests at once"
    rate = float(dense.summary["throughput"]["requests_per_s"])
    found = [
        Figure(what, _V6E, "TPOT", "ms", 32.89, ms(dense, "tpot")),
        Figure(what, _V6E, "requests/s", "", 7.89, rate),
    ]
    narrow = [f"model.precision.{name}=fp8" for name in ("weights", "activations")]
    apart = (f"{LLM}.data_parallel=4", f"{LLM}.expert_parallel=true")
    for count, prompt, tpot in _MIXTURE:
        load = users(count, prompt, 1024, 3 * count)
        mixture = run(*load, "model=qwen3_5_397b_a17b", "hardware=tpu_v7", plain, *narrow, *apart)
        found.append(
            Figure(
                f"Qwen3.5-397B-A17B in fp8, 4 TPU v7, {count} users, prompts of {prompt:,}",
                *(_V7, "median TPOT", "ms", tpot),
                1e3 * float(mixture.summary["tpot_s"]["p50"]),
            )
        )
    return found
