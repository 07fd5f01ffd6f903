"""PPO's real code on bandits with a known optimum: answers of one or two tokens over a vocabulary of five.

The optimum of E[r] - beta KL(pi || pi_0) is pi*(y | x) = pi_0(y | x) exp(r(x, y) / beta) / Z(x), for whole answers y.
All answers are enumerated, so nothing here is estimated.
"""

from __future__ import annotations

import copy
import itertools
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from ayni.config import ModelSettings, OptimizerSettings, PPOSettings
from ayni.engine import answers as answers_module
from ayni.model.heads import ScalarHead
from ayni.model.transformer import Transformer, init_weights
from ayni.scoring.reward import Rewards
from ayni.stages.ppo import optimizers, update
from ayni.stages.ppo_rollout import Players, rollout
from ayni.train.mesh import Mesh
from tests.engine.models import Letters

VOCAB = 5
# Of two tokens each: after a prompt [1], the answer token 1 could not change the context, for attention to one value is
# attention to the same value twice.
PROMPTS = ((1, 0), (3, 4))
MODEL = ModelSettings(vocab_size=VOCAB, dim=24, n_layers=1, n_heads=2, n_kv_heads=1, ffn_dim=32, max_seq_len=16)
SETTINGS = PPOSettings(
    batch=256,
    minibatch=64,
    row_len=32,
    precision="float32",
    compile="never",
    whiten="off",
    truncation_penalty=0.0,
    value_clip=10.0,
    optimizer=OptimizerSettings(lr=3e-3, schedule="constant", weight_decay=0.0),
    critic_optimizer=OptimizerSettings(lr=1e-2, schedule="constant", weight_decay=0.0),
)


@dataclass(frozen=True)
class Table:
    """A reward for every (prompt, answer): what stands in for the two reward models."""

    reward: dict[tuple[int, ...], float]
    guard: None = None

    def of_answers(self, rows: Any, answers: Any, row_len: int) -> Rewards:
        score_B = torch.tensor([self.reward[(*a.prompt_ids, *a.ids)] for [a] in answers])
        return Rewards(score_B, torch.zeros_like(score_B), score_B, torch.zeros_like(score_B).bool())


@pytest.fixture(autouse=True)
def plain_prompts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A prompt is one token, and no token ends an answer: each has exactly `max_new_tokens`."""
    monkeypatch.setattr(
        answers_module, "encode_prompt", lambda _, messages: list(map(int, messages[-1]["content"].split()))
    )
    monkeypatch.setattr(answers_module, "stop_ids", lambda _: ())


def random_table(length: int, seed: int = 0) -> dict[tuple[int, ...], float]:
    generator = torch.Generator().manual_seed(seed)
    keys = [(*x, *y) for x in PROMPTS for y in itertools.product(range(VOCAB), repeat=length)]
    return dict(zip(keys, torch.randn(len(keys), generator=generator).tolist()))


def make_players(settings: PPOSettings, reward: dict[tuple[int, ...], float]) -> Players:
    policy = Transformer(MODEL)
    init_weights(policy, 0, std=0.3)
    critic = ScalarHead.from_language_model(policy)
    return Players(settings, Letters(), policy, critic, copy.deepcopy(policy), Table(reward), seed=0)  # type: ignore[arg-type]


def train(players: Players, iterations: int) -> list[dict[str, float]]:
    """The loop of `ppo.learn` without its checkpoints and evaluations."""
    policy_optimizer, critic_optimizer = optimizers(players)
    history = []
    for iteration in range(1, iterations + 1):
        rows = [
            {
                "id": str(i),
                "messages": [{"role": "user", "content": "{} {}".format(*PROMPTS[i % 2])}],
                "prompt_kind": "helpful",
            }
            for i in range(players.settings.batch)
        ]
        experiences, figures = rollout(players, rows, iteration)
        only_critic = iteration <= players.settings.critic_warmup
        done = update(players, experiences, policy_optimizer, critic_optimizer, iteration, only_critic, Mesh())
        history.append({**figures, **done})
    return history


@torch.no_grad()
def distribution(policy: Transformer, prompt: tuple[int, ...], length: int) -> Tensor:
    """pi(y | x) of every answer of that length, in the order of itertools.product; in double."""
    every = list(itertools.product(range(VOCAB), repeat=length))
    logp = policy(torch.tensor([[*prompt, *y] for y in every])).double().log_softmax(-1)
    return torch.stack(
        [sum(logp[i, len(prompt) - 1 + t, token] for t, token in enumerate(y)) for i, y in enumerate(every)]
    ).exp()


def optimum(players: Players, prompt: tuple[int, ...], length: int, beta: float) -> Tensor:
    every = itertools.product(range(VOCAB), repeat=length)
    r = torch.tensor([players.rewards.reward[(*prompt, *y)] for y in every], dtype=torch.float64)  # type: ignore[attr-defined]
    return torch.softmax(distribution(players.reference, prompt, length).log() + r / beta, 0)


def distance(players: Players, length: int, beta: float) -> float:
    """Total variation between pi and pi* of that beta, the mean over prompts."""
    gaps = [(distribution(players.policy, x, length) - optimum(players, x, length, beta)).abs().sum() for x in PROMPTS]
    return float(sum(gaps)) / 2 / len(gaps)


def kl(players: Players, length: int) -> float:
    """KL(pi || pi_0), the mean over prompts."""
    total = 0.0
    for x in PROMPTS:
        p, q = distribution(players.policy, x, length), distribution(players.reference, x, length)
        total += float((p * (p / q).log()).sum())
    return total / len(PROMPTS)


@pytest.mark.parametrize(("length", "beta"), [(1, 0.5), (2, 1.0)])
def test_ppo_finds_the_optimum_of_a_bandit(length: int, beta: float) -> None:
    players = make_players(SETTINGS.model_copy(update={"beta": beta, "max_new_tokens": length}), random_table(length))
    assert distance(players, length, beta) > 0.3
    train(players, 35)
    finer = players.settings.optimizer.model_copy(update={"lr": 1e-3})
    settings = players.settings.model_copy(update={"optimizer": finer, "critic_warmup": 0})
    train(replace(players, settings=settings), 15)
    after = distance(players, length, beta)
    assert after < 0.1
    assert after < min(distance(players, length, factor * beta) for factor in (0.5, 2.0)) / 2, (
        "the optimum of this beta"
    )


@pytest.mark.parametrize("whiten", ["batch", "off"])
def test_a_constant_reward_does_not_move_the_policy_beyond_kl_noise(whiten: str) -> None:
    """Advantages are whitened, so the critic's small error has unit variance: the policy jitters, and never drifts."""
    slow = SETTINGS.optimizer.model_copy(update={"lr": 1e-3})
    changes = {"whiten": whiten, "max_new_tokens": 2, "beta": 0.1, "critic_warmup": 8, "optimizer": slow}
    settings = SETTINGS.model_copy(update=changes)
    constant = make_players(settings, dict.fromkeys(random_table(2), 0.7))
    history = train(constant, 18)
    informative = make_players(settings, random_table(2))
    train(informative, 18)
    assert max(row["kl_k3"] for row in history) < 0.2
    assert kl(constant, 2) < 0.1
    assert kl(informative, 2) > 20 * kl(constant, 2)


def test_trap_09_512_and_64_mean_8_optimizer_steps() -> None:
    paper = PPOSettings()
    changes = {"batch": paper.batch, "minibatch": paper.minibatch, "max_new_tokens": 1, "critic_warmup": 0}
    assert (paper.batch, paper.minibatch, paper.clip) == (512, 64, 0.2)
    assert (paper.beta, paper.optimizer.lr, paper.optimizer.schedule) == (0.01, 1e-6, "constant")
    players = make_players(SETTINGS.model_copy(update=changes), random_table(1))
    steps = []
    policy_optimizer, critic_optimizer = optimizers(players)
    for optimizer in (policy_optimizer, critic_optimizer):
        optimizer.register_step_post_hook(lambda of, *_: steps.append(of))
    rows = [{"id": str(i), "messages": [{"role": "user", "content": "1 0"}]} for i in range(paper.batch)]
    experiences, _ = rollout(players, rows, 1)
    assert update(players, experiences, policy_optimizer, critic_optimizer, 1, False, Mesh())["optimizer_steps"] == 8
    assert (steps.count(policy_optimizer), steps.count(critic_optimizer)) == (8, 8)


def test_whitening_off_hands_on_raw_scores() -> None:
    """With lambda 1, beta 0 and answers of one token the return is R~ itself."""
    returns = {}
    rows = [{"id": str(i), "messages": [{"role": "user", "content": "1 0"}]} for i in range(64)]
    for kind in ("off", "batch"):
        changes = {"whiten": kind, "batch": 64, "max_new_tokens": 1, "beta": 0.0, "lam": 1.0}
        players = make_players(SETTINGS.model_copy(update=changes), random_table(1))
        experiences, _ = rollout(players, rows, 1)
        returns[kind] = torch.cat([e.return_L for e in experiences])
    raw = [players.rewards.reward[(*e.prompt_ids, *e.answer_ids)] for e in experiences]  # type: ignore[attr-defined]
    assert returns["off"].tolist() == pytest.approx(raw, abs=1e-5)
    mean, spread = torch.tensor(raw).mean(), torch.tensor(raw).std(correction=0)
    assert returns["batch"].tolist() == pytest.approx(((torch.tensor(raw) - mean) / spread).tolist(), abs=1e-4)
