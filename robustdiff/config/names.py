"""Names that a setting may have: the keys of registries in other modules; a test compares them."""

from typing import Literal

DatasetName = Literal[
    "digits",
    "mnist",
    "fashion-mnist",
    "cifar10",
    "cifar100",
    "folder",
    "manifest",
    "imagefolder",
    "parquet",
    "arrow",
    "webdataset",
    "arrays",
]
# Sources of one's own: nobody knows which of their labels are wrong.
OWN_DATASETS = ("folder", "manifest", "imagefolder", "parquet", "arrow", "webdataset", "arrays")
BadImage = Literal["refuse", "skip"]
SplitName = Literal["auto", "none"]
CurriculumName = Literal[
    "uniform",
    "dynamics-cond",
    "dynamics-uncond",
    "dynamics-dropout",
    "dynamics-label",
    "dynamics-guidance",
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
TreatmentName = Literal["none", "select", "reweight", "null", "relabel", "soft"]
NoiseMode = Literal["exact", "exact-overall", "exact-per-class", "bernoulli"]
LabelsAsName = Literal["auto", "names", "numbers"]
ScheduleName = Literal["cosine", "cosine-paper", "linear"]
PredictionName = Literal["eps", "x0", "v"]
TimeSamplingName = Literal["uniform", "cosine", "log-snr-uniform", "log-snr-normal"]
LossWeightName = Literal["none", "min-snr", "sigmoid"]
ObjectiveName = Literal["plain", "tdsm", "tdsm-class"]
GuidanceName = Literal["classifier-free", "classifier", "auto"]
SamplerName = Literal["ancestral", "ddim", "dpm-solver++", "unipc", "heun", "edm"]
SpacingName = Literal["even", "power", "karras"]
JudgeEffort = Literal["quick", "default", "thorough"]
FeaturesName = Literal["classifier", "inception", "efficientnet-lite0"]
LogName = Literal["csv", "jsonl", "tensorboard", "wandb", "mlflow"]
