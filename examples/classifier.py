"""A plain classifier under label noise, with and without a curriculum: no diffusion, no robustdiff.

`corruptions` makes 40 % of the labels wrong; `CurriculumSampler` ("small-loss") draws the samples
of every epoch by the losses of the epoch before. Only the last line looks at the clean labels.

python examples/classifier.py [EPOCHS]
"""

import sys

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.nn.functional import cross_entropy

from corruptions import corrupt
from curricula import CurriculumSampler, Selection


def train(name: str, x: torch.Tensor, given: np.ndarray, epochs: int) -> nn.Module:
    """Train a small network under a curriculum.

    Args:
        name: Key of `curricula.CURRICULA`: "uniform" or "small-loss".
        x: (N, D) float32.
        given: (N,) int64 labels, some wrong.
        epochs: Passes over the selected samples.
    """
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(x.shape[1], 128), nn.ReLU(), nn.Linear(128, 10))
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3)
    sampler = CurriculumSampler(name, len(x), seed=0, selection=Selection(temperature=3.0, mk=0.5))
    labels = torch.from_numpy(given)
    for epoch in range(epochs):
        order = torch.from_numpy(sampler.order(epoch, given))
        for batch in order.split(64):
            optimizer.zero_grad()
            cross_entropy(network(x[batch]), labels[batch]).backward()
            optimizer.step()
        if name != "uniform":
            with torch.no_grad():
                sampler.update(-cross_entropy(network(x), labels, reduction="none").numpy())
    return network


def main(epochs: int) -> None:
    """Print the accuracy on clean labels with and without the curriculum."""
    digits = load_digits()
    x, x_test, y, y_test = train_test_split(
        digits.data.astype(np.float32) / 16, digits.target, test_size=450, random_state=0
    )
    noisy = corrupt(y, num_classes=10, noise_type="symmetric", rate=0.4, seed=0)
    for name in ("uniform", "small-loss"):
        network = train(name, torch.from_numpy(x), noisy.given, epochs)
        predicted = network(torch.from_numpy(x_test)).argmax(1).numpy()
        print(f"{name}: {(predicted == y_test).mean():.3f} of the held-out digits are right")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 30)
