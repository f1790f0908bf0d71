"""The noise schedule and the samplers of a class-conditional diffusion model, for diffusers."""

from collections.abc import Iterator, Sequence

from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from torch import Tensor

from robustdiff.diffusion.process import PREDICTIONS, Prediction
from robustdiff.diffusion.samplers import SAMPLERS, Denoise, Noise
from robustdiff.diffusion.schedules import SCHEDULES, Grid, Schedule, time_grid

PREDICTION_TYPES = {"epsilon": "eps", "sample": "x0", "v_prediction": "v"}


class RobustdiffScheduler(SchedulerMixin, ConfigMixin):
    """A schedule in continuous time with its samplers, which run a whole sampling at once.

    Its configuration also holds the schedule in `num_train_timesteps` discrete steps, so that a
    scheduler of diffusers can be made of it: `DDIMScheduler.from_config(pipe.scheduler.config)`.

    Args:
        num_train_timesteps: Discrete steps; step i stands for the time (i + 1) / their number.
        trained_betas: Their betas.
        prediction_type: What the network predicts.
        timestep_spacing: Where steps of schedulers of diffusers lie; our own have `spacing`.
        clip_sample: Whether those clip estimates of x_0 to [-1, 1]; our own samplers always do.
        schedule: Key of `SCHEDULES`.
        sampler: Key of `SAMPLERS`.
        num_inference_steps: Sampling steps where none are asked for.
        spacing: Key of `SPACINGS`; None is the sampler's own.
        rho: Exponent of the Karras spacing.
        t_start: Time of the first step, in (0, 1].
        v: Variance interpolation of sampler "ancestral", in [0, 1].
        eta: Randomness of sampler "ddim", in [0, 1].
        churn: Noise that sampler "edm" adds back.
    """

    order = 1

    @register_to_config
    def __init__(  # noqa: PLR0913 entries of scheduler_config.json
        self,
        num_train_timesteps: int = 1000,
        trained_betas: Sequence[float] | None = None,
        prediction_type: str = "v_prediction",
        timestep_spacing: str = "leading",
        clip_sample: bool = False,
        schedule: str = "cosine",
        sampler: str = "dpm-solver++",
        num_inference_steps: int = 20,
        spacing: str | None = None,
        rho: float = 7.0,
        t_start: float = 0.99,
        v: float = 0.2,
        eta: float = 0.0,
        churn: float = 0.0,
    ) -> None:
        pass

    @property
    def schedule(self) -> Schedule:
        """Maps times to (alpha, sigma)."""
        return SCHEDULES[self.config.schedule]

    @property
    def prediction(self) -> Prediction:
        """What the network predicts."""
        return PREDICTIONS[PREDICTION_TYPES[self.config.prediction_type]]

    def grid(self, num_inference_steps: int | None = None) -> Grid:
        """Return the noise levels of a sampling."""
        return time_grid(
            self.schedule,
            num_inference_steps or self.config.num_inference_steps,
            self.config.t_start,
            spacing=self.config.spacing or SAMPLERS[self.config.sampler].spacing,
            rho=self.config.rho,
        )

    def states(
        self, denoise: Denoise, start: Tensor, noise: Noise, num_inference_steps: int | None = None
    ) -> Iterator[Tensor]:
        """Yield the state after each step, (B, C, H, W) float64; the last one is the sample.

        Args:
            denoise: (x_t, t) -> estimate of x_0.
            start: (B, C, H, W) standard normal noise.
            noise: Number of the step -> standard normal noise.
            num_inference_steps: None for the configured number.
        """
        sampler = SAMPLERS[self.config.sampler]
        options = {name: self.config[name] for name in sampler.options}
        grid = self.grid(num_inference_steps)
        return sampler.run(denoise, start, grid, noise=noise, **options)
