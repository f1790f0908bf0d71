"""Batches of an epoch are the same whether its order is an array or computed by index."""

import numpy as np
import torch

from curricula import CurriculumSampler, Selection, draw
from robustdiff.training.order import ByIndex, epoch_order

CPU = torch.device("cpu")


def test_a_batch_is_a_slice_of_the_order(monkeypatch):
    drawing = CurriculumSampler("uniform", 103, seed=2, selection=Selection())
    given = np.zeros(103, dtype=np.int64)
    plain = epoch_order(drawing, 1, given, CPU)
    assert torch.equal(plain, torch.from_numpy(drawing.order(1)))
    monkeypatch.setattr(draw, "MOST_SORTED", 10)
    by_index = epoch_order(drawing, 1, given, CPU)
    assert isinstance(by_index, ByIndex)
    assert len(by_index) == 103
    batches = [by_index[start : start + 10] for start in range(0, 103, 10)]
    assert torch.equal(torch.cat(batches), torch.from_numpy(drawing.order(1)))
    assert sorted(torch.cat(batches).tolist()) == list(range(103))
