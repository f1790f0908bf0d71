"""A training step as a CUDA graph: the host starts all of its operations at once.

A step of a small network is a thousand short operations. Started one by one they keep the host
busy for longer than the GPU, which waits. A graph holds them, and the host starts the graph.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

# Steps before the capture: they load libraries and compile, which a capture must not.
_BEFORE = 3


class Numbers(NamedTuple):
    """What differs from step to step, beside the batch.

    Attributes:
        step: Number of the step, from 0.
        rate: Learning rate.
        fade: Part of the average that the new weights replace.
    """

    step: int | Tensor
    rate: float | Tensor
    fade: float | Tensor


class StepGraph:
    """Runs steps on a GPU, from the fourth of a shape on as a graph.

    All steps, captured or not, compute the same: a run that was resumed equals one that was not.

    Args:
        device: The GPU.
    """

    def __init__(self, device: torch.device) -> None:
        self._numbers = Numbers(
            torch.zeros((), dtype=torch.int64, device=device),
            torch.zeros((), device=device),
            torch.zeros((), device=device),
        )
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._shape: tuple[torch.Size | None, ...] | None = None
        self._steps = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self._inputs: tuple[Tensor | None, ...] = ()
        self._loss: Tensor | None = None

    def run(
        self,
        step: Callable[..., Tensor],
        inputs: tuple[Tensor | None, ...],
        numbers: Numbers,
    ) -> Tensor:
        """Run a step.

        Args:
            step: Takes the inputs, None where there is none, and `Numbers` of tensors; returns a
                loss. It must not wait for the GPU.
            inputs: Tensors of the step.
            numbers: Of the step, plain ones.

        Returns:
            The loss, () float32.
        """
        for mine, number in zip(self._numbers, numbers, strict=True):
            assert isinstance(mine, Tensor)
            mine.fill_(number)
        shape = tuple(None if value is None else value.shape for value in inputs)
        if shape != self._shape:
            self._shape, self._steps, self._graph = shape, 0, None
            self._inputs = tuple(None if value is None else value.clone() for value in inputs)
        for kept, value in zip(self._inputs, inputs, strict=True):
            if kept is not None and value is not None:
                kept.copy_(value)
        self._steps += 1
        if self._steps <= _BEFORE:
            self._stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self._stream):
                loss = step(*self._inputs, self._numbers)
            torch.cuda.current_stream().wait_stream(self._stream)
            return loss
        if self._graph is None:
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(
                self._graph, stream=self._stream, capture_error_mode="thread_local"
            ):
                self._loss = step(*self._inputs, self._numbers)
        self._graph.replay()
        assert self._loss is not None
        return self._loss.clone()
