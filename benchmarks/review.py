"""How long a person waits in a review of many images: decisions in a row, each with the next page.

usage: python benchmarks/review.py [--images 50000] [--classes 10] [--decisions 200]

A folder of random images is made, one in five under the wrong class, and audited by given
probabilities. Then `robustdiff review` is started on it, and every decision is sent and answered,
and the page of the undecided labels after it is fetched, with the small images of the page at the
end. The times are those of a client on the same machine; a decision is on disk when it is answered.
"""

import argparse
import http.client
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def make_folder(folder: Path, images: int, classes: int) -> Path:
    """Make folder/photos with images of 32 x 32 pixels, and class probabilities of them.

    Returns:
        The file of the probabilities.
    """
    rng = np.random.default_rng(0)
    each, rows = images // classes, []
    for label in range(classes):
        place = folder / "photos" / f"class {label:04d}"
        place.mkdir(parents=True)
        for i in range(each):
            pixels = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(place / f"{i:06d}.png", compress_level=1)
        seen = np.where(rng.random(each) < 0.2, rng.integers(0, classes, each), label)
        sure = rng.uniform(0.3, 0.95, (each, 1))
        rows.append(sure * np.eye(classes)[seen] + (1 - sure) / classes)
    np.save(folder / "probabilities.npy", np.concatenate(rows).astype(np.float32))
    return folder / "probabilities.npy"


class Client:
    """One connection to the server, as a browser keeps it."""

    def __init__(self, address: str) -> None:
        self.root, _, token = address.partition("/?token=")
        host = self.root.removeprefix("http://")
        self.connection = http.client.HTTPConnection(host)
        self.headers = {
            "Cookie": f"robustdiff-{host.partition(':')[2]}={token}",
            "Origin": self.root,
            "Content-Type": "application/json",
        }

    def fetch(self, path: str, content: Any = None) -> bytes:  # noqa: ANN401 any JSON
        """Return what the server answers."""
        body = None if content is None else json.dumps(content)
        self.connection.request("GET" if body is None else "POST", path, body, self.headers)
        answer = self.connection.getresponse()
        found = answer.read()
        if answer.status != 200:
            raise SystemExit(f"{path}: {answer.status} {found!r}")
        return found


def measure(client: Client, decisions: int) -> dict[str, list[float]]:
    """Decide again and again; return the seconds of each kind of request."""
    taken: dict[str, list[float]] = {"decision": [], "grid": [], "both": [], "threshold": []}
    page = json.loads(client.fetch("/api/page?undecided=1"))
    for k in range(decisions):
        item = page["items"][0]
        choice = item["suggestion"] or {"action": "keep"}
        begin = time.perf_counter()
        client.fetch("/api/decide", {"sample": item["number"], **choice})
        decided = time.perf_counter()
        page = json.loads(client.fetch(f"/api/page?undecided=1&from={item['place']}"))
        shown = time.perf_counter()
        client.fetch(f"/api/threshold?below={(k + 1) / decisions}")
        taken["threshold"].append(time.perf_counter() - shown)
        taken["decision"].append(decided - begin)
        taken["grid"].append(shown - decided)
        taken["both"].append(shown - begin)
    begin = time.perf_counter()
    for item in page["items"]:
        client.fetch(f"/image/{item['number']}")
    taken["images of a page"] = [time.perf_counter() - begin]
    return taken


def main() -> None:
    """Make, audit, review, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--decisions", type=int, default=200)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
        probabilities = make_folder(folder, asked.images, asked.classes)
        robustdiff = [sys.executable, "-m", "robustdiff"]
        audit = ["audit", folder / "photos", f"--judge-probs={probabilities}"]
        subprocess.run([*robustdiff, *audit, f"--out={folder / 'audit'}"], check=True)
        begin = time.perf_counter()
        review = [*robustdiff, "review", folder / "audit"]
        with subprocess.Popen(review, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            lines = [process.stdout.readline() for _ in range(2)]
            print(lines[0].strip())
            print(f"started in {time.perf_counter() - begin:.1f} s")
            taken = measure(Client(lines[1].removeprefix("open ").strip()), asked.decisions)
            process.send_signal(signal.SIGINT)
    for what, seconds in taken.items():
        median, worst = 1000 * statistics.median(seconds), 1000 * max(seconds)
        print(f"{what}: median {median:.1f} ms, worst {worst:.1f} ms, of {len(seconds)}")


if __name__ == "__main__":
    main()
