"""Where answers pause that pause at drawn points: uniform over their tokens, never at the last one."""

from __future__ import annotations

import numpy as np

from hermes_flow.compiler.pauses import Pause, segment_ends
from hermes_flow.workload.streams import stream


def drawn(times: int, answers: list[int]) -> np.ndarray:
    return segment_ends(Pause(times=times), np.array(answers), stream(0, "pauses"), "pause")


def test_an_answer_of_two_tokens_has_one_place_to_pause() -> None:
    assert drawn(1, [2] * 200).tolist() == [[1, 2]] * 200


def test_every_place_but_the_last_token_is_as_likely() -> None:
    count = 20_000
    places = np.bincount(drawn(1, [6] * count)[:, 0], minlength=7)
    assert places[0] == places[6] == 0
    assert (np.abs(places[1:6] / count - 0.2) < 4 * np.sqrt(0.2 * 0.8 / count)).all()


def test_an_answer_has_no_more_segments_than_tokens() -> None:
    ends = drawn(9, [1, 2, 3])
    assert ends.shape == (3, 3)
    assert ends[0].tolist() == [1, 1, 1]
    assert ends[:, -1].tolist() == [1, 2, 3]
    assert (np.diff(ends, axis=1) >= 0).all()
