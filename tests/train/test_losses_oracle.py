"""Our losses against frozen values of other programs: verl's `core_algos`, TRL's `masked_whiten` and DPO loss.

The values were made by `.venv/bin/python -m bench.oracles` (bench/oracles/) and lie in data/. Where a convention differs
it is said: peers average where we sum, and whiten with n - 1 where we take n.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from ayni.config import DPOSettings
from ayni.stages.dpo import Pair, Side, dpo_objective
from ayni.train.losses import dpo_loss, gae, k1, k3, ppo_policy_loss, value_loss, whiten

DATA = Path(__file__).parent / "data"
VERL: list[dict[str, Any]] = json.loads((DATA / "verl.json").read_text())["cases"]
TRL: dict[str, Any] = json.loads((DATA / "trl.json").read_text())


def read(case: dict[str, Any]) -> tuple[SimpleNamespace, SimpleNamespace, SimpleNamespace]:
    """(settings, inputs, outputs); tensors, and the mask as booleans."""
    inputs = {name: torch.tensor(value) for name, value in case["inputs"].items()}
    inputs["mask"] = inputs["mask"].bool()
    outputs = {name: torch.tensor(value) for name, value in case["outputs"].items()}
    return SimpleNamespace(**case["settings"]), SimpleNamespace(**inputs), SimpleNamespace(**outputs)


def assert_close(ours: Tensor, theirs: Tensor, mask: Tensor | None = None) -> None:
    if mask is not None:
        ours, theirs = ours[mask], theirs[mask]
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


def bessel(mask: Tensor) -> float:
    """Their whitening divides by n - 1."""
    n = int(mask.sum())
    return ((n - 1) / n) ** 0.5


@pytest.mark.parametrize("case", VERL)
def test_advantages_and_returns_are_verls(case: dict[str, Any]) -> None:
    settings, x, theirs = read(case)
    advantages, returns = gae(x.rewards, x.values, x.mask, settings.gamma, settings.lam)
    assert_close(returns, theirs.returns, x.mask)
    assert_close(whiten(advantages, x.mask) * bessel(x.mask), theirs.advantages, x.mask)
    assert_close(whiten(x.rewards, x.mask) * bessel(x.mask), theirs.whitened, x.mask)


@pytest.mark.parametrize("case", VERL)
def test_kl_estimates_are_verls(case: dict[str, Any]) -> None:
    _, x, theirs = read(case)
    assert_close(k1(x.logp, x.ref_logp), theirs.k1)
    assert_close(k3(x.logp, x.ref_logp).clamp(max=10), theirs.k3)  # theirs is cut at 10, ours never


@pytest.mark.parametrize("case", VERL)
def test_policy_and_value_losses_are_verls(case: dict[str, Any]) -> None:
    settings, x, theirs = read(case)
    tokens = x.mask.sum()
    loss, stats = ppo_policy_loss(x.logp, x.old_logp, theirs.advantages, x.mask, settings.clip)
    assert_close(loss / tokens, theirs.policy_loss)
    assert_close(stats["clip_share"] / tokens, theirs.clip_share)
    mean_ratio_less_1 = (stats["ratio"] - tokens) / tokens
    assert_close(stats["kl_old"] / tokens, mean_ratio_less_1 - theirs.mean_log_ratio)  # k3 = ratio - 1 - log ratio
    loss, _ = value_loss(x.new_values, x.values, theirs.returns, x.mask, settings.value_clip)
    assert_close(loss / tokens, theirs.value_loss)


@pytest.mark.parametrize("case", TRL["whiten"])
def test_whitening_is_trls(case: dict[str, Any]) -> None:
    values, mask, theirs = (torch.tensor(case[name]) for name in ("values", "mask", "whitened"))
    assert_close(whiten(values, mask) * bessel(mask), theirs, mask)


class Table(torch.nn.Module):
    """Answers with the logits of a case: the tokens of row b are looked up where the packed rows hold sequence b."""

    def __init__(self, logits_BTV: Tensor, lengths: list[int]) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.eye(logits_BTV.shape[2]))
        self.logits_NV = torch.cat([logits_BTV[b, :n] for b, n in enumerate(lengths)])

    def forward(self, tokens_RT: Tensor, positions_RT: Tensor, mask: Any, keep_N: Tensor, head: Any) -> Tensor:
        return head(self.logits_NV[keep_N], self.weight)


ONE_PAIR = [
    case for case in TRL["dpo"] if len(case["ids"]) == 2
]  # of several, TRL averages the likelihood over all tokens


@pytest.mark.parametrize(
    ("case", "kind"),
    [(case, "sigmoid") for case in TRL["dpo"]] + [(case, "with_likelihood") for case in ONE_PAIR],
)
def test_dpo_objective_is_trls(case: dict[str, Any], kind: str) -> None:
    """The stage's own objective on a model that answers with TRL's logits; sequences lie in one row, one after the other."""
    ids, completion = case["ids"], torch.tensor(case["completion"])
    logits, ref_logits = torch.tensor(case["logits"]), torch.tensor(case["ref_logits"])
    lengths = [int(row.nonzero().max()) + 1 for row in completion]
    answers = completion.sum(1).tolist()
    ref_logp = [
        sum(float(ref_logits[b, t - 1].log_softmax(-1)[ids[b][t]]) for t in range(lengths[b] - answers[b], lengths[b]))
        for b in range(len(ids))
    ]
    sides = [Side(ids[b][:n], answers[b], ref_logp[b]) for b, n in enumerate(lengths)]
    half = len(sides) // 2
    pairs = [Pair(c, r, 0) for c, r in zip(sides[:half], sides[half:])]
    weight = case["likelihood_weight"] if kind == "with_likelihood" else 0.0
    settings = DPOSettings(beta=case["beta"], likelihood_weight=weight, row_len=max(8, sum(lengths)))
    loss, count, stats = dpo_objective(Table(logits, lengths), pairs, settings, 0, torch.device("cpu"))
    assert count == half
    assert float(stats["accuracy"]) / count == pytest.approx(case["outputs"]["accuracy"])
    assert loss.item() / count == pytest.approx(case["outputs"][kind], rel=1e-4)


def test_dpo_loss_is_its_definition_with_and_without_a_margin() -> None:
    generator = torch.Generator().manual_seed(0)
    policy_c, policy_r, ref_c, ref_r = (5 * torch.randn(40, generator=generator) for _ in range(4))
    margin_B = torch.rand(40, generator=generator).round()
    found = dpo_loss(policy_c, policy_r, ref_c, ref_r, margin_B, beta=0.3)
    for b in range(40):
        ratio_c, ratio_r = float(policy_c[b] - ref_c[b]), float(policy_r[b] - ref_r[b])
        gap = torch.tensor(0.3 * (ratio_c - ratio_r) - float(margin_B[b]), dtype=torch.float64)
        assert float(found[b]) == pytest.approx(-float(torch.log(torch.sigmoid(gap))), rel=1e-4, abs=1e-6)
