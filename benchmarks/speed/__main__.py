"""Measure training, scoring and sampling against peers, and how costs grow; in one process.

    python -m benchmarks.speed --data-dir DIR --out FOLDER [--rounds 3] [--only train growth ...]

Works that are compared take turns, round by round; ratios are formed within a round, and given as
median (least to largest). Writes speed.json (what --only leaves out stays as it was), growth.png,
quality.png and fid.png, and prints Markdown. Peers are measured where they are installed:
`make bench` installs them. All of it takes about an hour on two cores.
"""

import argparse
import dataclasses
import functools
import json
import platform
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

from benchmarks.speed import audit, fid
from benchmarks.speed.contenders import (
    BATCH,
    DIFFUSERS,
    OURS,
    PLAIN,
    PRESET,
    Contender,
    contenders,
    load,
    three_steps,
)
from benchmarks.speed.costs import growth, overhead, scoring_rates, shared_encoder, start_seconds
from benchmarks.speed.parts import PRODUCTS, flops, matrix_rate, parts
from benchmarks.speed.rates import (
    against_the_clock,
    exponent,
    gpu_memory,
    peak_memory,
    rate,
    rates,
    ratio,
)
from robustdiff.config.sections import Config
from robustdiff.data.arrays import Images, to_float
from robustdiff.device import pick_device, set_precision
from robustdiff.reports.figures import write_figure

# The contenders that train against the clock, and the preset whose images they generate.
QUALITY = (OURS, PLAIN, "diffusers UNet2DModel", "denoising-diffusion-pytorch")
FID_PRESET, FID_PER_CLASS = "digits", 20
# The curricula whose cost is measured.
OVERHEAD = ("pmi", "dynamics-uncond", "dynamics-label", "margin", "crossfit")


def machine() -> dict[str, Any]:
    """Say what this was measured on."""
    device = pick_device("auto")
    dtype = set_precision("auto", device)
    name = torch.cuda.get_device_name() if device.type == "cuda" else platform.processor()
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((line.split(":")[1].strip() for line in lines if "model name" in line), name)
    return {
        "device": name if device.type == "cuda" else cpu,
        "threads": torch.get_num_threads(),
        "amx": torch.cpu._is_amx_tile_supported(),
        "avx512_bf16": torch.cpu._is_avx512_bf16_supported(),
        "precision": str(dtype).removeprefix("torch."),
        "torch": torch.__version__,
        "gflops_fp32": matrix_rate(torch.float32, device) / 1e9,
        "gflops_bf16": matrix_rate(torch.bfloat16, device) / 1e9,
    }


def training(options: argparse.Namespace) -> dict[str, Any]:
    """Measure images a second of training steps; on a GPU also their memory."""
    config, images = load(options.preset, options.data_dir, batch_size=BATCH)
    makers = contenders(config, images, options.preset)
    if pick_device("auto").type == "cuda":
        return _training_on_a_gpu(makers, options)
    built = {name: make() for name, make in makers.items()}
    found = rates({n: c.step for n, c in built.items()}, options.rounds, options.seconds)
    return {
        "preset": options.preset,
        "parameters": {n: c.parameters for n, c in built.items()},
        "images_per_second": found,
    }


def _training_on_a_gpu(
    makers: dict[str, Callable[[], Contender]], options: argparse.Namespace
) -> dict[str, Any]:
    """Also measure without waiting after each step, and the peak of memory in MiB."""
    steps, memory, parameters = {}, {}, {}
    for name, make in makers.items():

        def built(name: str = name, make: Callable[[], Contender] = make) -> Callable[[], int]:
            contender = make()
            parameters[name] = contender.parameters
            return contender.step

        # As many steps as compile, capture and choose kernels.
        steps[name], memory[name] = gpu_memory(built, 6)
        print(f"  {name}: ready", flush=True)
    return {
        "preset": options.preset,
        "parameters": parameters,
        "images_per_second": rates(steps, options.rounds, options.seconds),
        "unwatched": {
            name: rate(step, options.seconds, watched=False) for name, step in steps.items()
        },
        "gpu_memory_mib": memory,
    }


def sampling(options: argparse.Namespace) -> dict[str, Any]:
    """Measure images a second of guided sampling, DDIM with 25 steps."""
    config, images = load(PRESET, options.data_dir, batch_size=BATCH)
    count = options.samples

    def work(make: Callable[[int], object]) -> Callable[[], int]:
        def sample() -> int:
            make(count)
            return count

        return sample

    works = {n: work(make().sample) for n, make in contenders(config, images, PRESET).items()}
    return {"images_per_second": rates(works, options.rounds, 1, warm_up=0)}


def memory(options: argparse.Namespace) -> dict[str, float]:
    """Measure peak resident MiB of three training steps, each in a fresh process."""
    config, images = load(PRESET, options.data_dir, batch_size=BATCH)
    return {
        name: peak_memory(functools.partial(three_steps, name, options.data_dir))
        for name in contenders(config, images, PRESET)
    }


def quality(options: argparse.Namespace) -> dict[str, list[tuple[float, float]]]:
    """Train each against the clock; return (seconds, error of the noise on held-out images)."""
    config, images = load(PRESET, options.data_dir, batch_size=BATCH)
    generator = torch.Generator().manual_seed(0)
    device = pick_device("auto")
    x_0, labels = to_float(images.test[:256]).to(device), images.test_labels[:256].to(device)
    # Evenly spaced log-SNRs at which a label matters and the noise is not all there is.
    alpha_bar = torch.sigmoid(torch.linspace(-6, 4, len(x_0))).to(device)
    eps = torch.randn(x_0.shape, generator=generator).to(device)
    found: dict[str, list[tuple[float, float]]] = {}
    for name, make in _against_the_clock(config, images, PRESET).items():
        torch.manual_seed(0)
        contender = make()
        look = functools.partial(contender.error, x_0, labels, alpha_bar, eps)
        marks = [options.clock * (k + 1) / 12 for k in range(12)]
        found[name] = against_the_clock(contender.step, look, marks)
    return found


def _against_the_clock(
    config: Config, images: Images, name: str
) -> dict[str, Callable[[], Contender]]:
    makers = contenders(config, images, name)
    return {name: makers[name] for name in QUALITY if name in makers}


def fixed_fid(options: argparse.Namespace) -> dict[str, Any]:
    """Train each against the clock on the digits, and measure generated images at some looks."""
    config, images = load(FID_PRESET, options.data_dir, batch_size=BATCH, steps=10**6)
    measure = fid.classwise_fid(images)
    makers = _against_the_clock(config, images, FID_PRESET)
    count = FID_PER_CLASS * images.num_classes
    found = fid.curves(makers, options.clock, count, measure)
    peers = {*found} - {OURS, PLAIN}
    return {"curves": found, "reached": fid.to_the_peers_level(found) if peers else None}


def scoring(options: argparse.Namespace) -> dict[str, Any]:
    """Measure scoring beside the bare network, and what sharing the encoder gains."""
    config, images = load(PRESET, options.data_dir)
    shared = {}
    for cen in ("pyramid", "complete-bottleneck"):
        model = dataclasses.replace(config.model, cen=cen)
        shared[cen] = shared_encoder(dataclasses.replace(config, model=model), images)
    return {"scores": scoring_rates(config, images, options.seconds), "shared": shared}


def overheads(options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Measure total time with a curriculum over that without, at the presets' own settings."""
    found = {}
    for name in ("digits", "mnist-14", PRESET):
        config, images = load(name, options.data_dir)
        found[name] = {
            curriculum: overhead(config, images, curriculum, options.seconds)
            for curriculum in options.curricula
        }
    return found


def step_parts(options: argparse.Namespace) -> dict[str, Any]:
    """Measure where the time of a step goes, at two widths."""
    device = pick_device("auto")
    rate = matrix_rate(set_precision("auto", device), device)
    found = {}
    for name, batch in ((PRESET, 64), ("paper-mnist", 8)):
        config, images = load(name, options.data_dir, batch_size=batch)
        step = contenders(config, images, name)[OURS]().step
        step()
        operations, seconds = flops(step), parts(step, 3)
        products = sum(seconds[part] for part in PRODUCTS)
        found[name] = {
            "batch": batch,
            "gflop": operations / 1e9,
            "seconds": seconds,
            "share_of_rate_in_products": operations / products / rate,
            "share_of_rate_in_all": operations / sum(seconds.values()) / rate,
        }
    return found


def starts(_: argparse.Namespace) -> dict[str, float]:
    """Measure how soon the command line is there."""
    with tempfile.TemporaryDirectory() as folder:
        start_seconds(Path(folder))  # compiles the files to bytecode
        return start_seconds(Path(folder) / "again")


WORKS: dict[str, Callable[[argparse.Namespace], Any]] = {
    "starts": starts,
    "train": training,
    "sample": sampling,
    "memory": memory,
    "quality": quality,
    "fid": fixed_fid,
    "audit": audit.audits,
    "score": scoring,
    "overhead": overheads,
    "parts": step_parts,
    "growth": lambda options: {
        what: {"seconds": cost, "exponent": exponent([*cost], [*cost.values()])}
        for what, cost in growth(options.seconds).items()
    },
}


def _spread(values: dict[str, float]) -> str:
    return f"{values['median']:.2f} ({values['min']:.2f} to {values['max']:.2f})"


def _compared(part: dict[str, Any]) -> list[str]:
    found = part["images_per_second"]
    lines = ["| | img/s, median | robustdiff is faster by |", "|---|---|---|"]
    for name, values in found.items():
        middle = sorted(values)[len(values) // 2]
        lines.append(f"| {name} | {middle:.1f} | {_spread(ratio(found[OURS], values))} |")
    if "gpu_memory_mib" in part:
        lines += ["", "| | img/s without waiting | MiB at the peak |", "|---|---|---|"]
        for name, peak in part["gpu_memory_mib"].items():
            lines.append(f"| {name} | {part['unwatched'][name]:.0f} | {peak:.0f} |")
    return lines


def _step_tables(found: dict[str, Any]) -> list[str]:
    lines: list[str] = []
    for name, step in found.items():
        whole = sum(step["seconds"].values())
        lines += [
            f"### One step of {name}, batch {step['batch']}, {step['gflop']:.1f} GFLOP",
            "",
            f"products run at {step['share_of_rate_in_products']:.0%} of the matrix rate, "
            f"the step at {step['share_of_rate_in_all']:.0%}",
            "",
            "| part | ms | share |",
            "|---|---|---|",
        ]
        lines += [
            f"| {part} | {1e3 * seconds:.1f} | {seconds / whole:.1%} |"
            for part, seconds in step["seconds"].items()
        ]
        lines.append("")
    return lines


TABLES: dict[str, tuple[str, Callable[[dict[str, Any]], list[str]]]] = {
    "train": ("Training", _compared),
    "sample": ("Sampling, DDIM 25, guided", _compared),
    "fid": ("Time to a fixed class-wise FID, digits", fid.table),
    "audit": ("Time to a finished audit", audit.table),
    "parts": ("Where a step's time goes", _step_tables),
}


def markdown(found: dict[str, Any]) -> str:
    """Return all tables."""
    lines: list[str] = []
    for part in ("machine", "memory", "overhead", "score", "starts"):
        if part in found:
            lines += [f"## {part}", "", "```", json.dumps(found[part], indent=1), "```", ""]
    for part, (title, table) in TABLES.items():
        if part in found:
            lines += [f"## {title}", "", *table(found[part]), ""]
    if "growth" in found:
        lines += ["## Growth", "", "| what | sizes | exponent |", "|---|---|---|"]
        for what, cost in found["growth"].items():
            sizes = ", ".join(f"{float(size):g}" for size in cost["seconds"])
            lines.append(f"| {what} | {sizes} | {cost['exponent']:.2f} |")
    return "\n".join(lines)


def growth_figure(found: dict[str, Any]) -> Figure:
    """Draw costs against sizes on logarithmic axes."""
    figure = Figure(figsize=(11, 6), layout="constrained")
    for i, (what, cost) in enumerate(found.items()):
        axes = figure.add_subplot(2, 3, i + 1)
        sizes = [float(size) for size in cost["seconds"]]
        seconds = [*cost["seconds"].values()]
        axes.loglog(sizes, seconds, "o-")
        axes.set_xticks(sizes, [f"{size:g}" for size in sizes])
        axes.minorticks_off()
        # A decade at least, or noise would look like growth.
        middle = (min(seconds) * max(seconds)) ** 0.5
        axes.set_ylim(min(middle / 3.2, *seconds) / 1.2, max(middle * 3.2, *seconds) * 1.2)
        axes.set_title(f"{what}\nexponent {cost['exponent']:.2f}", fontsize=9)
        axes.set_ylabel("seconds")
        axes.grid(alpha=0.3, which="both")
    return figure


def clock_figure(found: dict[str, Any], figure_name: str) -> Figure:
    """Draw what was seen against seconds of training."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    for name, points in found.items():
        axes.plot(*zip(*points, strict=True), "o-", label=name)
    axes.set_xlabel("seconds of training")
    axes.set_ylabel(figure_name)
    axes.set_yscale("log")
    axes.grid(alpha=0.3, which="both")
    axes.legend()
    return figure


def main() -> None:
    """Measure, write JSON and plots, print Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/speed"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8, help="of one turn")
    parser.add_argument("--preset", default=PRESET, choices=DIFFUSERS, help="of --only train")
    parser.add_argument("--samples", type=int, default=128, help="images of one sampling turn")
    parser.add_argument("--clock", type=float, default=60, help="seconds of training for quality")
    parser.add_argument("--curricula", nargs="+", choices=OVERHEAD, default=OVERHEAD)
    parser.add_argument("--only", nargs="+", choices=[*WORKS], default=[*WORKS])
    audit.add_options(parser)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / "speed.json"
    found: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    found["machine"] = machine()
    for name in options.only:
        print(f"measuring: {name}", flush=True)
        found[name] = WORKS[name](options)
        file.write_text(json.dumps(found, indent=2) + "\n")
    if "growth" in found:
        write_figure(growth_figure(found["growth"]), options.out / "growth.png")
    if "quality" in found:
        figure = clock_figure(found["quality"], "held-out squared error of the noise")
        write_figure(figure, options.out / "quality.png")
    if "fid" in found:
        figure = clock_figure(found["fid"]["curves"], "class-wise FID")
        write_figure(figure, options.out / "fid.png")
    print(markdown(found))


if __name__ == "__main__":
    main()
