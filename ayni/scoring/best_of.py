"""Best of K (paper 3.2.3, figs. 7 and 8): the reward of the best answer among the first k, and of the middle one."""

from __future__ import annotations

from torch import Tensor

KS = (1, 2, 4, 8, 16, 32, 64, 100)  # the paper sweeps 1 to 100


def by_k(reward_NK: Tensor) -> list[dict[str, float]]:
    """Figure 7: mean over N prompts of the maximum and the median reward among the first k samples."""
    ks = [k for k in KS if k < reward_NK.shape[1]] + [reward_NK.shape[1]]
    return [
        {
            "k": k,
            "max": reward_NK[:, :k].max(1).values.mean().item(),
            "median": reward_NK[:, :k].median(1).values.mean().item(),
        }
        for k in ks
    ]


def best_ended(reward_NK: Tensor, ended_NK: Tensor) -> Tensor:
    """[N]: the reward that rejection sampling would pick. An answer cut by length counts as its prompt's worst."""
    worst_N = reward_NK.min(1).values
    return reward_NK.where(ended_NK, worst_N[:, None]).max(1).values
