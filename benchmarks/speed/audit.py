"""Time to a finished audit: our judge of labels against cleanlab with a torchvision ResNet-18.

cleanlab judges by out-of-sample probabilities, which its user makes by cross-validation. Both ways
use the same images, labels, cores and precision. CIFAR-10 under people's labels where `--cifar` and
`--human` say where they lie, else MNIST with drawn noise.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.metrics import f1_score, roc_auc_score
from torch import Tensor, nn
from torch.optim.lr_scheduler import OneCycleLR

from benchmarks import judge
from benchmarks.speed.rates import rates
from robustdiff.classifiers.augment import augmented
from robustdiff.classifiers.image import train_image_classifier
from robustdiff.config.judging import JudgeConfig
from robustdiff.data.arrays import to_float
from robustdiff.device import pick_device, set_precision
from robustdiff.labels.crossfit import crossfit, make_plan
from robustdiff.labels.folds import Plan
from robustdiff.progress import silent

ROWS: dict[str, dict[str, Any]] = {
    "CIFAR-10N worst": {"dataset": "cifar10", "human": "worse_label"},
    "MNIST, symmetric 40 %": {"dataset": "mnist", "noise": {"rate": 0.4}},
}
OURS, PLAIN, ADAPTED = "robustdiff", "cleanlab, ResNet-18", "cleanlab, ResNet-18 for 32 x 32"
FOLDS, BATCH = 5, 128
# Images of one turn when rates are measured.
_TURN = 1_000


@dataclass(frozen=True)
class Case:
    """Images whose labels are judged.

    Attributes:
        name: What they are.
        images: (N, C, H, W) uint8.
        given: (N,) int64 labels.
        clean: (N,) int64, the truth.
        num_classes: K.
    """

    name: str
    images: Tensor
    given: np.ndarray
    clean: np.ndarray
    num_classes: int


def load(options: argparse.Namespace) -> Case:
    """Return so many images as the options say, drawn at random but always the same."""
    name = next(iter(ROWS)) if options.cifar and options.human else list(ROWS)[-1]
    where = argparse.Namespace(data_dir=options.data_dir, cifar=options.cifar, human=options.human)
    images, labels = judge.load(ROWS[name], 0, where)
    rows = np.sort(np.random.default_rng(0).permutation(len(images.train))[: options.audit_images])
    some = images.train[torch.from_numpy(rows)].to(pick_device("auto"))
    return Case(name, some, labels.given[rows], labels.clean[rows], images.num_classes)


def resnet18(channels: int, num_classes: int, *, adapted: bool) -> nn.Module:
    """Return torchvision's ResNet-18 with fresh weights.

    Args:
        channels: Of the images.
        num_classes: K.
        adapted: Whether it begins with a 3 x 3 convolution of stride 1 and no pooling, as is usual
            for images of 32 x 32, in place of a 7 x 7 one of stride 2 and pooling.
    """
    from torchvision.models import resnet18 as build

    network = build(num_classes=num_classes)
    size, stride, padding = (3, 1, 1) if adapted else (7, 2, 3)
    network.conv1 = nn.Conv2d(channels, 64, size, stride, padding, bias=False)
    if adapted:
        network.maxpool = nn.Identity()
    return network


class Learner:
    """A network that learns given labels as one would write it: SGD, one cycle, shifts, mirrors.

    Args:
        network: Maps (B, C, H, W) float32 images to (B, K) logits.
        steps: Number of steps in all.
        dtype: Precision of products.
        flip: Whether images are mirrored at random.
        device: Where it learns.
    """

    def __init__(
        self,
        network: nn.Module,
        steps: int,
        *,
        dtype: torch.dtype,
        flip: bool,
        device: torch.device,
    ) -> None:
        self.network = network.to(device).to(memory_format=torch.channels_last)
        self.flip, self.dtype, self.device = flip, dtype, device
        self.optimiser = torch.optim.SGD(
            self.network.parameters(), 0.1, momentum=0.9, nesterov=True, weight_decay=5e-4
        )
        self.schedule = OneCycleLR(self.optimiser, 0.1, steps)
        self.generator = torch.Generator().manual_seed(0)

    def logits(self, images: Tensor) -> Tensor:
        """Map (B, C, H, W) float32 images to (B, K) float32 logits."""
        half = self.dtype != torch.float32
        with torch.autocast(self.device.type, self.dtype, enabled=half):
            found: Tensor = self.network(images.to(memory_format=torch.channels_last))
        return found.float()

    def step(self, images: Tensor, labels: Tensor) -> None:
        """Learn from (B, C, H, W) uint8 images and (B,) labels."""
        inputs = augmented(to_float(images), self.generator, flip=self.flip)
        loss = F.cross_entropy(self.logits(inputs), labels)
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        self.schedule.step()


def out_of_sample(
    case: Case, make: Callable[[], nn.Module], passes: int, dtype: torch.dtype, folds: int = FOLDS
) -> tuple[np.ndarray, np.ndarray]:
    """Return class probabilities by networks that did not learn the images that they judge.

    Args:
        case: Images and labels.
        make: Builds a fresh network.
        passes: Over the images of the other folds.
        dtype: Precision of products.
        folds: How many of the folds are judged, from the first.

    Returns:
        (M, K) probabilities, and (M,) which images they are of, in ascending order.
    """
    device, count = case.images.device, len(case.images)
    given = torch.from_numpy(case.given).to(device)
    fold = torch.from_numpy(np.random.default_rng(0).permutation(count) % FOLDS)
    found = np.zeros((count, case.num_classes))
    for part in range(folds):
        rows, asked = (torch.nonzero(which)[:, 0] for which in (fold != part, fold == part))
        torch.manual_seed(part)
        steps = passes * (len(rows) // BATCH)
        learner = Learner(make(), steps, dtype=dtype, flip=case.images.shape[1] == 3, device=device)
        for _ in range(passes):
            order = rows[torch.randperm(len(rows))]
            for some in order[: len(rows) // BATCH * BATCH].reshape(-1, BATCH):
                learner.step(case.images[some.to(device)], given[some.to(device)])
        learner.network.eval()
        with torch.no_grad():
            for some in torch.split(asked, 500):
                logits = learner.logits(to_float(case.images[some.to(device)]))
                found[some.numpy()] = logits.softmax(1).cpu().numpy()
    judged = np.flatnonzero(fold.numpy() < folds)
    return found[judged], judged


def ours(case: Case, plan: Plan) -> tuple[np.ndarray, np.ndarray]:
    """Judge labels as `robustdiff audit` does; return scores, high = right, and flags."""
    given = torch.from_numpy(case.given)
    found = crossfit(case.images, given, case.num_classes, plan, progress=silent)
    return found.decision.right, found.decision.right < 0.5


def by_cleanlab(given: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Judge (M,) labels by cleanlab; return scores, high = right, and flags.

    Scores are the normalised margins, which rank better here than cleanlab's default does.
    """
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

    rows = probabilities / probabilities.sum(1, keepdims=True)
    scores = get_label_quality_scores(given, rows, method="normalized_margin")
    return scores, find_label_issues(given, rows, n_jobs=1)


def seen_by(plan: Plan, count: int) -> int:
    """Return how many images a plan's classifiers learn from in all, repeats counted."""
    first = plan.folds * plan.lessons.passes * (count - count // plan.folds)
    later = plan.folds * plan.later.passes * count * (plan.rounds - 1)
    return plan.splits * (first + later)


def audits(options: argparse.Namespace) -> dict[str, Any]:
    """Run the audits to their end, and measure the rates of learning in turn.

    Returns:
        The case; seconds, AUROC and F1 of each audit, of as many folds as were judged (seconds are
        those of all); images learnt a second; and the seconds that learning alone would take for
        `--audit-whole` images: extrapolated.
    """
    case, dtype = load(options), set_precision("auto", pick_device("auto"))
    shape, k = tuple(case.images.shape[1:]), case.num_classes
    settings = JudgeConfig(effort=options.audit_effort)
    plan = make_plan(settings, shape, len(case.images), seed=0, dtype=dtype)

    everything, adapted = np.arange(len(case.given)), options.audit_adapted

    def peer() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        def make() -> nn.Module:
            return resnet18(shape[0], k, adapted=adapted)

        seen, judged = out_of_sample(
            case, make, options.audit_passes, dtype, options.audit_judged_folds
        )
        return *by_cleanlab(case.given[judged], seen), judged

    speed = learning_rates(case, plan, options, dtype)
    print(speed, flush=True)
    right, finished = case.given == case.clean, {}
    works = {OURS: lambda: (*ours(case, plan), everything), ADAPTED if adapted else PLAIN: peer}
    for name, work in works.items():
        started = time.perf_counter()
        scores, flags, judged = work()
        seconds = time.perf_counter() - started
        whole = 1.0 if name == OURS else FOLDS / options.audit_judged_folds
        finished[name] = {
            "seconds": seconds * whole,
            "judged": len(judged),
            "auroc": float(roc_auc_score(right[judged], scores)),
            "f1": float(f1_score(~right[judged], flags)),
        }
        print(name, finished[name], flush=True)
    return {
        "case": case.name,
        "images": len(case.images),
        "wrong": float((~right).mean()),
        "effort": options.audit_effort,
        "passes": options.audit_passes,
        "finished": finished,
        "images_per_second": speed,
        "whole": extrapolated(options, shape, speed),
    }


def learning_rates(
    case: Case, plan: Plan, options: argparse.Namespace, dtype: torch.dtype
) -> dict[str, list[float]]:
    """Return images learnt a second by our classifiers and by both ResNets, in turn."""
    some = replace(case, images=case.images[:_TURN], given=case.given[:_TURN])
    given = torch.from_numpy(some.given)
    lessons = replace(plan.lessons, passes=1)

    def classifier() -> int:
        train_image_classifier(some.images, given, case.num_classes, lessons=lessons)
        return len(given)

    def of(*, adapted: bool) -> Callable[[], int]:
        network = resnet18(case.images.shape[1], case.num_classes, adapted=adapted)
        device = case.images.device
        learner = Learner(network, 10**6, dtype=dtype, flip=lessons.flip, device=device)
        images, labels = some.images[:BATCH], given[:BATCH].to(device)

        def step() -> int:
            learner.step(images, labels)
            return len(labels)

        return step

    works = {OURS: classifier, PLAIN: of(adapted=False), ADAPTED: of(adapted=True)}
    return rates(works, options.rounds, options.seconds)


def extrapolated(
    options: argparse.Namespace, shape: tuple[int, ...], speed: dict[str, list[float]]
) -> dict[str, Any]:
    """Return seconds of learning for the whole dataset, from the median rates: not measured."""
    count = options.audit_whole
    middle = {name: sorted(values)[len(values) // 2] for name, values in speed.items()}
    found: dict[str, Any] = {"images": count}
    for effort in ("quick", "default", "thorough"):
        plan = make_plan(JudgeConfig(effort=effort), shape, count, seed=0)
        found[f"{OURS}, {effort}"] = seen_by(plan, count) / middle[OURS]
    peers = options.audit_passes * (FOLDS - 1) * count
    return found | {name: peers / middle[name] for name in (PLAIN, ADAPTED)}


def table(found: dict[str, Any]) -> list[str]:
    """Return Markdown tables of what was measured and of what was extrapolated."""
    lines = [
        f"{found['case']}, {found['images']} images, {found['wrong']:.1%} wrong; "
        f"effort {found['effort']}, {found['passes']} passes in {FOLDS} folds",
        "",
        "| | images judged | AUROC | F1 | seconds for all | robustdiff is faster by |",
        "|---|---|---|---|---|---|",
    ]
    mine = found["finished"][OURS]["seconds"]
    for name, one in found["finished"].items():
        lines.append(
            f"| {name} | {one['judged']} | {one['auroc']:.3f} | {one['f1']:.3f} "
            f"| {one['seconds']:.0f} | {one['seconds'] / mine:.1f} |"
        )
    whole = dict(found["whole"])
    count = whole.pop("images")
    lines += ["", f"| learning from {count} images, extrapolated | minutes |", "|---|---|"]
    return lines + [f"| {name} | {seconds / 60:.0f} |" for name, seconds in whole.items()]


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this part."""
    parser.add_argument("--cifar", type=Path, help="CIFAR-10 as a folder, files named by index")
    parser.add_argument("--human", type=Path, help="CIFAR-10_human.pt")
    parser.add_argument("--audit-images", type=int, default=6_000, help="whose labels are judged")
    parser.add_argument("--audit-passes", type=int, default=5, help="of ResNet-18 in each fold")
    parser.add_argument(
        "--audit-judged-folds",
        type=int,
        default=FOLDS,
        choices=range(1, FOLDS + 1),
        help="how many of ResNet-18's folds are judged; times are multiplied up to all",
    )
    parser.add_argument("--audit-adapted", action="store_true", help="the ResNet-18 for 32 x 32")
    parser.add_argument("--audit-effort", default="quick", choices=("quick", "default", "thorough"))
    parser.add_argument("--audit-whole", type=int, default=50_000, help="extrapolated to")
