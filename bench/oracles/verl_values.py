"""What verl's `core_algos` gives on random masked batches: inputs and outputs as JSON on standard output.

    .venv/bin/python -m bench.oracles verl trl

runs this file in verl's own environment and freezes what it prints in tests/train/data/verl.json, which
tests/train/test_losses_oracle.py compares our losses with. verl averages over tokens where ours are sums; the test divides.
"""

from __future__ import annotations

import json
from typing import Any

import torch
import verl
from verl.trainer.config import AlgoConfig  # noqa: F401  (core_algos is imported with its configuration)
from verl.trainer.ppo import core_algos
from verl.utils.torch_functional import masked_whiten

CLIP, VALUE_CLIP = 0.2, 0.3


def case(seed: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    B, T = 2 + seed % 4, 3 + (5 * seed) % 9
    gamma, lam = ((1.0, 0.95), (0.99, 0.9), (1.0, 1.0))[seed % 3]

    def normal() -> torch.Tensor:
        return torch.randn((B, T), generator=generator)

    end_B = torch.randint(1, T, (B,), generator=generator)
    mask_BT = (torch.arange(T) <= end_B[:, None]).float()
    rewards, values = normal() * mask_BT, normal() * mask_BT
    old_logp, ref_logp = -normal().abs() - 0.1, -normal().abs() - 0.1
    logp = old_logp + 0.3 * normal()
    new_values = values + 0.4 * normal()
    advantages, returns = core_algos.compute_gae_advantage_return(rewards, values, mask_BT, gamma, lam)
    policy_loss, clip_share, kl_old, _ = core_algos.compute_policy_loss(
        old_logp, logp, advantages, mask_BT, cliprange=CLIP, clip_ratio_c=1e9
    )  # 1e9: without the dual clip, which is not in the paper
    critic_loss, _ = core_algos.compute_value_loss(new_values, returns, values, mask_BT, VALUE_CLIP)
    inputs = {
        "mask": mask_BT,
        "rewards": rewards,
        "values": values,
        "logp": logp,
        "old_logp": old_logp,
        "ref_logp": ref_logp,
        "new_values": new_values,
    }
    outputs = {
        "advantages": advantages,
        "returns": returns * mask_BT,
        "whitened": masked_whiten(rewards, mask_BT),
        "k1": core_algos.kl_penalty(logp, ref_logp, "k1"),
        "k3": core_algos.kl_penalty(logp, ref_logp, "k3"),
        "policy_loss": policy_loss,
        "clip_share": clip_share,
        "mean_log_ratio": -kl_old,
        "value_loss": critic_loss,
    }
    settings = {"gamma": gamma, "lam": lam, "clip": CLIP, "value_clip": VALUE_CLIP}
    return {"settings": settings, "inputs": plain(inputs), "outputs": plain(outputs)}


def plain(tensors: dict[str, torch.Tensor]) -> dict[str, Any]:
    """Lists of numbers; a float32 survives the way through JSON exactly."""
    return {name: tensor.tolist() for name, tensor in tensors.items()}


if __name__ == "__main__":
    print(json.dumps({"peer": f"verl {verl.__version__}", "cases": [case(seed) for seed in range(6)]}))
