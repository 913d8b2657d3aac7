"""How the flags of engines become keys of a configuration."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from hermes_flow.errors import ConfigError

Value: TypeAlias = str | bool
Keys: TypeAlias = dict[str, Any]
# A flag's value as keys of the pool (``tensor_parallel``) or of the configuration (``model.max_context``).
Reading: TypeAlias = Callable[[str, Value], Keys]


@dataclass(frozen=True, slots=True)
class Dialect:
    """The flags of one engine: how each is read, and why others are left out."""

    engine: str
    read: Mapping[str, Reading]
    short: Mapping[str, str]
    without_effect: frozenset[str]
    """Flags that change nothing that is simulated: addresses, names, logs, tools."""
    unmodelled: Mapping[str, str]
    """Flags that would change times or memory, and what is not modelled."""
    partly: frozenset[str] = frozenset()
    """Flags of ``unmodelled`` of which ``read`` takes a part."""
    model: tuple[str, ...] = ("--model",)
    """The flags that name the model, where it does not stand alone."""
    when_null: Mapping[str, str] = field(default_factory=dict)
    """What null asks for where it is not the default."""
    simulated: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Values of flags of ``unmodelled`` that ask for what is simulated in any case, in lower case."""


def whole(key: str) -> Reading:
    """Read a whole number, as 8192, 8k (thousands) or 8K (1,024)."""

    def read(flag: str, value: Value) -> Keys:
        return {key: number(flag, value)}

    return read


def number(flag: str, value: Value) -> int:
    """Return a whole number; raises ConfigError for anything else."""
    text = text_of(flag, value, "a whole number").replace("_", "")
    try:
        for letter, factor in (("k", 1000), ("K", 1024), ("m", 1_000_000), ("M", 1024**2)):
            if text.endswith(letter):
                return round(float(text[:-1]) * factor)
        return int(text)
    except (ValueError, OverflowError):
        raise ConfigError(f"task.path: {flag}", f"{value!r} is not a whole number") from None


def real(flag: str, value: Value) -> float:
    """Return a finite number; raises ConfigError for anything else."""
    text = text_of(flag, value, "a number")
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not math.isfinite(found):
        raise ConfigError(f"task.path: {flag}", f"{value!r} is not a number")
    return found


def text_of(flag: str, value: Value, expected: str) -> str:
    """Return the text of a flag's value; raises ConfigError where it has none, or where a shell would fill it in."""
    if value is True:
        raise ConfigError(f"task.path: {flag}", f"has no value; expected {expected}")
    text = str(value).strip()
    if text.startswith("$"):
        raise ConfigError(f"task.path: {flag}", f"{text} is a variable of a shell; give its value")
    return text


def fraction(key: str) -> Reading:
    """Read a number."""

    def read(flag: str, value: Value) -> Keys:
        return {key: real(flag, value)}

    return read


def switch(key: str, on: Any, off: Any) -> Reading:
    """Read a flag without a value as ``on``, and as ``off`` where it is given as false or in its form with no."""

    def read(flag: str, given: Value) -> Keys:
        return {key: off if is_off(given) else on}

    return read


def is_off(given: Value) -> bool:
    """Return whether a switch is given as false."""
    return str(given).lower() in ("false", "0", "no", "off")


def kv_cache(flag: str, value: Value) -> Keys:
    """Read the precision of the KV cache; auto is that of the model."""
    text = text_of(flag, value, "auto or fp8").lower()
    if text in ("auto", "none"):
        return {}
    for name in ("fp8", "int8", "nvfp4", "mxfp4"):
        if text.startswith(name):
            return {"model.precision.kv_cache": name}
    if text in ("bf16", "bfloat16", "fp16", "float16", "half"):
        return {"model.precision.kv_cache": "bf16"}
    raise ConfigError(
        f"task.path: {flag}", f"{value!r} is not a precision that is known; expected auto or fp8"
    )


# source: the values of --dtype in vLLM and SGLang; auto is bfloat16 or float16, by the checkpoint.
# source: vLLM, --quantization (bitsandbytes, experts_int8, torchao and mxfp8 take a checkpoint of 16 bits, too)
ONLINE = ("bitsandbytes", "experts_int8", "torchao", "mxfp8", "fp8_per_", "int8_per_")
SIXTEEN_BITS = frozenset({"auto", "bfloat16", "bf16", "float16", "fp16", "half"})


def several(flag: str, value: Value, key: str) -> Keys:
    """Read a number of devices as true where it is more than one."""
    return {key: True} if number(flag, value) > 1 else {}


EVERYWHERE = {
    "--nnodes": "which devices share a node: set network.devices_per_node",
    "--hf-overrides": "changes of the model: change its config.json and use hermes-flow import model",
    "--model-impl": "other implementations of the model",
}
"""Flags of several engines that would change times or memory, and what is not modelled."""

_ADDRESSES_AND_LOGS = (
    "--allow-credentials --allowed-origins --api-key --api-server-count --backend --chat-template "
    "--code-revision --config --convert --data-parallel-address --data-parallel-backend "
    "--data-parallel-rpc-port --data-parallel-start-rank --decode-log-interval "
    "--device --disable-log-requests --disable-log-stats --disable-uvicorn-access-log --dist-init-addr "
    "--distributed-executor-backend --download-dir --enable-auto-tool-choice --enable-cache-report "
    "--enable-log-requests --enable-metrics --enable-prompt-tokens-details --enable-request-id-headers "
    "--enable-server-load-tracking --extra-llm-api-options --generation-config --grammar-backend "
    "--guided-decoding-backend --headless --hf-token --host --kv-events-config "
    "--load-format --log-file --log-level --master-addr --master-port --max-log-len "
    "--metadata-server-config-file --no-enable-log-requests --node-rank "
    "--otlp-traces-endpoint --port --prefix-caching-hash-algo --random-seed --reasoning-parser --response-role "
    "--revision --root-path --runner --seed --served-model-name --server-role --show-time-cost --skip-tokenizer-init "
    "--ssl-certfile --ssl-keyfile --structured-outputs-config --swap-space --task --tokenizer "
    "--tokenizer-mode --tokenizer-path --tool-call-parser --trust-remote-code --uds --uvicorn-log-level "
    "--watchdog-timeout --allowed-local-media-path --allowed-media-domains --max-logprobs --logprobs-mode "
    "--enable-metrics-for-all-schedulers --enable-sleep-mode --enable-force-include-usage "
    "--return-tokens-as-token-ids --kv-cache-metrics --kv-cache-metrics-sample --cudagraph-metrics "
    "--enable-mfu-metrics --show-hidden-metrics-for-version --collect-detailed-traces --shutdown-timeout "
    "--disable-fastapi-docs --middleware --ssl-ca-certs --ssl-cert-reqs "
    "--tool-server --tool-parser-plugin --reasoning-parser-plugin --exclude-tools-when-tool-choice-none "
    "--chat-template-content-format --default-chat-template-kwargs --trust-request-chat-template --log-config-file "
    "--fingerprint-mode --warmups --skip-server-warmup --print-iter-log --enable-iter-perf-stats --log-requests "
    "--data-parallel-rank --data-parallel-external-lb --data-parallel-hybrid-lb --disaggregation-bootstrap-port "
    "--disaggregation-ib-device --dist-timeout --log-requests-level --log-level-http --tokenizer-revision "
)
NO_EFFECT = frozenset(_ADDRESSES_AND_LOGS.split())
