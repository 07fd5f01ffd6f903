"""What TRL gives on random masked batches: `masked_whiten` of its PPOTrainer and the loss of its DPOTrainer, as JSON.

The trainer's own `_compute_loss` runs on logits made up here: `policy` and `reference` answer any input with them.
Frozen by `python -m bench.oracles trl` in tests/train/data/trl.json.
"""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import torch
import trl
from trl import DPOTrainer
from trl.experimental.ppo.ppo_trainer import masked_whiten

VOCAB = 7


class Recorder(dict):
    """Stands for the trainer's metrics: any name gives a list."""

    def __missing__(self, name: str) -> list[Any]:
        self[name] = []
        return self[name]


def dpo_case(seed: int) -> dict[str, Any]:
    """B pairs as TRL lays them out: chosen rows, then rejected ones, right-padded."""
    generator = torch.Generator().manual_seed(seed)
    B, T, beta = 1 + seed % 4, 6 + seed, (0.1, 0.5)[seed % 2]
    prompt_2B = torch.randint(1, 3, (B,), generator=generator).repeat(2)
    length_2B = prompt_2B + torch.randint(1, T - 3, (2 * B,), generator=generator)
    at_T = torch.arange(T)
    attention = at_T < length_2B[:, None]
    completion = attention & (at_T >= prompt_2B[:, None])
    ids = torch.randint(VOCAB, (2 * B, T), generator=generator)
    logits, ref_logits = (2 * torch.randn((2 * B, T, VOCAB), generator=generator) for _ in range(2))
    inputs = {"input_ids": ids, "attention_mask": attention.long(), "completion_mask": completion.long()}
    found = {}
    for name, kinds, weights in (("sigmoid", ["sigmoid"], [1.0]), ("with_likelihood", ["sigmoid", "sft"], [1.0, 0.3])):
        trainer = stand_in(ref_logits, beta, kinds, weights)
        found[name] = DPOTrainer._compute_loss(trainer, model_of(logits), inputs, False).item()
        found["accuracy"] = trainer._metrics["train"]["rewards/accuracies"][-1]
    return {
        "beta": beta,
        "ids": ids.tolist(),
        "completion": completion.tolist(),
        "logits": logits.tolist(),
        "ref_logits": ref_logits.tolist(),
        "likelihood_weight": 0.3,
        "outputs": found,
    }


def model_of(logits: torch.Tensor) -> Any:
    return lambda **_: SimpleNamespace(logits=logits.clone())


def stand_in(ref_logits: torch.Tensor, beta: float, kinds: list[str], weights: list[float]) -> Any:
    """The attributes of a DPOTrainer that its loss reads."""
    return SimpleNamespace(
        model=SimpleNamespace(training=True, is_gradient_checkpointing=False),
        ref_model=model_of(ref_logits),
        args=SimpleNamespace(gradient_checkpointing_kwargs=None),
        accelerator=SimpleNamespace(device=torch.device("cpu"), gather=lambda x: x, gather_for_metrics=lambda x: x),
        aux_loss_enabled=False,
        ld_alpha=None,
        precompute_ref_logps=False,
        f_divergence_type="reverse_kl",
        loss_types=kinds,
        loss_weights=weights,
        beta=beta,
        label_smoothing=0.0,
        use_weighting=False,
        _metrics={"train": Recorder(), "eval": Recorder()},
        _total_train_tokens=0,
    )


def whiten_case(seed: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    values = 3 * torch.randn((4, 7), generator=generator) + 1
    mask = torch.rand((4, 7), generator=generator) > 0.3
    whitened = masked_whiten(values, mask)
    return {"values": values.tolist(), "mask": mask.tolist(), "whitened": whitened.tolist()}


if __name__ == "__main__":
    cases = {"dpo": [dpo_case(seed) for seed in range(5)], "whiten": [whiten_case(seed) for seed in range(3)]}
    print(json.dumps({"peer": f"trl {trl.__version__}", **cases}))
