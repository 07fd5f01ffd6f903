"""The output layer's losses against the plain product and torch's own cross entropy, chunk by chunk or whole."""

import pytest
import torch
import torch.nn.functional as F

from ayni.train import output
from ayni.train.output import log_probs_and_entropy, log_probs_of_targets, loss_of_targets

N, D, V = 50, 24, 131


@pytest.fixture(params=[1, 7 * V, output.WHOLE], ids=["token by token", "chunks of 7", "whole"])
def chunked(request, monkeypatch):
    monkeypatch.setattr(output, "WHOLE", request.param)


def layer(dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    h = torch.randn(N, D, generator=generator).to(dtype).requires_grad_()
    weight = (torch.randn(V, D, generator=generator) * 0.3).to(dtype).requires_grad_()
    return h, weight, torch.randint(V, (N,), generator=generator)


def apart(found, wanted):
    return ((found.double() - wanted.double()).norm() / wanted.double().norm()).item()


def exact(h, weight, targets, temperature=1.0):
    """In fp64, with the whole logits at hand: log-probabilities that are differentiable."""
    return F.log_softmax(h.double() @ weight.double().t() / temperature, 1)[torch.arange(N), targets]


@pytest.mark.usefixtures("chunked")
@pytest.mark.parametrize(("dtype", "close"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_the_loss_and_its_gradients_are_those_of_the_whole_logits(dtype, close):
    h, weight, targets = layer(dtype)
    loss = loss_of_targets(h, weight, targets)
    wanted = -exact(h, weight, targets).sum()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(wanted.item(), rel=close)
    for found, expected in zip(
        torch.autograd.grad(3 * loss, (h, weight)), torch.autograd.grad(3 * wanted, (h, weight))
    ):
        assert found.dtype == dtype
        assert apart(found, expected) < close


@pytest.mark.usefixtures("chunked")
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_log_probabilities_are_differentiable_one_by_one(temperature):
    h, weight, targets = layer()
    g_N = torch.randn(N, generator=torch.Generator().manual_seed(1))
    logp = log_probs_of_targets(h, weight, targets, temperature)
    wanted = exact(h, weight, targets, temperature)
    assert torch.allclose(logp.double(), wanted, atol=1e-5)
    found, expected = (torch.autograd.grad((x * g_N).sum(), (h, weight)) for x in (logp, wanted))
    assert max(map(apart, found, expected)) < 1e-5


@pytest.mark.usefixtures("chunked")
def test_entropy_comes_with_the_same_log_probabilities():
    h, weight, targets = layer()
    logp, entropy = log_probs_and_entropy(h, weight, targets, 1.3)
    p = torch.softmax(h.double() @ weight.double().t() / 1.3, 1)
    assert torch.allclose(logp.double(), exact(h, weight, targets, 1.3), atol=1e-5)
    assert torch.allclose(entropy.double(), -(p * p.log()).sum(1), atol=1e-5)


def test_frozen_weights_get_no_gradient_and_cost_none(monkeypatch):
    monkeypatch.setattr(output, "WHOLE", 7 * V)
    h, weight, targets = layer()
    weight.requires_grad_(False)
    loss_of_targets(h, weight, targets).backward()
    assert h.grad is not None
    assert weight.grad is None


def test_no_more_logits_than_a_chunk_are_ever_made(monkeypatch):
    monkeypatch.setattr(output, "WHOLE", 7 * V)
    made = []
    plain = F.linear
    monkeypatch.setattr(output.F, "linear", lambda h, w: made.append(len(h)) or plain(h, w))
    h, weight, targets = layer()
    loss_of_targets(h, weight, targets).backward()
    log_probs_of_targets(h, weight, targets).sum().backward()
    assert max(made) == 7
    assert sum(made) == 3 * N  # once for the loss, twice for log-probabilities that are differentiated
