"""diffusers' U-Net trained by Lightning, 40 % of the labels wrong; see diffusers_unet.py.

pip install diffusers lightning; python examples/lightning_unet.py scored [--out images.npz]
"""

import logging
import warnings

import torch
from diffusers_unet import (
    BATCH_SIZE,
    EVERY,
    WARMUP,
    Network,
    finish,
    loss_of,
    make_labels,
    optimiser,
    options,
)
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader

from robustdiff.trainers.lightning import LabelRounds


class Denoiser(LightningModule):
    """A U-Net that predicts noise."""

    def __init__(self) -> None:
        super().__init__()
        self.network = Network()

    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor], _: int) -> torch.Tensor:
        """Return the loss of a batch."""
        return loss_of(self.network, *batch)

    def configure_optimizers(self) -> dict[str, object]:
        """Return AdamW and the rise and fall of its rate."""
        optimizer, schedule = optimiser(self.network, int(self.trainer.estimated_stepping_batches))
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }


def train(method: str, epochs: int, seed: int, effort: str) -> Network:
    """Train by Lightning."""
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    labels = make_labels(method, seed, effort)
    torch.manual_seed(seed)
    denoiser, rounds = Denoiser(), []
    if method == "scored":
        rounds = [LabelRounds(labels, denoiser.network, warmup=WARMUP, every=EVERY)]
    trainer = Trainer(
        max_epochs=epochs,
        callbacks=rounds,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(denoiser, DataLoader(labels, BATCH_SIZE, sampler=labels.sampler()))
    print(f"{labels.wrong.mean():.3f} of the labels look wrong")
    return denoiser.network


if __name__ == "__main__":
    given = options()
    finish(train(given.method, given.epochs, given.seed, given.effort), given.out)
