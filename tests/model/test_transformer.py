from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ayni.config import PRESETS, ModelSettings
from ayni.model import ScalarHead, Transformer, block_causal_mask, init_weights
from ayni.model.transformer import rope_tables, rotate

from .small import language_model, relative_error, scalar_model, settings, tokens

ROWS = [tokens(1, n, seed=n)[0] for n in (5, 9, 1, 13)]


def test_attention_and_feed_forward_by_naive_loops() -> None:
    """The whole forward pass again, one token, one head at a time."""
    model = language_model(n_kv_heads=2)
    sequence = ROWS[1]
    d, group = 12, 2
    angle = torch.outer(torch.arange(9.0), 10_000.0 ** (-2 * torch.arange(d // 2).float() / d))

    def norm(x: Tensor, weight: Tensor) -> Tensor:
        return x / math.sqrt(float((x * x).mean()) + 1e-5) * weight

    def turn(x: Tensor, t: int) -> Tensor:
        y = x.clone()
        for i in range(d // 2):
            cos, sin = math.cos(angle[t, i]), math.sin(angle[t, i])
            y[i], y[i + d // 2] = x[i] * cos - x[i + d // 2] * sin, x[i + d // 2] * cos + x[i] * sin
        return y

    with torch.no_grad():
        h = [model.tok_embeddings.weight[i] for i in sequence]
        for layer in model.layers:
            x = [norm(v, layer.attention_norm.weight) for v in h]
            a = layer.attention
            out = []
            for t in range(len(h)):
                heads = []
                for head in range(4):
                    rows, kv = slice(head * d, head * d + d), slice(head // group * d, head // group * d + d)
                    q = turn(a.wq.weight[rows] @ x[t], t)
                    scores = torch.stack([q @ turn(a.wk.weight[kv] @ x[s], s) / math.sqrt(d) for s in range(t + 1)])
                    share = scores.softmax(0)
                    heads.append(sum(share[s] * (a.wv.weight[kv] @ x[s]) for s in range(t + 1)))
                out.append(a.wo.weight @ torch.cat(heads))
            h = [v + o for v, o in zip(h, out)]
            f = layer.feed_forward
            x = [norm(v, layer.ffn_norm.weight) for v in h]
            h = [v + f.w2.weight @ (F.silu(f.w1.weight @ y) * (f.w3.weight @ y)) for v, y in zip(h, x)]
        wanted = torch.stack([model.output.weight @ norm(v, model.norm.weight) for v in h])
        assert relative_error(model(sequence[None])[0], wanted) < 1e-5


@pytest.mark.parametrize("n_kv_heads", [1, 2, 4])
def test_trap_11_packed_equals_alone_equals_padded(n_kv_heads: int) -> None:
    model = language_model(n_kv_heads)
    length = 16
    padded = torch.stack([F.pad(row, (0, length - len(row)), value=3) for row in ROWS])
    packed = torch.cat([*ROWS, torch.full((4,), 3)])[None]
    segments = torch.cat([*(torch.full((len(row),), i + 1) for i, row in enumerate(ROWS)), torch.zeros(4)]).long()[None]
    positions = torch.cat([*(torch.arange(len(row)) for row in ROWS), torch.arange(4)])[None]
    with torch.no_grad():
        in_padded = model(padded)
        in_packed = model(packed, positions, block_causal_mask(segments))[0]
        start = 0
        for index, row in enumerate(ROWS):
            alone = model(row[None])[0]
            assert relative_error(in_padded[index, : len(row)], alone) < 1e-5
            assert relative_error(in_packed[start : start + len(row)], alone) < 1e-5
            start += len(row)
    assert in_packed.isfinite().all()


def test_trap_11_scores_packed_equal_alone() -> None:
    model = scalar_model()
    packed = torch.cat(ROWS)[None]
    segments = torch.cat([torch.full((len(row),), i + 1) for i, row in enumerate(ROWS)])[None]
    positions = torch.cat([torch.arange(len(row)) for row in ROWS])[None]
    ends = torch.tensor([len(row) for row in ROWS]).cumsum(0) - 1
    with torch.no_grad():
        found = model(packed, positions, block_causal_mask(segments), keep_N=ends)
        alone = torch.stack([model(row[None])[0, -1] for row in ROWS])
    assert relative_error(found, alone) < 1e-5


def test_block_causal_mask_by_definition() -> None:
    segments = torch.tensor([[1, 1, 2, 2, 2, 0, 0], [1, 2, 3, 0, 0, 0, 0]])
    mask = block_causal_mask(segments)
    for b in range(2):
        for t in range(7):
            for s in range(7):
                real = segments[b, t] != 0 and segments[b, t] == segments[b, s] and s <= t
                assert mask[b, t, s] == (real or s == t)


class NaiveCache:
    def __init__(self) -> None:
        self.kept: dict[int, tuple[Tensor, Tensor]] = {}

    def update(self, layer: int, k_BKTd: Tensor, v_BKTd: Tensor) -> tuple[Tensor, Tensor]:
        if layer in self.kept:
            k_BKTd, v_BKTd = (torch.cat([old, new], 2) for old, new in zip(self.kept[layer], (k_BKTd, v_BKTd)))
        self.kept[layer] = (k_BKTd, v_BKTd)
        return self.kept[layer]


@pytest.mark.parametrize("n_kv_heads", [1, 2, 4])
@pytest.mark.parametrize("masked", [False, True])
def test_cached_steps_equal_the_full_pass(n_kv_heads: int, masked: bool) -> None:
    model = language_model(n_kv_heads)
    x = tokens(3, 12)
    cache = NaiveCache()
    with torch.no_grad():
        full = model(x)
        prefill = torch.ones(7, 7).tril().bool().expand(3, 7, 7)
        steps = [model(x[:, :7], torch.arange(7).expand(3, 7), prefill, cache)]
        for t in range(7, 12):
            mask = torch.ones(3, 1, t + 1, dtype=torch.bool) if masked else None
            steps.append(model(x[:, t : t + 1], torch.full((3, 1), t), mask, cache))
    assert relative_error(torch.cat(steps, 1), full) < 1e-5


def test_keep_and_head_choose_from_the_full_result() -> None:
    model = language_model()
    x, keep = tokens(2, 6), torch.tensor([11, 0, 7])
    with torch.no_grad():
        full, hidden = model(x), model(x, head=False)
        assert torch.allclose(model(x, keep_N=keep), full.flatten(0, 1)[keep], atol=1e-5)
        assert torch.allclose(model(x, keep_N=keep, head=False), hidden.flatten(0, 1)[keep], atol=1e-6)
        assert torch.allclose(hidden @ model.output.weight.T, full, atol=1e-5)


def test_trap_15_halved_rows_score_as_metas_interleaved_rows() -> None:
    """Meta turns neighbours (2i, 2i+1) as complex numbers; with rows (2i, 2i+1) moved to (i, i+d/2) scores are the same."""
    d, T = 8, 10
    generator = torch.Generator().manual_seed(0)
    q, k = (torch.randn(T, d, generator=generator, dtype=torch.float64) for _ in range(2))
    turns = torch.outer(torch.arange(T).double(), 10_000.0 ** (-torch.arange(0, d, 2).double() / d))
    meta_q, meta_k = (
        torch.view_as_complex(x.view(T, d // 2, 2)) * torch.polar(torch.ones_like(turns), turns) for x in (q, k)
    )
    wanted = (meta_q @ meta_k.conj().T).real
    halved = [2 * i for i in range(d // 2)] + [2 * i + 1 for i in range(d // 2)]
    cos, sin = (
        table[:, None].double() for table in rope_tables(ModelSettings(dim=d, n_heads=1, n_kv_heads=1, max_seq_len=T))
    )
    ours_q, ours_k = (rotate(x[:, halved].view(1, T, 1, d), cos, sin).view(T, d) for x in (q, k))
    assert relative_error(ours_q @ ours_k.T, wanted) < 1e-6


def test_init_is_the_table_in_its_docstring() -> None:
    model = Transformer(PRESETS["tiny"])
    init_weights(model, seed=0)
    layer = model.layers[0]
    assert model.output.weight is model.tok_embeddings.weight
    for weight, std in [
        (model.tok_embeddings.weight, 0.02),
        (layer.attention.wq.weight, 0.02),
        (layer.feed_forward.w3.weight, 0.02),
        (layer.attention.wo.weight, 0.02 / math.sqrt(8)),
        (layer.feed_forward.w2.weight, 0.02 / math.sqrt(8)),
    ]:
        assert weight.std().item() == pytest.approx(std, rel=0.03)
    assert all((norm.weight == 1).all() for norm in (model.norm, layer.attention_norm, layer.ffn_norm))
    again, other = Transformer(PRESETS["tiny"]), Transformer(PRESETS["tiny"])
    init_weights(again, seed=0)
    init_weights(other, seed=1)
    assert torch.equal(again.layers[3].attention.wk.weight, model.layers[3].attention.wk.weight)
    assert not torch.equal(other.layers[3].attention.wk.weight, model.layers[3].attention.wk.weight)
    x, targets = torch.randint(2048, (2, 4, 32), generator=torch.Generator().manual_seed(0))
    assert F.cross_entropy(model(x).flatten(0, 1), targets.flatten()).item() == pytest.approx(math.log(2048), rel=0.02)


def test_scalar_head_copies_the_body_and_starts_at_zero() -> None:
    model = language_model(tied=True)
    head = ScalarHead.from_language_model(model)
    x = tokens(2, 5)
    with torch.no_grad():
        assert torch.equal(head.body(x, head=False), model(x, head=False))
        assert (head(x) == 0).all()
        head.body.tok_embeddings.weight.zero_()
    assert model.tok_embeddings.weight.abs().sum() > 0
    assert not any("output" in name for name, _ in head.named_parameters())


def test_scalar_head_is_a_dot_product_at_every_position() -> None:
    model = scalar_model()
    x = tokens(2, 5)
    with torch.no_grad():
        wanted = (model.body(x, head=False) * model.score.weight[0]).sum(-1)
        assert torch.allclose(model(x), wanted, atol=1e-4)


def test_statistics_of_the_norm_are_fp32_in_a_bf16_model() -> None:
    norm = language_model().layers[0].attention_norm.to(torch.bfloat16)
    x = torch.randn(4, 48, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    wanted = x.double() / (x.double().square().mean(-1, keepdim=True) + 1e-5).sqrt() * norm.weight.double()
    assert norm(x).dtype == torch.bfloat16
    assert torch.allclose(norm(x).double(), wanted, rtol=2**-7)


def test_no_gradient_crosses_segments() -> None:
    model = language_model()
    segments = torch.tensor([[1, 1, 1, 2, 2, 0]])
    embedded: list[Tensor] = []
    model.tok_embeddings.register_forward_hook(lambda m, i, out: (out.retain_grad(), embedded.append(out))[0])
    model(tokens(1, 6), torch.tensor([[0, 1, 2, 0, 1, 0]]), block_causal_mask(segments))[0, 4].sum().backward()
    reached = embedded[0].grad[0].abs().sum(-1) > 0
    assert reached.tolist() == [False, False, False, True, True, False]


def test_settings_object_is_kept() -> None:
    assert Transformer(settings(1)).settings == ScalarHead(settings(1)).settings
