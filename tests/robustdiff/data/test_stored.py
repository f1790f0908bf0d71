"""Images that lie in files: a tensor like any other, of which only what is used is read."""

import numpy as np
import pytest
import torch

from robustdiff.data import stored
from robustdiff.data.arrays import Images, LabelledImages, images_digest, resize
from robustdiff.data.image_cache import mapped_array
from robustdiff.data.likeness import pieces
from robustdiff.data.stored import Reader, Stored, chosen, joined, near, rows_ahead, tensor_of

PIXELS = np.random.default_rng(0).integers(0, 256, (40, 3, 4, 4), dtype=np.uint8)
ROWS = torch.tensor([7, 0, 39, 7, 21])


@pytest.fixture
def mapped(tmp_path, monkeypatch):
    np.save(tmp_path / "images.npy", PIXELS)
    with monkeypatch.context() as patch:
        patch.setattr(stored, "IN_MEMORY", 0)
        return tensor_of(mapped_array(tmp_path / "images.npy"))


class Counted:
    """A reader without an array, which remembers what it read."""

    def __init__(self):
        self.rows = []
        self.reader = Reader(PIXELS.shape, self.read, decodes=True)

    def read(self, rows):
        self.rows += rows.tolist()
        return PIXELS[rows]


@pytest.mark.parametrize("source", ["mapped", "read"])
@pytest.mark.parametrize(
    "use",
    [
        lambda images: images[ROWS],
        lambda images: images[ROWS.reshape(5, 1)],
        lambda images: images[ROWS.numpy()],
        lambda images: images[[3, -1]],
        lambda images: images[torch.arange(40) % 2 == 0],
        lambda images: images[-2],
        lambda images: images[torch.tensor(4)],
        lambda images: images[ROWS, 0],
        lambda images: images[5, 1],
        lambda images: images[:, 1],
        lambda images: images[3:9][1:].float(),
        lambda images: images[::3].contiguous().numpy(),
        lambda images: images[30:99],
        lambda images: images[9:9].float(),
        lambda images: torch.cat(torch.split(images, 15)),
        lambda images: torch.cat([part.double() for part in pieces(images)]),
        lambda images: torch.stack(list(images)),
        lambda images: images.cpu().flatten().long(),
        lambda images: images.clone(),
        lambda images: chosen(images, ROWS)[1:4],
        lambda images: joined(images[3:5], images[:2]),
        lambda images: joined(images, torch.from_numpy(PIXELS[:2])),
        lambda images: near(images, torch.device("cpu")),
        lambda images: resize(images, 2)[ROWS],
        lambda images: torch.cat([x for _, x in rows_ahead(images, torch.split(ROWS, 2))]),
        lambda images: LabelledImages(images, torch.arange(40))[ROWS][0],
    ],
)
def test_it_is_a_tensor_like_any_other(use, source, mapped):
    images = mapped if source == "mapped" else Stored(Counted().reader)
    expected = use(torch.from_numpy(PIXELS.copy()))
    for found in (use(images), torch.inference_mode()(use)(images)):
        assert found.dtype == expected.dtype
        assert np.array_equal(np.asarray(found), np.asarray(expected))


def test_only_the_rows_that_are_used_are_read():
    counted = Counted()
    images = Stored(counted.reader)
    part = chosen(images[10:], torch.tensor([5, 1]))
    twice = joined(part, images[:1])
    assert (len(twice), twice.shape, twice.dtype) == (3, (3, 3, 4, 4), torch.uint8)
    assert repr(twice) == "Stored((3, 3, 4, 4), device='cpu')"
    assert counted.rows == []
    assert torch.equal(twice[torch.tensor([2, 0])], torch.from_numpy(PIXELS[[0, 15]]))
    assert counted.rows == [0, 15]


def test_a_part_of_a_dataset_holds_no_copy(mapped):
    labels = torch.arange(40) % 2
    images = Images(
        name="x",
        train=mapped,
        train_labels=labels,
        test=mapped[:0],
        test_labels=labels[:0],
        class_names=("a", "b"),
    )
    part = images.part(torch.tensor([3, 8]))
    assert isinstance(part.train, Stored)
    assert torch.equal(part.train[torch.arange(2)], torch.from_numpy(PIXELS[[3, 8]]))
    assert images_digest(images.train) == images_digest(torch.from_numpy(PIXELS))


def test_the_whole_of_an_array_is_the_mapping_itself(mapped):
    whole = mapped[5:].numpy()
    assert whole.base is not None
    assert np.shares_memory(whole, mapped.reader.mapped)


def test_many_images_that_no_array_holds_are_not_read_at_once(monkeypatch):
    counted = Counted()
    monkeypatch.setattr(stored, "IN_MEMORY", PIXELS[:20].nbytes)
    images = Stored(counted.reader)
    assert torch.equal(images[20:].float(), torch.from_numpy(PIXELS[20:]).float())
    counted.rows.clear()
    with pytest.raises(ValueError, match=r"all pixels of 40 images at once, .* --no-copy"):
        images.float()
    assert counted.rows == []


def test_resized_parts_stay_rows_of_one_source(mapped):
    small = resize(joined(mapped[:30], mapped[30:]), 2)
    both = joined(small[5:30], small[30:])
    assert isinstance(both, Stored)
    assert torch.equal(both.whole(), resize(torch.from_numpy(PIXELS[5:]), 2))


def test_small_arrays_and_those_in_memory_are_plain_tensors(tmp_path):
    np.save(tmp_path / "images.npy", PIXELS)
    assert type(tensor_of(mapped_array(tmp_path / "images.npy"))) is torch.Tensor
    assert type(tensor_of(PIXELS)) is torch.Tensor


def test_rows_come_to_the_device_that_images_are_said_to_lie_on(mapped):
    """As for images that are larger than a GPU's memory; "meta" stands for it."""
    images = mapped.to("meta")
    assert isinstance(images, Stored)
    assert images[2:].device.type == images[ROWS].device.type == images[0].device.type == "meta"
    data = LabelledImages(images, torch.arange(40))
    assert data.rows_device.type == "cpu"
    ((batch, given, where),) = data.batches([ROWS])
    assert batch.device.type == "meta"
    assert torch.equal(given, ROWS)
    assert torch.equal(where, ROWS)


@pytest.mark.parametrize("room", [0, 10**9])
def test_what_a_gpu_has_no_room_for_stays_with_the_host(room, mapped, monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (room, room))
    monkeypatch.setattr(stored, "_moved_whole", lambda images, device: "moved")
    for images in (mapped, torch.from_numpy(PIXELS)):
        found = near(images, torch.device("cuda"))
        if room:
            assert found == "moved"
        else:
            assert isinstance(found, Stored)
            assert found.device.type == "cuda"
            assert found.reader.read(np.array([3]))[0].tolist() == PIXELS[3].tolist()
    # What is decoded is decoded when it is used, wherever there is room.
    assert isinstance(near(Stored(Counted().reader), torch.device("cuda")), Stored)
