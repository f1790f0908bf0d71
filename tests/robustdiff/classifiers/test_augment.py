import torch

from robustdiff.classifiers.augment import augmented


def moved(images, *, flip):
    """Return all versions of each image, (B, 25 or 50, 1, 16, 24)."""
    rows, columns = torch.arange(16), torch.arange(24)
    versions = [
        image[:, (rows + down).clamp(0, 15)][:, :, (columns + right).clamp(0, 23)]
        for image in images
        for down in range(-2, 3)
        for right in range(-2, 3)
    ]
    found = torch.stack(versions).reshape(len(images), 25, 1, 16, 24)
    return torch.cat([found, found.flip(4)], 1) if flip else found


def which(images, *, flip):
    changed = augmented(images, torch.Generator().manual_seed(0), flip=flip)
    hits = (moved(images, flip=flip) == changed[:, None]).flatten(2).all(dim=2)
    assert hits.any(dim=1).all()
    return hits.long().argmax(dim=1)


def test_images_are_moved_by_up_to_an_eighth_with_the_border_repeated():
    assert len(which(torch.rand(40, 1, 16, 24), flip=False).unique()) > 10


def test_half_of_the_images_are_mirrored_where_that_is_asked_for():
    mirrored = which(torch.rand(400, 1, 16, 24), flip=True) >= 25
    assert 150 < mirrored.sum() < 250
