"""Runs that have labels only, and processes that decide about them."""

import os
import random

import numpy as np

from corruptions import corrupt
from robustdiff.review.decisions import Decision, Decisions
from robustdiff.runs.folder import Run

SAMPLES, CLASSES = 12, 4


def make_run(folder, samples=SAMPLES, classes=CLASSES, seed=0):
    folder.mkdir(exist_ok=True)
    clean = np.arange(samples) % classes
    run = Run(folder)
    corrupt(clean, num_classes=classes, rate=0.3, seed=seed).save(run.labels_file)
    return run


def open_and_record(folder, start):
    start.wait()
    with Decisions(Run(folder)) as store:
        for i in range(SAMPLES):
            store.record(Decision(i, "keep"))


def write_until_killed(folder, pipe):
    """Decide at random; say what was done after it was done."""
    rng = random.Random(os.getpid())
    with Decisions(Run(folder)) as store:
        while True:
            if rng.random() < 0.3:
                undone = store.undo()
                pipe.send(("undo", undone))
            else:
                decision = Decision(rng.randrange(SAMPLES), "relabel", rng.randrange(CLASSES))
                pipe.send(("record", store.record(decision), decision))
