"""Folders of tiny images under hostile names, and corrected labels of them."""

import numpy as np
from PIL import Image

from corruptions import NoisyLabels, transition_of
from robustdiff.labels.corrected import Corrected

NAMES = ("plain", 'with "quotes"', "<u>&amp;", "two\nlines", "=cat", "ガ犬,;'")


def make_folder(root, names=NAMES, each=6, parts=("",), size=4):
    """Write images that all differ, brighter by class; the first of each is as the next one."""
    number = 0
    for part in parts:
        for label, name in enumerate(names):
            folder = root / part / name
            folder.mkdir(parents=True)
            for i in range(each):
                looks = (label + (i == 0)) % len(names)
                pixels = np.full((size, size), 40 * looks, dtype=np.uint8)
                pixels[0, 0], pixels[0, 1] = divmod(number, 256)
                Image.fromarray(pixels).save(folder / f"{i}.png")
                number += 1
    return root


def snapshot(root):
    """Return what lies in a folder: path -> content of files, None for folders."""
    return {
        str(path.relative_to(root)): path.read_bytes() if path.is_file() else None
        for path in root.rglob("*")
    }


def given_labels(paths, names=NAMES):
    """Return the labels of a folder whose truth nobody knows."""
    given = np.array([names.index(path.split("/")[-2]) for path in paths])
    return NoisyLabels(
        clean=given,
        given=given,
        nominal=transition_of(given, given, len(names)),
        noise_type="symmetric",
        rate=0.0,
        seed=0,
        mode="exact",
        convention="as they are",
        class_names=names,
        paths=tuple(paths),
    )


def corrected_at_random(before, seed=0):
    """Return labels of which each third was changed, removed, or left alone."""
    rng, n = np.random.default_rng(seed), len(before.given)
    words = np.array(("given", "judge", "person", "removed"))
    by = words[rng.choice(4, n, p=[0.4, 0.2, 0.2, 0.2])]
    other = (before.given + rng.integers(1, len(before.nominal), n)) % len(before.nominal)
    changed = (by == "judge") | (by == "person")
    return Corrected(
        before=before,
        labels=np.where(changed, other, before.given),
        decided_by=tuple(by.tolist()),
        likelihood=np.full(n, 0.75),
        gain=rng.random(n),
    )
