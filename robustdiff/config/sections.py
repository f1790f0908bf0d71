"""Configuration of a run: frozen dataclasses, and how presets, files and flags resolve to them.

Precedence: defaults < preset < file < `--set section.key=value` < flag. Unknown keys are errors.
The module imports neither torch nor pydantic at its top, so that `robustdiff --help` stays fast.
"""

import dataclasses
import difflib
import json
import math
import tomllib
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Literal, TypeVar

DatasetName = Literal["digits", "mnist", "fashion-mnist", "cifar10", "cifar100", "folder"]
BadImage = Literal["refuse", "skip"]
CurriculumName = Literal[
    "uniform",
    "dynamics-cond",
    "dynamics-uncond",
    "dynamics-dropout",
    "small-loss",
    "pmi",
    "margin",
    "sieve",
    "aum",
    "forgetting",
    "crossfit",
    "random",
    "oracle",
]
ObjectiveName = Literal["plain", "tdsm", "tdsm-class"]
TreatmentName = Literal["none", "select", "reweight", "null", "relabel", "soft"]
NoiseMode = Literal["exact", "exact-overall", "exact-per-class", "bernoulli"]
GuidanceName = Literal["classifier-free", "classifier", "auto"]
SamplerName = Literal["ancestral", "ddim", "dpm-solver++", "heun", "edm"]

_Kind = TypeVar("_Kind")
Layer = Mapping[str, Any]
"""Nested plain data, e.g. {"train": {"steps": 100}}; what a TOML file holds."""


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which images.

    Attributes:
        dataset: Name of the dataset.
        data_dir: Folder in torchvision's layout, or of one folder a class for dataset "folder"; not
            used by digits.
        download: Fetch a missing dataset into data_dir.
        image_size: Side in pixels that images are resized to; None leaves them as they are, and
            means 32 for dataset "folder".
        on_bad_image: What to do about files of a folder that cannot be read.
        train_size: Training images to use, an equal share of every class; None for all.
    """

    dataset: DatasetName = "digits"
    data_dir: str = "data"
    download: bool = False
    image_size: int | None = None
    on_bad_image: BadImage = "refuse"
    train_size: int | None = None

    def __post_init__(self) -> None:
        for name in ("image_size", "train_size"):
            value = getattr(self, name)
            _require(value is None or value >= 1, f"data.{name} must be at least 1, got {value}")


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
    """

    rate: float = 0.0
    type: str = "symmetric"
    mode: NoiseMode = "exact"
    matrix: str | None = None
    class_map: str | None = None
    labels: str | None = None
    labels_key: str | None = None

    def __post_init__(self) -> None:
        _require(0 <= self.rate <= 1, f"noise.rate must be in [0, 1], got {self.rate}")
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
    cen_hidden: int | Literal["size"] = 64
    cen_depth: int = 1
    cen_activation: Literal["silu", "relu"] = "silu"
    heads: int = 1
    time_size: int = 100
    patch_size: int = 1

    def __post_init__(self) -> None:
        _require(
            len(self.channels) > 0 and min(self.channels) > 0,
            f"model.channels must be one or more positive widths, got {list(self.channels)}",
        )
        for name in ("cen_hidden", "cen_depth", "heads", "patch_size"):
            value = getattr(self, name)
            _require(value == "size" or value >= 1, f"model.{name} must be at least 1, got {value}")
        _require(self.time_size >= 2, f"model.time_size must be at least 2, got {self.time_size}")


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

    schedule: Literal["cosine", "cosine-paper", "linear"] = "cosine"
    prediction: Literal["eps", "x0", "v"] = "v"
    p_uncond: float = 0.2
    time_sampling: Literal["uniform", "cosine", "log-snr-uniform", "log-snr-normal"] = "uniform"
    log_snr_range: tuple[float, float] = (-20.0, 20.0)
    loss_weight: Literal["none", "min-snr", "sigmoid"] = "none"
    min_snr: float = 5.0
    sigmoid_bias: float = 2.0

    def __post_init__(self) -> None:
        _require(
            0 <= self.p_uncond <= 1, f"diffusion.p_uncond must be in [0, 1], got {self.p_uncond}"
        )
        # Every schedule reaches 0, and within this no float64 overflows.
        low, high = self.log_snr_range
        _require(
            -50 <= low < 0 < high <= 50,
            f"diffusion.log_snr_range must be -50 <= low < 0 < high <= 50, got {[low, high]}",
        )
        _require(self.min_snr > 0, f"diffusion.min_snr must be positive, got {self.min_snr}")


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
        log_every: Steps between logged losses.
        sample_every: Steps between sample grids.
        checkpoint_every: Steps between checkpoints.
        checkpoint_minutes: Most minutes between checkpoints; None for no such limit.
        device: "auto" is CUDA where there is one, else the CPU.
        precision: "auto" is bf16 where the hardware computes in it, else fp32.
        compile: Compile the training step's network with torch.compile: a minute or more before
            the first step of a network that is not cached yet, then faster steps.
    """

    steps: int | None = None
    epochs: int | None = None
    batch_size: int = 128
    lr: float = 1e-3
    warmup_steps: int = 50
    decay_steps: int = 0
    grad_clip: float = 1.0
    ema: float = 0.995
    log_every: int = 20
    sample_every: int = 500
    checkpoint_every: int = 500
    checkpoint_minutes: float | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    compile: bool = False

    def __post_init__(self) -> None:
        _require(
            (self.steps is None) != (self.epochs is None),
            f"give exactly one of train.steps and train.epochs, "
            f"got steps = {self.steps}, epochs = {self.epochs}",
        )
        for name in ("batch_size", "log_every", "sample_every", "checkpoint_every"):
            value = getattr(self, name)
            _require(value >= 1, f"train.{name} must be at least 1, got {value}")
        for name in ("steps", "epochs"):
            value = getattr(self, name)
            _require(value is None or value >= 1, f"train.{name} must be at least 1, got {value}")
        for name in ("warmup_steps", "decay_steps"):
            value = getattr(self, name)
            _require(value >= 0, f"train.{name} must be >= 0, got {value}")
        for name in ("lr", "grad_clip", "checkpoint_minutes"):
            value = getattr(self, name)
            _require(value is None or value > 0, f"train.{name} must be positive, got {value}")
        _require(0 <= self.ema < 1, f"train.ema must be in [0, 1), got {self.ema}")


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

    name: ObjectiveName = "plain"
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
        probe_times: (low, high) range of the probes' times, stratified within.
        rivals: Classes that curriculum "margin" tries besides the given one, the likeliest by what
            earlier rounds found; None for all. The first round tries all.
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

    name: CurriculumName = "uniform"
    treatment: TreatmentName | None = None
    warmup: int = 1
    score_every: int = 1
    probes: int = 4
    probe_times: tuple[float, float] = (0.5, 0.95)
    rivals: int | None = 2
    rotate: int = 1
    pairing: Literal["paired", "redrawn"] = "paired"
    smoothing: float = 0.7
    temperature: float = 1.0
    k: float = 1.0
    dk: float = 0.1
    mk: float = 0.3

    def __post_init__(self) -> None:
        low, high = self.probe_times
        _require(
            0 < low < high <= 1,
            f"curriculum.probe_times must be 0 < low < high <= 1, got {[low, high]}",
        )
        for name in ("score_every", "probes", "rivals", "rotate"):
            value = getattr(self, name)
            _require(
                value is None or value >= 1, f"curriculum.{name} must be at least 1, got {value}"
            )
        for name in ("smoothing", "dk"):
            value = getattr(self, name)
            _require(0 <= value < 1, f"curriculum.{name} must be in [0, 1), got {value}")
        for name in ("warmup", "temperature"):
            value = getattr(self, name)
            _require(value >= 0, f"curriculum.{name} must be at least 0, got {value}")
        _require(
            0 < self.mk <= self.k <= 1,
            f"curriculum must have 0 < mk <= k <= 1, got mk = {self.mk}, k = {self.k}",
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class SampleConfig:
    """How images are generated.

    Attributes:
        sampler: Key of `robustdiff.diffusion.samplers.SAMPLERS`.
        steps: Sampling steps, at most 10,000.
        spacing: Key of `robustdiff.diffusion.schedules.SPACINGS`; None is "karras" for sampler
            "edm", "even" for the others.
        rho: Exponent of the Karras spacing.
        t_start: Time of the first step, in (0, 1]; see `robustdiff.diffusion.schedules.time_grid`.
        v: Variance interpolation of the ancestral sampler, in [0, 1].
        eta: Randomness of DDIM, in [0, 1].
        churn: Noise that sampler "edm" adds back over its steps (S_churn), at least 0.
        guidance: Key of `robustdiff.jobs.sample.GUIDES`: away from the estimate without a label,
            up the gradient of a classifier of noisy images, or away from a weaker model ("auto").
            Grids drawn during training are always classifier-free.
        weak: Folder of the weaker model's run, for guidance "auto".
        guidance_weight: The paper's w; 0 is plain conditional.
        guidance_interval: (low, high) times between which guidance acts.
        guidance_outside: What the other steps see: "null" (unconditional) or the "given" label.
        guidance_rescale: Share in [0, 1] to which guided outputs get the spread of unguided ones.
        batch_size: Images generated at once.
        compile: Compile the network that generates with torch.compile: most of a minute before
            the first images of a network that is not cached yet, then faster ones. Grids drawn
            during training are not.
    """

    sampler: SamplerName = "dpm-solver++"
    steps: int = 20
    spacing: Literal["even", "karras"] | None = None
    rho: float = 7.0
    t_start: float = 0.99
    v: float = 0.2
    eta: float = 0.0
    churn: float = 0.0
    guidance: GuidanceName = "classifier-free"
    weak: str | None = None
    guidance_weight: float = 0.5
    guidance_interval: tuple[float, float] = (0.0, 1.0)
    guidance_outside: Literal["null", "given"] = "null"
    guidance_rescale: float = 0.0
    batch_size: int = 256
    compile: bool = False

    def __post_init__(self) -> None:
        low, high = self.guidance_interval
        _require(
            0 <= low <= high <= 1,
            f"sample.guidance_interval must be 0 <= low <= high <= 1, got {[low, high]}",
        )
        _require(0 < self.t_start <= 1, f"sample.t_start must be in (0, 1], got {self.t_start}")
        _require(
            (self.weak is not None) == (self.guidance == "auto"),
            f"sample.weak, a run, goes with sample.guidance = 'auto' and only with it, "
            f"got guidance {self.guidance!r} and weak {self.weak!r}",
        )
        for name in ("v", "eta", "guidance_rescale"):
            value = getattr(self, name)
            _require(0 <= value <= 1, f"sample.{name} must be in [0, 1], got {value}")
        for name in ("guidance_weight", "churn"):
            value = getattr(self, name)
            _require(value >= 0, f"sample.{name} must be at least 0, got {value}")
        for name in ("steps", "batch_size", "rho"):
            value = getattr(self, name)
            _require(value >= 1, f"sample.{name} must be at least 1, got {value}")
        # More gain nothing, and a slip of the finger would keep a machine busy for weeks.
        most = 10_000
        _require(self.steps <= most, f"sample.steps must be at most {most}, got {self.steps}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """How a run is judged.

    Attributes:
        num_samples: Images generated, in equal numbers per class; None for as many as the held-out
            part allows, at most 1000.
        features: Feature space of FID, KID, density and coverage.
    """

    num_samples: int | None = None
    features: Literal["classifier", "inception"] = "classifier"

    def __post_init__(self) -> None:
        _require(
            self.num_samples is None or self.num_samples >= 2,
            f"eval.num_samples must be at least 2, got {self.num_samples}",
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Everything that determines a run; stored as config.json in its folder.

    Attributes:
        seed: Root of every random draw, at least 0.
    """

    seed: int = 0
    data: DataConfig = DataConfig()
    noise: NoiseConfig = NoiseConfig()
    model: ModelConfig = ModelConfig()
    diffusion: DiffusionConfig = DiffusionConfig()
    train: TrainConfig = TrainConfig(steps=1000)
    objective: ObjectiveConfig = ObjectiveConfig()
    curriculum: CurriculumConfig = CurriculumConfig()
    sample: SampleConfig = SampleConfig()
    eval: EvalConfig = EvalConfig()

    def __post_init__(self) -> None:
        _require(self.seed >= 0, f"seed must be at least 0, got {self.seed}")
        _require(
            self.objective.name == "plain" or self.curriculum.name == "uniform",
            f"objective {self.objective.name!r} models the labels as given, so it goes with "
            f"curriculum 'uniform' alone, got {self.curriculum.name!r}",
        )


DEFAULT_PRESETS: dict[str, str] = {
    "digits": "digits",
    "mnist": "mnist-small",
    "fashion-mnist": "mnist-small",
    "cifar10": "cifar10-small",
    "cifar100": "cifar10-small",
    "folder": "folder-small",
}


def presets() -> dict[str, Layer]:
    """Return the shipped presets, name -> layer, in order of their names."""
    folder = resources.files("robustdiff.config.presets")
    files = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".toml"))
    return {
        name.removesuffix(".toml"): tomllib.loads((folder / name).read_text()) for name in files
    }


def choose(name: str, allowed: Iterable[str], what: str) -> str:
    """Return `name` if it is allowed.

    Raises:
        ValueError: Naming what was unknown, with the nearest match and the allowed names.
    """
    names = sorted(allowed)
    if name in names:
        return name
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise ValueError(f"unknown {what} {name!r}; {hint}choose from {', '.join(names)}")


def preset_description(name: str) -> str:
    """Return the comment that opens a shipped preset."""
    text = (resources.files("robustdiff.config.presets") / f"{name}.toml").read_text()
    return text.splitlines()[0].removeprefix("# ")


def preset(name: str) -> Layer:
    """Return one shipped preset.

    Raises:
        ValueError: If there is no such preset.
    """
    shipped = presets()
    return shipped[choose(name, shipped, "preset")]


def read_layer(path: Path) -> Layer:
    """Read a config file, TOML or a run's config.json.

    Raises:
        ValueError: If the file cannot be read or parsed.
    """
    try:
        text = path.read_text()
        layer = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except OSError as error:
        raise ValueError(f"cannot read config file {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # of parsers, of bad UTF-8, of deep nesting
        raise ValueError(f"config file {path} is not valid: {error}") from error
    if not isinstance(layer, dict):
        raise ValueError(f"config file {path} must hold sections, got {type(layer).__name__}")
    return layer


def parse_setting(text: str) -> Layer:
    """Turn `section.key=value` into a layer; the value is TOML, a bare word is a string.

    Raises:
        ValueError: If the text has no key or no "=".
    """
    name, equals, value = text.partition("=")
    keys = name.strip().split(".")
    if not equals or not all(keys):
        raise ValueError(f"--set takes section.key=value, got {text!r}")
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        parsed = value.strip()
    for key in reversed(keys):
        parsed = {key: parsed}
    return dict(parsed)


def _merge(base: Layer, over: Layer) -> dict[str, Any]:
    merged = dict(base)
    # The length is one choice with two names: a later layer's choice replaces an earlier one's.
    for name, other in (("steps", "epochs"), ("epochs", "steps")):
        if over.get(name) is not None and other not in over:
            merged.pop(other, None)
    for key, value in over.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def _known_keys(kind: Any, prefix: str = "") -> dict[str, Any]:  # noqa: ANN401 a dataclass type
    known: dict[str, Any] = {}
    for field in dataclasses.fields(kind):
        known[prefix + field.name] = field
        if dataclasses.is_dataclass(field.type):
            known |= _known_keys(field.type, f"{prefix}{field.name}.")
    return known


def _check_keys(layer: Layer, known: Mapping[str, Any], prefix: str = "") -> None:
    for key, value in layer.items():
        choose(prefix + key, known, "config key")
        if dataclasses.is_dataclass(known[prefix + key].type):
            if not isinstance(value, Mapping):
                raise ValueError(f"config key {prefix}{key} is a section, got {value!r}")
            _check_keys(value, known, f"{prefix}{key}.")


def resolve(*layers: Layer) -> Config:
    """Merge layers, the last one wins, into a validated configuration.

    Raises:
        ValueError: One line naming the key, what is allowed and what came.
    """
    merged: dict[str, Any] = {}
    for layer in layers:
        _check_keys(layer, _known_keys(Config))
        merged = _merge(merged, layer)
    return validated(Config, merged)


def validated(kind: type[_Kind], plain: Mapping[str, Any]) -> _Kind:
    """Build a dataclass from plain data.

    Raises:
        ValueError: One line naming the key, what is allowed and what came.
    """
    from pydantic import TypeAdapter, ValidationError

    try:
        built = TypeAdapter(kind).validate_python(plain)
    except ValidationError as error:
        first = error.errors()[0]
        message = first["msg"].removeprefix("Value error, ")
        where = ".".join(str(part) for part in first["loc"])
        if first["type"] == "value_error":
            raise ValueError(message) from None
        raise ValueError(f"{where}: {message}, got {first['input']!r}") from None
    _check_finite(built)
    return built


def _check_finite(built: Any) -> None:  # noqa: ANN401 a dataclass
    """Refuse infinity and NaN, which pass many comparisons, wherever a number is asked for."""
    for key, value in flat(dataclasses.asdict(built)).items():
        numbers = value if isinstance(value, tuple) else (value,)
        if not all(math.isfinite(number) for number in numbers if isinstance(number, float)):
            raise ValueError(f"{key} must be finite, got {value}")


# What may change when a run is resumed: its length, where it runs, what it says and when it saves.
# None of it changes a weight or a score of the steps that both lengths have.
RESUMABLE = (
    "train.steps",
    "train.epochs",
    "train.device",
    "train.log_every",
    "train.sample_every",
    "train.checkpoint_every",
    "train.checkpoint_minutes",
    "data.data_dir",
    "data.download",
    "sample",
    "eval",
)


def fixed_changes(before: Layer, now: Layer) -> list[str]:
    """Name what differs between two whole configurations and is not in `RESUMABLE`."""
    was, would = flat(before), flat(now)
    return [
        f"{key} {json.dumps(would.get(key))} (was {json.dumps(was.get(key))})"
        for key in sorted(was.keys() | would.keys())
        if was.get(key) != would.get(key)
        and key not in RESUMABLE
        and key.partition(".")[0] not in RESUMABLE
    ]


def check_resumable(before: Layer, now: Layer) -> None:
    """Refuse a changed configuration for a run that is resumed.

    Args:
        before: The run's whole configuration, see `to_plain`.
        now: The same as it would go on.

    Raises:
        ValueError: Naming every changed entry that is not in `RESUMABLE`.
    """
    if changed := fixed_changes(before, now):
        raise ValueError(
            f"--resume continues a run as it was; only {', '.join(RESUMABLE)} may change, "
            f"got {', '.join(changed)}"
        )


def flat(plain: Layer) -> dict[str, Any]:
    """Return nested settings as dotted key -> value."""
    entries: dict[str, Any] = {}
    for key, value in plain.items():
        nested = value if isinstance(value, Mapping) else {}
        entries |= {f"{key}.{name}": entry for name, entry in nested.items()} or {key: value}
    return entries


def to_plain(config: Config) -> dict[str, Any]:
    """Return the configuration as nested plain data, ready for JSON."""
    plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(config)))
    return plain
