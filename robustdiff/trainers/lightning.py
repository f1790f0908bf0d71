"""Scoring rounds as a callback of Lightning."""

from typing import Any

try:
    from lightning.pytorch import Callback, LightningModule, Trainer
except ImportError as error:
    raise ImportError(
        "robustdiff.trainers.lightning needs Lightning: pip install 'robustdiff[lightning]'"
    ) from error

from robustdiff.trainers.scored import Predict, ScoredLabels, evaluating, round_due


class LabelRounds(Callback):  # type: ignore[misc]
    """Scores the labels between epochs; the training set, which holds them, changes by it.

    The share of labels that look wrong is logged as "label_noise". Checkpoints hold the state. Each
    process of a distributed training scores all labels.

    Args:
        labels: The training set of the loader, or what it was made of by `over`.
        predict: The denoiser, see `robustdiff.trainers.scored.Predict`; the module is in evaluation
            mode when it is called.
        warmup: Epochs before the first round, at least 1.
        every: Epochs from a round to the next, at least 1.

    Raises:
        ValueError: If warmup or every is below 1.
    """

    def __init__(
        self, labels: ScoredLabels, predict: Predict, *, warmup: int = 10, every: int = 10
    ) -> None:
        round_due(0, warmup, every)
        self.labels, self.predict, self.warmup, self.every = labels, predict, warmup, every

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:  # noqa: ANN401
        """Score after the last batch of an epoch, before a checkpoint of that step is written."""
        epochs = trainer.current_epoch + 1
        if trainer.is_last_batch and round_due(epochs, self.warmup, self.every):
            with evaluating(pl_module):
                self.labels.score(self.predict, pl_module.device)
            noise = float(self.labels.wrong.mean())
            pl_module.log("label_noise", noise, on_step=False, on_epoch=True)

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the labels."""
        return self.labels.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state of the labels."""
        self.labels.load_state_dict(state_dict)
