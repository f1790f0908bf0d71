"""The command line in this process or another, on a network that trains in seconds."""

import json
import os
import signal

from robustdiff.cli.app import main
from safetensors.torch import load_file

# Of several words for one setting the last counts, so a test may add its own.
TINY = [
    "--set=model.channels=[8]",
    "--set=model.time_size=8",
    "--set=curriculum.warmup=0",
    "--set=curriculum.probes=1",
    "--set=sample.steps=2",
]


def call(*words):
    """Run a command; return its exit code."""
    try:
        main([str(word) for word in words])
    except SystemExit as left:
        return left.code
    return 0


def attempt(processes, words, seconds=None):
    """Run a command in another process, and kill it after some seconds; return its exit code."""
    process = processes.Process(target=main, args=(words,))
    process.start()
    process.join(seconds)
    if process.is_alive():
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    return process.exitcode


def outcome(run):
    """Weights and history of a run, without its timings: what no interruption may change."""
    timing = ("images_per_second", "scoring_seconds")
    history = [
        {key: value for key, value in json.loads(line).items() if key not in timing}
        for line in (run / "metrics.jsonl").read_text().splitlines()
    ]
    return load_file(run / "model.safetensors"), history
