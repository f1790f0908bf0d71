"""Random samplers, EDM and the Karras levels: closed forms, and diffusers step by step."""

import inspect
import math

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    EDMEulerScheduler,
    HeunDiscreteScheduler,
    UniPCMultistepScheduler,
)
from gaussians import gaussian_denoiser
from hypothesis import given, settings
from hypothesis import strategies as st

from robustdiff.config.sections import SampleConfig
from robustdiff.diffusion.generate import generate, sampling_grid
from robustdiff.diffusion.model import Model
from robustdiff.diffusion.process import PREDICTIONS, for_labels
from robustdiff.diffusion.samplers import (
    SAMPLERS,
    ancestral,
    ddim,
    denoiser_calls,
    dpm_solver_2m,
    edm,
    heun,
    last,
    unipc,
)
from robustdiff.diffusion.schedules import (
    SCHEDULES,
    SPACINGS,
    Grid,
    cosine,
    log_snr_at,
    time_at,
    time_grid,
)

M, S = 0.7, 0.3
SPREAD = [-2.0, 0.4, 3.0]


def start(values=SPREAD):
    return torch.tensor(values, dtype=torch.float64).reshape(-1, 1, 1, 1)


def no_noise(step):
    raise AssertionError("a deterministic sampler asked for noise")


def draws(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return lambda step: torch.randn(count, 1, 1, 1, generator=generator)


def network_x_0(x_t, t):
    """A smooth stand-in for a denoiser, bounded like an image."""
    return torch.tanh(0.8 * x_t + 0.3 * torch.sin(t / 100))


@settings(deadline=None, derandomize=True, max_examples=50)
@given(st.sampled_from(sorted(SCHEDULES)), st.floats(0.001, 0.999))
def test_a_time_is_found_from_its_log_snr(name, t):
    times = torch.tensor([t, 0.5], dtype=torch.float64)
    torch.testing.assert_close(time_at(SCHEDULES[name], log_snr_at(SCHEDULES[name], times)), times)


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_sampling_from_time_1_ends_in_the_data(name, spacing):
    x, options = start([-1.0, 0.4, 1.0]), {"churn": 1.0} if name == "edm" else {}
    grid = time_grid(cosine, 40, 1.0, spacing=spacing)
    assert log_snr_at(cosine, grid.t[0]) == pytest.approx(-16)
    found = last(
        SAMPLERS[name].run(gaussian_denoiser(cosine, M, S), x, grid, noise=draws(3), **options)
    )
    assert ((found - M).abs() < 4 * S).all()
    # Earlier starts are where they were asked for.
    assert time_grid(cosine, 4, 0.999, spacing=spacing).t[0] == 0.999


def test_log_snrs_out_of_reach_give_the_nearer_end():
    found = time_at(cosine, torch.tensor([99.0, -99.0]))
    torch.testing.assert_close(found, torch.tensor([0.0, 1.0], dtype=torch.float64))


def test_power_times_are_even_in_their_root():
    t = time_grid(cosine, 6, 0.98, spacing="power").t
    torch.testing.assert_close(t ** (2 / 3), 0.98 ** (2 / 3) * torch.linspace(1, 0, 7).double())
    assert t[0] == 0.98


@pytest.mark.parametrize("rho", [3.0, 7.0])
def test_karras_levels_are_even_in_the_root_and_equal_diffusers(rho):
    grid = time_grid(cosine, 12, 0.98, spacing="karras", rho=rho)
    ratio = (grid.sigma / grid.alpha)[:-1]
    steps = torch.diff(ratio ** (1 / rho))
    torch.testing.assert_close(steps, steps[:1].expand(11))
    reference = EDMEulerScheduler(
        sigma_min=float(ratio[-1]), sigma_max=float(ratio[0]), sigma_data=0.5, rho=rho
    )
    reference.set_timesteps(12)
    torch.testing.assert_close(ratio.float(), reference.sigmas[:-1], rtol=1e-4, atol=0)
    assert (grid.t[0], grid.t[-1], grid.alpha[-1], grid.sigma[-1]) == (0.98, 0, 1, 0)


def test_edm_converges_to_the_exact_map_on_its_own_levels():
    x = start()

    def error(steps):
        grid = time_grid(cosine, steps, 0.98, spacing="karras")
        spread = torch.sqrt(grid.alpha[0] ** 2 * S**2 + grid.sigma[0] ** 2)
        exact = M + S * (x - grid.alpha[0] * M) / spread
        out = last(edm(gaussian_denoiser(cosine, M, S), x, grid, noise=no_noise))
        return float((out - exact).abs().max())

    # Second order, but for the last step, to no noise at all, which is a constant (u / S)^2.
    assert error(200) < 0.003
    assert error(40) < error(20) / 3


def moments(slopes_and_noise):
    """Mean and variance of an affine chain that starts standard normal."""
    mean, variance = 0.0, 1.0
    for slope, offset, added in slopes_and_noise:
        mean, variance = slope * mean + offset, slope**2 * variance + added
    return mean, variance


def check_moments(out, mean, variance):
    assert abs(float(out.mean()) - mean) < 5 * math.sqrt(variance / len(out))
    assert abs(float(out.var()) - variance) < 5 * variance * math.sqrt(2 / len(out))


@pytest.mark.parametrize("eta", [0.3, 1.0])
def test_random_ddim_follows_its_variance_recursion(eta):
    grid, count = time_grid(cosine, 30, 0.98), 200_000
    denoise = gaussian_denoiser(cosine, M, S)
    x = draws(count, seed=1)(0)
    out = last(ddim(denoise, x, grid, noise=draws(count), eta=eta))

    def chain():
        for i in range(30):
            alpha_t, sigma_t = float(grid.alpha[i]), float(grid.sigma[i])
            alpha_s, sigma_s = float(grid.alpha[i + 1]), float(grid.sigma[i + 1])
            gain = alpha_t * S**2 / (alpha_t**2 * S**2 + sigma_t**2)
            offset = M * (1 - gain * alpha_t)  # x_0 = offset + gain x
            added = eta**2 * (1 - (alpha_t / alpha_s) ** 2) * (sigma_s / sigma_t) ** 2
            on_eps = math.sqrt(max(0.0, sigma_s**2 - added)) / sigma_t
            on_x_0 = alpha_s - on_eps * alpha_t
            yield on_x_0 * gain + on_eps, on_x_0 * offset, added

    check_moments(out, *moments(chain()))


def test_ddim_with_eta_1_is_ancestral_with_v_0():
    grid, x = time_grid(cosine, 9, 0.98), start()
    denoise = gaussian_denoiser(cosine, M, S)
    one = ddim(denoise, x, grid, noise=draws(3), eta=1.0)
    other = ancestral(denoise, x, grid, noise=draws(3), v=0.0)
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("churn", [2.0, 40.0])
def test_churn_follows_its_variance_recursion(churn):
    """Both the raised level and the two slopes are affine in y for Gaussian data."""
    steps, count = 12, 200_000
    grid = time_grid(cosine, steps, 0.98, spacing="karras")
    x = draws(count, seed=1)(0)
    denoise = gaussian_denoiser(cosine, M, S)
    out = last(edm(denoise, x, grid, noise=draws(count), churn=churn))
    ratio = (grid.sigma / grid.alpha).tolist()
    gamma = min(churn / steps, math.sqrt(2) - 1)

    def chain():
        yield 1 / float(grid.alpha[0]), 0.0, 0.0  # y = x / alpha
        for i in range(steps):
            u, s = (1 + gamma) * ratio[i], ratio[i + 1]
            yield 1.0, 0.0, u**2 - ratio[i] ** 2
            # dy/du = (y - x_0) / u = u (y - M) / (S^2 + u^2)
            rate, rate_s = u / (S**2 + u**2), s / (S**2 + s**2)
            euler = 1 + (s - u) * rate
            slope = euler if i == steps - 1 else 1 + (s - u) * (rate + rate_s * euler) / 2
            yield slope, M * (1 - slope), 0.0

    check_moments(out, *moments(chain()))


def test_without_churn_edm_is_heun():
    grid, x = time_grid(cosine, 9, 0.98, spacing="karras"), start()
    one, other = (
        list(s(gaussian_denoiser(cosine, M, S), x, grid, noise=no_noise)) for s in (edm, heun)
    )
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("eta", [0.4, 1.0])
def test_random_ddim_equals_diffusers_step_by_step(eta):
    reference = DDIMScheduler(1000, clip_sample=False, timestep_spacing="trailing")
    reference.set_timesteps(20)
    t = reference.timesteps.double()
    alpha = torch.cat([reference.alphas_cumprod.double()[reference.timesteps].sqrt(), one()])
    grid = Grid(torch.cat([t, 0 * one()]), alpha, (1 - alpha**2).sqrt(), cosine)
    x = torch.randn(3, 1, 1, 1, generator=torch.Generator().manual_seed(1))
    ours = ddim(network_x_0, x, grid, noise=draws(3, seed=7), eta=eta)
    noise, state = draws(3, seed=7), x
    for i, mine in enumerate(ours):
        eps = (state - grid.alpha[i] * network_x_0(state, t[i])) / grid.sigma[i]
        final = i == 19  # diffusers ends at t = 0 of its table, not at a clean image
        drawn = torch.zeros_like(state) if final else noise(i)
        state = reference.step(
            eps.float(), reference.timesteps[i], state, eta=eta, variance_noise=drawn
        ).prev_sample
        if not final:
            torch.testing.assert_close(mine.float(), state, rtol=1e-4, atol=1e-4)


def one():
    return torch.ones(1, dtype=torch.float64)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers
@pytest.mark.parametrize("karras", [False, True])
def test_heun_equals_diffusers_step_by_step(karras):
    steps = 10
    reference = HeunDiscreteScheduler(
        1000, timestep_spacing="trailing", use_karras_sigmas=karras, beta_start=1e-4, beta_end=0.02
    )
    reference.set_timesteps(steps)
    # Every level but the first stands twice in diffusers' list; the last is 0.
    ratio = torch.cat([reference.sigmas[:1], reference.sigmas[1::2]]).double()
    t = torch.cat([reference.timesteps[:1], reference.timesteps[1::2]]).double()
    alpha = torch.rsqrt(1 + ratio**2)
    grid = Grid(torch.cat([t, 0 * one()]), alpha, ratio * alpha, cosine)
    x = torch.randn(2, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    ours = list(edm(network_x_0, x, grid, noise=no_noise))
    # diffusers' states are x / alpha, and it makes one call a denoiser call.
    state, states = x / alpha[0].float(), []
    for call, step in enumerate(reference.timesteps):
        level = (call + 1) // 2
        x_t = state * alpha[level].float()
        eps = (state - network_x_0(x_t, t[level])) / ratio[level]
        state = reference.step(eps.float(), step, state).prev_sample
        if call % 2 == 0 and call == len(reference.timesteps) - 1:
            states.append(state)
        elif call % 2 == 1:
            states.append(state * alpha[level].float())
    assert len(states) == len(ours) == steps
    for a, b in zip(ours, states, strict=True):
        torch.testing.assert_close(a.float(), b, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("solver", "order"), [(dpm_solver_2m, 2), (unipc, 3)])
def test_multistep_solvers_converge_at_their_order_to_the_exact_map(solver, order):
    """Before the last step, which is first order."""
    x = start()

    def error(steps):
        t = torch.cat([torch.linspace(0.9, 0.3, steps + 1, dtype=torch.float64), 0.28 * one()])
        alpha, sigma = cosine(t)
        grid = Grid(t, alpha, sigma, cosine)
        states = list(solver(gaussian_denoiser(cosine, M, S), x, grid, noise=no_noise))
        spread = torch.sqrt(alpha**2 * S**2 + sigma**2)
        exact = alpha[-2] * M + spread[-2] / spread[0] * (x - alpha[0] * M)
        return float((states[-2] - exact).abs().max())

    rates = [math.log2(error(steps) / error(2 * steps)) for steps in (20, 40)]
    assert rates == pytest.approx([order, order], abs=0.05)
    assert error(40) < 4e-4


def test_the_dpm_solver_is_the_published_formula_to_the_bit():
    grid, x = time_grid(cosine, 7, 0.98), start()
    level = torch.log(grid.alpha) - torch.log(grid.sigma)
    x_t, before = x, x
    for i, state in enumerate(dpm_solver_2m(network_x_0, x, grid, noise=no_noise)):
        x_0, h = network_x_0(x_t, grid.t[i]), level[i + 1] - level[i]
        d = x_0
        if 0 < i < 6:
            r = (level[i] - level[i - 1]) / h
            d = x_0 + (x_0 - before) / (2 * r)
        x_t = grid.sigma[i + 1] / grid.sigma[i] * x_t - grid.alpha[i + 1] * torch.expm1(-h) * d
        before = x_0
        assert torch.equal(state, x_t)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers
@pytest.mark.parametrize("steps", [2, 10])
def test_unipc_equals_diffusers_step_by_step(steps):
    reference = UniPCMultistepScheduler(
        1000, solver_type="bh2", timestep_spacing="trailing", final_sigmas_type="zero"
    )
    reference.set_timesteps(steps)
    ratio, t = reference.sigmas.double(), reference.timesteps.double()
    alpha = torch.rsqrt(1 + ratio**2)
    grid = Grid(torch.cat([t, 0 * one()]), alpha, ratio * alpha, cosine)
    state = x = torch.randn(2, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    for i, mine in enumerate(unipc(network_x_0, x, grid, noise=no_noise)):
        eps = (state - grid.alpha[i] * network_x_0(state, t[i])) / grid.sigma[i]
        state = reference.step(eps.float(), reference.timesteps[i], state).prev_sample
        torch.testing.assert_close(mine.float(), state.float(), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", SAMPLERS)
def test_denoiser_calls_are_counted_right(name):
    calls = []

    def denoise(x_t, t):
        calls.append(float(t))
        return torch.zeros_like(x_t)

    grid = time_grid(cosine, 7, 0.98)
    last(SAMPLERS[name].run(denoise, start(), grid, noise=draws(3)))
    assert len(calls) == denoiser_calls(name, 7)


@pytest.mark.parametrize("name", SAMPLERS)
def test_options_are_arguments_of_the_sampler_and_entries_of_the_settings(name):
    arguments = inspect.signature(SAMPLERS[name].run).parameters.values()
    optional = [entry.name for entry in arguments if entry.default is not entry.empty]
    assert optional == list(SAMPLERS[name].options)
    assert all(hasattr(SampleConfig(), option) for option in optional)


def small_model():
    def network(x_t, t, labels):
        return torch.tanh(for_labels(x_t, len(labels)) + labels.reshape(-1, 1, 1, 1) / 10)

    return Model(network, cosine, PREDICTIONS["x0"], null_class=10)


@pytest.mark.parametrize("name", SAMPLERS)
def test_image_k_does_not_depend_on_the_batch_size(name):
    labels = torch.arange(7) % 10
    pictures = [
        generate(
            small_model(), labels[:count], (1, 4, 4), seed=3,
            sample=SampleConfig(
                sampler=name, steps=5, eta=0.7, churn=10, guidance_every=2, batch_size=size,
                compile=compiled,
            ),
        )
        for count, size, compiled in ((7, 7, False), (7, 2, False), (7, 3, True), (3, 1, False))
    ]  # fmt: skip
    assert torch.equal(pictures[0], pictures[1])
    assert torch.equal(pictures[0], pictures[2])
    assert torch.equal(pictures[0][:3], pictures[3])


def test_each_sampler_has_its_own_spacing_unless_another_is_chosen():
    model = small_model()
    own = {name: sampling_grid(model, SampleConfig(sampler=name)).t for name in SAMPLERS}
    assert float(torch.diff(torch.diff(own["heun"])).abs().max()) < 1e-12
    assert float(torch.diff(torch.diff(own["edm"])).abs().max()) > 0.01
    torch.testing.assert_close(own["unipc"], time_grid(cosine, 20, 0.99, spacing="power").t)
    chosen = sampling_grid(model, SampleConfig(sampler="heun", spacing="karras")).t
    torch.testing.assert_close(chosen, own["edm"])
