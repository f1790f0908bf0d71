import torch

from benchmarks.probe_times import curve_figure, measured
from robustdiff.data.arrays import LabelledImages
from robustdiff.diffusion.model import Model
from robustdiff.diffusion.process import PREDICTIONS, for_labels, per_image
from robustdiff.diffusion.schedules import cosine


def network(x_t, t, labels):
    """The exact eps of images whose pixels all are label - 1; without a label, of their mean 0."""
    x_t, t = for_labels(x_t, len(labels)), for_labels(t, len(labels))
    alpha, sigma = (per_image(part, x_t) for part in cosine(t))
    value = per_image(torch.where(labels < 3, labels - 1.0, 0.0), x_t)
    return (x_t - alpha * value) / sigma


def test_an_exact_model_tells_wrong_labels_while_the_noise_allows():
    clean = torch.arange(90) % 3
    given = torch.where(torch.arange(90) % 5 == 0, (clean + 1) % 3, clean)
    shades = torch.tensor([0, 128, 255], dtype=torch.uint8)
    images = shades[clean][:, None, None, None].expand(90, 1, 4, 4).contiguous()
    data = LabelledImages(images, given)
    model = Model(network, cosine, PREDICTIONS["eps"], null_class=3)
    found = measured(model, data, (given != clean).numpy(), torch.arange(90), bins=4)
    assert [round(t, 2) for t, _ in found] == [0.13, 0.38, 0.62, 0.88]
    assert found[0][1]["margin"] > 0.99
    assert found[0][1]["pmi"] > 0.9
    assert all(0 <= auroc <= 1 for _, aurocs in found for auroc in aurocs.values())
    assert len(curve_figure(found, "title").axes[0].lines) == 2
