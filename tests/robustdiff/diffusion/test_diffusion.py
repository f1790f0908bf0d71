import math

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler
from gaussians import gaussian_denoiser
from hypothesis import given, settings
from hypothesis import strategies as st

from robustdiff.diffusion.guidance import Guidance, drop_labels, guide, guided_denoiser
from robustdiff.diffusion.model import Model
from robustdiff.diffusion.process import PREDICTIONS, diffuse
from robustdiff.diffusion.samplers import SAMPLERS, ancestral, ddim, dpm_solver_2m, heun, last
from robustdiff.diffusion.schedules import SCHEDULES, Grid, cosine, time_grid

M, S = 0.7, 0.3


def no_noise(step):
    raise AssertionError("a deterministic sampler asked for noise")


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_keep_variance_and_lose_signal(name):
    alpha, sigma = SCHEDULES[name](torch.linspace(0, 1, 501, dtype=torch.float64))
    torch.testing.assert_close(alpha**2 + sigma**2, torch.ones_like(alpha))
    assert (torch.diff(alpha / sigma) < 0).all()


def test_cosine_is_an_amplitude_and_equals_diffusers():
    t = torch.arange(1, 900, dtype=torch.float64) / 1000
    reference = DDPMScheduler(1000, beta_schedule="squaredcos_cap_v2").alphas_cumprod[:899]
    start = cosine(torch.zeros((), dtype=torch.float64))[0]
    torch.testing.assert_close((cosine(t)[0] / start) ** 2, reference.double(), rtol=1e-3, atol=0)


def test_linear_is_the_limit_of_the_thousand_betas():
    reference = DDPMScheduler(1000, beta_start=1e-4, beta_end=0.02).alphas_cumprod.double()
    t = torch.arange(1, 1001, dtype=torch.float64) / 1000
    squared = SCHEDULES["linear"](t)[0] ** 2
    torch.testing.assert_close(squared[:700], reference[:700], rtol=0.02, atol=1e-4)


@settings(deadline=None, derandomize=True, max_examples=30)
@given(st.sampled_from(sorted(PREDICTIONS)), st.floats(0.05, 0.95), st.integers(0, 99))
def test_every_prediction_gives_back_x_0_and_eps(name, t, seed):
    generator = torch.Generator().manual_seed(seed)
    x_0, eps = torch.randn(2, 3, 1, 2, 2, generator=generator, dtype=torch.float64)
    alpha, sigma = cosine(torch.tensor(t, dtype=torch.float64))
    x_t = diffuse(x_0, eps, alpha, sigma)
    prediction = PREDICTIONS[name]
    output = prediction.target(x_0, eps, alpha, sigma)
    torch.testing.assert_close(prediction.to_x_0(output, x_t, alpha, sigma), x_0)
    torch.testing.assert_close(prediction.to_eps(output, x_t, alpha, sigma), eps)


def exact_map(x, grid):
    spread = torch.sqrt(grid.alpha[0] ** 2 * S**2 + grid.sigma[0] ** 2)
    return M + S * (x - grid.alpha[0] * M) / spread


@pytest.mark.parametrize(("sampler", "order"), [(ddim, 1), (dpm_solver_2m, 2), (heun, 2)])
def test_deterministic_samplers_converge_to_the_exact_map_at_their_order(sampler, order):
    x = torch.tensor([-2.0, 0.4, 3.0], dtype=torch.float64).reshape(3, 1, 1, 1)

    def error(steps):
        t = torch.linspace(0.9, 0.1, steps + 1, dtype=torch.float64)
        grid = Grid(t, *cosine(t), cosine)
        # The last level is not clean here: compare with the map between the two levels.
        end = torch.sqrt(grid.alpha[-1] ** 2 * S**2 + grid.sigma[-1] ** 2)
        exact = grid.alpha[-1] * M + end / S * (exact_map(x, grid) - M)
        out = last(sampler(gaussian_denoiser(cosine, M, S), x, grid, noise=no_noise))
        return float((out - exact).abs().max())

    measured = math.log2(error(128) / error(256))
    # The multistep solver is first order in its first and last step only.
    assert abs(measured - order) < 0.25


@pytest.mark.parametrize("name", ["ddim", "dpm-solver++", "heun"])
def test_deterministic_samplers_reach_the_data(name):
    grid = time_grid(cosine, 200, 0.98)
    x = torch.tensor([-2.0, 0.4, 3.0], dtype=torch.float64).reshape(3, 1, 1, 1)
    out = last(SAMPLERS[name].run(gaussian_denoiser(cosine, M, S), x, grid, noise=no_noise))
    torch.testing.assert_close(out, exact_map(x, grid), rtol=0, atol=0.02)


@pytest.mark.parametrize("v", [0.0, 0.2, 1.0])
def test_ancestral_sampler_follows_its_variance_recursion(v):
    grid = time_grid(cosine, 50, 0.98)
    denoise = gaussian_denoiser(cosine, M, S)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(200_000, 1, 1, 1, generator=generator)

    def noise(step):
        return torch.randn(x.shape, generator=generator)

    out = last(ancestral(denoise, x, grid, noise=noise, v=v))
    # The chain is affine in x, so mean and variance follow a recursion.
    mean, variance = 0.0, 1.0
    for i in range(50):
        alpha_t, sigma_t = float(grid.alpha[i]), float(grid.sigma[i])
        alpha_s, sigma_s = float(grid.alpha[i + 1]), float(grid.sigma[i + 1])
        gain = alpha_t * S**2 / (alpha_t**2 * S**2 + sigma_t**2)
        offset = M * (1 - gain * alpha_t)
        beta = 1 - (alpha_t / alpha_s) ** 2
        on_x_0 = alpha_s * beta / sigma_t**2
        slope = on_x_0 * gain + alpha_t / alpha_s * sigma_s**2 / sigma_t**2
        added = (beta * sigma_s**2 / sigma_t**2) ** (1 - v) * beta**v if i < 49 else 0.0
        mean, variance = on_x_0 * offset + slope * mean, slope**2 * variance + added
    assert abs(float(out.mean()) - mean) < 5 * math.sqrt(variance / len(out))
    assert abs(float(out.var()) - variance) < 5 * variance * math.sqrt(2 / len(out))


@pytest.mark.parametrize("steps", [5, 20])
def test_ddim_equals_diffusers_step_by_step(steps):
    reference = DDIMScheduler(1000, clip_sample=False, timestep_spacing="trailing")
    states, grid, x = reference_run(reference, steps)
    ours = ddim(network_x_0, x, grid, noise=no_noise)
    for a, b in zip(ours, states, strict=True):
        torch.testing.assert_close(a.float(), b, rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers
@pytest.mark.parametrize("steps", [10, 25])
def test_dpm_solver_equals_diffusers_step_by_step(steps):
    reference = DPMSolverMultistepScheduler(
        1000,
        algorithm_type="dpmsolver++",
        timestep_spacing="trailing",
        final_sigmas_type="zero",
    )
    states, grid, x = reference_run(reference, steps)
    ours = dpm_solver_2m(network_x_0, x, grid, noise=no_noise)
    for a, b in zip(ours, states, strict=True):
        torch.testing.assert_close(a.float(), b, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("variance", "v"), [("fixed_small", 0.0), ("fixed_large", 1.0)])
def test_ancestral_equals_diffusers_step_by_step(variance, v):
    reference = DDPMScheduler(
        1000,
        clip_sample=False,
        variance_type=variance,
        timestep_spacing="trailing",
    )
    states, grid, x = reference_run(reference, 40, seed=7)
    generator = torch.Generator().manual_seed(7)
    ours = ancestral(
        network_x_0,
        x,
        grid,
        noise=lambda step: torch.randn(x.shape, generator=generator),
        v=v,
    )
    # With the large variance diffusers adds noise in the last step too, where the paper has none.
    for a, b in list(zip(ours, states, strict=True))[: 39 if v else 40]:
        torch.testing.assert_close(a.float(), b, rtol=1e-3, atol=1e-3)


def network_x_0(x_t, t):
    """A smooth stand-in for a denoiser, bounded like an image."""
    return torch.tanh(0.8 * x_t + 0.3 * torch.sin(t / 100))


def reference_run(reference, steps, seed=None):
    """Run a diffusers scheduler; return its states, its levels as a grid, and the start."""
    reference.set_timesteps(steps)
    t = reference.timesteps.double()
    alpha = reference.alphas_cumprod.double()[reference.timesteps].sqrt()
    sigma = (1 - alpha**2).sqrt()
    one, zero = torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    levels = (torch.cat(pair) for pair in ((t, zero), (alpha, one), (sigma, zero)))
    grid = Grid(*levels, cosine)
    x = torch.randn(2, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    state, states = x, []
    options = {} if seed is None else {"generator": torch.Generator().manual_seed(seed)}
    for i, step in enumerate(reference.timesteps):
        eps = (state - grid.alpha[i] * network_x_0(state, t[i])) / grid.sigma[i]
        state = reference.step(eps.float(), step, state, **options).prev_sample
        states.append(state)
    return states, grid, x


def test_label_dropout_is_per_example_and_exact_at_the_ends():
    labels, u = torch.arange(6), torch.tensor([0.1, 0.9, 0.1, 0.9, 0.1, 0.9])
    assert drop_labels(labels, u, 0.5, 10).tolist() == [10, 1, 10, 3, 10, 5]
    assert torch.equal(drop_labels(labels, u, 0.0, 10), labels)
    assert drop_labels(labels, u, 1.0, 10).tolist() == [10] * 6


def test_guiding_gaussians_of_equal_width_moves_the_mean():
    x, t = torch.linspace(-2, 2, 5, dtype=torch.float64), torch.tensor(0.6, dtype=torch.float64)
    w = 1.5
    mixed = guide(
        gaussian_denoiser(cosine, 0.5, S)(x, t), gaussian_denoiser(cosine, 0.1, S)(x, t), w
    )
    expected = gaussian_denoiser(cosine, 0.5 + w * (0.5 - 0.1), S)(x, t)
    torch.testing.assert_close(mixed, expected)


def model_that_shows_labels(calls):
    def network(x_t, t, labels):
        calls.append((len(x_t), labels.tolist()))
        return labels.float().reshape(-1, 1, 1, 1) / 10

    return Model(network, cosine, PREDICTIONS["x0"], null_class=4)


@pytest.mark.parametrize(
    ("guidance", "t", "seen", "value"),
    [
        (Guidance(weight=0.0), 0.5, [1, 2], [0.1, 0.2]),
        (Guidance(weight=1.0), 0.5, [1, 4, 2, 4], [-0.2, 0.0]),
        (Guidance(weight=1.0, interval=(0.6, 1.0)), 0.5, [4, 4], [0.4, 0.4]),
        (Guidance(weight=1.0, interval=(0.6, 1.0), outside="given"), 0.5, [1, 2], [0.1, 0.2]),
    ],
)
def test_guidance_runs_both_branches_in_one_forward_and_only_in_its_interval(
    guidance, t, seen, value
):
    calls = []
    denoise = guided_denoiser(model_that_shows_labels(calls), torch.tensor([1, 2]), guidance)
    x_0 = denoise(torch.zeros(2, 1, 1, 1, dtype=torch.float64), torch.tensor(t).double())
    assert calls == [(2, seen)]
    torch.testing.assert_close(x_0.flatten().tolist(), value)
