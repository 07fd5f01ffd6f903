"""Stage: PPO (paper 3.2.3) on top of the rejection-sampled checkpoint.

    maximise E_{p, g ~ pi} [ R(g | p) ],     R(g | p) = R~_c(g | p) - beta KL(pi || pi_0)
    R_c = R_s if the prompt is tagged safety or R_s < threshold, else R_h;      R~_c = whiten(R_c), in score space

pi_0 is the checkpoint that PPO starts from. Each iteration: one answer to each of `batch` prompts, two reward models,
old and reference log-probabilities from the training forward at the sampling temperature, GAE (`ppo_rollout.py`), then
one gradient step on each minibatch (512 and 64 mean 8 steps; `train/ppo_objective.py`). The paper is silent on GAE, the
critic and its start, whitening's scope (ours: the whole rollout batch) and the sampling temperature: named settings.
"""

from __future__ import annotations

import copy
import hashlib
import os
import random
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ayni import telemetry
from ayni.artifacts import LOGS, STATE, Artifact, build, write_json
from ayni.config import PPOSettings
from ayni.engine.answers import row_seed
from ayni.model.checkpoint import load_model, load_scalar, save_model
from ayni.model.heads import ScalarHead
from ayni.model.precision import working_type
from ayni.model.transformer import Transformer
from ayni.scoring.reward import Scorers, load_reward_models
from ayni.stages.ppo_rollout import Players, held_out, rollout
from ayni.text.prompts import draw_prompts
from ayni.text.sources import read_prompts
from ayni.text.tokenizer import load_tokenizer
from ayni.train.allocator import keep_freed_memory
from ayni.train.checkpoint import checkpoints, load_checkpoint, remove_unfinished, resumable_step, save_checkpoint
from ayni.train.fitting import METRICS
from ayni.train.loop import TrainingDiverged, train_step
from ayni.train.mesh import CPU, Mesh, split
from ayni.train.optimizer import make_optimizer, set_lr, stepped
from ayni.train.ppo_objective import Experience, critic_objective, policy_objective

SAMPLES = "samples.jsonl"  # in logs/: a few held-out answers with their rewards, at every evaluation


def run(settings: PPOSettings, prompts: Path, model: Path, scorers: Scorers, out: Path, *, seed: int) -> Artifact:
    """Writes the policy of the best held-out reward as a `LlamaForCausalLM` directory, history.json, and held-out answers
    with their rewards in logs/samples.jsonl.

    `prompts`: a data directory (prompts_train.jsonl, and prompts_dev.jsonl for held-out rewards), or a file of prompts
    of which a tenth is then held out.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError("ppo runs in one process so far: start it without torchrun")
    if settings.batch % settings.minibatch:
        raise ValueError(f"ppo: batch {settings.batch} is not a multiple of minibatch {settings.minibatch}")

    def work_in(work: Path) -> None:
        tokenizer = load_tokenizer(model)
        players = Players(
            settings,
            tokenizer,
            policy=load_model(model),
            critic=first_critic(settings, model, scorers),
            reference=load_model(model, settings.precision),
            rewards=load_reward_models(scorers, settings.gate),
            seed=seed,
        )
        best, history = learn(players, *_prompts(prompts, seed), work, Mesh())
        save_model(best, work, tokenizer)
        write_json(work / "history.json", history)

    inputs: dict[str, Path | None] = {
        "prompts": prompts,
        "model": model,
        "helpfulness": scorers.helpfulness,
        "safety": scorers.safety,
    }
    if scorers.guard is not None:
        inputs["guard"] = scorers.guard
    return build(out, "ppo", settings.model_dump(), inputs, seed, work_in)


def learn(
    players: Players, train_rows: list[dict[str, Any]], dev_rows: list[dict[str, Any]], work: Path, mesh: Mesh
) -> tuple[Transformer, list[dict[str, Any]]]:
    """The loop. Returns the policy of the best held-out reward and the history; resumes from work/state."""
    keep_freed_memory()
    settings, state_dir = players.settings, work / STATE
    best = copy.deepcopy(players.policy)
    policy_optimizer, critic_optimizer = optimizers(players)
    trained = {
        "policy": (players.policy, policy_optimizer),
        "critic": (players.critic, critic_optimizer),
        "best": (best, torch.optim.SGD(best.parameters(), lr=0.0)),  # never stepped: it rides along in checkpoints
    }
    identity = hashlib.sha256(settings.model_dump_json().encode()).hexdigest()
    state: dict[str, Any] = {"history": [], "best_reward": None, "bad": 0, "stopped": None}
    remove_unfinished(state_dir)
    done = resumable_step(state_dir)
    if done:
        saved = load_checkpoint(checkpoints(state_dir)[-1], trained, identity, mesh)
        state = {key: saved[key] for key in state}
    with (
        telemetry.MetricsLog(work / LOGS / METRICS, resume_step=0) as log,
        telemetry.MetricsLog(work / LOGS / SAMPLES, resume_step=done) as samples,
        telemetry.progress("PPO", settings.iterations, "iterations") as bar,
    ):
        for row in state["history"]:  # the checkpoint was written before its evaluation, which now follows
            log.log(**row)
        bar.advance(done)
        _watch(players, policy_optimizer, best, dev_rows, state, done, log, samples)
        for iteration in range(done + 1, settings.iterations + 1):
            if state["stopped"]:
                break
            rows = draw_prompts(train_rows, settings.batch, random.Random(row_seed(players.seed, f"ppo-{iteration}")))
            experiences, figures = rollout(players, rows, iteration)
            only_critic = iteration <= settings.critic_warmup
            figures |= update(players, experiences, policy_optimizer, critic_optimizer, iteration, only_critic, mesh)
            state["history"].append({"step": iteration, **figures})
            log.log(**state["history"][-1])
            bar.advance(1, reward=figures["reward"], kl=figures["kl_k1"], tokens=figures["mean_tokens"])
            if iteration % settings.save_every == 0 or iteration == settings.iterations:
                save_checkpoint(state_dir, iteration, trained, state, identity, mesh)  # before evaluating (TRAPS 17)
            _watch(players, policy_optimizer, best, dev_rows, state, iteration, log, samples)
    if state["stopped"]:
        telemetry.say(f"  stopped early: {state['stopped']}")
    return best, state["history"]


def first_critic(settings: PPOSettings, model: Path, scorers: Scorers) -> ScalarHead:
    """The helpfulness model, which knows rewards but not this policy, or the policy under a head of zeros (paper silent)."""
    if settings.critic_start == "helpfulness":
        return load_scalar(scorers.helpfulness)
    return ScalarHead.from_language_model(load_model(model))


def optimizers(players: Players) -> tuple[torch.optim.AdamW, torch.optim.AdamW]:
    """The policy's and the critic's; from here on both models hold their working weights."""
    settings = players.settings
    kinds = (players.policy, settings.optimizer), (players.critic, settings.critic_optimizer)
    policy, critic = (
        make_optimizer(
            model, options, working_type(settings.precision, sum(p.numel() for p in model.parameters()), CPU)
        )
        for model, options in kinds
    )
    return policy, critic


def update(
    players: Players,
    experiences: list[Experience],
    policy_optimizer: torch.optim.Optimizer,
    critic_optimizer: torch.optim.Optimizer,
    iteration: int,
    only_critic: bool,
    mesh: Mesh,
) -> dict[str, float]:
    """One gradient step on each minibatch of a random partition: batch / minibatch optimizer steps."""
    settings = players.settings
    set_lr(policy_optimizer, settings.optimizer.lr)
    set_lr(critic_optimizer, settings.critic_optimizer.lr)
    order = list(range(len(experiences)))
    random.Random(row_seed(players.seed, f"minibatches-{iteration}")).shuffle(order)
    sums: dict[str, float] = {}
    steps = 0
    for start in range(0, len(order), settings.minibatch):
        minibatch = [experiences[i] for i in order[start : start + settings.minibatch]]
        micro = split(minibatch, mesh, settings.micro_rows)
        figures = {}
        try:
            if not only_critic:
                loss_fn = partial(policy_objective, settings=settings)
                done = train_step(players.policy, policy_optimizer, micro, loss_fn, settings.optimizer.clip, mesh)
                figures = {"policy_loss": done["loss"], "clip_share": done["clip_share"], "ratio": done["ratio"]}
            loss_fn = partial(critic_objective, settings=settings)
            done = train_step(players.critic, critic_optimizer, micro, loss_fn, settings.critic_optimizer.clip, mesh)
        except TrainingDiverged as error:
            raise TrainingDiverged(
                f"PPO diverged in iteration {iteration}: {error}; the last checkpoint before it is whole. Lower the learning rate or raise beta"
            ) from None
        figures |= {"value_loss": done["loss"]}
        sums = {name: sums.get(name, 0.0) + value for name, value in figures.items()}
        steps += 1
    return {**{name: round(value / steps, 6) for name, value in sums.items()}, "optimizer_steps": steps}


def _watch(
    players: Players,
    policy_optimizer: torch.optim.Optimizer,
    best: Transformer,
    dev_rows: list[dict[str, Any]],
    state: dict[str, Any],
    iteration: int,
    log: telemetry.MetricsLog,
    samples: telemetry.MetricsLog,
) -> None:
    """Every `eval_every` iterations: keep the policy if its held-out reward is the best so far, else count towards the stop."""
    settings = players.settings
    due = iteration % settings.eval_every == 0 or iteration == settings.iterations
    if not due or any(row["step"] == iteration and "heldout_reward" in row for row in state["history"]):
        return
    figures, answers = held_out(players, dev_rows)
    state["history"].append({"step": iteration, **figures})
    log.log(**state["history"][-1])
    for answer in answers:
        samples.log(iteration, **answer)
    too_far = figures["heldout_kl"] > settings.max_kl
    if not too_far and (state["best_reward"] is None or figures["heldout_reward"] > state["best_reward"]):
        state["best_reward"], state["bad"] = figures["heldout_reward"], 0
        weights = dict(stepped(players.policy, policy_optimizer))
        with torch.no_grad():
            for name, weight in best.named_parameters():
                weight.copy_(weights[name])
    else:
        state["bad"] += 1
    if too_far:
        state["stopped"] = (
            f"held-out KL {figures['heldout_kl']:.2f} is above {settings.max_kl} at iteration {iteration}"
        )
    elif state["bad"] >= settings.patience:
        state["stopped"] = f"no better held-out reward in {settings.patience} evaluations, at iteration {iteration}"


def _prompts(prompts: Path, seed: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    if prompts.is_dir():
        return read_prompts(prompts / "prompts_train.jsonl"), read_prompts(prompts / "prompts_dev.jsonl")
    rows = read_prompts(prompts)
    random.Random(seed).shuffle(rows)
    tenth = max(1, len(rows) // 10)
    if len(rows) < 2:
        raise ValueError(f"{prompts}: PPO needs two prompts at least, one of them held out")
    return rows[tenth:], rows[:tenth]
