"""Why the paper's score ranks labels below chance: two Gaussian classes, where all is exact.

x_0 ~ N(c m, s^2), c = -1 or 1; the label is y = c, or with probability rho y = -c. Under either
class the denoiser is f(k, x) = a (x - k alpha m), a = sigma / (alpha^2 s^2 + sigma^2). Behind
labels stand mixtures of the two: with p the probability that the class is 1,

    f(null, x) = f(., x) by p = expit(L(x)),            L = 2 alpha m x / (alpha^2 s^2 + sigma^2)
    f(y, x)    = f(., x) by q = expit(L(x) + y lambda), lambda = log((1 - rho) / rho)

A network learns to see the class in the image, and to use the label: on the path the log-odds are
tau L and tau (L + y lambda), blind at tau = 0 and exact at tau = 1. Along it

    S2 = 4 alpha^2 m^2 a^2 (q - p) dp,  dp = p (1 - p) L dtau,

so that S2 > 0 exactly where label and image agree, and S = S1 - S2 has it with a minus sign.
"""

import numpy as np
import pytest
import torch

from curricula import CURRICULA
from curricula.scores import inner

M, S, RHO = 1.0, 0.6, 0.3
ALPHA = 0.8
SIGMA = float(np.sqrt(1 - ALPHA**2))
SLOPE = SIGMA / (ALPHA**2 * S**2 + SIGMA**2)
LAMBDA = float(np.log((1 - RHO) / RHO))
# Nodes and weights of both normal variables, the image's own and eps.
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(80)
OWN, EPS = (torch.from_numpy(part.ravel()) for part in np.meshgrid(NODES, NODES, indexing="ij"))
SHARES = torch.from_numpy(np.outer(WEIGHTS, WEIGHTS).ravel() / WEIGHTS.sum() ** 2)
STEPS = np.linspace(0, 1, 11)


def log_odds(x_t, label):
    return 2 * ALPHA * M * x_t / (ALPHA**2 * S**2 + SIGMA**2) + label * LAMBDA


def prediction(x_t, label, tau):
    """f(label, x_t) on the path; label 0 is none."""
    first = torch.sigmoid(tau * log_odds(x_t, label))
    return SLOPE * (x_t - (2 * first - 1) * ALPHA * M)


def probe(clean):
    return ALPHA * (clean * M + S * OWN) + SIGMA * EPS


def predictions(x_t, label, tau, before):
    pairs = {"given": (label, tau), "null": (0, tau)}
    pairs |= {"old_given": (label, before), "old_null": (0, before)}
    return {name: prediction(x_t, *pair)[:, None] for name, pair in pairs.items()}


def expected(name, *, right, tau, before):
    """Mean of a curriculum's score over images of both classes, exact but for the quadrature."""
    total = 0.0
    for clean in (-1, 1):
        x_t, label = probe(clean), clean if right else -clean
        score = CURRICULA[name].compute(EPS[:, None], predictions(x_t, label, tau, before))
        total += float((score * SHARES).sum()) / 2
    return total


def summed(name, *, right):
    steps = zip(STEPS[1:], STEPS[:-1], strict=True)
    return sum(expected(name, right=right, tau=tau, before=before) for tau, before in steps)


@pytest.mark.parametrize("label", [-1, 0, 1])
def test_the_path_ends_at_the_exact_denoiser_of_noisy_labels(label):
    x_t = torch.linspace(-3, 3, 13, dtype=torch.float64)
    prior = {-1: RHO, 0: 0.5, 1: 1 - RHO}[label]
    spread = ALPHA**2 * S**2 + SIGMA**2
    joint = torch.stack(
        [
            share * torch.exp(-((x_t - k * ALPHA * M) ** 2) / (2 * spread))
            for k, share in ((1, prior), (-1, 1 - prior))
        ]
    )
    posterior = joint / joint.sum(0)
    means = torch.stack([SIGMA / spread * (x_t - k * ALPHA * M) for k in (1, -1)])
    torch.testing.assert_close(prediction(x_t, label, 1.0), (posterior * means).sum(0))


@pytest.mark.parametrize("clean", [-1, 1])
@pytest.mark.parametrize("label", [-1, 1])
def test_guidance_moves_with_the_image_where_label_and_image_agree(clean, label):
    x_t, tau, step = probe(clean), 0.5, 1e-6
    found = CURRICULA["dynamics-guidance"].compute(
        EPS[:, None], predictions(x_t, label, tau, tau - step)
    )
    p, q = (torch.sigmoid(tau * log_odds(x_t, y)) for y in (0, label))
    moved = p * (1 - p) * log_odds(x_t, 0) * step
    exact = (2 * SLOPE * ALPHA * M) ** 2 * (q - p) * moved
    torch.testing.assert_close(found, exact, rtol=1e-4, atol=1e-15)
    assert (torch.sign(exact) == torch.sign(label * x_t)).all()


@pytest.mark.parametrize("number", range(1, len(STEPS)))
def test_in_every_round_the_label_enters_the_papers_score_with_the_wrong_sign(number):
    tau, before = STEPS[number], STEPS[number - 1]
    values = {
        name: [expected(name, right=right, tau=tau, before=before) for right in (True, False)]
        for name in ("dynamics-uncond", "dynamics-guidance")
    }
    right, wrong = values["dynamics-guidance"]
    assert right > 0 > wrong
    # S = S1 - S2, and S1 is blind to the label.
    paper = values["dynamics-uncond"]
    assert paper[0] - paper[1] == pytest.approx(wrong - right, rel=1e-9)
    assert paper[0] < paper[1]


def test_s1_is_the_same_for_right_and_wrong_labels():
    for clean in (-1, 1):
        x_t = probe(clean)
        found = []
        for label in (-1, 1):
            f = predictions(x_t, label, 0.6, 0.5)
            paper = CURRICULA["dynamics-uncond"].compute(EPS[:, None], f)
            s1 = paper + CURRICULA["dynamics-guidance"].compute(EPS[:, None], f)
            torch.testing.assert_close(
                s1, inner(EPS[:, None] - f["null"], f["null"] - f["old_null"])
            )
            found.append(s1)
        torch.testing.assert_close(*found)


@pytest.mark.parametrize("name", ["dynamics-label", "dynamics-guidance"])
def test_summed_over_the_path_right_labels_lie_above_zero_and_wrong_ones_below(name):
    assert summed(name, right=True) > 0 > summed(name, right=False)
    assert summed("dynamics-uncond", right=True) < summed("dynamics-uncond", right=False)
