"""The processes that torchrun starts to train one model: their parts and what they exchange.

Every process draws the same global batch, because draws are functions of (seed, stream, step,
sample), and takes every size-th sample of it. In a single process all of this does nothing.
"""

import datetime
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from robustdiff.errors import LeaderError, PeerError
from robustdiff.shared_memory import can_share, get, put

T = TypeVar("T")
F = TypeVar("F", bound=np.floating[Any])

# Longer than any work that the leader does alone while the others wait.
_PATIENCE = datetime.timedelta(hours=2)
# Whether this process has been one of several.
_member = False


@dataclass(frozen=True)
class Workers:
    """This process among those that work on one run.

    Attributes:
        rank: Its number in [0, size).
        size: How many there are.
        shard: Whether each holds a part of the weights and the optimiser (FSDP2) instead of all.
        place: Number of this process among those of its host; None where nothing is shared.
    """

    rank: int = 0
    size: int = 1
    shard: bool = False
    place: int | None = None

    @property
    def leader(self) -> bool:
        """Whether this is the process that writes files and reports."""
        return self.rank == 0

    def share(self, items: Tensor) -> Tensor:
        """Return this process's part, every size-th item; the parts are disjoint and complete."""
        return items[self.rank :: self.size]

    def from_leader(self, work: Callable[[], T]) -> T:
        """Call a function in the leader and return its result in all processes.

        Args:
            work: Called in the leader alone; its result must be picklable and lie on the CPU.

        Returns:
            What it returned.

        Raises:
            LeaderError: In the others, if it failed in the leader, which raises its error as is.
        """
        if self.size == 1:
            return work()
        outcome: list[Any] = [None, False]
        error: Exception | None = None
        if self.leader:
            try:
                outcome = [work(), True]
            except Exception as failure:  # noqa: BLE001 raised again below
                error = failure
        dist.broadcast_object_list(outcome, device=torch.device("cpu"))
        if error is not None:
            raise error
        result, done = outcome
        if not done:
            raise LeaderError("the first process failed")
        return result  # type: ignore[no-any-return]

    def leader_first(self, work: Callable[[], T]) -> T:
        """Call a function in every process, in the leader first."""
        done: list[T] = []
        self.from_leader(lambda: done.append(work()))
        return done[0] if done else work()

    def on_host(self, work: Callable[[], T]) -> T:
        """Call a function in the first process of every host; all processes must call this.

        Args:
            work: Gives the same in all processes, and calls none of the other methods. Its result
                holds arrays in tuples, lists, dicts and dataclasses; what else it holds must be
                picklable.

        Returns:
            What it returned. Its arrays lie in memory that the processes of a host share; a process
            that changes them changes a copy of its own.

        Raises:
            LeaderError: In the others, if it failed in the first, which raises its error as is.
        """
        if self.size == 1 or self.place is None:
            return work()
        kept, mine, error = None, None, None
        if self.place == 0:
            try:
                kept, mine = put(work())
            except Exception as failure:  # noqa: BLE001 raised again below
                error = failure
        handles: list[Any] = [None] * self.size
        dist.all_gather_object(handles, mine)
        if error is not None:
            raise error
        handle = handles[self.rank - self.place]
        if handle is None:
            raise LeaderError("the first process of this host failed")
        result: T = get(handle)
        dist.barrier()  # all have mapped it
        if kept is not None:
            os.close(kept)
        return result

    def filled(self, value: T | None, *, wanted: bool) -> T | None:
        """Return the value, or the leader's where there is none and it is wanted.

        Args:
            value: Picklable; the leader must have one. All processes must call this.
            wanted: Whether this process is to have one.
        """
        if self.size == 1:
            return value
        box: list[Any] = [value]
        lacking: list[Any] = [False] * self.size
        dist.all_gather_object(lacking, wanted and value is None)
        for rank in (rank for rank, lacks in enumerate(lacking) if lacks):
            if self.leader:
                dist.send_object_list(box, rank, device=torch.device("cpu"))
            elif self.rank == rank:
                dist.recv_object_list(box, 0, device=torch.device("cpu"))
        return box[0]  # type: ignore[no-any-return]

    def total(self, values: Tensor) -> Tensor:
        """Return the sum over processes, on the CPU; all must pass one shape and dtype."""
        values = values.detach().cpu()
        if self.size > 1:
            values = values.clone()
            dist.all_reduce(values)
        return values

    def largest(self, *values: int) -> list[int]:
        """Return the largest of each value over processes."""
        if self.size == 1:
            return list(values)
        found = torch.tensor(values)
        dist.all_reduce(found, dist.ReduceOp.MAX)
        return [int(value) for value in found]

    def merged(self, values: NDArray[F]) -> NDArray[F]:
        """Merge what the processes have measured.

        Args:
            values: Any shape, NaN where this process has measured nothing; no two processes may
                have measured the same.

        Returns:
            The same shape and dtype, NaN where none has.
        """
        if self.size == 1:
            return values
        known = ~np.isnan(values)
        total = self.total(torch.from_numpy(np.where(known, values, 0)))
        found = self.total(torch.from_numpy(known.astype(np.uint8)))
        return np.where(found.numpy() > 0, total.numpy(), np.nan).astype(values.dtype)

    def averaging(self, network: nn.Module, *example: Tensor) -> nn.Module:
        """Wrap a network so that a backward pass leaves the mean gradient of all processes.

        Args:
            network: Has no gradients yet.
            example: What it takes, of any values.
        """
        if self.size == 1 or self.shard:
            return network
        wrapped = nn.parallel.DistributedDataParallel(network)
        # Its first backward pass settles how gradients are packed, and so the order in which they
        # are added: without this one a resumed run would add its first step's in another order.
        wrapped(*example).sum().backward()
        wrapped.zero_grad()
        return wrapped


ALONE = Workers()


@contextmanager
def joined(device: str, *, shard: bool = False) -> Iterator[Workers]:
    """Join the processes that torchrun started; without torchrun there is one.

    Args:
        device: Name as in `pick_device`; with CUDA each process takes the GPU of its local rank.
        shard: See `Workers`.

    Yields:
        The workers.

    Raises:
        ValueError: If a single process is to shard its weights, or the environment is not as
            torchrun sets it.
        PeerError: If another process is gone.
    """
    size = _started()
    if size == 1:
        if shard:
            raise ValueError(
                "--shard spreads a model over processes, got one; start several with: "
                "torchrun --nproc-per-node 2 -m robustdiff train --shard"
            )
        yield ALONE
        return
    backend = "gloo"
    if device != "cpu" and torch.cuda.is_available():
        torch.cuda.set_device(_number_from("LOCAL_RANK"))
        backend = "cpu:gloo,cuda:nccl"
    # Processes that start torchrun's way without it may not say how many a host has.
    shared = "LOCAL_WORLD_SIZE" in os.environ and can_share()
    place = _number_from("LOCAL_RANK") if shared else None
    workers = Workers(_number_from("RANK"), size, shard, place)
    global _member
    _member = True
    try:
        store, _, _ = next(rendezvous("env://"))
        # After a restart the store still holds the addresses of the first start's processes.
        store = PrefixStore(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"), store)
        dist.init_process_group(
            backend, timeout=_PATIENCE, store=store, rank=workers.rank, world_size=size
        )
        if place is not None and not _all_share(workers, place):
            workers = replace(workers, place=None)
        yield workers
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and "gloo" not in str(error).lower():
            raise
        raise PeerError(
            f"process {workers.rank} of {size} has lost the others; "
            "torchrun starts all of them again with --max-restarts, or resume the run by hand"
        ) from error
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def _all_share(workers: Workers, place: int) -> bool:
    """Return whether every process can map what the first of its host has put."""
    kept, mine = None, None
    if place == 0:
        with suppress(OSError):
            kept, mine = put(workers.rank)
    handles: list[Any] = [None] * workers.size
    dist.all_gather_object(handles, mine)
    first, good = workers.rank - place, False
    with suppress(OSError):  # some systems hide what belongs to other processes
        good = handles[first] is not None and get(handles[first]) == first
    outcome = torch.tensor(int(good))
    dist.all_reduce(outcome, dist.ReduceOp.MIN)
    if kept is not None:
        os.close(kept)
    return bool(outcome)


def _started() -> int:
    """Return how many processes were started together."""
    return _number_from("WORLD_SIZE", least=1) if "RANK" in os.environ else 1


def refuse_company(command: str) -> None:
    """Refuse several processes for a command that does not share its work among them.

    Raises:
        ValueError: If there are several.
    """
    size = _started()
    if size > 1:
        raise ValueError(f"{command} takes one process, got {size}; start it without torchrun")


def _number_from(name: str, least: int = 0) -> int:
    text = os.environ.get(name, "")
    if not text.isdecimal() or int(text) < least:
        raise ValueError(
            f"the environment variable {name} must be a whole number from {least} on, as "
            f"torchrun sets it, got {text!r}"
        )
    return int(text)


def has_been_member() -> bool:
    """Return whether this process has been one of several, even if it is no longer."""
    return _member


def started_by_torchrun() -> bool:
    """Return whether torchrun started this process, and may do so again."""
    return "TORCHELASTIC_RUN_ID" in os.environ
