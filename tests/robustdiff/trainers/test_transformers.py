"""Scoring rounds in the training of Hugging Face's Trainer."""

import numpy as np
import pytest
import torch
from bright_rows import K, bright_rows, denoiser
from torch import nn

import robustdiff

transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate")
rounds = pytest.importorskip("robustdiff.trainers.transformers")

pytestmark = pytest.mark.filterwarnings("ignore")

IMAGES, CLEAN, GIVEN = bright_rows()


class Watching(nn.Module):
    """Remembers the labels of its batches, and whether it was training when it was asked."""

    def __init__(self):
        super().__init__()
        self.network, self.seen, self.modes = nn.Linear(1, 1), [], []
        self.known = denoiser()

    def predict(self, x_t, t, label):
        self.modes.append(self.training)
        return self.known(x_t, t, label)

    def forward(self, images, labels):
        self.seen += labels.tolist()
        return {"loss": self.network(torch.zeros(1, 1)).sum()}


def collate(items):
    images, labels = zip(*items, strict=True)
    return {"images": torch.stack(images), "labels": torch.tensor(labels)}


def fit(folder, epochs, *, resume=False, **saving):
    labels, model = robustdiff.ScoredLabels(IMAGES, GIVEN, num_classes=K), Watching()
    settings = transformers.TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=epochs,
        per_device_train_batch_size=40,
        **({"save_strategy": "epoch"} | saving),
        logging_strategy="no",
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        remove_unused_columns=False,
    )
    transformers.Trainer(
        model=model,
        args=settings,
        train_dataset=labels,
        data_collator=collate,
        callbacks=[rounds.LabelRounds(labels, model.predict, warmup=2, every=2)],
    ).train(resume_from_checkpoint=resume)
    return labels, model


def test_epochs_after_a_round_train_on_the_labels_it_trusts_also_when_resumed(tmp_path):
    labels, model = fit(tmp_path / "run", 3)
    assert labels.rounds == 1
    trusted = np.where(GIVEN != CLEAN, K, GIVEN)
    epochs = np.split(np.array(model.seen), 3)
    for epoch, expected in zip(epochs, (GIVEN, GIVEN, trusted), strict=True):
        assert sorted(epoch) == sorted(expected)
    assert model.modes
    assert not any(model.modes)
    again, model = fit(tmp_path / "run", 4, resume=True)
    assert sorted(model.seen) == sorted(trusted)
    assert again.rounds == 2
    whole, _ = fit(tmp_path / "whole", 4)
    assert np.array_equal(again.scores, whole.scores)


def test_a_checkpoint_of_the_last_step_of_an_epoch_holds_its_round(tmp_path):
    steps = -(-len(GIVEN) // 40)
    saving = {"save_strategy": "steps", "save_steps": 2 * steps}
    whole, _ = fit(tmp_path / "run", 4, **saving)
    again, model = fit(
        tmp_path / "run", 4, resume=str(tmp_path / "run" / f"checkpoint-{2 * steps}"), **saving
    )
    assert K in model.seen
    assert again.rounds == whole.rounds == 2
    assert np.array_equal(again.scores, whole.scores)


def test_resuming_without_the_state_of_the_labels_is_refused(tmp_path):
    fit(tmp_path / "run", 2)
    checkpoint = next((tmp_path / "run").glob("checkpoint-*"))
    with pytest.raises(ValueError, match=r"copy label_rounds\.pt there"):
        fit(tmp_path / "other", 3, resume=str(checkpoint))
