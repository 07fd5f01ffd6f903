"""Stage: PPO (paper 3.2.3) on top of the rejection-sampled checkpoint.

    maximise E_{p, g ~ pi} [ R(g | p) ],     R(g | p) = R~_c(g | p) - beta KL(pi || pi_0)
    R_c = R_s if the prompt is tagged safety or R_s < threshold, else R_h;      R~_c = whiten(R_c), in score space

pi_0 is the checkpoint that PPO starts from. Each iteration: one answer to each of `batch` prompts, two reward models,
old and reference log-probabilities from the training forward at the sampling temperature, GAE, then one gradient step
on each minibatch (512 and 64 mean 8 steps). The paper is silent on GAE, the critic (ours starts from the helpfulness
model), whitening's scope (the whole rollout batch) and the sampling temperature: named settings.

Shape letters: B answers, L answer tokens, N answer tokens of all packed rows.
"""

from __future__ import annotations

import copy
import hashlib
import os
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from ayni import telemetry
from ayni.artifacts import LOGS, STATE, Artifact, build, write_json
from ayni.config import PPOSettings
from ayni.engine.answers import Answer, row_seed, sample_answers
from ayni.engine.engine import Engine
from ayni.model.checkpoint import load_model, load_scalar, save_model
from ayni.model.heads import ScalarHead
from ayni.model.precision import working_type
from ayni.model.transformer import Transformer
from ayni.scoring.reward import RewardModels, Scorers, load_reward_models
from ayni.text.prompts import draw_prompts
from ayni.text.sources import read_prompts
from ayni.text.tokenizer import Tokenizer, load_tokenizer
from ayni.train.allocator import keep_freed_memory
from ayni.train.batches import Packed, pack
from ayni.train.checkpoint import checkpoints, load_checkpoint, remove_unfinished, resumable_step, save_checkpoint
from ayni.train.compiling import wanted
from ayni.train.fitting import METRICS
from ayni.train.loop import TrainingDiverged, train_step
from ayni.train.losses import gae, k1, k3, ppo_policy_loss, token_rewards, value_loss, whiten
from ayni.train.mesh import CPU, Mesh, split
from ayni.train.optimizer import make_optimizer, set_lr, stepped
from ayni.train.output import log_probs_and_entropy, log_probs_of_targets


@dataclass(frozen=True)
class Experience:
    """One answer as PPO learns from it; the tensors have one entry per answer token."""

    prompt_ids: list[int]
    answer_ids: list[int]
    old_logp_L: Tensor
    old_value_L: Tensor
    advantage_L: Tensor
    return_L: Tensor


@dataclass(frozen=True)
class Players:
    """Who takes part: the policy and its critic learn, the reference and the reward models stay as they are."""

    settings: PPOSettings
    tokenizer: Tokenizer
    policy: Transformer
    critic: ScalarHead
    reference: Transformer
    rewards: RewardModels
    seed: int


def run(settings: PPOSettings, prompts: Path, model: Path, scorers: Scorers, out: Path, *, seed: int) -> Artifact:
    """Writes the policy of the best held-out reward as a `LlamaForCausalLM` directory, and history.json.

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
            critic=load_scalar(scorers.helpfulness),
            reference=load_model(model, settings.precision),
            rewards=load_reward_models(scorers),
            seed=seed,
        )
        best, history = learn(players, *_prompts(prompts, seed), work, Mesh())
        save_model(best, work, tokenizer)
        write_json(work / "history.json", history)

    inputs = {"prompts": prompts, "model": model, "helpfulness": scorers.helpfulness, "safety": scorers.safety}
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
        telemetry.MetricsLog(work / LOGS / METRICS, resume_step=done + 1) as log,
        telemetry.progress("PPO", settings.iterations, "iterations") as bar,
    ):
        bar.advance(done)
        _watch(players, policy_optimizer, best, dev_rows, state, done, log)
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
            _watch(players, policy_optimizer, best, dev_rows, state, iteration, log)
    if state["stopped"]:
        telemetry.say(f"  stopped early: {state['stopped']}")
    return best, state["history"]


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


def rollout(
    players: Players, rows: Sequence[dict[str, Any]], iteration: int
) -> tuple[list[Experience], dict[str, float]]:
    """One answer to each prompt, scored and turned into advantages and returns."""
    settings = players.settings
    answers = _sample(players, rows, seed=row_seed(players.seed, f"rollout-{iteration}"))
    raw = players.rewards.of_answers(rows, [[answer] for answer in answers], settings.row_len)
    ended_B = torch.tensor([answer.ended for answer in answers])
    reward_B = whiten(raw.gated)  # over the whole rollout batch; raw scores are logged, for whitening hides drift
    if settings.truncation == "penalise":
        reward_B = reward_B - settings.truncation_penalty * (~ended_B).float()

    with torch.no_grad():
        passes = [_forward_all(players, chunk) for chunk in _chunks(answers, settings.minibatch)]
    logp_BL, ref_BL, value_BL, entropy_BL = (_rows(tensors) for tensors in zip(*(p[:4] for p in passes)))
    after_B = torch.cat([p[4] for p in passes])
    length_B = torch.tensor([len(answer.ids) for answer in answers])
    mask_BL = torch.arange(logp_BL.shape[1]) < length_B[:, None]

    kl_BL = k1(logp_BL, ref_BL)
    reward_BL = token_rewards(kl_BL, mask_BL, length_B - 1, reward_B, settings.beta)
    bootstrap_B = torch.where(ended_B, 0.0, after_B) if settings.truncation == "bootstrap" else None
    advantage_BL, return_BL = gae(reward_BL, value_BL, mask_BL, settings.gamma, settings.lam, bootstrap_B)
    whitened_BL = whiten(advantage_BL, mask_BL)

    experiences = [
        Experience(answer.prompt_ids, answer.ids, logp_BL[b, :n], value_BL[b, :n], whitened_BL[b, :n], return_BL[b, :n])
        for b, (answer, n) in enumerate(zip(answers, length_B.tolist()))
    ]
    engine_L = torch.cat([torch.tensor(answer.logprobs) for answer in answers])
    residual = (return_BL - value_BL)[mask_BL].var() / return_BL[mask_BL].var().clamp_min(1e-8)
    figures = {
        "reward": raw.gated.mean(),
        "reward_help": raw.helpfulness.mean(),
        "reward_safety": raw.safety.mean(),
        "gated_to_safety": raw.by_safety.float().mean(),
        "kl_k1": (kl_BL * mask_BL).sum(1).mean(),
        "kl_k3": (k3(logp_BL, ref_BL) * mask_BL).sum(1).mean(),
        "entropy": entropy_BL[mask_BL].mean(),
        "value_ev": 1 - residual,
        "mean_tokens": length_B.float().mean(),
        "eos_share": ended_B.float().mean(),
        "engine_gap": (engine_L - logp_BL[mask_BL]).abs().mean(),
    }
    return experiences, {name: round(float(value), 6) for name, value in figures.items()}


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


def policy_objective(
    policy: nn.Module, batch: list[Experience], settings: PPOSettings
) -> tuple[Tensor, int, dict[str, Any]]:
    """Clipped surrogate, summed over the answer tokens of the batch, and their number."""
    packed = _pack([e.prompt_ids for e in batch], [e.answer_ids for e in batch], settings.row_len)
    head = partial(log_probs_of_targets, targets_N=packed.targets_N, temperature=settings.temperature)
    where = (packed.tokens_RT, packed.positions_RT, packed.attention(next(policy.parameters())))
    logp_N = policy(*where, keep_N=packed.predict_N, head=head)
    index_BL, mask_BL = packed.grid()
    logp_BL = logp_N[index_BL]
    old_BL, advantage_BL = _pad([e.old_logp_L for e in batch]), _pad([e.advantage_L for e in batch])
    loss, stats = ppo_policy_loss(logp_BL, old_BL, advantage_BL, mask_BL, settings.clip)
    return loss, int(mask_BL.sum()), stats


def critic_objective(
    critic: nn.Module, batch: list[Experience], settings: PPOSettings
) -> tuple[Tensor, int, dict[str, Any]]:
    """Clipped squared error of the values, summed over the answer tokens of the batch, and their number."""
    packed = _pack([e.prompt_ids for e in batch], [e.answer_ids for e in batch], settings.row_len)
    where = (packed.tokens_RT, packed.positions_RT, packed.attention(next(critic.parameters())))
    value_N = critic(*where, keep_N=packed.predict_N)
    index_BL, mask_BL = packed.grid()
    old_BL, return_BL = _pad([e.old_value_L for e in batch]), _pad([e.return_L for e in batch])
    loss, stats = value_loss(value_N[index_BL], old_BL, return_BL, mask_BL, settings.value_clip)
    return loss, int(mask_BL.sum()), stats


def held_out_reward(players: Players, rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Mean raw gated reward and KL on held-out prompts, always with the same draws; never the ground truth."""
    settings = players.settings
    answers = _sample(players, rows, seed=row_seed(players.seed, "held-out"))
    raw = players.rewards.of_answers(rows, [[answer] for answer in answers], settings.row_len)
    with torch.no_grad():
        passes = [_forward_all(players, chunk) for chunk in _chunks(answers, settings.minibatch)]
    kl_B = torch.cat([(logp_BL - ref_BL).sum(1) for logp_BL, ref_BL, *_ in passes])
    return {
        "heldout_reward": round(float(raw.gated.mean()), 6),
        "heldout_kl": round(float(kl_B.mean()), 6),
        "heldout_tokens": sum(len(answer.ids) for answer in answers) / len(answers),
    }


def _watch(
    players: Players,
    policy_optimizer: torch.optim.Optimizer,
    best: Transformer,
    dev_rows: list[dict[str, Any]],
    state: dict[str, Any],
    iteration: int,
    log: telemetry.MetricsLog,
) -> None:
    """Every `eval_every` iterations: keep the policy if its held-out reward is the best so far, else count towards the stop."""
    settings = players.settings
    due = iteration % settings.eval_every == 0 or iteration == settings.iterations
    if not due or any(row["step"] == iteration and "heldout_reward" in row for row in state["history"]):
        return
    figures = held_out_reward(players, dev_rows)
    state["history"].append({"step": iteration, **figures})
    log.log(**state["history"][-1])
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


def _sample(players: Players, rows: Sequence[dict[str, Any]], seed: int) -> list[Answer]:
    """One answer each from the live policy, at the temperature that all log-probabilities are taken at; no top-p, no top-k."""
    settings = players.settings
    parameters = sum(parameter.numel() for parameter in players.policy.parameters())
    operations = 2.0 * parameters * settings.iterations * settings.batch * settings.max_new_tokens
    compiled = wanted(settings.compile, operations, Mesh())
    engine = Engine(players.policy, players.tokenizer, max_rows=min(512, settings.batch), compiled=compiled)
    sampled = sample_answers(
        engine,
        players.tokenizer,
        rows,
        temperature=settings.temperature,
        max_new_tokens=settings.max_new_tokens,
        seed=seed,
    )
    return [answer for [answer] in sampled]


def _forward_all(players: Players, answers: Sequence[Answer]) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """(log pi, log pi_0, V, entropy) as [B, L] with zeros after the end, and V after the last token as [B]."""
    settings = players.settings
    packed = _pack([answer.prompt_ids for answer in answers], [answer.ids for answer in answers], settings.row_len)
    where = (packed.tokens_RT, packed.positions_RT, packed.attention(players.policy.tok_embeddings.weight))
    index_BL, mask_BL = packed.grid()
    asked: dict[str, Any] = {"targets_N": packed.targets_N, "temperature": settings.temperature}
    logp_N, entropy_N = players.policy(*where, keep_N=packed.predict_N, head=partial(log_probs_and_entropy, **asked))
    ref_N = players.reference(*where, keep_N=packed.predict_N, head=partial(log_probs_of_targets, **asked))
    value_M = players.critic(*where, keep_N=torch.cat([packed.predict_N, packed.ends_N]))
    value_N, after_B = value_M.split([len(packed.predict_N), len(answers)])
    logp_BL, ref_BL, value_BL, entropy_BL = (x_N[index_BL] * mask_BL for x_N in (logp_N, ref_N, value_N, entropy_N))
    return logp_BL, ref_BL, value_BL, entropy_BL, after_B


def _pack(prompts: Sequence[list[int]], answers: Sequence[list[int]], row_len: int) -> Packed:
    """Prompt and answer side by side, loss on the answer. Padding is told by position, so any id serves."""
    sequences = [prompt + answer for prompt, answer in zip(prompts, answers)]
    masks = [[False] * len(prompt) + [True] * len(answer) for prompt, answer in zip(prompts, answers)]
    return pack(sequences, max(row_len, max(map(len, sequences))), 0, masks)


def _pad(tensors: list[Tensor]) -> Tensor:
    return pad_sequence(tensors, batch_first=True)


def _rows(blocks: Sequence[Tensor]) -> Tensor:
    """Blocks [B_i, L_i] under each other, [B, max L]."""
    return _pad([row for block in blocks for row in block])


def _chunks(answers: Sequence[Answer], size: int) -> list[Sequence[Answer]]:
    return [answers[start : start + size] for start in range(0, len(answers), size)]


def _prompts(prompts: Path, seed: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    if prompts.is_dir():
        return read_prompts(prompts / "prompts_train.jsonl"), read_prompts(prompts / "prompts_dev.jsonl")
    rows = read_prompts(prompts)
    random.Random(seed).shuffle(rows)
    tenth = max(1, len(rows) // 10)
    if len(rows) < 2:
        raise ValueError(f"{prompts}: PPO needs two prompts at least, one of them held out")
    return rows[tenth:], rows[:tenth]
