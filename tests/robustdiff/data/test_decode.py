"""Single image files: number ranges, transparency, orientation, proportions, what is no file."""

import hashlib
import os
import socket
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, UnidentifiedImageError

from robustdiff.data.decode import file_state, read_image, reason
from robustdiff.data.store import files_under


def pixel(path, channels=1):
    return read_image(files_under(path.parent), path.name, 4, channels).pixels[:, 0, 0].tolist()


def test_sixteen_bits_are_scaled_not_clipped(tmp_path):
    Image.fromarray(np.full((6, 6), 257 * 100, dtype=np.uint16)).save(tmp_path / "a.png")
    assert pixel(tmp_path / "a.png") == [100]
    Image.fromarray(np.full((6, 6), 0.5, dtype=np.float32)).save(tmp_path / "a.tiff")
    with pytest.raises(ValueError, match="no fixed range"):
        pixel(tmp_path / "a.tiff")


@pytest.mark.parametrize("value", [-1, 65536, 2**31 - 1])
def test_grey_values_beyond_sixteen_bits_are_refused_not_clipped(tmp_path, value):
    values = np.full((6, 6), 257 * 100, dtype=np.int32)
    Image.fromarray(values).save(tmp_path / "a.tiff")
    assert pixel(tmp_path / "a.tiff") == [100]
    values[2, 3] = value
    Image.fromarray(values).save(tmp_path / "a.tiff")
    with pytest.raises(ValueError, match=rf"must be in \[0, 65535\], got .*{value}"):
        pixel(tmp_path / "a.tiff")


def test_transparency_lies_over_white(tmp_path):
    for mode, colour in (("RGBA", (10, 20, 30, 0)), ("LA", (10, 0))):
        Image.new(mode, (6, 6), colour).save(tmp_path / "a.png")
        assert pixel(tmp_path / "a.png", 3) == [255, 255, 255]


def test_cameras_orientation_is_followed(tmp_path):
    upright = Image.fromarray(np.repeat(np.array([[0], [255]], dtype=np.uint8), 8, 1).repeat(4, 0))
    exif = Image.Exif()
    exif[0x0112] = 3  # stored upside down
    upright.save(tmp_path / "a.png", exif=exif)
    assert read_image(files_under(tmp_path), "a.png", 8, 1).pixels[0, 0, 0] == 255


def test_oblong_images_keep_their_proportions(tmp_path):
    pixels = np.zeros((10, 30), dtype=np.uint8)
    pixels[:, 10:20] = 200
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert (read_image(files_under(tmp_path), "a.png", 10, 1).pixels == 200).all()


def pack(values):
    """Pack 12-bit values as a TIFF does: rows of whole bytes, the first value's high bits first."""
    rows = ["".join(f"{value:012b}" for value in row) for row in values]
    rows = [row + "0" * (-len(row) % 8) for row in rows]
    return b"".join(int(row, 2).to_bytes(len(row) // 8, "big") for row in rows)


def tiff(bits, values, content, orientation=1):
    """Return a grey TIFF with one strip and the tag BitsPerSample."""
    height, width = values.shape
    tags = [(256, width), (257, height), (258, bits), (259, 1), (262, 1), (273, 140)]
    tags += [(274, orientation), (277, 1), (278, height), (279, len(content))]
    entries = b"".join(struct.pack("<HHIHH", tag, 3, 1, value, 0) for tag, value in tags)
    header = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)
    return header.ljust(140, b"\0") + content


@pytest.mark.parametrize("container", [12, 16])
@given(st.integers(0, 4095), st.integers(2, 9))
def test_twelve_bits_by_their_tag_are_scaled_as_twelve(tmp_path_factory, container, value, width):
    values = np.full((5, width), value)
    content = pack(values) if container == 12 else values.astype("<u2").tobytes()
    path = tmp_path_factory.getbasetemp() / "a.tif"
    path.write_bytes(tiff(12, values, content))
    assert pixel(path) == [round(value * 255 / 4095)]
    assert not read_image(files_under(path.parent), path.name, 4, 1).is_dim


def test_twelve_bits_of_sixteen_are_turned_upright(tmp_path):
    values = np.repeat(np.array([[0], [4095]]), 8, 1).repeat(4, 0)
    content = values.astype("<u2").tobytes()
    (tmp_path / "a.tif").write_bytes(tiff(12, values, content, orientation=3))
    assert (
        read_image(files_under(tmp_path), "a.tif", 8, 1).pixels[0, :, 0].tolist()
        == [255] * 4 + [0] * 4
    )


def test_sixteen_bits_without_a_tag_stay_sixteen_and_are_called_dim(tmp_path):
    for top, is_dim in ((0, False), (4095, True), (4096, False)):
        values = np.zeros((6, 6), dtype=np.uint16)
        values[0, 0] = top
        for name in ("a.tif", "a.png"):
            Image.fromarray(values).save(tmp_path / name)
            image = read_image(files_under(tmp_path), name, 6, 1)
            assert image.is_dim == is_dim
            assert image.pixels.max() == round(top / 257)


def test_the_digest_is_of_the_files_bytes(tmp_path):
    Image.new("L", (4, 4)).save(tmp_path / "a.png")
    expected = hashlib.sha256((tmp_path / "a.png").read_bytes()).hexdigest()[:16]
    assert read_image(files_under(tmp_path), "a.png", 4, 1).digest == expected


def test_what_is_no_file_is_named_and_never_opened(tmp_path):
    def named(name):
        return file_state(tmp_path / name)

    (tmp_path / "whole.png").write_bytes(b"x")
    (tmp_path / "empty.png").touch()
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "dead.png").symlink_to("gone.png")
    (tmp_path / "itself.png").symlink_to("itself.png")
    (tmp_path / "good.png").symlink_to("whole.png")
    (tmp_path / "device.png").symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "to-pipe.png").symlink_to("pipe.png")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket.png"))
    assert isinstance(named("whole.png"), os.stat_result)
    assert isinstance(named("good.png"), os.stat_result)
    assert named("empty.png") == "an empty file"
    assert named("folder.png") == "a folder"
    assert named("dead.png") == named("itself.png") == "a link to nothing"
    for name in ("pipe.png", "to-pipe.png", "socket.png", "device.png"):
        assert named(name) == "not a regular file"
    assert named("gone.png") == "No such file or directory"


def test_reasons_are_short_and_hold_no_path():
    assert reason(PermissionError(13, "Permission denied", "/a/b.png")) == "Permission denied"
    assert (
        reason(UnidentifiedImageError("<_io.BytesIO at 0x1>")) == "not an image of a known format"
    )
    assert reason(OSError("image file is truncated")) == "image file is truncated"
    assert reason(MemoryError()) == "MemoryError"
