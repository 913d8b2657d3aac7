"""The keys of workloads: drawn from distributions, in sessions, or read from a trace."""

from __future__ import annotations

from dataclasses import field
from typing import Any, Literal

from hermes_flow.config.adapters import DrawnAdapters
from hermes_flow.config.quantities import (
    BlockTokens,
    Exponent,
    Factor,
    FactorOrZero,
    Instant,
    Many,
    PositiveDuration,
    PositiveTokens,
    RatePerSecond,
    RequestCount,
    Seconds,
    Seed,
    Share,
    Size,
    Tokens,
    Turns,
)
from hermes_flow.config.retries import Retries
from hermes_flow.config.traffic import TrafficClass
from hermes_flow.program.quick_dataclass import dataclass


@dataclass(frozen=True, slots=True)
class RepeatedPrompts:
    """Prompts that repeat: ``prefixes`` shared beginnings with ``per_prefix`` prompts each, cycled in turn."""

    prefixes: Many
    """The number of shared beginnings."""
    per_prefix: Many
    """The number of prompts with the same beginning."""
    prefix_tokens: dict[str, Any] | Tokens = 0
    """The length of each beginning: a number, or a length distribution. ``input_tokens`` come after it."""


@dataclass(frozen=True, slots=True)
class DriftPart:
    """A part of a run with a rate and mean lengths of its own."""

    share: Factor
    """The length of the part, as a share of the run; the shares of all parts are scaled to add up to 1."""
    rate: FactorOrZero
    """The arrival rate in this part, as a factor; the factors are scaled to the mean rate of the run."""
    input_tokens: Size | None = None
    """The mean length of prompts in this part; null for that of the whole run."""
    output_tokens: Size | None = None
    """The mean length of answers in this part; null for that of the whole run."""


@dataclass(frozen=True, slots=True)
class SyntheticWorkload:
    """Requests drawn from arrival and length distributions, or issued by ``concurrency`` users in a loop.

    ``models`` gives the shares of the models that requests ask for; empty: they ask for none.
    """

    kind: Literal["synthetic"]
    name: str
    """The name of the workload in tables."""
    requests: RequestCount
    """The number of requests."""
    rate_per_s: RatePerSecond | None
    """The mean arrival rate; null where the arrival process needs none."""
    arrivals: dict[str, Any] | str
    """The arrival process: its name, or a mapping with its settings."""
    input_tokens: dict[str, Any] | PositiveTokens
    """The length of prompts: a number, or a length distribution."""
    output_tokens: dict[str, Any] | PositiveTokens
    """The length of answers: a number, or a length distribution."""
    rate_scale: Factor = 1.0
    """Multiplies the arrival rate."""
    rate_for: Literal["cluster", "client"] = "cluster"
    """``client`` multiplies the rate by the number of LLM clients, so that each has the same load."""
    seed: Seed = 0
    """The seed of the workload's draws; the built-in files take the seed of the whole configuration."""
    models: dict[str, Share] = field(default_factory=dict)
    """The share of requests that ask for each model; an empty mapping means that none asks."""
    adapters: DrawnAdapters | None = None
    """The LoRA adapters that requests ask for, as ``{count: 100, skew: 1}``; null: none."""
    timeout_s: dict[str, Any] | PositiveDuration | None = None
    """The time after its arrival at which the user of a request gives up: a number, or a distribution of which every
    request draws its own. Null: it waits for ever.
    """
    retry: Retries | None = None
    """How often users who gave up send the same request again, as ``{times: 2, backoff_s: 1}``; null: they do not."""
    classes: dict[str, TrafficClass] = field(default_factory=dict)
    """Traffic classes by name, each a share or a rate of the requests, with bounds and limits of its own."""
    repeated_prompts: RepeatedPrompts | None = None
    """Prompts that repeat, as ``{prefixes: 10, per_prefix: 5, prefix_tokens: 500}``; null: no prompt comes again."""
    prefix_share: Share = 0.0
    """The share of every prompt that all prompts have in common, which a prefix cache finds; 0: nothing."""
    images: dict[str, Any] | Size | None = None
    """The images of each request: a number, or a distribution, rounded to whole ones; null: no request has any."""
    drift: tuple[DriftPart, ...] = ()
    """Parts of the run, one after another, each with a rate and mean lengths; an empty list is a steady load."""
    leaves_out: tuple[str, ...] = ()
    """What this workload leaves out of the one that it stands for; the summary of every run repeats it."""


@dataclass(frozen=True, slots=True)
class SessionsWorkload:
    """Sessions of several turns on shared system prompts; ``sessions`` of them begin, ``rate_per_s`` on average.

    A turn's prompt is the system prompt, all earlier turns with their answers, and ``input_tokens`` new ones; it
    arrives ``think_time_s`` after the answer before it. Each session has one of ``system_prompts`` system prompts,
    the n-th as likely as 1/n**system_prompt_skew. ``models`` gives the shares of the models that sessions ask for.
    """

    kind: Literal["sessions"]
    name: str
    """The name of the workload in tables."""
    sessions: Many
    """The number of sessions that begin."""
    rate_per_s: RatePerSecond | None
    """The mean rate at which sessions begin."""
    arrivals: dict[str, Any] | str
    """How sessions begin: the name of an arrival process, or a mapping with its settings."""
    turns: dict[str, Any] | Turns
    """The number of turns of a session: a number, or a distribution."""
    think_time_s: dict[str, Any] | Seconds
    """The time from an answer to the next turn: a number, or a distribution."""
    input_tokens: dict[str, Any] | PositiveTokens
    """The new tokens of each turn: a number, or a length distribution."""
    output_tokens: dict[str, Any] | PositiveTokens
    """The length of each answer: a number, or a length distribution."""
    system_prompt_tokens: dict[str, Any] | Tokens = 0
    """The length of each system prompt: a number, or a length distribution. 0 means no system prompts."""
    system_prompts: Many = 1
    """The number of system prompts; each session has one of them."""
    system_prompt_skew: Exponent = 0.0
    """The n-th system prompt is as likely as 1/n^skew; 0 makes all alike."""
    rate_scale: Factor = 1.0
    """Multiplies the rate at which sessions begin."""
    rate_for: Literal["cluster", "client"] = "cluster"
    """``client`` multiplies the rate by the number of LLM clients, so that each has the same load."""
    seed: Seed = 0
    """The seed of the workload's draws; the built-in files take the seed of the whole configuration."""
    models: dict[str, Share] = field(default_factory=dict)
    """The share of sessions that ask for each model; an empty mapping means that none asks."""
    adapters: DrawnAdapters | None = None
    """The LoRA adapters that requests ask for, as ``{count: 100, skew: 1}``; null: none."""
    timeout_s: dict[str, Any] | PositiveDuration | None = None
    """The time after its arrival at which the user of a request gives up: a number, or a distribution of which every
    request draws its own. Null: it waits for ever.
    """
    retry: Retries | None = None
    """How often users who gave up send the same request again, as ``{times: 2, backoff_s: 1}``; null: they do not."""
    classes: dict[str, TrafficClass] = field(default_factory=dict)
    """Traffic classes by name, each a share or a rate of the requests, with bounds and limits of its own."""


@dataclass(frozen=True, slots=True)
class TraceWorkload:
    """Requests read from a file; see docs/workloads.md for the formats."""

    kind: Literal["trace"]
    name: str
    """The name of the workload in tables."""
    path: str
    """The file to read: CSV, JSON lines or Parquet."""
    format: str = "auto"
    """The format of the file; ``auto`` finds it by the columns."""
    limit: RequestCount | None = None
    """Only so many rows from the head of the file are read; null reads all."""
    rate_scale: Factor = 1.0
    """Multiplies the arrival rate: 2 replays the trace at twice its speed."""
    rate_for: Literal["cluster", "client"] = "cluster"
    """``client`` multiplies the rate by the number of LLM clients, so that each has the same load."""
    prefix_block_tokens: BlockTokens | None = None
    """The tokens of one block that a column of block ids names; null takes the default of the format."""
    columns: dict[str, str] = field(default_factory=dict)
    """The file's own names of columns, by the names of the native format: ``{arrival: ts, input_tokens: prompt}``."""
    time_unit: Literal["s", "ms", "us", "ns"] | None = None
    """The unit of the arrival times, where neither the format nor the name of the column decides it."""
    start: Instant | str | None = None
    """Where the window begins that is read: seconds on the file's clock, or a date; null means at the beginning."""
    duration: PositiveDuration | None = None
    """The seconds of the window that is read; null means up to the end."""
    arrivals: dict[str, Any] | str | None = None
    """An arrival process in place of the file's times, which only gives the lengths; null keeps the file's times."""
    rate_per_s: RatePerSecond | None = None
    """The mean rate of ``arrivals``; null where it needs none."""
    tokens_per_image: Tokens | None = None
    """The prompt tokens that each image of a request adds; null adds none."""
    tokenizer: str | None = None
    """The file tokenizer.json that counts the tokens of texts, where a file holds texts in place of lengths."""
    characters_per_token: Factor | None = None
    """An approximation in place of a tokenizer: each token of a text is so many characters."""
    seed: Seed = 0
    """The seed of the workload's draws; the built-in files take the seed of the whole configuration."""
    timeout_s: dict[str, Any] | PositiveDuration | None = None
    """The time after its arrival at which the user of a request gives up: a number, or a distribution of which every
    request draws its own. Null: it waits for ever.
    """
    retry: Retries | None = None
    """How often users who gave up send the same request again, as ``{times: 2, backoff_s: 1}``; null: they do not."""
    classes: dict[str, TrafficClass] = field(default_factory=dict)
    """Traffic classes by name, each a share or a rate of the requests, with bounds and limits of its own."""
