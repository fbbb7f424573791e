"""The process group, where there is one: sums and averages over all workers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel


def world() -> tuple[int, int]:
    """This worker's rank and the number of workers; (0, 1) without a process group."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def replicate(network: nn.Module, device: torch.device) -> nn.Module:
    """The network with gradients averaged over all workers; itself where it is the only one.

    Buffers stay each worker's own: BN statistics are averaged when they are needed (`average_buffers`).
    """
    if world()[1] == 1:
        return network
    devices = [device] if device.type == "cuda" else None
    return DistributedDataParallel(
        network, device_ids=devices, forward_sync_buffers=False, gradient_as_bucket_view=True
    )


def sum_over_workers(values: torch.Tensor) -> torch.Tensor:
    """The elementwise sum of every worker's `values`."""
    if world()[1] == 1:
        return values
    total = values.clone()
    dist.all_reduce(total)
    return total


@torch.no_grad()
def average_buffers(network: nn.Module) -> None:
    """Replace floating-point buffers, that is BN's running statistics, by their mean over all workers."""
    workers = world()[1]
    if workers == 1:
        return
    buffers = [buffer for buffer in network.buffers() if buffer.is_floating_point()]
    if not buffers:
        return
    flat = torch.cat([buffer.flatten() for buffer in buffers])
    dist.all_reduce(flat)
    for buffer, mean in zip(buffers, (flat / workers).split([b.numel() for b in buffers]), strict=True):
        buffer.copy_(mean.view_as(buffer))


def any_worker(answer: bool, device: torch.device) -> bool:
    """Whether any worker's `answer` is yes; all have to ask, and none goes on before all have asked."""
    return bool(sum_over_workers(torch.full((1,), float(answer), device=device)).item())


class Agreement:
    """A number that all workers come to know, the largest that any of them holds, one call later.

    Each `share` starts an exchange and returns the outcome of the one before, so that nobody waits for the network nor,
    on a GPU, for the iteration at hand. All workers make the same calls and get the same answers.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._outcome: Callable[[], int] = lambda: 0

    def share(self, number: int) -> int:
        """Give `number` (0 or more); the largest number of the call before, or of this one where one is alone."""
        if world()[1] == 1:
            return number
        known = self._outcome()
        largest = torch.full((1,), number, device=self._device, dtype=torch.int32)
        work = dist.all_reduce(largest, dist.ReduceOp.MAX, async_op=True)
        self._outcome = _on_host(largest, work) if self._device.type == "cuda" else _when_done(largest, work)
        return known


def _when_done(largest: torch.Tensor, work: Any) -> Callable[[], int]:
    def outcome() -> int:
        work.wait()
        return int(largest)

    return outcome


def _on_host(largest: torch.Tensor, work: Any) -> Callable[[], int]:
    """Copied behind the exchange, on its stream: to read it then is to wait for that copy and nothing after it."""
    work.wait()
    host = torch.empty(1, dtype=largest.dtype, pin_memory=True)
    host.copy_(largest, non_blocking=True)
    copied = torch.cuda.Event()
    copied.record()

    def outcome() -> int:
        copied.synchronize()
        return int(host)

    return outcome
