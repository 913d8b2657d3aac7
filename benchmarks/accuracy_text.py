"""What docs/accuracy.md says around its tables; figures in braces are filled in by benchmarks/accuracy.py."""

from __future__ import annotations

INTRODUCTION = """
# How accurate is it?

Every comparison with measured serving runs that we have, the worst first. Errors are (simulated − measured) /
measured; a *mean size* is the mean of their absolute values, a *bias* the mean with its sign. `nox -s validate`
fails if this page is not what the simulator says; `python -m benchmarks.accuracy` writes it anew, and none of
it by hand. For runs of your own: [validate](validate.md). Where the constants come from: [cost](cost.md).

All runs are replayed with the catalog's constants: one set per accelerator, none per run (but for two rows that
say so, which no mean counts). Fitted to serving
runs are the H100's engine and its decode attention (to the 20 runs of vLLM 0.15 below) and one figure of the
RTX PRO 6000s' host. Nothing is fitted to any of the other benchmark runs; but that
other GPUs take the H100's engine was decided on seeing those of H200 and B200.
"""

WEAK = """
## Where it is weakest

- **Mixtures of experts on vLLM at small batches.** With up to 8 users TPOT is {small} off on average, with more than
  32 {large}: what an engine adds to a layer of experts (routing, sorting tokens, casts by blocks) is not known, and
  the rows on H100 and H200 were run with CUDA graphs of pieces, between which the host launches kernels.
- **Time to first token where the engine holds prompts back.** TensorRT-LLM was told to wait up to 20 steps for
  a fuller batch in {waits_rows} rows on H200 (prompts and answers of 1,024 tokens, below TP8): TTFT is {waits}
  off there, and {rest} in the other rows of that system. SGLang was told to look for new requests every 10 to
  30 steps on B200: TTFT is {polls} off (median). Neither is modelled.
- **Engines differ on the same GPU.** On H200, with one set of constants, Llama-3.1-70B in fp8 has a TPOT that
  is {h200_trt} off on TensorRT-LLM and {h200_vllm} on vLLM: the catalog's figures lie between the two.
- **KV that only just fits.** Whether requests queue turns on a few GB that engines, releases and flags divide
  in their own ways; TTFT is then off by a factor, and TPOT less.
- **Prefill and decode apart.** Llama-3.1-70B with one prefill and one decode client of four H100s: TPOT
  {apart_tpot}, TTFT {apart_ttft}; the same requests on one client of four: TPOT {together_tpot}, TTFT
  {together_ttft}. Engine settings of these two runs are not recorded; three figures fitted to them (an engine that
  plans when a step is over, 1.2 ms more a step, 16.5 ms in which each client hands a prompt's KV over) meet all six.
- **Tails.** The p99 of TTFT of the 20 runs on H100 is {tail} off on average, {tail_worst} at worst.
- **Not compared at all**: fp4, prompts beyond 8,192 tokens, more than 8
  devices, speculative decoding, accelerators other than H100, H200, B200, RTX 4090 and RTX PRO 6000.
"""

RUNS = """
## 20 runs of vLLM 0.15 on H100

Nine models of 7 to 109 billion parameters on one to four GPUs, 1,200 to 16,800 requests each. Eight are known
request by request; of twelve there are statistics, and arrivals are drawn four times. The engine's constants
are fitted to the mean TPOT of these runs. The last column is the median error of single requests.
"""

OTHER_FITS = """
## Other systems

vLLM 0.19 on RTX 4090 and RTX PRO 6000, 300 requests of ShareGPT each, from measured tables of their layers
(`cost=kernels`), the 4090 saturated; and Llama-3.1-70B on H100 in two layouts, of which three figures each are
known. Latencies count from the arrival at the client; the predictions of LLMServingSim, whose runs these are,
may count from elsewhere.
"""

SILICON = {
    "introduction": """
## {total} benchmark runs of vLLM, TensorRT-LLM and SGLang

AIConfigurator (Apache-2.0) collects runs with one mean TTFT and one TPOT each. Most are InferenceMAX's, whose
scripts are public: so many users in a closed loop, ten requests each, all at once at the start; lengths drawn between
80 and 100 % of those stated; no prefix cache. All runs are simulated in that way, with each engine's own way of
batching (vLLM: `chunked`; TensorRT-LLM: `mixed`, whole prompts beside decodes; SGLang: `continuous`, prefill first),
and for InferenceMAX's rows with the limits, the share of memory and the precision of the KV that the scripts set
(`benchmarks/silicon_settings.py`). {compared} rows are compared, {left_out} are not, for the reasons at the end.

TTFT counts from the first wave on, in which all users ask at once. Its mean size is dominated by the few rows
in which requests queue for KV: see the medians.
""",
    "published": """
**Rows whose method is published**, the worst TPOT first:
""",
    "others": """
**The other rows.** Engine settings and the way of measuring are not recorded, nor whether lengths vary.
Simulated like the rows above:
""",
    "as_stated": """
The same rows with all lengths exactly as stated: users who begin together then stay in step. SGLang's rows on H100
are met so, others are not. How lengths varied is the largest unknown of TTFT here.
""",
    "left_out": """
**Not compared**:
""",
}

MODELS_LEFT_OUT = """
## Models that were left out of the fit

Time per layer, wait of all-reduces and bandwidth of decode attention of the H100, fitted anew to the dense runs
above without one model at a time (least squares of the relative errors of mean TPOT), and that model's runs
simulated with them. So far off is a model that nobody measured, on a GPU that somebody did. Mean sizes of
errors of means; "none" is the fit to all.
"""

GPU_LEFT_OUT = """
## GPUs that were left out

The same with a GPU's own measurements taken away: its kernels' efficiencies are the mean of the other measured
GPUs, its engine the one that all take, which was fitted on H100. That is what `efficiency: null` gives a GPU of
your own, of which only the datasheet is known.
"""
