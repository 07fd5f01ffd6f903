"""Compiled layers compute what eager ones do; whether a run is compiled follows from its settings and the machine alone."""

import shutil

import pytest
import torch

from ayni.config import ModelSettings
from ayni.model.precision import SMALL, fast_bf16, working_type
from ayni.model.transformer import Transformer, init_weights
from ayni.train import compiling
from ayni.train.batches import pack
from ayni.train.compiling import WORTH_IT, compile_layers, compiled_layers, wanted
from ayni.train.loop import packed_loss, rows_loss
from ayni.train.mesh import Mesh
from ayni.train.output import loss_of_targets

from .small import random_sequences

needs_compiler = pytest.mark.skipif(
    not any(map(shutil.which, ("g++", "clang++"))), reason="no C++ compiler on this machine: nothing can be compiled"
)


def model():
    settings = ModelSettings(vocab_size=61, dim=32, n_layers=2, n_heads=4, n_kv_heads=2, ffn_dim=48, max_seq_len=640)
    made = Transformer(settings)
    init_weights(made, 0, std=0.2)
    return made


def loss_and_gradients(made, loss_fn, batch):
    made.zero_grad()
    loss, _, _ = loss_fn(made, batch)
    loss.backward()
    return loss.detach(), [p.grad.clone() for p in made.parameters()]


@needs_compiler
def test_compiled_steps_are_the_eager_ones_packed_or_not():
    made = model()
    rows = torch.randint(61, (2, 601), generator=torch.Generator().manual_seed(0))  # three blocks of queries, one short
    packed = pack(random_sequences(12, 200, seed=1), 640, pad_id=0)
    for loss_fn, batch in ((rows_loss, rows), (packed_loss, packed)):
        compile_layers(made, False)
        loss, gradients = loss_and_gradients(made, loss_fn, batch)
        compile_layers(made)
        compiled_loss, compiled_gradients = loss_and_gradients(made, loss_fn, batch)
        assert compiled_loss.item() == pytest.approx(loss.item(), rel=1e-5)
        for found, expected in zip(compiled_gradients, gradients):
            assert (found - expected).norm() <= 1e-4 * expected.norm()


@needs_compiler
def test_layers_in_halves_serve_batches_of_any_shape_with_gradients_and_without():
    made = model()
    for count, longest, row_len in ((12, 200, 640), (5, 90, 200), (7, 33, 64)):
        packed = pack(random_sequences(count, longest, seed=count), row_len, pad_id=0)

        def loss_fn(made, packed=packed):
            where = packed.tokens_RT, packed.positions_RT, packed.attention(made.tok_embeddings.weight)
            loss = loss_of_targets(*parts(made, where, packed), targets_N=packed.targets_N)
            return loss, 1, {}

        expected = loss_and_gradients(made, lambda made, _: loss_fn(made), None)
        with compiled_layers(made, True):
            found = loss_and_gradients(made, lambda made, _: loss_fn(made), None)
            with torch.no_grad():
                scored = loss_fn(made)[0]
        assert made.compiled_layer is None
        assert found[0].item() == pytest.approx(expected[0].item(), rel=1e-5)
        assert scored.item() == pytest.approx(expected[0].item(), rel=1e-5)
        for a, b in zip(found[1], expected[1]):
            assert (a - b).norm() <= 1e-4 * b.norm()


def parts(made, where, packed):
    """(h_ND, weight_VD) at the tokens that predict."""
    kept = []
    made(*where, keep_N=packed.predict_N, head=lambda h_ND, weight_VD: kept.extend((h_ND, weight_VD)))
    return kept


def test_the_choice_is_a_function_of_settings_and_machine(monkeypatch):
    monkeypatch.setattr(compiling, "compiler_found", lambda: True)
    assert wanted("auto", WORTH_IT, Mesh())
    assert not wanted("auto", 0.9 * WORTH_IT, Mesh())
    assert not wanted("never", 1e20, Mesh())
    assert wanted("always", 1.0, Mesh())
    assert not wanted("always", 1.0, Mesh(world=2))
    # The embedded recipe (1M parameters, 4M tokens) stays eager.
    assert not wanted("auto", 6 * 1e6 * 4e6, Mesh())


def test_without_a_compiler_auto_is_eager_and_always_is_an_error(monkeypatch):
    monkeypatch.setattr(compiling, "compiler_found", lambda: False)
    assert not wanted("auto", 1e20, Mesh())
    with pytest.raises(ValueError, match="needs a C\\+\\+ compiler"):
        wanted("always", 1.0, Mesh())


def test_auto_precision_is_bf16_for_larger_models_where_the_hardware_has_it(monkeypatch):
    cpu = torch.device("cpu")
    for has, large in ((True, torch.bfloat16), (False, torch.float32)):
        fast_bf16.cache_clear()
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda has=has: {"avx512_bf16": has})
        assert working_type("auto", SMALL, cpu) == large
        assert working_type("auto", SMALL - 1, cpu) == torch.float32
        assert working_type("bfloat16", 1, cpu) == torch.bfloat16
        assert working_type("float32", SMALL, cpu) == torch.float32
    fast_bf16.cache_clear()


def test_activation_checkpointing_changes_memory_and_no_bit():
    rows = torch.randint(61, (2, 65), generator=torch.Generator().manual_seed(0))
    made = model()
    loss, gradients = loss_and_gradients(made, rows_loss, rows)
    kept = saved_bytes(made, rows)
    made.checkpoint_activations = True
    again, same = loss_and_gradients(made, rows_loss, rows)
    assert torch.equal(loss, again)
    assert all(map(torch.equal, gradients, same))
    assert saved_bytes(made, rows) < kept / 3


def saved_bytes(made, rows):
    total = 0

    def pack_hook(tensor):
        nonlocal total
        total += tensor.numel() * tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack_hook, lambda tensor: tensor):
        h = made(rows[:, :-1], head=False)
    assert h.requires_grad
    return total
