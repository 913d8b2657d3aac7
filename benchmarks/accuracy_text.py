"""What docs/accuracy.md says around its tables; figures in braces are filled in by benchmarks/accuracy.py."""

from __future__ import annotations

INTRODUCTION = """
# How accurate is it?

This page has every comparison with measured serving runs that we have, the worst first. An error is (simulated −
measured) / measured. A *mean size* is the mean of the absolute values of errors, and a *bias* is the mean with its
sign. `python -m benchmarks.accuracy` writes the whole page, and `nox -s validate` fails if the page is not what the
simulator gives today. [Validate](validate.md) compares runs of your own, and [cost](cost.md) explains where the
constants come from.

All runs are replayed with the constants of the catalog. There is one set per accelerator and engine and none per run.
(Two rows are exceptions; they say so, and no mean counts them.) These constants are fitted to serving runs: the
engine and the decode attention of the H100 (to the 27 runs of vLLM 0.15 below), and one constant of the host of the
RTX PRO 6000s. Three things are fitted to the other benchmark runs: the launches of prompts in layers of experts
(first tokens of 134 runs of SGLang and TensorRT-LLM and of 62 of vLLM, nearly all with prompts of 1,024 tokens),
those in dense layers with TensorRT-LLM on B200 (20 runs of Llama-3.1-70B, which are compared with vLLM's in place of
them), and the rate of norms and activations of vLLM on B200 (first tokens of 64 runs with prompts of 8,192 tokens).
The rows of these runs have what is fitted without the row's model. TensorRT-LLM's own kernels are fitted to operator
tables and to no run. Launches of gpt-oss with TensorRT-LLM, where it is left out, are vLLM's times those of a dense
layer relative to vLLM, which was chosen after a look at its errors. Four decisions were made after a look at the runs
of H200 and B200: other GPUs have the engine of the H100, all-reduces of large messages wait longer on B200, and with
TensorRT-LLM on H100 and H200 as well, experts in Triton have launches of their own with vLLM, and SGLang up to 0.5.9
has the measured step of its all-reduces for Qwen3.5.
"""

HEADLINE = """
## In short

Mean sizes of the errors of means, for what was left out of the fit before what was fitted. Nearly all prompts of
these runs begin with a prefix that the cache holds.
"""

COMPUTED = """
Prompts of the other benchmark runs are computed in full. The launches of layers of experts, and vLLM's norms and
activations on B200, are fitted to such runs; here they are those that are fitted to the other models. (The last
table of this page has launches as fitted to the other GPU.) These are medians of the sizes of the errors where the
method of a run is published. Those of B300 come first. It has the constants of B200, whose architecture it shares,
but for large products and attention over prompts, whose kernels were measured on both GPUs, and its hosts launch
kernels by their clock (`hardware.launching`). None of its runs
was looked at before they were first simulated. Three things were done after a look at them: that its hosts may be
faster was looked for; 14 runs of DeepSeek with SGLang have the products that their script asks for and prompts as
long as the server read them; and six runs of Qwen3.5 are compared no more, because they have the layout of a
configuration that drafts tokens. Before the last two, TPOT of SGLang's runs was 12.5 % off, and TTFT 36.4 %. Other
changes of that day are in it, too.
"""

NOT_FITTED = """
## Runs on GPUs that nothing was fitted to

Three runs of vLLM 0.15 on A100 and L40S, of which there are only statistics. Their kernels are measured operator by
operator, and their engine is the one that was fitted on H100. How long the L40S sorts was chosen after a look at its
run, and that decodes beside a prompt take longer there (`tiled_decodes`) was looked for after a look at the first
tokens of all three. The figures of both are from elsewhere: the H100, and tables of kernels on two RTX GPUs.
"""

WEAK = """
## Where it is weakest

- **Mixtures of experts on vLLM.** With up to 8 users TPOT is {small} off on average, and with more
  than 32 users {large}. The kernels of experts are measured one by one. Settings of the day
  matter more than releases: MiniMax-M2.5 with 64 users on two B200 took 26.6 ms a token in March 2026, with its
  experts whole and its KV in bf16, and three weeks later 22.3 ms with experts that are cut and KV in fp8.
- **Long prompts on vLLM.** TTFT of prompts of 8,192 tokens is {long_b200} off for mixtures on B200 and {long_hopper}
  on H100 and H200 (medians). On B200 that of Llama-3.1-70B is {prompts_vllm} off with vLLM, and {prompts_trt} with
  TensorRT-LLM. vLLM's script asked for norms and casts in kernels of their own. A rate for the bytes of such kernels,
  fitted to the runs of other models, is in these figures; without it the first of them is −7.5 %. It is lower than
  such kernels alone should reach, so it holds something else as well. Part of that was the tokenizer, which hands on
  prompts together: since it is simulated so, the rate is 0.36 of the bandwidth and no longer 0.3.
- **Prompts of 1,024 tokens on B200.** TTFT of Llama-3.1-70B on vLLM is {short_four} off with 4 and 8 devices, and
  {short_two} with 1 and 2 (medians). Its script captured CUDA graphs for decodes only, and fused norms with
  all-reduces. The host then takes about 1 ms to launch a layer, where 0.7 ms are simulated.
- **Kernels that were measured for other shapes.** vLLM ran gpt-oss-120b on H100 and H200 with Marlin's kernels for
  experts in mxfp4, which were measured with 896 experts of another model. TTFT of prompts of 8,192 tokens is {marlin}
  off there. (With the fit to Triton's kernels it was −44.6 %.) The more devices share a prompt the more is missing.
  It is {triton} off on TensorRT-LLM, which uses Triton's.
- **Experts in nvfp4.** The fit to TensorRT-LLM's measured kernels is 25 % off, that to vLLM's 13 % and that to
  SGLang's on B200 17 %. Where experts are cut over 8 devices, vLLM's was 15 to 35 % too fast with 64 to 2,048 tokens
  (medians). Factors by the rows of an expert are in it since. Between 12 and 48 rows it is 18 % off with them, where
  a shape is left out of their fit.
- **Engines differ where steps are short.** On B200 the TPOT of gpt-oss-120b is {oss_vllm} off on vLLM and {oss_trt}
  on TensorRT-LLM. A third of their steps of 2 to 5 ms is the time of small kernels in each layer. TensorRT-LLM has
  fewer of them than vLLM, and starts each of them before the one before it has ended.
- **Kernels of experts on TensorRT-LLM.** A script chooses them, and the runs have them as measured, but for
  TensorRT-LLM's own in fp8, of which only vLLM's calls were. The TPOT of DeepSeek in fp8 on B200 is {deepgemm} off
  with DeepGEMM's kernels (2025) and {own_experts} with TensorRT-LLM's own (2026). That of gpt-oss-120b on H200, with
  Triton's, is {oss_triton} off ([engines](engines.md)).
- **Layers that keep a state.** The TPOT of Qwen3.5-397B-A17B on SGLang is {qwen} off, and its TTFT {qwen_ttft}
  (median). On this page its prompts have the launches of the other models, because no other measured model
  has the delta rule, whose kernels SGLang launches for longer. Its decodes have the small kernels that were counted
  in the code of SGLang, those of older releases as well ([cost](cost.md)). None of them is fitted.
- **Sparse attention.** The TPOT of GLM-5 on SGLang is {glm_b200} off on B200 and {glm_h200} on H200.
- **Time to first token where the engine delays prompts.** The scripts let TensorRT-LLM wait for a fuller step in
  {waits_rows} rows of Llama-3.1-70B on H200: TTFT is {waits} off there, and {rest} in the other rows of that system.
  (Before this wait was simulated it was −55 %.) Where ranks of attention wait until each of them has a prompt, it is
  {balance} off ({balance_rows} rows; before −60 %). SGLang looks for new requests after 10 to 30 steps on B200:
  there TTFT of DeepSeek is {polls} off (median; before −66 %), and on H200, where it looks before each step, it is
  {h200_sglang} off.
- **Servers that were not warmed up.** Until January 2026 InferenceMAX measured the first requests of a new server.
  SGLang compiles kernels at first use, so {cold_rows} of its runs on B200 are not compared. In fp4 their mean TTFT
  is 5 to 12 s where the first prompts filled a step of 16,384 tokens. With ten requests for each user this means that
  the first of them waited 50 to 90 s; later runs with the same settings have means of 0.4 to 2.7 s. Simulated like
  the others, these runs are {cold_ttft} off for TTFT and {cold_tpot} for TPOT (medians).
- **DeepSeek in fp8 on TensorRT-LLM.** On H200, {unwarmed_rows} runs with prompts of 1,024 tokens from before 27
  January 2026 are {unwarmed_ttft} off for TTFT (median) and {unwarmed_tpot} for TPOT. Their prompts cannot take as
  much longer in every step: with steps that leave TTFT 16 % too short, TPOT is 13 % too long. So the first users
  alone must have waited, for some seconds. DeepGEMM compiles a kernel when it first meets a size
  (deepseek-ai/DeepGEMM, issue 89), and these servers were not warmed up. Means of the same setting on two days
  differ up to twofold in TTFT, and by 3 % in TPOT. These runs are compared all the same. On B200,
  {long_deepgemm_rows} runs of 2025 with prompts of 8,192 tokens and DeepGEMM's experts are {long_deepgemm_ttft} off
  for TTFT (median). There steps do take longer: with at least 4.5 ms a layer TTFT is 4 % off and TPOT 2 %, and in
  operator tables of a release of 2026 the kernels of a layer take 2 ms. Which kernels took longer in the older
  release is not known.
- **Engines differ on the same GPU.** On H200 the TPOT of Llama-3.1-70B in fp8 is {h200_trt} off on TensorRT-LLM and
  {h200_vllm} on vLLM. (With vLLM's kernels it was +15.5 % on TensorRT-LLM, which reads KV in fp8 faster.)
- **KV that hardly fits.** A few GB of memory decide whether requests queue, and engines, releases and flags divide
  these GB differently. TTFT can then be wrong by a factor; the error of TPOT is smaller.
- **Separate pools for prefill and decode.** Llama-3.1-70B was measured with one prefill and one decode client of
  four H100: the errors are {apart_tpot} for TPOT and {apart_ttft} for TTFT. For the same requests on one client of
  four they are {together_tpot} and {together_ttft}, and on two clients {two_tpot} and {two_ttft}. Until November
  2026 this page compared the pair with the figures of one client, and one client with those of two, because a
  description of the data had other names for them than the study. Nothing is fitted to their means. Logs in the
  repository of the study, of other GPUs and models, are of vLLM 0.11.1 and 0.13 of December 2025, which did not
  look ahead by default and could not with a KV connector (`lookahead: 0`), and they have `--enforce-eager`. The
  runs on H100 had it, too: where one sequence is left, a token takes 20.0 ms, and as long with Mixtral-8x7B, whose
  step is much shorter. So each layer takes at least 231 µs here (`hardware.engine.eager`), which is that lone token
  less the plan and the sampler. The decode client emits the first token, as with all proxies of vLLM, and looks
  once a step whether KV has arrived, as its connectors do (`cluster.kv_notice`). What the connector takes is not
  recorded. In the last 15 s of the run, in which no prompt comes, a token takes 1 ms longer than on one client.
  While prompts come, it takes 4 to 5 ms longer, which is about 15 ms for each prompt whose KV the client takes
  over. With the 0.6 ms that vLLM's NIXL connector takes of a step the errors are about −22 % for TPOT and −1 % for
  TTFT, with its 3 ms of 2025 −20 % and +5 %, and with the 2.9 ms of its connector that copies layer by layer
  (P2pNcclConnector, two launches for each layer) −20 % and −12 %. With 15 ms on both clients they would be −9 % and
  +40 %. So the time is the decode client's alone, and nothing published explains it. The catalog's default is a
  connector that takes nothing (`cluster.kv_handover_us`).
- **Tails.** The p99 of TTFT of the 27 runs on H100 is {tail} off on average, and {tail_worst} at worst. For the
  {runs_known} of them whose arrivals are known it is {tail_known} off on average. Those of the {runs_drawn}
  others are drawn {draws} times as their load generator draws them, and the page has the median of the draws.
  What was measured is one draw, too: at nearly full load its p99 may be longer or shorter by factors
  ([why](known_misses.md)). In {tail_sure} of these {runs_drawn} runs the draws differ by less than a tenth of
  their median, so that the error is the simulator's. The measured p99 lies between the shortest and the longest
  of the draws in {tail_within} of them.
- **Compared with single figures only.** Speculative decoding, more than 8 devices and MI300X are on the page [known
  misses](known_misses.md). Other runs with prefill and decode apart are in the [error bars](error_bars.md) alone.
- **Not compared at all.** There are no comparisons for prompts above 8,192 tokens, Mamba layers, and accelerators
  that are not named on this page.
"""

RUNS = """
## 27 runs of vLLM 0.15 on H100

The runs have twelve models of 7 to 141 billion parameters on one to eight GPUs, and 1,200 to 16,800 requests each.
Eight runs are known request by request. For the others there are only statistics, and arrivals are drawn nine times,
as the load generator draws them. Each of their figures is the median over the draws, because the measured run is one
draw, too: where one draw in three has a burst that fills the engine, the mean over draws is that of the bursts.
The constants of the engine are fitted to the mean TPOT of these runs. The last column is the median error of single
requests.
"""

OTHER_FITS = """
## Other systems

The first runs are vLLM 0.19 on RTX 4090 and RTX PRO 6000 with 300 requests of ShareGPT each. They are simulated from
measured tables of their layers (`cost=kernels`), and the 4090 is saturated. The others are Llama-3.1-70B on H100 in
three layouts, with three known values each. Latencies count from the arrival at the client. The predictions of
LLMServingSim, which published these runs, may count from another time.
"""

SILICON = {
    "introduction": """
## {total} benchmark runs of vLLM, TensorRT-LLM and SGLang

AIConfigurator (Apache-2.0) collects runs with one mean TTFT and one TPOT each. Most are InferenceMAX's, whose scripts
are public. In these runs a number of users in a closed loop have ten requests each, and all of them begin at the same
time. Lengths are drawn between 80 and 100 % of the stated ones, and there is no prefix cache. All runs are simulated
in this way. InferenceMAX's users ask with a temperature of 0, so no engine sorts logits. Servers tokenize prompts
before the engine sees them (`benchmarks/silicon_tokenizers.py`): those of SGLang, of vLLM since 0.16 and of
TensorRT-LLM before 1.2 one by one, so that prompts which arrive together wait for each other, and the others five at
once (`benchmarks/silicon_settings.py`, with the sources). The scripts of Qwen3.5 ask SGLang for six workers. vLLM
gathers up to 32 prompts for 2 ms and gives its engine none of them before the last one is tokenized. A token takes
1.55 µs, as the stage `tokenize` was measured. InferenceMAX's prompts are entries of the vocabulary and no text; each
of their tokens takes 3 µs, as measured for such prompts. The rest of the time between arrival and scheduler is that
of the engine. SGLang and
TensorRT-LLM have their own schedulers ([engines](engines.md); not TensorRT-LLM for models with layers that keep a
state), and vLLM has `chunked` batching. InferenceMAX's rows have the limits, the share of memory and the precision of
the KV that the scripts set (`benchmarks/silicon_settings.py`), the waits for more requests
(`benchmarks/silicon_engines.py`), and checkpoints the parts that they leave in 16 bits
(`benchmarks/silicon_checkpoints.py`). Some of these rows state their devices as products
(`benchmarks/silicon_layouts.py`), and others drafted tokens, which the collection does not say
(`benchmarks/silicon_drafting.py`). Prompts of DeepSeek on B300 with SGLang have five times the stated tokens, because
the client of these runs had another tokenizer than the server. Rows with prefill and decode apart are in the [error
bars](error_bars.md) alone, where their layout is known (`benchmarks/silicon_apart_layouts.py`). {compared} rows are
compared. {left_out} rows are not, for the reasons at the end.

TTFT includes the first wave, in which all users ask at once. A few rows in which requests queue for KV dominate its
mean size, so look at the medians.
""",
    "unfitted": """
**Runs on B300, which nothing was fitted to.** It has its own datasheet, and the kernels and launches of B200 (those
that are fitted without the row's model), but for large products and attention over prompts. Its scripts are those of
B200 but for one:
""",
    "published": """
**Rows whose method is published**, the worst TPOT first:
""",
    "others": """
**The other rows.** Engine settings and the way of measuring are not recorded, nor whether lengths vary.
They are simulated like the rows above:
""",
    "as_stated": """
This table has the same rows with all lengths exactly as stated. Users who begin together then stay in step. SGLang's
rows on H100 agree with this, and others do not. The variation of lengths is the largest unknown of TTFT here.
""",
    "left_out": """
**Not compared**:
""",
}

MODELS_LEFT_OUT = """
## Models and sizes that were left out of the fit

Time per layer and per layer of experts, wait of all-reduces, bandwidth of decode attention, and what the sampler
takes for sorting and for penalties were fitted again to the runs on H100 above, each time without one model, or
without one size of tensor parallelism. The fit is one of least squares of the relative errors of mean TPOT, and draws
the constants towards what is known of them without any run: the bandwidth in operator tables and a published
benchmark of sorting, for instance (`benchmarks/left_out.py`). The runs of this model or size were simulated with the
result. So the table shows the errors for what was not measured, on a GPU that was. It has mean sizes of the errors of
means; "none" is the fit to all runs. Only Qwen2.5-7B has penalties, so the fit without it keeps their time.
"""

GPU_LEFT_OUT = """
## GPUs that were left out

This table shows the same for a GPU whose own measurements are not used. The efficiencies of its kernels are the mean
of the other measured GPUs, and its engine is the one that was fitted on H100. Where the H100 itself is left out, a
layer, all-reduces and sorting take what is known without any serving run. A GPU of your own, of which you know only
the datasheet, gets the same constants with `efficiency: null`. What the table calls measured on B300 has the kernels
of B200, but for large products and attention over prompts.
"""
