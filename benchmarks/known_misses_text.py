"""What docs/known_misses.md says around its tables."""

from __future__ import annotations

INTRODUCTION = """
# What does it miss, and why?

This page has published single figures that the simulator misses, or has missed until the reason was found. Each is a
check: nothing is fitted to any of them. `python -m benchmarks.known_misses` simulates all of them again and writes
the page, in about half a minute. An error is (simulated − published) / published. [Accuracy](accuracy.md) has the
comparisons with whole runs.
"""

AFFINITY = """
## Prefix affinity on eight clients

The benchmark sends 150 beginnings of 6,000 tokens with five prompts each, in stages of 20 to 38 seconds at 3 to 60
requests per second. Its load generator waits until a stage is done before the next one begins, and its tokens per
second include that time. Without these pauses the simulated ITL was 72 to 90 ms, and the published one is 47 ms. With
a pause after each stage, both ways of routing agree with the published means of ITL. Throughput of prefix affinity
at 40 requests per second and more stays 12 to 15 % too low: steps of about 190 sequences with 2,000 tokens of their
own and shared beginnings take longer in the simulation. It reads a beginning once for each sequence. Kernels that
read a shared beginning once (cascade attention) are not modelled.
"""

GPT_OSS = """
## gpt-oss-120b on sixteen H100

Measured kernels of experts in mxfp4 take two to four times as long as the fit for bf16 with fewer bytes, and have a
fit of their own ([cost](cost.md#precision)). With the fit for bf16 the simulated TTFT was 0.119 s and the ITL 9.5 ms.
Up to 15 requests per second TTFT is within 12 %. Beyond 30 requests per second the clients queue, because their KV
cache is small. With a share of 0.9 of the memory the real cache held less than one context of 131,072 tokens. The
simulated one has 75,472 tokens then, and 183,783 tokens with the share of 0.95 of these runs. vLLM's server takes up
to 1,024 sequences on this GPU by default. Sorting the logits of so many sequences takes 7.9 GB, which KV does not get
([memory](cost.md#memory)). Without this memory and with 256 sequences, the simulated TTFT at 40 requests per second
was 0.21 s. With it the cache is smaller and fewer sequences decode at a time, so the mean ITL is 12 % shorter than
published. Steps of this many sequences are too fast in the simulation, and its tokens per second are too high for the
same reason.
"""

AMD = """
## MI300X

Nothing of AMD was measured kernel by kernel, so these predictions have the mean efficiencies of NVIDIA's
accelerators. Two dense models of the same size and shape take 11.9 and 9.4 ms a token at 32 users, so releases and
settings make a quarter of difference. At the bandwidth of the datasheet, weights and KV take 4.2 ms. Published
measurements reach 81 % of this bandwidth (4.2 TB/s, ROCm issue 5070), as these means do, and about half of the peaks
of products, where the means have 78 %. So prompts should take half as long again, but times per token do not become
longer. The mixture, on SGLang with kernels in Triton, takes 1.9 to 2.4 times as long as simulated.
Launches and kernels of ROCm take longer, and nothing published tells one from the other. The error bar of
accelerators of makers that were not measured is that of these six runs ([error bars](error_bars.md)).
"""

ONE_USER = """
## One user on an A100

The published times of seven shapes scatter from 22.8 to 29.1 ms without an order (prompts of 4,096 tokens are faster
than those of 128, two to eight requests each). Which A100 it was is not said. With the bandwidth of the A100 with 40
GB (1,555 GB/s), in which the model's 30 GB fit, the mean agrees. With that of 80 GB, which the catalog has, it does
not.
"""

TWO_NODES = """
## Tensor parallelism over two nodes

DeepSeek has two all-reduces in each of its 61 layers. On two nodes one starts after 25 µs by NCCL's own model
([several nodes](cost.md#several-nodes)), which makes 4.5 ms of a step. The measured step of SGLang in mid-2025 takes
12 ms more than simulated, or 96 µs for each all-reduce. A published run of nccl-tests on two nodes shows 62 µs for
128 bytes, more than twice what NCCL's model says (NVIDIA/nccl, issue 1453). TensorRT-LLM in 2026 needs 14 to 16 ms on
the same two nodes with 6 to 9 users (InferenceMAX), and the simulation 11 ms. So expect steps over several nodes to
take 1.4 times as long as simulated, and twice as long with an engine that launches kernels between them.
"""

SPECULATION = """
## EAGLE at batch 1

A pass of the draft waits for the host that launches it, and a step waits for the tokens that were accepted
([cost](cost.md#speculative-decoding)). The two times come from other measurements. Without them, when a pass of the
draft took the time of its kernels alone, the simulated gains were 1.59 and 1.52.
"""

WIDE_PAIR = """
## DeepSeek on B200 with prefill and decode apart

One client of eight B200 prefills and one decodes, both with data-parallel attention and experts on all eight devices
(SGLang). Prompts have up to 8,192 tokens and answers up to 1,024, of which the benchmark draws 80 to 100 %. By its
tokens per second an answer has 920 tokens, so a token took 51.1 ms. (Until November 2026 this page divided by 1,023,
and said 45.9 ms.) Both sides have the settings of the recipe of this layout, and each rank has SGLang's own
scheduler. The measured time per token is more than twice the simulated one. A large part of the difference belongs
to this run alone: InferenceMAX has the same layout with the same lengths and users at 28.0 ms (SGLang 0.5.8) and
30.6 ms (TensorRT-LLM). Its TTFT is 15 s with one engine and 1.9 s with the other. The same pull request has a run
with other limits of the prefill client, with a TTFT of 19.1 s and 49.9 ms a token, so the time per token is that of
the decode client alone.

The recipe has `SGLANG_ENABLE_JIT_DEEPGEMM: false`, with which SGLang takes FlashInfer's products in fp8 on Blackwell.
They reach a sixth of the rate of DeepGEMM's (sgl-project/sglang, pull request 13528), so prompts take longer. Until
they were simulated, the TTFT here was 3.2 s and the E2E 24.0 s. Prompts wait for each other now, and longer than
measured: requests come back sooner than in the run, because their tokens take half as long. The recipe that followed
(NVIDIA/srt-slurm, recipes/b200-fp8) does not switch DeepGEMM off.

The simulation has three ways in which ranks wait for each other: each step waits for the slowest rank by its own
sequences, for the device with the most popular experts, and for the exchange of tokens. The recipe of SGLang on B200
names no kernels for the exchange (`moe-a2a-backend`, none by default), so all devices gather the tokens of all ranks
and scatter the sums. NCCL was measured to take 24 µs to gather and 21 µs to scatter 128 tokens on eight B200, and the
simulation has these times ([cost](cost.md#several-devices)). Before, each token went to the devices of its experts,
and the exchange took 1.1 ms of a step in place of 2.5 ms. With it the time per token of TensorRT-LLM with ranks on
B200, which nothing is fitted to, became 7 % longer where prefill and decode share a pool (median of 17 runs of
DeepSeek). It is now 3 % too long (median of 15 runs; −19 to +15 %). SGLang's prompts go to a rank that is drawn at
random, so that some ranks have several prompts while the others wait for them.

Over 222 runs with prefill and decode apart, the median time per token of a model with one engine on one GPU is 0.9
to 1.2 times as long as simulated. Single runs of DeepSeek on H100 take up to 1.7 times as long. Two things are not
simulated: ranks are padded to the longest one, and their logits are gathered. Both are small: 128 tokens more to
gather take about 10 µs in each layer.

This run is one of those from which the error bar of this kind is made ([error bars](error_bars.md)). The bar holds
four of five of them. It holds the time per token of InferenceMAX's run of the same layout and engine, but not the
30.6 ms of TensorRT-LLM, and not the 51.1 ms of this run: no other run of this kind is as far off. Times to the
first token of these runs are wrong by factors of up to 43. Most of the large errors are explained: recipes of
TensorRT-LLM have seats to decode for half or two thirds of the users, and the others wait until an answer ends.
Prompts of 8,192 tokens on SGLang on B200 wait for FlashInfer's products in fp8, as here: 9.7 s with 64 users on
four clients that decode (simulated 10.0 s, and 4.5 s with DeepGEMM's).

This table has the parts of a decode step with the sequences that decode at a time, and the most that anything
published says of a part. KV of a prompt is 0.29 GB in fp8, and its transfer takes 3 ms of a TTFT of seconds. At
most 20 ms of the published 51.1 are not explained by any of these. Candidates are kernels with masks for the largest
number of tokens that a device may receive, and a scheduler that does not overlap.
"""

TAILS = """
## Tails of time to first token

Three runs on [accuracy](accuracy.md) have tails of TTFT that are wrong by factors, or were: a reasoning load on one
H100, Mixtral-8x7B on two H100, and Qwen3-14B on an L40S. All three run with about 90 to 110 sequences on average,
and at most 128 (`max_num_seqs`). A burst of arrivals that fills the seats makes everybody wait for seconds.

The load is not burstier in the simulation than it was. These runs were measured with inference-perf, whose load
type `constant` is a Poisson process with a fixed number of requests in each stage (`poisson_fixed_count`). The
eight runs that are known request by request show it: each stage has exactly rate × duration requests, gaps are
exponential (their standard deviation is 0.98 to 1.02 of their mean), and the number of requests in 1, 10 and 60 s
varies as much as that of a Poisson process (variance over mean is 0.99, 0.97 and 0.93 on average over 14 stages). A
stage begins 2.5 to 2.8 s after the last answer of the one before. The other runs are drawn in the same way.

So a run of 20 minutes has such a burst or does not have one, by chance. This table has the reasoning load with nine
draws of its arrivals. In six of them hardly anybody waits for a seat, and TTFT is as measured. In the other three
the p99 is 4 to 17 times as long. The mean of these values is no estimate of one run, because a few draws decide it.
The page of accuracy therefore has the median of nine draws. Near a full engine the p99 also multiplies errors of the
time per token. With a time per token of the reasoning load that was 4 % longer, four of the nine draws had bursts.
With 128 seats, Mixtral-8x7B at 20 requests per second has room for 6.4 s per request. It takes 5.0 s on average, and
it takes 5.2 s in the simulation. With the measured time its p99 of TTFT is 0.28 s (measured 0.26 s), and with the
simulated time 0.5 s.

On the L40S it is the same. With 128 seats and 6 requests per second there is room for 21.3 s per request, which
takes 17.4 s. In stage 1 a token takes 1 % less than measured, and the p99 of the nine draws is 0.5 to 3.1 s. With the
measured time it is 1.1 to 4.4 s (measured 5.0 s), and mean TTFT 0.21 to 0.35 s (0.42 s). So the measured run had one
of the worst bursts. Until November 2026 this page explained it by memory: with 4,100 blocks for KV in place of the
4,457 of vLLM's account TTFT is as long. But then the prompts of the first stage are not all cached, and its TTFT
would be 0.17 s. It was 0.141 s, and is 0.140 s with 4,457 blocks.

Where engines have seats to spare, the p99 is that of prompts that the prefix cache does not have yet: the first 100
of 1,200 to 9,000 requests. They were up to 45 % too late until steps without CUDA graphs had gaps between kernels
([cost](cost.md)), and are within 11 % now, but for two runs. Request by request these two, Llama-2-7b (−26 %) and
CodeLlama (−19 %), have about one request in a hundred whose first token comes 20 to 45 ms later than those around
it, at all times of the run and often two or three in a row: 66 and 118 such pauses in 20 minutes. In two other runs
of the same models there are 2 and 5. So the host of some runs paused, and the p99 shows it where more than one
request in a hundred met a pause. The p99 of the runs with Qwen's models is 24 to 29 % too short, and so is the p90
of two of them. They are not known request by request, so whether it is the same there is not known.

The two runs of Mixtral-8x7B that are known request by request show what a new server takes: in the first ten
seconds it stops about seven times for about a second, so that 40 to 50 requests wait, the longest 1.8 and 2.0 s. In
all it is 32 and 27 s of waiting, 7 and 5 % of mean TTFT. Dense models have 0.2 to 6 s of it. vLLM's kernels of
experts in 16 bits are Triton's, which are compiled at first use, and steps of whole prompts are not among those of
its warm-up, which would explain it. This is not simulated, and TTFT of the first stage of the other runs of Mixtral
is 5 to 15 % too short. A server that has run before has no such waits.
"""
