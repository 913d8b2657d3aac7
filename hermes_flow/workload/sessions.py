"""Draws sessions: users who ask several turns, each session with a system prompt that others share."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from hermes_flow.config.schema import SessionsWorkload
from hermes_flow.errors import ConfigError
from hermes_flow.program.prefixes import SessionPrefixes
from hermes_flow.program.requests import Requests
from hermes_flow.program.same_bits import power
from hermes_flow.program.units import Ints
from hermes_flow.workload.adapters import adapter_names, drawn_adapters
from hermes_flow.workload.arrivals import Load, parse_arrivals
from hermes_flow.workload.lengths import durations_ns, parse_distribution, parse_lengths, tokens
from hermes_flow.workload.lengths.distribution import MAX_TOKENS
from hermes_flow.workload.shares import drawn_models
from hermes_flow.workload.streams import stream

_MOST_REQUESTS = 100_000_000


def draw_sessions(workload: SessionsWorkload, seed: int) -> Requests:
    """Return the requests of all sessions, by the session's beginning and then by turn.

    A first turn has its arrival; a later one has the turn before it and a think time. All turns of a session ask for
    the same model. Raises ConfigError.
    """
    starts_ns = _starts(workload, seed)
    turns = _turns(workload, len(starts_ns), seed)
    count = int(turns.sum())
    first = np.cumsum(turns) - turns
    session = np.repeat(np.arange(len(turns)), turns)
    new = _lengths(workload, "input_tokens", count, "input_lengths", seed)
    answers = _lengths(workload, "output_tokens", count, "output_lengths", seed)
    thinks = parse_distribution(workload.think_time_s, "workload.think_time_s", whole=False)
    think_ns = durations_ns(thinks, count, stream(seed, "think_times"), "workload.think_time_s")
    system_prompt, system_tokens = (column[session] for column in _system_prompts(workload, len(turns), seed))

    said = np.cumsum(new + answers) - new - answers  # in all turns before, of all sessions
    prompts = system_tokens + said - said[first][session] + new
    if prompts.max() > MAX_TOKENS:
        problem = f"gives a prompt of {prompts.max():.3g} tokens; expected at most {MAX_TOKENS:.0e}"
        raise ConfigError("workload.turns", problem)
    models = drawn_models(workload.models, len(turns), stream(seed, "models"))
    adapters = drawn_adapters(workload.adapters, len(turns), seed)
    previous = np.arange(count) - 1
    previous[first] = -1
    think_ns[first] = 0
    several = count > len(turns)
    return Requests(
        arrival_ns=starts_ns[session],
        input_tokens=prompts,
        output_tokens=answers,
        session=session,
        model=None if models is None else models[session],
        models=tuple(workload.models),
        adapter=None if adapters is None else adapters[session],
        adapters=adapter_names(workload.adapters),
        prefixes=SessionPrefixes(session, system_prompt, system_tokens, prompts, answers),
        think_ns=think_ns if several else None,
        previous=previous if several else None,
    )


def later_turns(requests: Requests, rejected: Mapping[int, str]) -> dict[int, str]:
    """Return the requests that never arrive because an earlier turn is ``rejected``, with the reason."""
    lost: dict[int, str] = {}
    if requests.previous is not None and rejected:
        for request, before in enumerate(requests.previous.tolist()):
            if request not in rejected and (before in rejected or before in lost):
                lost[request] = "after a rejected turn of the same session"
    return lost


def said_tokens(requests: Requests) -> Ints | None:
    """Return the KV tokens of earlier turns of its session, for each request.

    The last token of an answer is never computed. None where prompts are not known to go on from each other.
    """
    if not isinstance(requests.prefixes, SessionPrefixes):
        return None
    if requests.previous is None:
        return np.zeros(len(requests), np.int64)
    said = requests.input_tokens + requests.output_tokens - 1
    return np.where(requests.previous < 0, 0, said[requests.previous])


def _check(workload: SessionsWorkload) -> None:
    pass


def _require_at_most(count: int, key: str, what: str) -> None:
    if count > _MOST_REQUESTS:
        raise ConfigError(key, f"{what}{count:,} is too many; expected at most {_MOST_REQUESTS:,}")


def _starts(workload: SessionsWorkload, seed: int) -> Ints:
    """When sessions begin."""
    process = parse_arrivals(workload.arrivals, "workload.arrivals")
    load = Load(workload.sessions, workload.rate_per_s, workload.rate_scale, of="sessions")
    drawn = process.arrivals(load, stream(seed, "arrivals"))
    if drawn.concurrency is not None:
        problem = "a closed loop; sessions begin by an open process such as poisson, their turns wait anyway"
        raise ConfigError("workload.arrivals", problem)
    return drawn.arrival_ns


def _turns(workload: SessionsWorkload, sessions: int, seed: int) -> Ints:
    turns = _lengths(workload, "turns", sessions, "turns", seed)
    _require_at_most(int(turns.sum()), "workload.turns", "gives requests in all: ")
    return turns


def _lengths(workload: SessionsWorkload, name: str, count: int, purpose: str, seed: int) -> Ints:
    key = f"workload.{name}"
    return tokens(parse_lengths(getattr(workload, name), key), count, stream(seed, purpose), key)


def _system_prompts(workload: SessionsWorkload, sessions: int, seed: int) -> tuple[Ints, Ints]:
    """Each session's system prompt and its tokens: the n-th one is as likely as 1/n^skew (Zipf)."""
    if workload.system_prompt_tokens == 0:
        return np.zeros(sessions, np.int64), np.zeros(sessions, np.int64)
    count = workload.system_prompts
    lengths = _lengths(workload, "system_prompt_tokens", count, "system_prompt_lengths", seed)
    upto = np.cumsum(power(np.arange(1, count + 1), -workload.system_prompt_skew))
    drawn = np.searchsorted(upto, stream(seed, "system_prompts").random(sessions) * upto[-1], side="right")
    return drawn.astype(np.int64), lengths[drawn]
