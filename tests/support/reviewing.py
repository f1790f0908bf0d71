"""A folder of images that was audited, and what a browser sends to the server of its review."""

import json
import os
import signal
import subprocess
import sys
import urllib.request

import numpy as np
from commands import call
from PIL import Image

NAMES = ("<script>alert(1)<", 'with "quotes" & more', "two\nlines", "שלום \u202e evil", "x" * 200)
EACH, WRONG = 30, 4


def make_audit(place, names=NAMES, each=EACH, seed=0):
    """Make place/photos, whose first files of every class are of the next one, and its audit.

    Returns:
        The folder of images, and the folder of the audit.
    """
    photos, rng, rows = place / "photos", np.random.default_rng(seed), []
    for name in sorted(names):
        (photos / name).mkdir(parents=True)
        for i in range(each):
            pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(photos / name / f"{i:05d}.png")
            seen = (sorted(names).index(name) + (i < WRONG)) % len(names)
            spread = rng.dirichlet(np.ones(len(names)))
            rows.append(0.1 * spread + 0.9 * np.eye(len(names))[seen])
    probabilities = place / "probabilities.npy"
    np.save(probabilities, np.array(rows))
    words = ("--image-size=8", f"--judge-probs={probabilities}", f"--out={place / 'audit'}")
    assert call("audit", photos, *words) == 0
    return photos, place / "audit"


class Server:
    """`robustdiff review` in a process of its own, and a person's browser at it."""

    def __init__(self, run):
        self.run = run
        command = [sys.executable, "-m", "robustdiff", "review", str(run)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        lines = [self.process.stdout.readline() for _ in range(2)]
        self.address = lines[1].removeprefix("open ").strip()
        self.root, _, self.token = self.address.partition("/?token=")
        self.cookie = f"robustdiff-{self.root.rpartition(':')[2]}={self.token}"

    def ask(self, path, content=None):
        """Return what the server answers, from JSON."""
        headers = {"Cookie": self.cookie, "Origin": self.root, "Content-Type": "application/json"}
        body = None if content is None else json.dumps(content).encode()
        request = urllib.request.Request(self.root + path, body, headers)
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)

    def end(self, number=signal.SIGINT):
        """Send a signal; return the exit code and what was printed since the start."""
        os.kill(self.process.pid, number)
        with self.process:
            said = self.process.stdout.read()
        return self.process.returncode, said
