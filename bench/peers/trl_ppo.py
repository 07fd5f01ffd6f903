"""TRL's PPOTrainer: one iteration (rollout, rewards, one optimizer step on each minibatch), from the same weights every time."""

from __future__ import annotations

import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
from trl.experimental.ppo import PPOConfig, PPOTrainer

from bench.worker import Facts, Run, serve

# PPOTrainer makes its Accelerator without looking at its settings' bf16: this is what `accelerate launch` sets.
AUTOCAST = "ACCELERATE_MIXED_PRECISION"


def load(setup: Facts) -> Run:
    os.environ[AUTOCAST] = "bf16" if setup["dtype"] == "autocast" else "no"
    tokenizer = AutoTokenizer.from_pretrained(setup["model"], padding_side="left")
    prompts = json.loads(Path(setup["prompts"]).read_text(encoding="utf-8"))

    def run(request: Facts) -> Facts:
        batch, new_tokens = setup["batch"], setup["new_tokens"]
        if request["warmup"]:
            batch, new_tokens = setup["minibatch"], 8
        taken = [{"input_ids": prompt["ids"]} for prompt in prompts[:batch]]
        with tempfile.TemporaryDirectory() as folder:
            trainer = make_trainer(setup, taken, new_tokens, tokenizer, folder)
            counts = count_work(trainer)
            start = time.perf_counter()
            trainer.train()
            seconds = time.perf_counter() - start
        prompt_tokens = sum(len(prompt["input_ids"]) for prompt in taken)
        return {"seconds": seconds, "work": batch, "prompt_tokens": prompt_tokens, **counts}

    return run


def count_work(trainer: PPOTrainer) -> dict[str, int]:
    """Counts, filled in while the trainer works: tokens sampled, and optimizer steps that were really taken."""
    counts = {"new_tokens": 0, "steps": 0}
    generate = trainer.policy_model.generate

    def counted(*args: Any, **kwargs: Any) -> Any:
        output = generate(*args, **kwargs)
        counts["new_tokens"] += output.sequences[:, kwargs["input_ids"].shape[1] :].numel()
        return output

    def stepped(*_: Any) -> None:
        counts["steps"] += 1

    trainer.policy_model.generate = counted
    trainer.optimizer.optimizer.register_step_post_hook(stepped)
    return counts


def make_trainer(
    setup: Facts, prompts: list[dict[str, Any]], new_tokens: int, tokenizer: Any, folder: str
) -> PPOTrainer:
    """`dtype`: float32; autocast (fp32 weights, frozen models in bf16); bfloat16 (everything, Adam's moments too).

    All prompts are one device batch: with gradient accumulation this trainer makes one optimizer step of them all.
    """
    trained = torch.bfloat16 if setup["dtype"] == "bfloat16" else torch.float32
    frozen = torch.float32 if setup["dtype"] == "float32" else torch.bfloat16
    optimizer = setup["optimizer"]
    settings = PPOConfig(
        output_dir=folder,
        use_cpu=True,
        bf16=setup["dtype"] == "autocast",
        gradient_checkpointing=False,
        total_episodes=len(prompts),
        per_device_train_batch_size=len(prompts),
        gradient_accumulation_steps=1,
        num_mini_batches=len(prompts) // setup["minibatch"],
        num_ppo_epochs=1,
        local_rollout_forward_batch_size=setup["rollout_rows"],
        num_sample_generations=0,
        response_length=new_tokens,
        stop_token=None,  # every answer has the full length
        temperature=setup["temperature"],
        kl_coef=setup["beta"],
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
    scorer = {"pretrained_model_name_or_path": setup["scorer"], "num_labels": 1}
    return PPOTrainer(
        settings,
        tokenizer,
        model=AutoModelForCausalLM.from_pretrained(setup["model"], dtype=trained),
        ref_model=AutoModelForCausalLM.from_pretrained(setup["model"], dtype=frozen),
        reward_model=AutoModelForSequenceClassification.from_pretrained(**scorer, dtype=frozen),
        value_model=AutoModelForSequenceClassification.from_pretrained(**scorer, dtype=trained),
        train_dataset=Dataset.from_list(prompts),
    )


if __name__ == "__main__":
    serve(load)
