"""What a calibration says of names, and the command it prints, without fitting anything."""

from __future__ import annotations

import shlex

import pytest

from hermes_flow.calibration.command import deployment, pasted, with_defaults
from hermes_flow.calibration.naming import resembles


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("llama2_70b", "llama2-70b"),
        ("llama3_8b", "meta-llama/Llama-3.1-8B"),
        ("qwen2_5_7b", "Qwen2.5-7B-Instruct"),
        ("h100_sxm", "h100-80gb"),
        ("h100_sxm", "NVIDIA H100 80GB HBM3"),
        ("rtx_pro_6000", "RTX PRO 6000 Blackwell"),
        ("my_gpu", "my gpu"),
    ],
)
def test_spellings_of_one_name_resemble_each_other(name: str, value: str) -> None:
    assert resembles(name, value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("llama3_8b", "llama2-70b"),
        ("llama2_7b", "llama2-70b"),
        ("llama2_70b", "llama2-7b"),
        ("h100_sxm", "a100-80gb"),
        ("h200_sxm", "gh200"),
        ("my_gpu", "your gpu"),
    ],
)
def test_other_models_and_machines_do_not(name: str, value: str) -> None:
    assert not resembles(name, value)


def test_a_command_wraps_so_that_a_shell_reads_the_same_words() -> None:
    words = ["hermes-flow", *(f"cluster.pools.llm.key_{number}={number}" for number in range(9)), "a=[1, 2]"]
    text = pasted(words)
    assert max(map(len, text.splitlines())) <= 80
    assert len(text.splitlines()) > 3
    assert shlex.split(text.replace("\\\n", "")) == words


def test_the_entry_takes_the_place_of_the_hardware_that_was_given() -> None:
    given = ["pipeline=llm", "hardware=l40s", "hardware.engine.step_us=9", "hardware.memory_gb=40"]
    assert deployment(given, "llm", "mine") == ["hardware=mine", "pipeline=llm", "hardware.memory_gb=40"]
    own = ["hardware=l40s", "+hardware@cluster.pools.llm.hardware=b200_sxm"]
    assert deployment(own, "llm", "mine") == ["+hardware@cluster.pools.llm.hardware=mine", "hardware=l40s"]


def test_what_was_given_is_not_given_twice() -> None:
    assert with_defaults(["hardware=mine", "model=a"], ["model=b", "c=1"]) == [
        "hardware=mine",
        "model=a",
        "c=1",
    ]
