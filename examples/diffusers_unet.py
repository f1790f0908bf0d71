"""Another library's class-conditional U-Net in a hand-written loop, 40 % of the labels wrong.

The network is diffusers' `UNet2DModel` with `num_class_embeds`. `plain` trains it on the labels as
given; `judged` on those of `RobustLabels`, which classifiers judge before training; `scored` on
those of `ScoredLabels`, which the network itself scores between epochs.

pip install diffusers; python examples/diffusers_unet.py judged [--epochs 25] [--out images.npz]
"""

import argparse
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # diffusers warns about its own dependencies
    from diffusers import DDIMScheduler, DDPMScheduler, UNet2DModel

import robustdiff
from corruptions import corrupt
from robustdiff.data.registry import load_images
from robustdiff.progress import Report
from robustdiff.trainers.scored import round_due

K, BATCH_SIZE, P_UNCOND, GUIDANCE = 10, 64, 0.2, 1.0
WARMUP, EVERY = 10, 2
NOISE = {"num_train_timesteps": 1000, "beta_schedule": "squaredcos_cap_v2"}
SCHEDULE = DDPMScheduler(**NOISE)


class Network(nn.Module):
    """diffusers' U-Net for 8 x 8 grey images; class K stands for no label."""

    def __init__(self) -> None:
        super().__init__()
        self.unet = UNet2DModel(
            sample_size=8,
            in_channels=1,
            out_channels=1,
            block_out_channels=(16, 32),
            layers_per_block=1,
            norm_num_groups=8,
            down_block_types=("DownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "UpBlock2D"),
            num_class_embeds=K + 1,
        )

    def forward(self, x_t: torch.Tensor, t: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        """Return the predicted noise, (B, 1, 8, 8)."""
        return self.unet(x_t, t, label).sample


def make_labels(
    method: str, seed: int, effort: str
) -> robustdiff.RobustLabels | robustdiff.ScoredLabels:
    """Return the training set: digits, 40 % of whose labels are wrong."""
    images = load_images(robustdiff.Config().data, Report())
    clean = images.train_labels.numpy()
    given = corrupt(clean, num_classes=K, noise_type="symmetric", rate=0.4, seed=seed).given
    if method == "judged":
        judged = robustdiff.RobustLabels(
            images.train, given, {"seed": seed, "judge.effort": effort}
        )
        print(
            f"{judged.verdict}; {(judged.labels != clean).mean():.3f} are wrong after relabelling"
        )
        return judged
    return robustdiff.ScoredLabels(
        images.train, given, num_classes=K, alphas_cumprod=SCHEDULE.alphas_cumprod, seed=seed
    )


def loss_of(network: Network, x_0: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Return the error of the predicted noise, labels dropped at random."""
    eps, t = torch.randn_like(x_0), torch.randint(0, 1000, (len(x_0),))
    y = torch.where(torch.rand(len(y)) < P_UNCOND, K, y)
    return (network(SCHEDULE.add_noise(x_0, eps, t), t, y) - eps).square().mean()


def optimiser(network: Network, steps: int) -> tuple[torch.optim.Optimizer, object]:
    """Return AdamW and the rise and fall of its rate."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=4e-3, fused=True)
    return optimizer, torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)


@torch.no_grad()
def generate(network: Network, classes: torch.Tensor) -> torch.Tensor:
    """Return one guided image per class, (M, 1, 8, 8) uint8, by 25 steps of DDIM."""
    network.eval()
    sampler, x = DDIMScheduler(**NOISE), torch.randn(len(classes), 1, 8, 8)
    sampler.set_timesteps(25)
    for t in sampler.timesteps:
        eps, null = (network(x, t, label) for label in (classes, torch.full_like(classes, K)))
        x = sampler.step((1 + GUIDANCE) * eps - GUIDANCE * null, t, x).prev_sample
    return ((x + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def train(method: str, epochs: int, seed: int, effort: str) -> Network:
    """Train by hand."""
    labels = make_labels(method, seed, effort)
    torch.manual_seed(seed)
    network = Network()
    loader = DataLoader(labels, BATCH_SIZE, sampler=labels.sampler())
    optimizer, schedule = optimiser(network, epochs * len(loader))
    for epoch in range(1, epochs + 1):
        for x_0, y in loader:
            optimizer.zero_grad()
            loss_of(network, x_0, y).backward()
            optimizer.step()
            schedule.step()
        if method == "scored" and round_due(epoch, WARMUP, EVERY):
            network.eval()
            labels.score(network)
            network.train()
            print(f"epoch {epoch}: {labels.wrong.mean():.3f} of the labels look wrong", flush=True)
    return network


def options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("method", choices=["plain", "judged", "scored"])
    parser.add_argument("--epochs", type=int, default=25)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--effort", choices=["quick", "default", "thorough"], default="quick")
    parser.add_argument("--out", help="file of generated images")
    return parser.parse_args()


def finish(network: Network, out: str | Path | None) -> None:
    """Generate 43 images of each class, as many as there are held-out ones, into a file."""
    if out is not None:
        classes = torch.arange(430) % K
        np.savez(out, images=generate(network, classes).numpy(), classes=classes.numpy())


if __name__ == "__main__":
    given = options()
    finish(train(given.method, given.epochs, given.seed, given.effort), given.out)
