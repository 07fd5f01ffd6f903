"""PPO's loop on a real (tiny) policy: TRAPS 1, 2, 3, 5, 7 as they meet in one rollout."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch

from ayni.config import OptimizerSettings, PPOSettings
from ayni.engine.score import log_probs_of
from ayni.model.checkpoint import load_model, load_scalar
from ayni.scoring.reward import load_reward_models
from ayni.stages import ppo, ppo_rollout
from ayni.text.sources import read_prompts
from ayni.text.tokenizer import load_tokenizer
from ayni.train.loop import train_step
from ayni.train.mesh import Mesh, split
from ayni.train.optimizer import make_optimizer

SETTINGS = PPOSettings(batch=32, minibatch=8, row_len=128, max_new_tokens=12, temperature=1.3, beta=0.05)


@pytest.fixture(scope="module")
def players(smoke_run: Path) -> ppo.Players:
    helpfulness, safety = smoke_run / "v2_reward_helpfulness", smoke_run / "v2_reward_safety"
    return ppo.Players(
        SETTINGS,
        load_tokenizer(smoke_run / "sft"),
        policy=load_model(smoke_run / "v2_ppo"),
        critic=load_scalar(helpfulness),
        reference=load_model(smoke_run / "sft"),
        rewards=load_reward_models(ppo.Scorers(helpfulness, safety)),
        seed=0,
    )


@pytest.fixture(scope="module")
def rolled(players: ppo.Players, smoke_run: Path) -> tuple[list[ppo.Experience], dict[str, float]]:
    rows = read_prompts(smoke_run / "data" / "prompts_train.jsonl")[:32]
    return ppo.rollout(players, rows, iteration=1)


def test_trap_02_with_learning_rate_0_every_ratio_is_1(players: ppo.Players, rolled: tuple) -> None:
    experiences, _ = rolled
    policy = copy.deepcopy(players.policy)
    optimizer = make_optimizer(policy, OptimizerSettings(lr=0.0))
    for start in range(0, 32, 8):
        micro = split(experiences[start : start + 8], Mesh(), 3)
        done = train_step(policy, optimizer, micro, lambda m, b: ppo.policy_objective(m, b, SETTINGS), 1.0, Mesh())
        assert done["ratio"] == pytest.approx(1.0, abs=1e-5)
        assert done["clip_share"] == 0.0
        assert done["kl_old"] == pytest.approx(0.0, abs=1e-6)


def test_trap_02_holds_in_bf16_where_a_rounding_could_move_a_ratio(players: ppo.Players, smoke_run: Path) -> None:
    settings = SETTINGS.model_copy(
        update={"precision": "bfloat16", "optimizer": OptimizerSettings(lr=0.0, weight_decay=0.0)}
    )
    changed = {"settings": settings, "policy": copy.deepcopy(players.policy), "critic": copy.deepcopy(players.critic)}
    changed["reference"] = copy.deepcopy(players.reference).bfloat16()
    other = ppo.Players(**{**vars(players), **changed})
    policy_optimizer, critic_optimizer = ppo.optimizers(other)
    rows = read_prompts(smoke_run / "data" / "prompts_train.jsonl")[:32]
    experiences, figures = ppo.rollout(other, rows, iteration=1)
    done = ppo.update(other, experiences, policy_optimizer, critic_optimizer, 1, False, Mesh())
    assert other.policy.tok_embeddings.weight.dtype == torch.bfloat16
    assert done["ratio"] == 1.0
    assert done["clip_share"] == 0.0
    assert figures["engine_gap"] < 0.05


def test_trap_01_old_log_probabilities_are_taken_at_the_sampling_temperature(
    players: ppo.Players, rolled: tuple
) -> None:
    experiences, figures = rolled
    prompts, answers = [e.prompt_ids for e in experiences], [e.answer_ids for e in experiences]
    for e, expected in zip(experiences, log_probs_of(players.policy, prompts, answers, 1.3)):
        torch.testing.assert_close(e.old_logp_L, expected, atol=1e-4, rtol=0)
    assert figures["engine_gap"] < 1e-4, "the sampler reports the same distribution"


def test_trap_05_advantages_are_whitened_over_all_answer_tokens(rolled: tuple) -> None:
    advantage_N = torch.cat([e.advantage_L for e in rolled[0]])
    assert advantage_N.mean().abs() < 1e-5
    assert advantage_N.std(correction=0) == pytest.approx(1.0, abs=1e-3)


def test_trap_07_kl_against_the_reference_is_the_naive_sum(players: ppo.Players, rolled: tuple) -> None:
    experiences, figures = rolled
    prompts, answers = [e.prompt_ids for e in experiences], [e.answer_ids for e in experiences]
    pi, pi_0 = (log_probs_of(model, prompts, answers, 1.3) for model in (players.policy, players.reference))
    per_answer = [float((a - b).sum()) for a, b in zip(pi, pi_0)]
    assert figures["kl_k1"] == pytest.approx(sum(per_answer) / len(per_answer), abs=1e-3)
    assert figures["kl_k3"] >= 0


def test_returns_are_rewards_to_go_when_lambda_is_1(players: ppo.Players, smoke_run: Path) -> None:
    """With gamma = lambda = 1 the return at t is the sum of all later token rewards: penalties, and R~ at the end."""
    settings = SETTINGS.model_copy(update={"lam": 1.0, "truncation_penalty": 0.7})
    other = ppo.Players(**{**vars(players), "settings": settings})
    rows = read_prompts(smoke_run / "data" / "prompts_train.jsonl")[:16]
    experiences, _ = ppo.rollout(other, rows, iteration=2)
    prompts, answers = [e.prompt_ids for e in experiences], [e.answer_ids for e in experiences]
    pi, pi_0 = (log_probs_of(model, prompts, answers, 1.3) for model in (players.policy, players.reference))
    raw = [float(r) for r in _raw_rewards(other, rows)]
    mean, std = sum(raw) / 16, (sum((r - sum(raw) / 16) ** 2 for r in raw) / 16) ** 0.5
    eos = players.tokenizer.eos_id
    for e, a, b, r in zip(experiences, pi, pi_0, raw):
        end = (r - mean) / std - (0.0 if e.answer_ids[-1] == eos else 0.7)
        penalties = [-settings.beta * float(x) for x in a - b]
        expected = [sum(penalties[t:]) + end for t in range(len(penalties))]
        torch.testing.assert_close(e.return_L, torch.tensor(expected), atol=2e-3, rtol=0)


def test_trap_06_truncated_by_length_is_bootstrapped_where_the_setting_says_so(
    players: ppo.Players, smoke_run: Path
) -> None:
    """With lambda = 1 the bootstrap adds V(state after the last token) to every return of a cut answer, 0 to the others."""
    rows = read_prompts(smoke_run / "data" / "prompts_train.jsonl")[:16]
    returns = {}
    for truncation in ("penalise", "bootstrap"):
        settings = SETTINGS.model_copy(
            update={"lam": 1.0, "truncation": truncation, "truncation_penalty": 0.0, "max_new_tokens": 6}
        )
        returns[truncation], _ = ppo.rollout(ppo.Players(**{**vars(players), "settings": settings}), rows, iteration=3)
    cut = 0
    for plain, bootstrapped in zip(returns["penalise"], returns["bootstrap"]):
        ended = plain.answer_ids[-1] == players.tokenizer.eos_id
        with torch.no_grad():
            value = players.critic(torch.tensor([plain.prompt_ids + plain.answer_ids]))[0, -1]
        added = torch.zeros(len(plain.answer_ids)) if ended else value.expand(len(plain.answer_ids))
        torch.testing.assert_close(bootstrapped.return_L - plain.return_L, added, atol=1e-4, rtol=1e-4)
        cut += not ended
    assert cut > 0, "some answers must be cut for the test to say anything"


def _raw_rewards(players: ppo.Players, rows: list[dict]) -> torch.Tensor:
    answers = ppo_rollout.sample(players, rows, seed=ppo.row_seed(players.seed, "rollout-2"))
    return players.rewards.of_answers(rows, [[answer] for answer in answers], SETTINGS.row_len).gated


def test_rewards_are_logged_by_branch_and_the_engines_worst_mismatch(players: ppo.Players, smoke_run: Path) -> None:
    rows = read_prompts(smoke_run / "data" / "prompts_train.jsonl")[:32]
    answers = ppo_rollout.sample(players, rows, seed=ppo.row_seed(players.seed, "rollout-5"))
    raw = players.rewards.of_answers(rows, [[answer] for answer in answers], SETTINGS.row_len)
    _, figures = ppo.rollout(players, rows, iteration=5)
    branches: dict[bool, list[float]] = {True: [], False: []}
    for help_, safe, by_safety in zip(raw.helpfulness.tolist(), raw.safety.tolist(), raw.by_safety.tolist()):
        branches[by_safety].append(safe if by_safety else help_)
    assert figures["reward_safety_branch"] == pytest.approx(sum(branches[True]) / len(branches[True]), abs=1e-5)
    assert figures["reward_help_branch"] == pytest.approx(sum(branches[False]) / len(branches[False]), abs=1e-5)
    assert figures["reward"] == pytest.approx(sum(branches[True] + branches[False]) / 32, abs=1e-5)
    experiences, _ = ppo.rollout(players, rows, iteration=5)
    worst = max(
        abs(x - y) for answer, e in zip(answers, experiences) for x, y in zip(answer.logprobs, e.old_logp_L.tolist())
    )
    assert figures["engine_gap_max"] == pytest.approx(worst, abs=1e-6)
    assert figures["engine_gap"] <= figures["engine_gap_max"]


def test_explained_variance_is_1_for_the_returns_and_0_for_their_mean() -> None:
    return_N = torch.tensor([1.0, 4.0, -2.0, 0.5])
    assert ppo_rollout.explained_variance(return_N, return_N).item() == pytest.approx(1.0)
    assert ppo_rollout.explained_variance(return_N.mean().expand(4), return_N).item() == pytest.approx(0.0, abs=1e-6)


SHORT = PPOSettings(
    iterations=4,
    batch=8,
    minibatch=4,
    row_len=128,
    max_new_tokens=8,
    eval_every=2,
    save_every=1,
    optimizer=OptimizerSettings(lr=1e-3, schedule="constant"),
)


def test_guard_samples_and_logs_come_out_whole_though_the_run_was_killed(
    smoke_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The guard scores held-out answers and trains nothing: the policy is that of a run without one, bit for bit."""
    helpfulness, safety = smoke_run / "v2_reward_helpfulness", smoke_run / "v2_reward_safety"
    guarded = ppo.Scorers(helpfulness, safety, guard=smoke_run / "v1_reward_helpfulness")

    def run(name: str, scorers: ppo.Scorers) -> Path:
        return ppo.run(SHORT, smoke_run / "data", smoke_run / "sft", scorers, tmp_path / name, seed=0).path

    plain, whole = run("plain", ppo.Scorers(helpfulness, safety)), run("whole", guarded)
    assert (plain / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    update = ppo.update
    monkeypatch.setattr(ppo, "update", lambda *given: killed() if given[4] == 3 else update(*given))
    with pytest.raises(KeyboardInterrupt):
        run("resumed", guarded)
    monkeypatch.setattr(ppo, "update", update)
    resumed = run("resumed", guarded)
    for name in ("model.safetensors", "history.json", "logs/metrics.jsonl", "logs/samples.jsonl"):
        assert (resumed / name).read_bytes() == (whole / name).read_bytes(), name

    history = json.loads((whole / "history.json").read_text())
    assert [row["step"] for row in history if "heldout_guard" in row] == [0, 2, 4]
    assert not any("heldout_guard" in row for row in json.loads((plain / "history.json").read_text()))
    samples = [json.loads(line) for line in (whole / "logs" / ppo.SAMPLES).read_text().splitlines()]
    assert [row["step"] for row in samples] == [0, 0, 0, 2, 2, 2, 4, 4, 4]
    assert {"id", "messages", "answer", "ended", "reward", "reward_help", "reward_safety", "kl"} <= set(samples[0])
    assert [row["id"] for row in samples[:3]] == [row["id"] for row in samples[3:6]], "the same prompts every time"


def test_the_critic_starts_where_the_setting_says(smoke_run: Path) -> None:
    scorers = ppo.Scorers(smoke_run / "v2_reward_helpfulness", None)
    tokens = torch.tensor([[1, 5, 9, 4]])
    with torch.no_grad():
        knowing = ppo.first_critic(SHORT, smoke_run / "sft", scorers)(tokens)
        naive = ppo.first_critic(SHORT.model_copy(update={"critic_start": "policy"}), smoke_run / "sft", scorers)
        assert torch.equal(knowing, load_scalar(scorers.helpfulness)(tokens))
        assert torch.equal(naive(tokens), torch.zeros(1, 4))
        weight = load_model(smoke_run / "sft").layers[0].state_dict()
    assert all(torch.equal(value, weight[name]) for name, value in naive.layers[0].state_dict().items())


def test_a_batch_that_minibatches_do_not_divide_is_refused(smoke_run: Path, tmp_path: Path) -> None:
    scorers = ppo.Scorers(smoke_run / "v2_reward_helpfulness", smoke_run / "v2_reward_safety")
    with pytest.raises(ValueError, match="not a multiple"):
        ppo.run(
            SETTINGS.model_copy(update={"batch": 30}),
            smoke_run / "data",
            smoke_run / "sft",
            scorers,
            tmp_path / "o",
            seed=0,
        )
