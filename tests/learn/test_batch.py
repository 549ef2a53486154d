"""What one step reads: borders between examples hold, and padding is never learned from."""

from __future__ import annotations

import numpy as np
import torch
from tiny import numbered, some_ids

from matura.learn.batch import Batch

SEGMENTS = [[1, 1, 1, 2, 2, 3, 0, 0], [1, 1, 1, 1, 1, 1, 1, 1]]


def batch() -> Batch:
    ids = some_ids(2, 8).numpy()
    weights = np.arange(16, dtype=np.float32).reshape(2, 8) + 1
    return Batch.of(ids, weights, np.array(SEGMENTS), "rows 0 to 1")


def test_positions_restart_in_each_example() -> None:
    assert batch().positions_BT.tolist() == [[0, 1, 2, 0, 1, 0, 0], [0, 1, 2, 3, 4, 5, 6]]


def test_no_target_lies_across_a_border_or_in_padding() -> None:
    made = batch()
    assert made.target_weights_BT.tolist() == [
        [2.0, 3.0, 0.0, 5.0, 0.0, 0.0, 0.0],
        [10.0, 11.0, 12.0, 13.0, 14.0, 15.0, 16.0],
    ]
    assert torch.equal(made.inputs_BT[:, 1:], made.targets_BT[:, :-1])


def test_negative_weights_stay() -> None:
    ids = some_ids(1, 4).numpy()
    made = Batch.of(ids, np.array([[1.0, -1.0, 0.0, 2.0]]), np.ones((1, 4)))
    assert made.target_weights_BT.tolist() == [[-1.0, 0.0, 2.0]]


def test_micro_batches_hold_every_row_once() -> None:
    whole = numbered(0, rows=7)
    for rows in (1, 2, 3, 7, 100):
        parts = list(whole.split(rows))
        assert max(len(part.ids_BL) for part in parts) <= rows
        assert torch.equal(torch.cat([part.ids_BL for part in parts]), whole.ids_BL)
        assert torch.equal(torch.cat([part.weights_BL for part in parts]), whole.weights_BL)
        assert torch.equal(torch.cat([part.segments_BL for part in parts]), whole.segments_BL)
        assert {part.name for part in parts} == {"rows of step 0"}
