"""Losses of a batch that several processes share, as if one process had all of it.

DistributedDataParallel takes the mean of the processes' gradients. That is the gradient of the whole batch only where
each process divides its sum by the mean of all processes' numbers, and not by its own.

Only losses that are learned from are shared: without gradient, as for validation, each process is on its own.
"""

from collections.abc import Mapping

import torch
from detectron2.utils import comm
from torch import Tensor


def _shares() -> bool:
    return torch.is_grad_enabled() and comm.get_world_size() > 1


def sum_over_ranks(value: Tensor) -> Tensor:
    """``value`` summed over all processes, for a loss that is then the same in all of them.

    Its gradient is that of this process's part, times the number of processes, by which their mean divides.
    """
    if not _shares():
        return value
    total = value.detach().clone()
    torch.distributed.all_reduce(total)
    return total + comm.get_world_size() * (value - value.detach())


def as_of_all_ranks(losses: Mapping[str, Tensor], counts: Mapping[str, Tensor | int]) -> dict[str, Tensor]:
    """Losses that are means over this process's numbers, as parts of the means over the numbers of all processes.

    Args:
        losses: scalars by name.
        counts: by the same names, how much each is the mean of; 0 counts as 1, in one process and over all of them.

    Returns:
        Losses whose mean over the processes is the loss of the whole batch; in a single process ``losses`` themselves.
    """
    if not _shares():
        return dict(losses)
    device = next(iter(losses.values())).device
    own = torch.stack([torch.as_tensor(counts[name], dtype=torch.float64, device=device) for name in losses])
    total = own.clone()
    torch.distributed.all_reduce(total)
    weights = own.clamp(min=1) * comm.get_world_size() / total.clamp(min=1)
    return {name: loss * weight.to(loss.dtype) for (name, loss), weight in zip(losses.items(), weights, strict=True)}
