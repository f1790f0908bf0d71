"""Images with one bright row, another for each class, and a denoiser that knows the rows."""

import numpy as np
import torch

K, COUNT = 3, 120


def bright_rows(wrong: int = 24) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (N, 1, 4, 4) images, clean labels, and given ones of which the first are wrong."""
    clean = np.arange(COUNT) % K
    given = clean.copy()
    given[:wrong] = (given[:wrong] + 1) % K
    images = np.random.default_rng(0).integers(0, 9, (COUNT, 1, 4, 4)).astype(np.uint8)
    images[np.arange(COUNT), 0, clean] += 200
    return images, clean, given


def denoiser(alphas_cumprod=None):
    """Return the predict function of a denoiser that knows each class, and their mean."""
    known = torch.full((K + 1, 1, 4, 4), 4.0)
    known[torch.arange(K), 0, torch.arange(K)] += 200
    known[K] = known[:K].mean(0)

    def predict(x_t, t, label):
        if alphas_cumprod is None:
            angle = (t + 0.008) / 1.008 * (torch.pi / 2)
            alpha, sigma = angle.cos(), angle.sin()
        else:
            kept = alphas_cumprod[t].double()
            alpha, sigma = kept.sqrt(), (1 - kept).sqrt()
        alpha, sigma = (part.reshape(-1, 1, 1, 1).float() for part in (alpha, sigma))
        return (x_t - alpha * (known[label] / 127.5 - 1)) / sigma

    return predict
