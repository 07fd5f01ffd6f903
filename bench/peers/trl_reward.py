"""TRL's RewardTrainer: one epoch over token pairs, in their order, from the same reward model every time."""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from trl import RewardConfig, RewardTrainer

from bench.worker import Facts, Run, serve

WARM_UP_STEPS = 2


def load(setup: Facts) -> Run:
    tokenizer = AutoTokenizer.from_pretrained(setup["scorer"])
    pairs = json.loads(Path(setup["pairs"]).read_text(encoding="utf-8"))
    dataset = Dataset.from_list([{"chosen_ids": pair["chosen"], "rejected_ids": pair["rejected"]} for pair in pairs])

    def run(request: Facts) -> Facts:
        taken = dataset.select(range(WARM_UP_STEPS * setup["batch_pairs"])) if request["warmup"] else dataset
        with tempfile.TemporaryDirectory() as folder:
            trainer = make_trainer(setup, taken, tokenizer, folder)
            start = time.perf_counter()
            result = trainer.train()
            seconds = time.perf_counter() - start
        return {
            "seconds": seconds,
            "work": len(taken),
            "steps": result.global_step,
            "tokens": sum(len(pair["chosen_ids"]) + len(pair["rejected_ids"]) for pair in taken),
            "loss": result.training_loss,  # mean over the steps
        }

    return run


def make_trainer(setup: Facts, dataset: Dataset, tokenizer: Any, folder: str) -> RewardTrainer:
    """`dtype`: float32; autocast (fp32 weights, bf16 arithmetic); bfloat16 (weights and Adam's moments too)."""
    weights = torch.bfloat16 if setup["dtype"] == "bfloat16" else torch.float32
    model = AutoModelForSequenceClassification.from_pretrained(setup["scorer"], num_labels=1, dtype=weights)
    optimizer = setup["optimizer"]
    settings = RewardConfig(
        output_dir=folder,
        use_cpu=True,
        bf16=setup["dtype"] == "autocast",
        gradient_checkpointing=False,
        num_train_epochs=1,
        per_device_train_batch_size=setup["batch_pairs"],
        train_sampling_strategy="sequential",
        max_length=None,  # cut already, on both sides alike
        learning_rate=optimizer["lr"],
        lr_scheduler_type="constant",
        adam_beta1=optimizer["beta1"],
        adam_beta2=optimizer["beta2"],
        adam_epsilon=optimizer["eps"],
        weight_decay=optimizer["weight_decay"],
        max_grad_norm=optimizer["clip"],
        report_to="none",
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
    )
    return RewardTrainer(model, settings, train_dataset=dataset, processing_class=tokenizer)


if __name__ == "__main__":
    serve(load)
