"""The schedule against the paper's description, AdamW against its equations."""

import itertools
import math

import pytest
import torch

from ayni.config import OptimizerSettings
from ayni.train.optimizer import lr_at, make_optimizer, set_lr

from .small import small_model


def test_cosine_warms_up_peaks_and_ends_at_a_tenth():
    settings = OptimizerSettings(lr=3e-4, warmup_steps=4)
    rates = [lr_at(step, 24, settings) for step in range(24)]
    assert rates[:4] == pytest.approx([0.75e-4, 1.5e-4, 2.25e-4, 3e-4])
    assert rates[4] == pytest.approx(3e-4)
    assert rates[-1] == pytest.approx(3e-5)
    assert all(later < earlier for earlier, later in itertools.pairwise(rates[4:]))
    middle = lr_at(4 + 10, 25, settings)  # half-way between 4 and 24
    assert middle == pytest.approx(3e-5 + 0.5 * (3e-4 - 3e-5))


def test_constant_schedule_and_runs_shorter_than_the_warm_up():
    assert lr_at(7, 10, OptimizerSettings(lr=1e-6, schedule="constant")) == 1e-6
    short = [lr_at(step, 2, OptimizerSettings(lr=1.0, warmup_steps=5)) for step in range(2)]
    assert short == [0.5, 1.0]
    assert lr_at(0, 1, OptimizerSettings(lr=1.0)) == 1.0


def test_decay_is_on_matrices_only_and_a_step_is_adamw():
    model = small_model()
    settings = OptimizerSettings(lr=1e-2, weight_decay=0.3)
    optimizer = make_optimizer(model, settings)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    set_lr(optimizer, 2e-2)
    optimizer.step()
    for name, parameter in model.named_parameters():
        decay = 0.3 if before[name].dim() == 2 else 0.0
        # First step: bias-corrected moments are g and g^2.
        update = parameter.grad / (parameter.grad.abs() + settings.eps)
        expected = before[name] * (1 - 2e-2 * decay) - 2e-2 * update
        assert torch.allclose(parameter, expected, atol=1e-5), name
    assert math.isclose(optimizer.param_groups[0]["betas"][1], 0.95)
