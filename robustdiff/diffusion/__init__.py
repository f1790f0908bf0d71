"""The diffusion model: noise schedule, network, guidance, samplers, likelihood."""
