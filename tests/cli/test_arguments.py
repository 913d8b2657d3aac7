from __future__ import annotations

from pathlib import Path

import pytest

from hermes_flow.cli import main


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["simulat"], "'simulat' is neither a verb nor an override (key=value); did you mean 'simulate'?"),
        (["simulate", "compile"], "'simulate' and 'compile' are two verbs; expected one"),
        (["seed=1", "compile", "simulate"], "'compile' and 'simulate' are two verbs; expected one"),
        (["=5"], "'=5' has no key; expected key=value"),
        (["-x"], "there is no option '-x'; settings are key=value, see hermes-flow --help"),
        (["--requests=5"], "there is no option '--requests'; settings are key=value, see hermes-flow --help"),
        (["--"], "there is no option '--'; settings are key=value, see hermes-flow --help"),
        (["--cfg", "job", "all"], "'all' is neither a verb nor an override (key=value); expected one of: "),
        ([""], "'' is neither a verb nor an override (key=value); expected one of: "),
    ],
)
def test_a_call_that_cannot_be_read_is_refused_with_status_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert " ".join(err.split()).startswith(f"hermes-flow: {message}".rstrip())


def test_a_message_is_wrapped_at_words_and_keys_stay_whole(capsys: pytest.CaptureFixture[str]) -> None:
    long = "a" * 100
    with pytest.raises(SystemExit):
        main([long])
    err = capsys.readouterr().err
    assert f"'{long}'" in err
    assert all(len(line) <= 80 or long in line for line in err.splitlines())
    assert all(line.startswith("  ") for line in err.splitlines()[1:])


@pytest.mark.parametrize(
    "where",
    [
        "hermes_flow.metrics.result.Result.write",
        "hydra._internal.hydra.Hydra.run",
        "hermes_flow.cli._with_verb",
    ],
)
def test_an_interrupt_that_a_library_turned_into_an_error_is_one(
    where: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def stopped(*arguments: object, **more: object) -> None:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            raise ValueError("something broke halfway")  # noqa: B904 - as a library does that notices nothing

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(where, stopped)
    with pytest.raises(SystemExit) as caught:
        main(["workload.requests=5"])
    assert caught.value.code == 130
    assert capsys.readouterr().err == "hermes-flow: interrupted\n"
