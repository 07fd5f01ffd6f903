"""Our PPO iteration: `rollout` and `update` of `ayni.stages.ppo`, with one reward model and answers of full length."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from ayni.artifacts import read_json
from ayni.config import OptimizerSettings, PPOSettings
from ayni.engine import answers
from ayni.model.checkpoint import load_model, load_scalar
from ayni.scoring.reward import RewardModel, RewardModels
from ayni.stages.ppo import Players, optimizers, rollout, update
from ayni.text.tokenizer import Tokenizer, load_tokenizer
from ayni.train.allocator import keep_freed_memory
from ayni.train.mesh import Mesh
from bench.worker import Facts, Run, serve


def load(setup: Facts) -> Run:
    assert hasattr(answers, "stop_ids"), (
        "sampling finds its end tokens elsewhere now: answers would not have full length"
    )
    answers.stop_ids = lambda tokenizer: ()  # every answer has the full length
    keep_freed_memory()  # as the stages do
    tokenizer = load_tokenizer(Path(setup["model"]))
    prompts = read_json(Path(setup["prompts"]))

    def run(request: Facts) -> Facts:
        warm_up = {"batch": setup["minibatch"], "max_new_tokens": 8} if request["warmup"] else {}
        players = make_players(setup, tokenizer, warm_up)
        batch = players.settings.batch
        rows = [
            {"id": str(n), "messages": row["messages"], "prompt_kind": "helpful"}
            for n, row in enumerate(prompts[:batch])
        ]
        start = time.perf_counter()
        policy_optimizer, critic_optimizer = optimizers(players)
        experiences, figures = rollout(players, rows, iteration=1)
        figures |= update(players, experiences, policy_optimizer, critic_optimizer, 1, False, Mesh())
        return {
            "seconds": time.perf_counter() - start,
            "work": batch,
            "prompt_tokens": sum(len(experience.prompt_ids) for experience in experiences),
            "new_tokens": sum(len(experience.answer_ids) for experience in experiences),
            "steps": figures["optimizer_steps"],
        }

    return run


def make_players(setup: Facts, tokenizer: Tokenizer, changed: dict[str, Any]) -> Players:
    """Policy, critic, reference and the helpfulness model alone, as many models as TRL's PPOTrainer has."""
    optimizer = OptimizerSettings(**setup["optimizer"])
    settings = {
        "batch": setup["batch"],
        "minibatch": setup["minibatch"],
        "row_len": setup["row_len"],
        "temperature": setup["temperature"],
        "max_new_tokens": setup["new_tokens"],
        "beta": setup["beta"],
        "precision": "bfloat16",
        "compile": "always",
        "optimizer": optimizer,
        "critic_optimizer": optimizer,
    }
    model, scorer = Path(setup["model"]), Path(setup["scorer"])
    return Players(
        PPOSettings(**(settings | changed)),
        tokenizer,
        policy=load_model(model),
        critic=load_scalar(scorer),
        reference=load_model(model, "bfloat16"),
        rewards=RewardModels(RewardModel(load_scalar(scorer, "bfloat16")), None, 0.0),
        seed=0,
    )


if __name__ == "__main__":
    serve(load)
