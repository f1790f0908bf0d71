"""Scoring rounds as a callback of the Trainer of Hugging Face's transformers."""

from pathlib import Path
from typing import Any

import torch

try:
    from transformers import TrainerCallback
except ImportError as error:
    raise ImportError(
        "robustdiff.trainers.transformers needs transformers: "
        "pip install 'robustdiff[transformers]'"
    ) from error

from robustdiff.files.atomic import write_atomic
from robustdiff.trainers.scored import Predict, ScoredLabels, evaluating, round_due

_FILE = "label_rounds.pt"


class LabelRounds(TrainerCallback):  # type: ignore[misc]
    """Scores the labels between epochs; the training set, which holds them, changes by it.

    The state is written beside each checkpoint of the Trainer, and read when training resumes.

    Args:
        labels: The training set, or what it was made of by `over`.
        predict: The denoiser, see `robustdiff.trainers.scored.Predict`; the model is in evaluation
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

    def on_step_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:  # noqa: ANN401
        """Score after the last step of an epoch, before a checkpoint of that step is written."""
        epochs = round(state.epoch)
        if state.epoch == epochs and round_due(epochs, self.warmup, self.every):
            with evaluating(others["model"]):
                self.labels.score(self.predict, args.device)

    def on_save(self, args: Any, state: Any, control: Any, **others: Any) -> None:  # noqa: ANN401
        """Write the state of the labels into the checkpoint."""
        if state.is_world_process_zero:
            content = self.labels.state_dict()
            write_atomic(_path(args, state), lambda file: torch.save(content, file))

    def on_train_begin(self, args: Any, state: Any, control: Any, **others: Any) -> None:  # noqa: ANN401
        """Restore the state of the labels where training resumes from a checkpoint.

        Raises:
            ValueError: If the state is not there.
        """
        if not state.global_step:
            return
        path = _path(args, state)
        if not path.is_file():
            raise ValueError(
                f"training resumes at step {state.global_step}, and the state of its labels is not "
                f"in {path}; copy {_FILE} there from the checkpoint that training resumes from"
            )
        self.labels.load_state_dict(torch.load(path, weights_only=True))


def _path(args: Any, state: Any) -> Path:  # noqa: ANN401 of transformers
    return Path(args.output_dir) / f"checkpoint-{state.global_step}" / _FILE
