from __future__ import annotations

import pickle

from hermes_flow.program.step_cost import StepCost


def test_equal_costs_have_equal_bytes_whatever_was_looked_up_in_them() -> None:
    one, other = (StepCost([0, 5, 9], [0, 2, 3], [0, 1, 4], 7) for _ in range(2))
    assert one.decode_ps == [0, 8, 16]
    assert len(one.first_chunk_ps) == 3
    assert pickle.dumps(one) == pickle.dumps(other)
    again = pickle.loads(pickle.dumps(one))
    assert again == one
    assert again.decode_ps == one.decode_ps
