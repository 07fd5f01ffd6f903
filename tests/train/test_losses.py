"""Every loss against a naive loop over single tokens, on random masked batches; shapes are enforced by beartype."""

import math
import random
from types import SimpleNamespace

import pytest
import torch
from beartype import beartype
from beartype.roar import BeartypeCallHintParamViolation
from jaxtyping import TypeCheckError, jaxtyped

from ayni.train import losses as plain

checked = SimpleNamespace(
    **{
        name: jaxtyped(typechecker=beartype)(getattr(plain, name))
        for name in [
            "next_token_loss",
            "log_probs",
            "entropy",
            "margin",
            "preference_loss",
            "safety_loss",
            "gated",
            "whiten",
            "k1",
            "k3",
            "token_rewards",
            "gae",
            "ppo_policy_loss",
            "value_loss",
        ]
    }
)
SEEDS = range(8)
RefusedShape = (TypeCheckError, BeartypeCallHintParamViolation, AssertionError)


def masked_batch(seed):
    """Answers of random length, left-aligned: mask [B, T], the end e of each, and a generator for the rest."""
    generator = torch.Generator().manual_seed(seed)
    B, T = 1 + seed % 5, 1 + (3 * seed) % 7
    end_B = torch.randint(T, (B,), generator=generator)
    mask_BT = torch.arange(T) <= end_B[:, None]

    def normal(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float32)

    return mask_BT, end_B, normal


def test_next_token_loss_is_the_sum_of_minus_log_softmax():
    logits, targets = torch.randn(5, 7), torch.tensor([0, 6, 3, 3, 1])
    expected = 0.0
    for row, target in zip(logits.tolist(), targets.tolist()):
        expected -= row[target] - math.log(sum(math.exp(x) for x in row))
    assert checked.next_token_loss(logits, targets).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 0.5, 1.3])
def test_trap_01_log_probs_are_those_of_the_sampling_distribution(temperature):
    logits, targets = 3 * torch.randn(6, 9), torch.randint(9, (6,))
    for row, target, found in zip(logits.tolist(), targets.tolist(), checked.log_probs(logits, targets, temperature)):
        scaled = [x / temperature for x in row]
        assert found.item() == pytest.approx(scaled[target] - math.log(sum(map(math.exp, scaled))), abs=1e-5)


@pytest.mark.parametrize("seed", SEEDS)
def test_trap_02_an_unmoved_policy_has_ratio_one_and_plain_advantages(seed):
    mask_BT, _, normal = masked_batch(seed)
    logp, advantages = normal(*mask_BT.shape), normal(*mask_BT.shape)
    loss, stats = checked.ppo_policy_loss(logp, logp.clone(), advantages, mask_BT)
    assert stats["ratio"].item() == pytest.approx(mask_BT.sum().item(), rel=1e-5)
    assert stats["clip_share"].item() == 0
    assert stats["kl_old"].item() == pytest.approx(0, abs=1e-6)
    assert loss.item() == pytest.approx(-advantages[mask_BT].sum().item(), abs=1e-4)


@pytest.mark.parametrize("seed", SEEDS)
def test_trap_03_reward_lands_on_the_end_and_nowhere_else(seed):
    mask_BT, end_B, normal = masked_batch(seed)
    kl_BT, reward_B, beta = normal(*mask_BT.shape), normal(len(end_B)), 0.07
    kl_BT[~mask_BT] = float("nan")  # padding holds garbage
    rewards_BT = checked.token_rewards(kl_BT, mask_BT, end_B, reward_B, beta)
    for b in range(len(end_B)):
        for t in range(mask_BT.shape[1]):
            expected = -beta * kl_BT[b, t].item() if t <= end_B[b] else 0.0
            if t == end_B[b]:
                expected += reward_B[b].item()
            assert rewards_BT[b, t].item() == pytest.approx(expected, abs=1e-6)


def test_trap_03_an_end_outside_the_answer_is_refused():
    mask_BT = torch.tensor([[True, True, False]])
    with pytest.raises(AssertionError, match="never e \\+ 1"):
        checked.token_rewards(torch.zeros(1, 3), mask_BT, torch.tensor([2]), torch.ones(1), 0.1)


def test_trap_04_the_gate_works_in_score_space():
    cut = -1.7346
    safety = torch.tensor([cut - 0.001, cut + 0.001, 3.0, -9.0])
    helpful = torch.tensor([5.0, 5.0, 5.0, 5.0])
    tagged = torch.tensor([False, False, True, True])
    assert checked.gated(safety, helpful, tagged, 0.15).tolist() == pytest.approx([cut - 0.001, 5.0, 3.0, -9.0])
    generator = torch.Generator().manual_seed(0)
    safety, helpful = torch.randn(200, generator=generator) * 3, torch.randn(200, generator=generator)
    tagged = torch.rand(200, generator=generator) < 0.3
    for found, s, h, is_safety in zip(checked.gated(safety, helpful, tagged), safety, helpful, tagged):
        probability = 1 / (1 + math.exp(-s.item()))  # the paper's own terms: sigmoid, gate, logit
        chosen = s if is_safety or probability < 0.15 else h
        assert found == chosen


@pytest.mark.parametrize("seed", SEEDS)
def test_trap_05_whitening_uses_masked_elements_only(seed):
    mask_BT, _, normal = masked_batch(seed + 1)
    x_BT = 4 * normal(*mask_BT.shape) + 7
    x_BT[~mask_BT] = float("nan")
    inside = x_BT[mask_BT].double().tolist()
    mean = sum(inside) / len(inside)
    deviation = math.sqrt(sum((x - mean) ** 2 for x in inside) / len(inside) + 1e-8)
    white = checked.whiten(x_BT, mask_BT)
    assert white[mask_BT].tolist() == pytest.approx([(x - mean) / deviation for x in inside], abs=1e-3)
    assert (white[~mask_BT] == 0).all()
    kept_mean = checked.whiten(x_BT, mask_BT, shift_mean=False)
    assert kept_mean[mask_BT].tolist() == pytest.approx([x / deviation for x in inside], rel=1e-2)


def test_trap_05_whitening_over_ranks_is_whitening_of_the_whole_batch():
    whole = torch.randn(12) * 3 + 1
    parts = whole.split(5)  # three ranks with unequal shares
    mean = sum(part.sum() for part in parts) / 12
    messages = [
        torch.tensor([12.0, whole.sum()]),
        ((whole - mean) ** 2).sum(),
    ]
    for part, expected in zip(parts, checked.whiten(whole).split(5)):
        answers = iter(messages)
        assert torch.allclose(checked.whiten(part, all_reduce=lambda _: next(answers)), expected, atol=1e-5)  # noqa: B023


def naive_gae(rewards, values, mask, gamma, lam, bootstrap):
    """The definition: A_t = sum over later response tokens of (gamma lambda)^k delta, one row, holes squeezed out."""
    steps = [t for t, real in enumerate(mask) if real]
    out = [0.0] * len(mask)
    for i, t in enumerate(steps):
        for k, u in enumerate(steps[i:]):
            after = steps[i + k + 1] if i + k + 1 < len(steps) else None
            next_value = values[after] if after is not None else bootstrap
            out[t] += (gamma * lam) ** k * (rewards[u] + gamma * next_value - values[u])
    return out


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", ["ended", "truncated", "holes"])
def test_trap_06_gae_is_its_definition_and_never_looks_at_padding(seed, kind):
    mask_BT, _, normal = masked_batch(seed)
    shape = mask_BT.shape
    if kind == "holes":  # left padding and a user's turn between two answers
        mask_BT = normal(*shape) > 0
    rewards, values = normal(*shape), normal(*shape)
    bootstrap = normal(shape[0]) if kind == "truncated" else None
    rewards[~mask_BT], values[~mask_BT] = float("nan"), float("nan")
    advantages, returns = checked.gae(rewards, values, mask_BT, 0.9, 0.8, bootstrap)
    for b in range(shape[0]):
        last = bootstrap[b].item() if bootstrap is not None else 0.0
        expected = naive_gae(rewards[b].tolist(), values[b].tolist(), mask_BT[b].tolist(), 0.9, 0.8, last)
        assert advantages[b].tolist() == pytest.approx(expected, abs=1e-5)
        for t in range(shape[1]):
            wanted = expected[t] + values[b, t].item() if mask_BT[b, t] else 0.0
            assert returns[b, t].item() == pytest.approx(wanted, abs=1e-5)


def test_trap_07_k1_is_unclamped_and_k3_never_negative_with_the_same_mean():
    assert checked.k1(torch.tensor([-50.0]), torch.tensor([50.0])).item() == -100.0
    p, q = torch.tensor([0.7, 0.2, 0.1]), torch.tensor([0.2, 0.3, 0.5])
    one, three = checked.k1(p.log(), q.log()), checked.k3(p.log(), q.log())
    assert three.tolist() == pytest.approx([math.exp(-k) - 1 + k for k in one.tolist()], abs=1e-6)
    assert (three >= 0).all()
    exact = sum(a * math.log(a / b) for a, b in zip(p.tolist(), q.tolist()))
    assert (p * one).sum().item() == pytest.approx(exact, abs=1e-6)
    assert (p * three).sum().item() == pytest.approx(exact, abs=1e-6)


@pytest.mark.parametrize("seed", SEEDS)
def test_trap_08_policy_and_value_losses_are_sums_over_response_tokens(seed):
    mask, _, normal = masked_batch(seed)
    logp, old, advantages = normal(*mask.shape), normal(*mask.shape), normal(*mask.shape)
    values, old_values, returns = normal(*mask.shape), normal(*mask.shape), normal(*mask.shape)
    policy = clipped = kl = value = error = 0.0
    for b, t in mask.nonzero().tolist():
        ratio, a = math.exp(logp[b, t] - old[b, t]), advantages[b, t].item()
        inside = min(max(ratio, 0.8), 1.2)
        policy += max(-ratio * a, -inside * a)
        clipped += inside * a < ratio * a
        kl += ratio - 1 - math.log(ratio)
        v, before, target = (x[b, t].item() for x in (values, old_values, returns))
        near = min(max(v, before - 0.3), before + 0.3)
        value += 0.5 * max((v - target) ** 2, (near - target) ** 2)
        error += (v - target) ** 2
    for tensor in (logp, old, advantages, values, old_values, returns):
        tensor[~mask] = float("nan")
    logp.requires_grad_()
    values.requires_grad_()
    loss, stats = checked.ppo_policy_loss(logp, old, advantages, mask, 0.2)
    assert loss.item() == pytest.approx(policy, abs=1e-4)
    assert stats["clip_share"].item() == clipped
    assert stats["kl_old"].item() == pytest.approx(kl, abs=1e-4)
    value_sum, value_stats = checked.value_loss(values, old_values, returns, mask, 0.3)
    assert value_sum.item() == pytest.approx(value, abs=1e-4)
    assert value_stats["value_error"].item() == pytest.approx(error, abs=1e-4)
    (loss + value_sum).backward()
    assert (logp.grad[~mask] == 0).all()
    assert (values.grad[~mask] == 0).all()
    assert logp.grad.isfinite().all()
    assert values.grad.isfinite().all()


def test_value_loss_without_clip_is_half_the_squared_error():
    values, returns = torch.tensor([1.0, 2.0]), torch.tensor([3.0, 2.5])
    loss, _ = checked.value_loss(values, values + 9, returns, torch.tensor([True, True]), None)
    assert loss.item() == pytest.approx(0.5 * (4 + 0.25))


def test_trap_12_margins_are_the_papers_and_a_column_of_them_is_refused():
    strength = torch.tensor([3, 2, 1, 0])  # significantly, better, slightly, negligibly or unsure
    assert checked.margin(strength, "small").tolist() == pytest.approx([1, 2 / 3, 1 / 3, 0])
    assert checked.margin(strength, "large").tolist() == [3, 2, 1, 0]
    assert checked.margin(strength, "none").tolist() == [0, 0, 0, 0]
    scores = torch.randn(4)
    for broadcast in (torch.zeros(4, 1), torch.zeros(1, 4), torch.zeros(1), torch.zeros(4, 4)):
        with pytest.raises(RefusedShape):
            checked.preference_loss(scores, scores, broadcast)
        with pytest.raises(AssertionError):  # the function itself, with no type checker around it
            plain.preference_loss(scores, scores, broadcast)
    with pytest.raises(AssertionError):
        plain.preference_loss(torch.zeros(4, 1), torch.zeros(4, 1), torch.zeros(4, 1))


def test_preference_loss_is_minus_log_sigmoid_of_the_gap_less_the_margin():
    for _ in range(50):
        chosen, rejected, m = (random.gauss(0, 3) for _ in range(3))
        found = checked.preference_loss(*(torch.tensor([x]) for x in (chosen, rejected, m))).item()
        assert found == pytest.approx(-math.log(1 / (1 + math.exp(-(chosen - rejected - m)))), rel=1e-4, abs=1e-6)
    assert checked.preference_loss(torch.tensor([-500.0]), torch.tensor([500.0]), torch.zeros(1)).item() == 1000.0


def test_safety_loss_is_cross_entropy_of_the_probability_to_be_safe():
    scores, safe = torch.tensor([2.0, -1.0]), torch.tensor([True, True])
    expected = [-math.log(1 / (1 + math.exp(-2))), -math.log(1 / (1 + math.exp(1)))]
    assert checked.safety_loss(scores, safe).tolist() == pytest.approx(expected, rel=1e-5)
    flipped = checked.safety_loss(-scores, ~safe).tolist()
    assert flipped == pytest.approx(expected, rel=1e-5)


def test_trap_20_entropy_is_per_token_of_the_tempered_distribution():
    logits = torch.randn(4, 6) * 2
    for row, found in zip(logits.tolist(), checked.entropy(logits, 0.7)):
        weights = [math.exp(x / 0.7) for x in row]
        shares = [w / sum(weights) for w in weights]
        assert found.item() == pytest.approx(-sum(p * math.log(p) for p in shares), abs=1e-5)


def test_shapes_in_signatures_are_enforced():
    with pytest.raises(RefusedShape):
        checked.gae(torch.zeros(2, 3), torch.zeros(2, 4), torch.ones(2, 3, dtype=torch.bool))
    with pytest.raises(RefusedShape):
        checked.next_token_loss(torch.zeros(3, 5), torch.zeros(2, dtype=torch.long))
