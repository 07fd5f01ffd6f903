"""The C++ step over int8 weights gives what the plain model gives with the same weights, row by row."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from ayni.engine import int8_step
from ayni.engine.cache import KVCache
from ayni.engine.engine import Engine, Request
from ayni.engine.int8 import Int8Linear, int8_copy
from ayni.engine.int8_step import MOST_ROWS, Int8Step
from ayni.model.transformer import Transformer

from .models import tiny_model

needs_compiler = pytest.mark.skipif(
    not any(map(shutil.which, ("g++", "clang++"))), reason="no C++ compiler on this machine: the step cannot be made"
)
CONTEXT, VOCAB = 150, 192


class Rounded:
    """A cache of the oracle's own: every key and value rounded to bf16, calculated with in fp32."""

    def __init__(self) -> None:
        self.kept: dict[int, tuple[Tensor, Tensor]] = {}

    def update(self, layer: int, *new: Tensor) -> tuple[Tensor, Tensor]:
        rounded = [x.bfloat16().float() for x in new]
        if layer in self.kept:
            rounded = [torch.cat(pair, 2) for pair in zip(self.kept[layer], rounded)]
        self.kept[layer] = (rounded[0], rounded[1])
        return self.kept[layer]


def model_of(heads: int = 4, kv_heads: int = 2, **other: int) -> Transformer:
    sides = {"dim": 64, "n_heads": heads, "n_kv_heads": kv_heads, "head_dim": 64 // kv_heads, "ffn_dim": 192}
    return tiny_model(vocab_size=VOCAB, max_seq_len=CONTEXT, **sides, **other).bfloat16()


def plain(model: Transformer) -> Transformer:
    """An fp32 model whose weights are those that the int8 copy stands for."""
    copy, twin = int8_copy(model), Transformer(model.settings)
    weights = {name: value.float() for name, value in copy.state_dict().items() if value.dtype != torch.int8}
    for name, module in copy.named_modules():
        if isinstance(module, Int8Linear):
            weights[f"{name}.weight"] = module.weight * module.scale.float().unsqueeze(1)
    embeddings = weights["tok_embeddings.weight"]
    if model.settings.tie_embeddings:  # input and output part ways: the output alone is in int8
        twin.output = nn.Linear(*embeddings.shape[::-1], bias=False)
    twin.load_state_dict(weights, strict=False)
    twin.cos, twin.sin = copy.cos.float(), copy.sin.float()  # as .bfloat16() has rounded them
    return twin.eval()


@torch.inference_mode()
def step_by_step(step: Int8Step, ids_RT: Tensor) -> Tensor:
    """logits_RTV, the rows all at the same position."""
    R, T = ids_RT.shape
    cache = KVCache(step.model.settings, R, CONTEXT, step.model.tok_embeddings.weight)
    logits = []
    for t in range(T):
        position_R = torch.full((R,), t)
        cache.begin(position_R, t + 1)
        logits.append(step(ids_RT[:, t].contiguous(), position_R, cache))
    return torch.stack(logits, 1)


def made(model: Transformer) -> Int8Step:
    step = Int8Step.of(int8_copy(model))
    assert step is not None
    return step


def random_ids(rows: int, length: int) -> Tensor:
    return torch.randint(VOCAB, (rows, length), generator=torch.Generator().manual_seed(0))


@needs_compiler
@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 4), (4, 2), (4, 1)], ids=["multi-head", "grouped", "multi-query"])
@pytest.mark.parametrize("tied", [True, False])
@torch.inference_mode()
def test_logits_are_those_of_the_plain_model(heads: int, kv_heads: int, tied: bool) -> None:
    model, ids_RT = model_of(heads, kv_heads, tie_embeddings=tied), random_ids(3, 70)
    mine = step_by_step(made(model), ids_RT)
    oracle, cache = plain(model), Rounded()
    wanted = torch.cat([oracle(ids_RT[:, t : t + 1], torch.full((3, 1), t), None, cache) for t in range(70)], 1)
    error_RT = (mine - wanted).abs().amax(-1) / wanted.abs().amax()
    # A key on the edge between two bf16 numbers may be rounded to either, and is then seen from all later positions.
    assert error_RT.max() < 5e-3
    assert error_RT[:, :5].max() < 1e-4
    assert error_RT.min() < 1e-6


@needs_compiler
@torch.inference_mode()
def test_a_row_is_the_same_to_the_bit_beside_others_and_on_any_number_of_threads() -> None:
    model = model_of()
    step, ids_RT = made(model), random_ids(MOST_ROWS, 20)
    together = step_by_step(step, ids_RT)
    threads = torch.get_num_threads()
    try:
        for number in (1, 2, 3):
            torch.set_num_threads(number)
            for row in (0, MOST_ROWS - 1):
                assert torch.equal(step_by_step(step, ids_RT[row : row + 1])[0], together[row])
    finally:
        torch.set_num_threads(threads)


@needs_compiler
@torch.inference_mode()
def test_a_step_writes_at_its_own_positions_alone() -> None:
    model = model_of()
    step = made(model)
    cache = KVCache(model.settings, 3, CONTEXT, model.tok_embeddings.weight)
    cache.reserve(3, 64)
    cache.k.normal_(generator=torch.Generator().manual_seed(1))
    cache.v.normal_(generator=torch.Generator().manual_seed(2))
    before_k, before_v, position_R = cache.k.clone(), cache.v.clone(), torch.tensor([5, 0, 60])
    cache.begin(position_R, 61)
    step(torch.tensor([7, 8, 9]), position_R, cache)
    for new, old in ((cache.k, before_k), (cache.v, before_v)):
        for row, position in enumerate(position_R.tolist()):
            assert (new[:, row, :, position] != old[:, row, :, position]).any()
            new[:, row, :, position] = old[:, row, :, position]
        assert torch.equal(new, old)


@needs_compiler
def test_the_engine_answers_by_it_whatever_shares_the_batch() -> None:
    engine = Engine(model_of(), max_rows=MOST_ROWS, int8=True)
    assert engine.int8_step is not None
    requests = [Request(random_ids(1, 5 + n)[0].tolist(), 12, temperature=0.8, seed=n) for n in range(20)]
    together = engine.generate(requests)
    for number in (0, 7, 19):
        assert Engine(engine.model, max_rows=1, int8=True).generate([requests[number]])[0] == together[number]


@pytest.fixture
def nothing_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AYNI_CACHE", str(tmp_path))
    int8_step.compiled_library.cache_clear()
    yield
    int8_step.compiled_library.cache_clear()


@pytest.mark.usefixtures("nothing_compiled")
def test_without_a_compiler_the_engine_says_so_and_answers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    engine = Engine(model_of(), int8=True)
    assert engine.int8_step is None
    assert "no C++ compiler" in "".join(capsys.readouterr())
    assert len(list(engine.stream(Request([1, 2, 3], 4)))) == 4


@pytest.mark.usefixtures("nothing_compiled")
def test_a_compiler_that_fails_costs_speed_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "g++"
    broken.write_text("#!/bin/sh\necho it is broken >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setattr(shutil, "which", lambda name: str(broken))
    assert Engine(model_of(), int8=True).int8_step is None
    assert "it is broken" in "".join(capsys.readouterr())
    assert not list((tmp_path / "compiled").iterdir())


def test_a_model_with_a_matrix_in_bf16_is_left_to_torch() -> None:
    assert Int8Step.of(int8_copy(tiny_model(vocab_size=97).bfloat16())) is None
