from pathlib import Path

import pytest

from benchmarks.natural_images import METHODS, SIZES, WRONG, cells


@pytest.mark.parametrize("size", SIZES)
def test_all_methods_get_the_same_labels_seeds_and_measures(size):
    runs = cells(Path("out"), Path("cifar"), list(METHODS), [0, 1], size=size)
    assert len(runs) == 2 * (1 + len(WRONG) * len(METHODS)) == len({run.path for run in runs})
    for path, config in runs:
        assert (config.data.image_size or 32) == int(size.partition("-")[0])
        noise, method, seed = path.parts
        assert seed == f"s{config.seed}"
        assert (config.noise.labels is None) == (noise == "clean")
        assert noise == "clean" or noise in config.noise.labels
        judged = config.judge.probabilities
        assert (judged is not None) == method.startswith("crossfit")
        assert judged is None or noise in judged
        matrix = config.objective.matrix
        assert (matrix is not None) == (method == "tdsm")
        assert matrix is None or noise in matrix
        assert config.noise.rate == 0
        assert (config.eval.num_samples, config.eval.cas) == (5000, True)
    assert len({str((run.config.train, run.config.model, run.config.sample)) for run in runs}) == 1
