"""Scoring rounds in Lightning's training."""

import numpy as np
import pytest
import torch
from bright_rows import COUNT, K, bright_rows, denoiser
from torch import nn
from torch.utils.data import DataLoader

import robustdiff

lightning = pytest.importorskip("lightning.pytorch")
rounds = pytest.importorskip("robustdiff.trainers.lightning")
ModelCheckpoint = lightning.callbacks.ModelCheckpoint

# Lightning warns about this machine's loaders and about what it will change.
pytestmark = pytest.mark.filterwarnings("ignore")

IMAGES, CLEAN, GIVEN = bright_rows()


class Watching(lightning.LightningModule):
    """Remembers the labels of each epoch, and whether it was training when it was asked."""

    def __init__(self):
        super().__init__()
        self.network, self.epochs, self.modes = nn.Linear(1, 1), [], []
        self.known = denoiser()

    def predict(self, x_t, t, label):
        self.modes.append(self.training)
        return self.known(x_t, t, label)

    def on_train_epoch_start(self):
        self.epochs.append([])

    def training_step(self, batch, _):
        if not self.epochs:  # resumed in the last step of an epoch
            self.epochs.append([])
        self.epochs[-1] += batch[1].tolist()
        return self.network(torch.zeros(1, 1)).sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(folder, epochs, resumed=None, **saving):
    labels = robustdiff.ScoredLabels(IMAGES, GIVEN, num_classes=K)
    module = Watching()
    trainer = lightning.Trainer(
        max_epochs=epochs,
        callbacks=[
            rounds.LabelRounds(labels, module.predict, warmup=2, every=2),
            *([ModelCheckpoint(folder, save_top_k=-1, **saving)] if saving else []),
        ],
        accelerator="cpu",
        logger=False,
        enable_checkpointing=bool(saving),
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )
    trainer.fit(module, DataLoader(labels, 40, sampler=labels.sampler()), ckpt_path=resumed)
    return labels, module, trainer


def test_epochs_after_a_round_train_on_the_labels_it_trusts_also_when_resumed(tmp_path):
    labels, module, trainer = fit(tmp_path, 3)
    assert labels.rounds == 1
    trusted = np.where(GIVEN != CLEAN, K, GIVEN)
    assert [sorted(epoch) for epoch in module.epochs] == [
        sorted(GIVEN),
        sorted(GIVEN),
        sorted(trusted),
    ]
    assert module.modes
    assert not any(module.modes)
    assert module.training
    assert trainer.callback_metrics["label_noise"] == pytest.approx((GIVEN != CLEAN).mean())
    trainer.save_checkpoint(tmp_path / "three.ckpt")
    again, module, _ = fit(tmp_path, 4, resumed=tmp_path / "three.ckpt")
    assert sorted(module.epochs[0]) == sorted(trusted)
    assert again.rounds == 2
    whole, _, _ = fit(tmp_path, 4)
    assert np.array_equal(again.scores, whole.scores)


@pytest.mark.parametrize(
    "saving", [{"every_n_train_steps": 2 * -(-COUNT // 40)}, {"every_n_epochs": 1}]
)
def test_a_checkpoint_of_the_end_of_an_epoch_holds_its_round_once(tmp_path, saving):
    whole, _, _ = fit(tmp_path / "run", 4, **saving)
    saved = next((tmp_path / "run").glob("epoch=1-*.ckpt"))
    again, module, _ = fit(tmp_path / "again", 4, resumed=saved, **saving)
    assert K in module.epochs[0]
    assert again.rounds == whole.rounds == 2
    assert np.array_equal(again.scores, whole.scores)


def test_a_callback_that_is_used_again_scores_again():
    labels, module = robustdiff.ScoredLabels(IMAGES, GIVEN, num_classes=K), Watching()
    again = rounds.LabelRounds(labels, module.predict, warmup=1, every=1)
    for _ in range(2):
        trainer = lightning.Trainer(
            max_epochs=1,
            callbacks=[again],
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(module, DataLoader(labels, 40))
    assert labels.rounds == 2


def test_bad_settings_are_refused_before_training():
    labels = robustdiff.ScoredLabels(IMAGES, GIVEN, num_classes=K)
    with pytest.raises(ValueError, match="must be at least 1, got 2 and 0"):
        rounds.LabelRounds(labels, denoiser(), warmup=2, every=0)
    assert len(labels) == COUNT
