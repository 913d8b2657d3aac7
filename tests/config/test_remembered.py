from __future__ import annotations

from hermes_flow.config.remembered import first_made, remembering


def test_the_first_is_made_once_from_equal_inputs_and_others_each_time() -> None:
    made: list[object] = []

    def ask(what: str, inputs: object) -> object:
        return first_made(what, inputs, lambda: made.append(inputs) or object())

    assert ask("a", 1) is not ask("a", 1)
    made.clear()
    with remembering():
        first = ask("a", {"rate": 1})
        assert ask("a", {"rate": 2}) is not first
        assert ask("a", {"rate": 2}) is not ask("b", {"rate": 2})
        assert ask("a", {"rate": 1}) is first
        with remembering():
            assert ask("a", {"rate": 1}) is not first
        assert ask("a", {"rate": 1}) is first
    assert made == [{"rate": 1}, {"rate": 2}, {"rate": 2}, {"rate": 2}, {"rate": 1}]
    assert ask("a", {"rate": 1}) is not first
