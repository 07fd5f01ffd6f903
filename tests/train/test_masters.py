"""bf16 working weights over fp32 masters: against AdamW written out, and through a whole run that is killed and resumed."""

import copy

import pytest
import torch

from ayni.config import OptimizerSettings
from ayni.train.loop import fit, rows_loss, train_step
from ayni.train.mesh import Mesh
from ayni.train.optimizer import MasterAdamW, make_optimizer

from .small import OPTIMIZER, RandomRows, small_model, weights_equal

BF16 = torch.bfloat16


def test_two_micro_batches_make_the_step_of_adamw_on_fp32_masters():
    model = small_model()
    settings = OptimizerSettings(lr=1e-2, weight_decay=0.1)
    masters = [p.detach().clone() for p in model.parameters()]
    moments = [(torch.zeros_like(p), torch.zeros_like(p)) for p in masters]
    optimizer = make_optimizer(model, settings, BF16)
    oracle = copy.deepcopy(small_model()).to(BF16)
    for step in (1, 2, 3):
        rows = RandomRows().at(step)
        micros = [rows[:4], rows[4:]]
        train_step(model, optimizer, micros, rows_loss, 0.0, Mesh())
        gradients, count = [torch.zeros_like(m) for m in masters], 0
        for parameter, master in zip(oracle.parameters(), masters):
            parameter.data = master.to(BF16)
        for micro in micros:
            loss, tokens, _ = rows_loss(oracle, micro)
            for place, g in enumerate(torch.autograd.grad(loss, list(oracle.parameters()))):
                gradients[place] += g.float()
            count += tokens
        for master, (m, v), total in zip(masters, moments, gradients):
            g = total / count
            m.mul_(0.9).add_(g, alpha=0.1)
            v.mul_(0.95).add_(g * g, alpha=0.05)
            decay = settings.weight_decay if master.dim() >= 2 else 0.0
            master.mul_(1 - settings.lr * decay)
            master.sub_(settings.lr * (m / (1 - 0.9**step)) / ((v / (1 - 0.95**step)).sqrt() + settings.eps))
        for parameter, mine, wanted in zip(model.parameters(), optimizer.masters, masters):
            assert parameter.dtype == BF16
            assert torch.equal(parameter, mine.to(BF16))
            assert torch.allclose(mine, wanted, atol=1e-6)
            wanted.copy_(mine)  # or a last digit decides how a weight is rounded, and the next steps part


def test_steps_below_half_a_unit_of_bf16_add_up():
    weight = torch.nn.Parameter(torch.ones(4, 4))
    model = torch.nn.ParameterList([weight])
    optimizer = make_optimizer(model, OptimizerSettings(lr=1e-4, weight_decay=0.0), BF16)
    for _ in range(100):  # 1e-4 each; bf16 knows nothing between 1 and 0.996
        weight.sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    assert weight.dtype == BF16
    assert torch.all(weight < 0.995)
    optimizer.close()
    assert torch.allclose(weight, torch.full((4, 4), 0.99), atol=1e-4)


def test_gradients_of_the_working_weights_are_freed_as_soon_as_they_are_added():
    model = small_model()
    optimizer = make_optimizer(model, OPTIMIZER, BF16)
    rows_loss(model, RandomRows().at(0))[0].backward()
    assert all(p.grad is None for p in model.parameters())
    assert all(m.grad is not None and m.grad.dtype == torch.float32 for m in optimizer.masters)


class Stopped(Exception):
    pass


@pytest.mark.parametrize("stop", [3, 5])
def test_a_stopped_run_in_bf16_resumes_bit_for_bit_and_leaves_fp32_masters(tmp_path, stop):
    def train(model, state_dir, log=None):
        rows, options = RandomRows(), {"steps": 8, "save_every": 2, "seed": 3, "dtype": BF16, "log": log}
        return fit(model, rows, rows_loss, OPTIMIZER, mesh=Mesh(), state_dir=state_dir, **options)

    def die(figures):
        if figures["step"] == stop:
            raise Stopped

    straight, stopped, resumed = small_model(), small_model(), small_model(seed=9)
    wanted = train(straight, tmp_path / "straight")
    with pytest.raises(Stopped):
        train(stopped, tmp_path / "state", die)
    assert train(resumed, tmp_path / "state") == wanted
    assert weights_equal(straight, resumed)
    assert all(p.dtype == torch.float32 for p in straight.parameters())
    assert any(not torch.equal(p, p.to(BF16).float()) for p in straight.parameters())


def test_fp32_is_plain_adamw():
    assert not isinstance(make_optimizer(small_model(), OPTIMIZER), MasterAdamW)
