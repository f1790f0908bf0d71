"""Datasets as the configuration asks for them: whole, in part, resized."""

import pytest
import torch

from robustdiff.config.images import DataConfig
from robustdiff.data.registry import load_images
from robustdiff.progress import Report


def test_parts_of_a_dataset_keep_the_shares_of_the_classes():
    whole = load_images(DataConfig(), Report())
    part = load_images(DataConfig(train_size=400), Report())
    assert len(part.train) == len(part.train_labels) == 400
    share = torch.bincount(part.train_labels) / 400
    expected = torch.bincount(whole.train_labels) / len(whole.train_labels)
    assert (share - expected).abs().max() < 0.004
    assert torch.equal(part.test, whole.test)
    with pytest.raises(ValueError, match="between 10 and 1337, or all 1347"):
        load_images(DataConfig(train_size=1340), Report())


def test_whole_factors_are_average_pooled():
    whole = load_images(DataConfig(), Report()).train.float()
    pooled = load_images(DataConfig(image_size=4), Report()).train
    assert torch.equal(pooled.float(), torch.nn.functional.avg_pool2d(whole, 2).round())
