"""Rows of training images under every class, of which those of many classes hold a few."""

import numpy as np
import pytest
import torch

from curricula.sparse import KEPT, MOST_DENSE, keep_few
from robustdiff.classifiers.class_rows import (
    FewClasses,
    plain,
    restore,
    target_rows,
    zero_rows,
)

CPU, K = torch.device("cpu"), MOST_DENSE + 2


@pytest.fixture
def few():
    rng = np.random.default_rng(0)
    return keep_few(rng.dirichlet(np.full(K, 0.1), size=20).astype(np.float32), np.arange(20))


def test_targets_are_read_as_dense_rows(few):
    places, labels = torch.tensor([3, 1, 7]), torch.arange(20) * 5
    sure = torch.nn.functional.one_hot(labels, K)
    assert torch.equal(target_rows(labels, K, CPU)[places], sure[places].float())
    assert torch.equal(target_rows(sure, K, CPU)[places], sure[places].float())
    found = target_rows(few, K, CPU)[places]
    assert torch.equal(found, torch.from_numpy(few[places.numpy()]))
    assert found.dtype == torch.float32


def test_what_is_written_keeps_its_largest_values_and_its_sum():
    rows, places = zero_rows(6, K, CPU), torch.tensor([4, 2])
    dense = torch.rand(2, K).softmax(1)
    rows[places] = dense
    found = rows[places]
    assert isinstance(rows, FewClasses)
    for row, whole in zip(found, dense, strict=True):
        best = whole.topk(KEPT).indices
        assert torch.equal(row[best], whole[best])
        assert len(row.unique()) == KEPT + 1
    torch.testing.assert_close(found.sum(1), dense.sum(1))
    assert not rows[torch.tensor([0, 1, 3, 5])].any()


def test_with_all_classes_kept_rows_are_read_as_they_were_written():
    classes = torch.arange(4, dtype=torch.int16).repeat(3, 1)
    rows = FewClasses(torch.zeros(3, 4), classes, torch.zeros(3), 4)
    dense = torch.rand(3, 4)
    rows[torch.arange(3)] = dense
    assert torch.equal(rows[torch.arange(3)], dense)


@pytest.mark.parametrize("count", [10, K])
def test_rows_are_restored_whole(count):
    rows, again = (zero_rows(5, count, CPU) for _ in range(2))
    places = torch.arange(5)
    rows[places] = torch.rand(5, count)
    restore(again, plain(rows))
    assert torch.equal(again[places], rows[places])


def test_a_row_of_a_thousand_classes_takes_34_bytes():
    rows = zero_rows(10, 1000, CPU)
    assert sum(part.nbytes for part in rows.state().values()) == 34 * 10
