import pytest

from robustdiff.config.sections import DataConfig
from robustdiff.data.arrays import Images
from robustdiff.data.registry import load_images
from robustdiff.metrics import Evaluator, train_evaluator
from robustdiff.progress import Silent


@pytest.fixture(scope="session")
def digits() -> Images:
    return load_images(DataConfig(), Silent())


@pytest.fixture(scope="session")
def judge(digits: Images) -> Evaluator:
    return train_evaluator(digits.train, digits.train_labels, digits.num_classes, seed=0)
