"""Images in memory."""

import torch

from robustdiff.data import arrays as module


def test_a_digest_of_many_images_reads_a_part_of_them(monkeypatch):
    images = torch.arange(40, dtype=torch.uint8).view(10, 1, 2, 2)
    other = images.clone()
    other[3] = 0
    assert module.images_digest(images) != module.images_digest(other)
    assert module.images_digest(images) != module.images_digest(images.view(10, 1, 4, 1))
    monkeypatch.setattr(module, "_DIGESTED", 20)  # every other image
    assert module.images_digest(images) == module.images_digest(other)
