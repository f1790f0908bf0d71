import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robustdiff.rng import Stream, normal, philox, uniform


def words(counter, key):
    tensors = tuple(torch.tensor([word]) for word in counter)
    return [int(word) for word in philox(tensors, key)]


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ((0,) * 4, (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        (
            (0xFFFFFFFF,) * 4,
            (0xFFFFFFFF,) * 2,
            (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD),
        ),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_gives_the_published_known_answers(counter, key, expected):
    assert words(counter, key) == list(expected)


@settings(deadline=None, derandomize=True, max_examples=20)
@given(st.lists(st.integers(0, 10_000), min_size=1, max_size=9, unique=True), st.integers(0, 99))
def test_a_sample_gets_the_same_noise_in_any_batch(samples, step):
    together = normal(3, Stream.NOISE, step, torch.tensor(samples), (1, 3, 3))
    for row, sample in zip(together, samples, strict=True):
        alone = normal(3, Stream.NOISE, step, torch.tensor([sample]), (1, 3, 3))
        assert torch.equal(row, alone[0])


def test_any_change_of_key_changes_the_noise():
    index = torch.arange(4)
    base = normal(0, Stream.NOISE, 0, index, (8,))
    others = [
        normal(1, Stream.NOISE, 0, index, (8,)),
        normal(0, Stream.TIME, 0, index, (8,)),
        normal(0, Stream.NOISE, 1, index, (8,)),
        normal(0, Stream.NOISE, 0, index + 4, (8,)),
        normal(0, Stream.NOISE, 0, index, (8,), draw=1),
    ]
    assert not any(torch.isclose(base, other).any() for other in others)


def test_normal_numbers_are_standard_and_independent():
    x = normal(0, Stream.NOISE, 5, torch.arange(4000), (50,)).double()
    assert abs(float(x.mean())) < 4 / np.sqrt(x.numel())
    assert abs(float(x.var()) - 1) < 4 * np.sqrt(2 / x.numel())
    assert abs(float((x**4).mean()) - 3) < 0.1
    correlation = torch.corrcoef(x.T) - torch.eye(50)
    assert float(correlation.abs().max()) < 5 / np.sqrt(4000)


def test_uniform_numbers_fill_the_open_unit_interval():
    u = uniform(0, Stream.TIME, 0, torch.arange(10_000), count=5)
    assert u.shape == (10_000, 5)
    assert 0 < float(u.min()) < 1e-3
    assert 1 - 1e-3 < float(u.max()) < 1
    assert abs(float(u.mean()) - 0.5) < 0.01
