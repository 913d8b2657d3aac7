"""Checks that users who gave up can send their requests again, and returns the rule of it."""

from __future__ import annotations

from collections.abc import Sequence

from hermes_flow.config.schema import Config
from hermes_flow.pools.kind import kind_of
from hermes_flow.program.admission import RetryRule
from hermes_flow.program.ops import Op
from hermes_flow.program.requests import Requests

_KEY = "workload.retry"


def retry_rule(
    config: Config, requests: Requests, ops: Sequence[Op], problems: list[str]
) -> RetryRule | None:
    """Return how often and when users who gave up send their requests again; None: they do not."""
    retry = config.workload.retry
    if retry is None:
        return None
    if requests.timeout_ns is None:
        problems.append(
            f"{_KEY}: nobody gives up; set workload.timeout_s, or that of a class, or expected retry: null"
        )
    for name, pool in config.cluster.pools.items():
        if not (kind_of(pool).elastic or kind_of(pool).tries_again):
            problems.append(
                f"{_KEY}: tasks of kind {pool.kind!r} (cluster.pools.{name}) do not begin anew; expected null"
            )
    for what, found in (
        ("is read while it is written", any(op.at_token is not None for op in ops)),
        ("begins with a retrieved context", any(op.context is not None for op in ops)),
    ):
        if found:
            problems.append(
                f"{_KEY}: a stage of the pipeline {what}, and such a stage does not begin anew; expected null"
            )
    return retry.rule
