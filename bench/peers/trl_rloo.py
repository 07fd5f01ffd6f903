"""TRL's RLOOTrainer: as many answers and optimizer steps as a PPO iteration, no critic, from the same weights every time."""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
from trl import RLOOConfig, RLOOTrainer

from bench.worker import Facts, Run, serve


def load(setup: Facts) -> Run:
    tokenizer = AutoTokenizer.from_pretrained(setup["model"], padding_side="left")
    prompts = json.loads(Path(setup["prompts"]).read_text(encoding="utf-8"))
    dataset = Dataset.from_list([{"prompt": prompt["messages"]} for prompt in prompts])

    def run(request: Facts) -> Facts:
        batch, new_tokens = setup["batch"], setup["new_tokens"]
        if request["warmup"]:
            batch, new_tokens = setup["minibatch"], 8
        taken = dataset.select(range(0, batch, setup["generations"]))
        with tempfile.TemporaryDirectory() as folder:
            trainer = make_trainer(setup, taken, batch, new_tokens, tokenizer, folder)
            start = time.perf_counter()
            result = trainer.train()
            seconds = time.perf_counter() - start
        ids = tokenizer.apply_chat_template(list(taken["prompt"]), add_generation_prompt=True, return_dict=True)[
            "input_ids"
        ]
        prompt_tokens = setup["generations"] * sum(map(len, ids))
        return {
            "seconds": seconds,
            "work": batch,
            "prompt_tokens": prompt_tokens,
            "new_tokens": int(trainer.state.num_input_tokens_seen) - prompt_tokens,
            "steps": result.global_step,
        }

    return run


def make_trainer(
    setup: Facts, dataset: Dataset, batch: int, new_tokens: int, tokenizer: Any, folder: str
) -> RLOOTrainer:
    """`dtype`: float32; autocast (fp32 weights, frozen models in bf16); bfloat16 (everything, Adam's moments too)."""
    trained = torch.bfloat16 if setup["dtype"] == "bfloat16" else torch.float32
    frozen = torch.float32 if setup["dtype"] == "float32" else torch.bfloat16
    optimizer = setup["optimizer"]
    steps = batch // setup["minibatch"]
    settings = RLOOConfig(
        output_dir=folder,
        use_cpu=True,
        bf16=setup["dtype"] == "autocast",
        gradient_checkpointing=False,
        model_init_kwargs={"dtype": frozen},  # of the reference, which the trainer loads itself
        max_steps=steps,
        per_device_train_batch_size=setup["minibatch"],
        gradient_accumulation_steps=1,
        steps_per_generation=steps,
        num_generations=setup["generations"],
        num_iterations=1,
        shuffle_dataset=False,
        max_completion_length=new_tokens,
        generation_kwargs={"min_new_tokens": new_tokens},  # every answer has the full length
        temperature=setup["temperature"],
        beta=setup["beta"],
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
    scorer = AutoModelForSequenceClassification.from_pretrained(setup["scorer"], num_labels=1, dtype=frozen)
    return RLOOTrainer(
        AutoModelForCausalLM.from_pretrained(setup["model"], dtype=trained),
        reward_funcs=scorer,
        reward_processing_classes=AutoTokenizer.from_pretrained(setup["scorer"]),
        args=settings,
        train_dataset=dataset,
        processing_class=tokenizer,
    )


if __name__ == "__main__":
    serve(load)
