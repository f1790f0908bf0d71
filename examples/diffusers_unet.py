"""Another library's class-conditional U-Net, trained on labels that robustdiff has judged.

The network is diffusers' `UNet2DModel` with `num_class_embeds`, the loop is written by hand. The
labels come from cross-fitted classifiers (`labels.crossfit`, `labels.probabilities`), the batches
from `CurriculumSampler`, which also turns the verdict into labels to train on: wrong ones are
replaced.

pip install diffusers; python examples/diffusers_unet.py [STEPS]
"""

import sys
import warnings

import torch

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # diffusers warns about its own dependencies
    from diffusers import DDPMScheduler, UNet2DModel

from corruptions import corrupt
from curricula import CurriculumSampler, Selection
from robustdiff.config.images import DataConfig
from robustdiff.config.judging import JudgeConfig
from robustdiff.data.arrays import to_float
from robustdiff.data.registry import load_images
from robustdiff.labels.crossfit import crossfit, make_plan
from robustdiff.labels.probabilities import by_decision, label_scores
from robustdiff.progress import Report, silent

BATCH_SIZE, P_UNCOND = 64, 0.2


def make_network(num_classes: int) -> UNet2DModel:
    """Return a small U-Net for 8 x 8 grey images; class K stands for no label."""
    return UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        block_out_channels=(32, 64),
        layers_per_block=1,
        norm_num_groups=8,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        num_class_embeds=num_classes + 1,
    )


def main(steps: int) -> None:
    """Judge the labels, train, and print what was found and the loss."""
    images = load_images(DataConfig(dataset="digits"), Report())
    clean, k = images.train_labels.numpy(), images.num_classes
    noisy = corrupt(clean, num_classes=k, noise_type="symmetric", rate=0.4, seed=0)

    # The judge: p(class | image) by classifiers that did not learn the label, then Bayes.
    given = torch.from_numpy(noisy.given)
    plan = make_plan(JudgeConfig(), images.train.shape[1:], len(given), seed=0)
    found = crossfit(images.train, given, k, plan, progress=silent)
    sampler = CurriculumSampler(
        "crossfit", len(given), seed=0, selection=Selection(treatment="relabel")
    )
    trust, _ = by_decision(found.decision, noisy.given)
    sampler.update(found.probabilities, lambda _: (label_scores(trust, noisy.given), trust))
    labels = torch.from_numpy(sampler.labels(noisy.given, null=k).labels)
    print(f"estimated share of wrong labels {sampler.trust.noise:.3f}")
    print(f"wrong before {(noisy.given != clean).mean():.3f}, ", end="")
    print(f"after relabelling {(labels.numpy() != clean).mean():.3f}")

    torch.manual_seed(0)
    network, schedule = make_network(k), DDPMScheduler(1000)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    step, epoch, losses = 0, 0, []
    while step < steps:
        for batch in torch.from_numpy(sampler.order(epoch, noisy.given)).split(BATCH_SIZE):
            x_0, y = to_float(images.train[batch]), labels[batch]
            eps, t = torch.randn_like(x_0), torch.randint(0, 1000, (len(batch),))
            y = torch.where(torch.rand(len(batch)) < P_UNCOND, k, y)
            predicted = network(schedule.add_noise(x_0, eps, t), t, y).sample
            loss = (predicted - eps).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            step += 1
            if step == steps:
                break
        epoch += 1
    print(f"loss of the last steps {sum(losses[-20:]) / len(losses[-20:]):.3f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 600)
