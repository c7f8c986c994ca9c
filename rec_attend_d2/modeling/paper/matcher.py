"""Which step is which true instance.

Shapes: `B` images, `T` steps, `N` instance slots.
"""

from collections.abc import Callable

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

# From overlap [B, T, N] and the number of true instances [B] to the matching [B, T, N].
Matcher = Callable[[Tensor, Tensor], Tensor]


def match_best(overlap: Tensor, counts: Tensor) -> Tensor:
    """Maximum-weight bipartite matching (paper, section 3.3).

    Only the first ``n`` steps and the ``n`` true instances of an image take part.

    Args:
        overlap: [B, T, N], any weight; a NaN counts as no overlap, so that one bad step does not stop training.
        counts: [B] number of true instances.

    Returns:
        [B, T, N] float, 1 where step t is instance n. No gradient.
    """
    weights = overlap.detach().double().cpu().numpy()
    matches = np.zeros_like(weights)
    for index, count in enumerate(counts.tolist()):
        cost = np.nan_to_num(weights[index, :count, :count])
        rows, columns = linear_sum_assignment(cost, maximize=True)
        matches[index, rows, columns] = 1
    return torch.from_numpy(matches).to(overlap)


def match_in_order(overlap: Tensor, counts: Tensor) -> Tensor:
    """Step t is instance t, the t-th largest; otherwise as :func:`match_best`."""
    _, steps, slots = overlap.shape
    identity = torch.eye(steps, slots, device=overlap.device)
    valid = torch.arange(slots, device=overlap.device) < counts[:, None]
    return identity * valid[:, None, :]


MATCHERS: dict[str, Matcher] = {"best": match_best, "in_order": match_in_order}
