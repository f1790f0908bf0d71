import multiprocessing
import os

import pytest


@pytest.fixture(scope="module")
def processes():
    os.environ["OMP_NUM_THREADS"] = "1"
    # The server imports everything once, so that kills meet the work and not the imports.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["robustdiff.jobs.train", "robustdiff.jobs.evaluate", "robustdiff.cli.app"]
    )
    return context
