"""A run that is killed over and over ends as if it had never been."""

import random
import signal

import numpy as np
import pytest
from commands import TINY, attempt, outcome

WORDS = [
    *TINY, "--noise=0.3", "--steps=40", "--precision=fp32", "--set=train.batch_size=128",
    "--set=train.log_every=3", "--set=train.sample_every=20", "--set=curriculum.warmup=1",
    "--checkpoint-every=4",
]  # fmt: skip


def stored_scores(run):
    with np.load(run / "scores.npz", allow_pickle=False) as content:
        return {name: content[name] for name in content}


def kill_until_done(processes, run, words, kills, seed):
    """Start a run, kill it at random moments, resume it; return the kills that met it running."""
    rng, met = random.Random(seed), 0
    while True:
        resume = (run / "config.json").exists()
        command = ["train", f"--resume={run}"] if resume else [*words, f"--out={run}"]
        patience = None if met >= kills else 0.3 + 2.5 * rng.random() ** 2
        code = attempt(processes, command, patience)
        if code == 0:
            return met
        assert code == -signal.SIGKILL, code
        met += 1


@pytest.mark.parametrize(
    ("curriculum", "kills"),
    [
        ("pmi", 4),
        pytest.param("dynamics-uncond", 50, marks=pytest.mark.slow),
        pytest.param("crossfit", 50, marks=pytest.mark.slow),
    ],
)
def test_killed_and_resumed_equals_never_killed(processes, tmp_path, curriculum, kills):
    words = ["train", *WORDS, f"--curriculum={curriculum}"]
    assert attempt(processes, [*words, f"--out={tmp_path / 'straight'}"]) == 0
    weights, history = outcome(tmp_path / "straight")
    scores = stored_scores(tmp_path / "straight")
    survived = seed = 0
    while survived < kills:
        # A run may be done before it was killed often enough; then the next one goes on.
        run, seed = tmp_path / f"killed-{seed}", seed + 1
        survived += kill_until_done(processes, run, words, kills - survived, seed)
        again, history_again = outcome(run)
        scores_again = stored_scores(run)
        assert all((again[name] == weights[name]).all() for name in weights)
        assert history_again == history
        for name in scores:
            np.testing.assert_array_equal(scores_again[name], scores[name])
