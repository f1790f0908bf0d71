"""Checkpoints of a training run: what is written, and from which one a run goes on."""

import json
from typing import Any

from robustdiff.config.layers import resolve, to_plain
from robustdiff.config.roles import check_resumable
from robustdiff.config.sections import Config, TrainConfig
from robustdiff.errors import DivergedError
from robustdiff.files.checkpoint import (
    Checkpoint,
    load_checkpoint,
    save_checkpoint,
    save_scores,
)
from robustdiff.files.score_files import (
    Arrays,
    ScoreFile,
    as_arrays,
    join,
    scores_everywhere,
    split,
    write_where_unseen,
)
from robustdiff.jobs.recorder import Recorder
from robustdiff.runs.folder import Run
from robustdiff.training.state import TrainState
from robustdiff.training.task import Task, total_steps


def resumed(run: Run, task: Task) -> tuple[dict[str, Any] | None, ScoreFile | None]:
    """Return the state that a run goes on from, None if there is none, and its score file.

    The leader reads the checkpoint and sends it to the others, without the curriculum's arrays; see
    `scores_everywhere` for these. All processes must call this.

    Raises:
        ValueError: If the configuration is not the one that the checkpoint was made with.
        DamagedError: If no checkpoint can be used.
    """
    config, workers, num_samples = task.config, task.workers, len(task.data)
    steps, arrays = total_steps(config, num_samples), list[Arrays]()

    def newest() -> tuple[dict[str, Any] | None, ScoreFile | None]:
        found = _newest_for(run, steps, num_samples)
        if found is None:
            return None, None
        if found.scores is None:  # earlier versions kept the arrays in the checkpoint
            found.state["curriculum"], tensors = split(found.state.get("curriculum", {}))
            arrays.append(as_arrays(tensors))
        else:
            arrays.append(found.arrays)
        return found.state, found.scores

    saved, scores = workers.from_leader(newest)
    if saved is not None:
        _check_saved(saved, config, steps)
        own = arrays.pop() if arrays else None
        join(saved["curriculum"], scores_everywhere(run.checkpoints, scores, own, workers))
    return saved, scores


def _newest_for(run: Run, steps: int, num_samples: int) -> Checkpoint | None:
    """Load the newest checkpoint that a run of so many steps passes through.

    A learning rate that falls at the end of a run falls elsewhere in one of another length, so the
    steps from where it first falls in either are made again; the checkpoint before the fall is
    kept for that.

    Raises:
        ValueError: If there are checkpoints, all from after the rate falls in either length.
    """
    newest: list[int] = []

    def passed(saved: dict[str, Any]) -> bool:
        newest.append(saved["step"])
        config = resolve(json.loads(saved["config"])) if "config" in saved else run.config()
        length, fall = total_steps(config, num_samples), config.train.decay_steps
        return steps == length or not fall or saved["step"] <= min(length, steps) - fall

    saved = load_checkpoint(run.checkpoints, passed)
    if saved is None and newest:
        raise ValueError(
            f"run {run.path} has no checkpoint from before the learning rate falls in a run of its "
            f"length or of {steps} steps, so such a run cannot go on from its step {newest[0]}; "
            "train a new one of that length"
        )
    return saved


def _check_saved(saved: dict[str, Any], config: Config, steps: int) -> None:
    """Refuse a configuration that the checkpoint was not made with, such as an edited file's."""
    if "config" in saved:
        # Settings that are newer than the checkpoint have their defaults.
        stored = to_plain(resolve(json.loads(saved["config"])))
        check_resumable(stored, to_plain(config))
    if steps < saved["step"]:
        raise ValueError(
            f"a resumed run may become longer, not shorter than the {saved['step']} steps that "
            f"are done, got {steps}"
        )


def rate_falls_after(config: TrainConfig, steps: int) -> int | None:
    """Return the step after which the learning rate falls, None if it does not."""
    return steps - config.decay_steps if 0 < config.decay_steps < steps else None


def write_checkpoint(
    run: Run, task: Task, state: TrainState, recorder: Recorder, held: ScoreFile | None
) -> ScoreFile | None:
    """Save the state and the averaged weights; all processes must call it.

    Args:
        run: Its folder.
        task: See `Task`.
        state: What to save.
        recorder: Hands on what it has recorded.
        held: The score file of the checkpoint before.

    Returns:
        The score file of this one.

    Raises:
        DivergedError: If a weight is not finite.
        OSError: If it cannot be written.
    """
    content = state.state_dict() | {"config": json.dumps(to_plain(task.config))}
    content["curriculum"], arrays = split(content["curriculum"])
    network = state.averaged()

    def save() -> tuple[ScoreFile | None, set[str]]:
        # A gradient may overflow where the loss does not.
        if not all(bool(weight.isfinite().all()) for weight in network.parameters()):
            raise DivergedError(
                f"the weights are not finite at step {state.step}; "
                f"lower train.lr, now {task.config.train.lr:g}"
            )
        before = rate_falls_after(task.config.train, total_steps(task.config, len(task.data)))
        scores = save_scores(run.checkpoints, arrays, state.rounds, held)
        kept = save_checkpoint(
            run.checkpoints, content, state.step, scores=scores, kept_step=before
        )
        run.save_weights(network)
        return scores, kept

    recorder.flush()
    scores, kept = task.workers.from_leader(save)
    if scores is not None:
        write_where_unseen(run.checkpoints, scores, arrays, kept, task.workers)
    recorder.publish()
    return scores
