"""Settings of a run: one frozen dataclass per section; no torch or pydantic, for a fast --help."""

import dataclasses
from typing import Annotated, Literal

from robustdiff.config import names
from robustdiff.config.bounds import Within, check_bounds
from robustdiff.config.images import DataConfig
from robustdiff.config.judging import JudgeConfig
from robustdiff.config.measuring import EvalConfig

Count = Annotated[int, Within(1)]
AtLeastZero = Annotated[float, Within(0)]
Positive = Annotated[float, Within(0, without="low")]
Share = Annotated[float, Within(0, 1)]
Decay = Annotated[float, Within(0, 1, without="high")]


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


@dataclasses.dataclass(frozen=True, kw_only=True)
class NoiseConfig:
    """Which labels are made wrong.

    Attributes:
        rate: Probability that a label changes, in [0, 1].
        type: Key of `corruptions.NOISE_TYPES` or `corruptions.COMPAT`.
        mode: Key of `corruptions.MODES`: how many labels flip.
        matrix: Path of a (K, K) row-stochastic matrix (.npy, or .csv), for type "matrix".
        class_map: Name in `corruptions.CLASS_MAPS` or path of a .json file, for type "asymmetric";
            None is the dataset's default.
        labels: Path of a file with the given labels, in place of drawn noise.
        labels_key: Which labels, in a file with several.
        labels_as: Whether the words of a label file are names or numbers of classes; "auto" decides
            by what all words are, see `corruptions.labels_from`.
    """

    rate: Share = 0.0
    type: str = "symmetric"
    mode: names.NoiseMode = "exact"
    matrix: str | None = None
    class_map: str | None = None
    labels: str | None = None
    labels_key: str | None = None
    labels_as: names.LabelsAsName = "auto"

    def __post_init__(self) -> None:
        check_bounds(self, "noise")
        _require(
            (self.matrix is not None) == (self.type == "matrix"),
            f"noise.matrix goes with noise.type = 'matrix' and only with it, "
            f"got type {self.type!r} and matrix {self.matrix!r}",
        )
        _require(
            self.class_map is None or self.type == "asymmetric",
            f"noise.class_map goes with noise.type = 'asymmetric', got type {self.type!r}",
        )
        _require(
            self.labels is None or (self.rate == 0 and self.matrix is None),
            f"noise.labels takes the place of drawn noise, got noise.rate = {self.rate} beside it",
        )
        _require(
            self.labels_key is None or self.labels is not None,
            f"noise.labels_key goes with noise.labels, got {self.labels_key!r} alone",
        )
        _require(
            self.labels_as == "auto" or self.labels is not None,
            f"noise.labels_as goes with noise.labels, got {self.labels_as!r} alone",
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The U-Net; see `robustdiff.diffusion.nets.unet.UNet`.

    Attributes:
        channels: Output channels of the encoder levels; the last are the bottleneck's.
        cen: How the class enters; see `robustdiff.diffusion.nets.embeddings.class_embedding_sizes`.
        cen_hidden: Width of the hidden layers of every class embedding network; "size" makes each
            as wide as the vector it embeds into.
        cen_depth: Hidden layers of every class embedding network.
        cen_activation: What follows each hidden layer.
        heads: Heads of every attention.
        time_size: Length of the time embedding.
        patch_size: Side of the squares of pixels that are folded into channels.
    """

    channels: tuple[int, ...] = (64, 128)
    cen: str = "pyramid"
    cen_hidden: Count | Literal["size"] = 64
    cen_depth: Count = 1
    cen_activation: Literal["silu", "relu"] = "silu"
    heads: Count = 1
    time_size: Annotated[int, Within(2)] = 100
    patch_size: Count = 1

    def __post_init__(self) -> None:
        check_bounds(self, "model")
        _require(
            len(self.channels) > 0 and min(self.channels) > 0,
            f"model.channels must be one or more positive widths, got {list(self.channels)}",
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class DiffusionConfig:
    """The forward process and what the network predicts.

    Attributes:
        schedule: Key of `robustdiff.diffusion.schedules.SCHEDULES`.
        prediction: Key of `robustdiff.diffusion.process.PREDICTIONS`.
        p_uncond: Probability per example that its label is dropped, in [0, 1].
        time_sampling: "uniform" draws times evenly; the others, keys of
            `robustdiff.diffusion.noise_levels.LOG_SNR_DISTRIBUTIONS`, draw log-SNRs.
        log_snr_range: (low, high) log-SNRs between which they are drawn, as far as the schedule
            reaches; also those that loss weight "sigmoid" counts.
        loss_weight: "none" is the plain squared error of what the network predicts; see
            `robustdiff.diffusion.noise_levels.loss_weights`.
        min_snr: gamma of loss weight "min-snr".
        sigmoid_bias: b of loss weight "sigmoid".
    """

    schedule: names.ScheduleName = "cosine"
    prediction: names.PredictionName = "v"
    p_uncond: Share = 0.2
    time_sampling: names.TimeSamplingName = "uniform"
    log_snr_range: tuple[float, float] = (-20.0, 20.0)
    loss_weight: names.LossWeightName = "none"
    min_snr: Positive = 5.0
    sigmoid_bias: float = 2.0

    def __post_init__(self) -> None:
        check_bounds(self, "diffusion")
        # Every schedule reaches 0, and within this no float64 overflows.
        low, high = self.log_snr_range
        _require(
            -50 <= low < 0 < high <= 50,
            f"diffusion.log_snr_range must be -50 <= low < 0 < high <= 50, got {[low, high]}",
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How long and with what step.

    Attributes:
        steps: Optimiser steps; exactly one of steps and epochs is given.
        epochs: The length in passes over the dataset instead.
        batch_size: Images per step.
        lr: Learning rate of AdamW between warm-up and decay.
        warmup_steps: Steps over which the rate grows linearly.
        decay_steps: Last steps of the run, over which the rate falls linearly to 0.
        grad_clip: Largest gradient norm.
        ema: Decay of the weight average, in [0, 1).
        log: Where the log goes besides metrics.jsonl, which every run writes; see
            `robustdiff.reports.logs`.
        log_every: Steps between logged losses.
        sample_every: Steps between sample grids.
        checkpoint_every: Steps between checkpoints.
        checkpoint_minutes: Most minutes between checkpoints; None for no such limit.
        device: "auto" is CUDA where there is one, else the CPU.
        precision: "auto" is bf16 where the hardware computes in it, else fp32.
        compile: Compile the training step's network with torch.compile: a minute or more before
            the first step of a network that is not cached yet, then faster steps.
    """

    steps: Count | None = None
    epochs: Count | None = None
    batch_size: Count = 128
    lr: Positive = 1e-3
    warmup_steps: Annotated[int, Within(0)] = 50
    decay_steps: Annotated[int, Within(0)] = 0
    grad_clip: Positive = 1.0
    ema: Decay = 0.995
    log: tuple[names.LogName, ...] = ("tensorboard",)
    log_every: Count = 20
    sample_every: Count = 500
    checkpoint_every: Count = 500
    checkpoint_minutes: Positive | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    compile: bool = False

    def __post_init__(self) -> None:
        _require(
            (self.steps is None) != (self.epochs is None),
            f"give exactly one of train.steps and train.epochs, "
            f"got steps = {self.steps}, epochs = {self.epochs}",
        )
        check_bounds(self, "train")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ObjectiveConfig:
    """What the network is fitted to; see `robustdiff.training.objective`.

    Attributes:
        name: "plain" trusts the labels; "tdsm" mixes the classes that may be behind a label, by
            image and label; "tdsm-class" by the label alone.
        matrix: T[clean, given]: path of a (K, K) matrix (.npy, or .csv), or "nominal" for the one
            that made the labels wrong; None estimates it.
        gradient: "all" differentiates the outputs of all mixed classes, "given" that of the given
            class alone, as the authors' code does.
    """

    name: names.ObjectiveName = "plain"
    matrix: str | None = None
    gradient: Literal["all", "given"] = "all"

    def __post_init__(self) -> None:
        _require(
            self.matrix is None or self.name != "plain",
            f"objective.matrix goes with objective.name = 'tdsm' or 'tdsm-class', "
            f"got {self.name!r}",
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class CurriculumConfig:
    """Which samples are preferred, and what is done about the others.

    Attributes:
        name: Key of `curricula.CURRICULA`.
        treatment: What the score does; None is the curriculum's own default.
        warmup: Passes over the dataset before the first scoring round.
        score_every: Passes over the dataset between scoring rounds.
        probes: Noise draws (t, eps) per sample and round.
        probe_times: (low, high) range of the probes' times, stratified within; equal for one time.
        rivals: Classes that curriculum "margin" tries besides the given one, the likeliest by what
            earlier rounds found. In the first round classifiers of images that learn for a moment
            name them, and of more than 128 classes always four; of fewer than 1,000 images, or
            where these know nothing of more than 128 classes, the first round tries all. None, or
            K - 1 and more, tries all in every round; of more than 128 classes, which keep four
            besides the given one, later rounds try those.
        rotate: Rounds over which the samples take turns: each round after the first probes one in
            so many.
        pairing: "paired" evaluates old and new weights on the same probes; "redrawn" the old ones
            on those of their own round, as the released code of the paper does.
        smoothing: Share of the old score kept at an update, in [0, 1).
        temperature: Sharpness of the draw: weights are exp(temperature * standardised score).
        k: Share of the dataset drawn in the first epoch that is selected.
        dk: Relative decrease of that share per round.
        mk: Smallest share.
    """

    name: names.CurriculumName = "uniform"
    treatment: names.TreatmentName | None = None
    warmup: Annotated[int, Within(0)] = 1
    score_every: Count = 1
    probes: Count = 4
    probe_times: tuple[float, float] = (0.5, 0.95)
    rivals: Count | None = 2
    rotate: Count = 1
    pairing: Literal["paired", "redrawn"] = "paired"
    smoothing: Decay = 0.7
    temperature: AtLeastZero = 1.0
    k: float = 1.0
    dk: Decay = 0.1
    mk: float = 0.3

    def __post_init__(self) -> None:
        low, high = self.probe_times
        _require(
            0 < low <= high <= 1,
            f"curriculum.probe_times must be 0 < low <= high <= 1, got {[low, high]}",
        )
        check_bounds(self, "curriculum")
        _require(
            0 < self.mk <= self.k <= 1,
            f"curriculum must have 0 < mk <= k <= 1, got mk = {self.mk}, k = {self.k}",
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class SampleConfig:
    """How images are generated.

    Attributes:
        sampler: Key of `robustdiff.diffusion.samplers.SAMPLERS`.
        steps: Sampling steps, at most 10,000: more gain nothing and keep a machine busy for weeks.
        spacing: Key of `robustdiff.diffusion.schedules.SPACINGS`; None is "karras" for sampler
            "edm", "power" for "unipc", "even" for the others.
        rho: Exponent of the Karras spacing.
        t_start: Time of the first step, in (0, 1]; see `robustdiff.diffusion.schedules.time_grid`.
        v: Variance interpolation of the ancestral sampler, in [0, 1].
        eta: Randomness of DDIM, in [0, 1].
        churn: Noise that sampler "edm" adds back over its steps (S_churn), at least 0.
        guidance: Key of `robustdiff.jobs.model.GUIDES`: away from the estimate without a label,
            up the gradient of a classifier of noisy images, or away from a weaker model ("auto").
            Grids drawn during training are always classifier-free.
        weak: Folder of the weaker model's run, for guidance "auto".
        guidance_weight: The paper's w; 0 is plain conditional.
        guidance_interval: (low, high) times between which guidance acts.
        guidance_outside: What the other steps see: "null" (unconditional) or the "given" label.
        guidance_rescale: Share in [0, 1] to which guided outputs get the spread of unguided ones.
        guidance_every: Of so many calls within the interval the first is guided in full; the others
            reuse its difference from the conditional estimate.
        undo_label_noise: Generate the clean classes, by a model that was trained on labels as given
            and by the estimate of their noise that an audit made; see
            `robustdiff.diffusion.label_noise`. Grids drawn during training are not.
        batch_size: Images generated at once.
        compile: Compile the network that generates with torch.compile: most of a minute before
            the first images of a network that is not cached yet, then faster ones. Grids drawn
            during training are not.
    """

    sampler: names.SamplerName = "dpm-solver++"
    steps: Annotated[int, Within(1, 10_000)] = 20
    spacing: names.SpacingName | None = None
    rho: Annotated[float, Within(1)] = 7.0
    t_start: Annotated[float, Within(0, 1, without="low")] = 0.99
    v: Share = 0.2
    eta: Share = 0.0
    churn: AtLeastZero = 0.0
    guidance: names.GuidanceName = "classifier-free"
    weak: str | None = None
    guidance_weight: AtLeastZero = 0.5
    guidance_interval: tuple[float, float] = (0.0, 1.0)
    guidance_outside: Literal["null", "given"] = "null"
    guidance_rescale: Share = 0.0
    guidance_every: Count = 1
    undo_label_noise: bool = False
    batch_size: Count = 256
    compile: bool = False

    def __post_init__(self) -> None:
        low, high = self.guidance_interval
        _require(
            0 <= low <= high <= 1,
            f"sample.guidance_interval must be 0 <= low <= high <= 1, got {[low, high]}",
        )
        _require(
            (self.weak is not None) == (self.guidance == "auto"),
            f"sample.weak, a run, goes with sample.guidance = 'auto' and only with it, "
            f"got guidance {self.guidance!r} and weak {self.weak!r}",
        )
        check_bounds(self, "sample")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Everything that determines a run, `seed` every random draw; config.json in its folder."""

    seed: Annotated[int, Within(0)] = 0
    data: DataConfig = DataConfig()  # noqa: RUF009 it is frozen
    noise: NoiseConfig = NoiseConfig()
    model: ModelConfig = ModelConfig()
    diffusion: DiffusionConfig = DiffusionConfig()
    train: TrainConfig = TrainConfig(steps=1000)
    objective: ObjectiveConfig = ObjectiveConfig()
    curriculum: CurriculumConfig = CurriculumConfig()
    judge: JudgeConfig = JudgeConfig()  # noqa: RUF009 it is frozen
    sample: SampleConfig = SampleConfig()
    eval: EvalConfig = EvalConfig()  # noqa: RUF009 it is frozen

    def __post_init__(self) -> None:
        check_bounds(self, "")
        _require(
            self.objective.name == "plain" or self.curriculum.name == "uniform",
            f"objective {self.objective.name!r} models the labels as given, so it goes with "
            f"curriculum 'uniform' alone, got {self.curriculum.name!r}",
        )
        if self.sample.undo_label_noise:
            self._check_undoing()

    def _check_undoing(self) -> None:
        taken = self.objective.name, self.curriculum.name
        _require(
            self.data.whole or taken == ("plain", "uniform"),
            f"sample.undo_label_noise is for models that took labels as given, so it goes with "
            f"objective 'plain' and curriculum 'uniform', got {taken[0]!r} and {taken[1]!r}",
        )
        _require(
            self.sample.guidance == "classifier-free",
            f"sample.undo_label_noise goes with sample.guidance = 'classifier-free': other "
            f"guidance is towards labels as given, got {self.sample.guidance!r}",
        )
        _require(
            self.diffusion.p_uncond > 0,
            "sample.undo_label_noise takes the estimate without a label, which a model that was "
            "trained with diffusion.p_uncond = 0 does not have",
        )
