"""The whole Llama 2 model (paper 2.2) in one file, read from the top: norm, rotation, attention, feed-forward, layer, model.

    h = embed(tokens);  for each layer:  h += attention(norm(h));  h += swiglu(norm(h));  logits = norm(h) @ output

Shape letters: B rows, T tokens of a row now (queries), S keys a query may see, D width, F feed-forward width,
H query heads, K key/value heads, d width of a head, V vocabulary, N chosen positions of the flattened B*T.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, cast

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ayni.config import ModelSettings

Remember = Callable[
    [Tensor, Tensor], tuple[Tensor, Tensor]
]  # one layer's side of a Cache: new keys and values in, all out
Head = Callable[[Tensor, Tensor], Any]  # (h_ND, weight_VD) -> what stands in place of the logits
QUERY_BLOCK = 128  # queries of a block, on the way back through `fused_attention`


class Cache(Protocol):
    """Keys and values of earlier tokens: stores the new ones of a layer, returns all that this step may look at."""

    def update(self, layer: int, k_BKTd: Tensor, v_BKTd: Tensor) -> tuple[Tensor, Tensor]: ...


class RMSNorm(nn.Module):
    """y = x / sqrt(mean(x^2) + eps) * weight, statistics in fp32 whatever the working type."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x_BTD: Tensor) -> Tensor:
        wide = x_BTD.float()
        scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        return (wide * scale).to(x_BTD.dtype) * self.weight


def rope_frequencies(settings: ModelSettings) -> Tensor:
    """theta^(-2i/d), i < d/2: the angle that each pair of dimensions turns by per position, scaled as the checkpoint asks."""
    d = settings.d_head
    frequency_d = settings.rope_theta ** -(torch.arange(0, d, 2, dtype=torch.int64, device="cpu").float() / d)
    scaling = settings.rope_scaling
    if scaling is None or scaling.kind == "dynamic":
        return frequency_d
    if scaling.kind == "linear":
        return frequency_d / scaling.factor
    turns_d = scaling.original_max_seq_len * frequency_d / (2 * math.pi)  # in the original context
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    keep_d = ((turns_d - low) / (high - low)).clamp(0, 1)  # 0: slow, stretched; 1: fast, left as it is
    return frequency_d * (keep_d + (1 - keep_d) / scaling.factor)


def cos_and_sin(angle: Tensor) -> tuple[Tensor, Tensor]:
    """cos and sin of [..., d/2] angles, written twice (Hugging Face's halved layout): [..., d].

    The first half of sin is negated, so that a rotation is x * cos + swap_halves(x) * sin.
    """
    cos, sin = angle.cos(), angle.sin()
    return torch.cat([cos, cos], -1), torch.cat([-sin, sin], -1)


def rope_tables(settings: ModelSettings) -> tuple[Tensor, Tensor]:
    """cos and sin at every position of the context: [max_seq_len, d]."""
    position_T = torch.arange(settings.max_seq_len, device="cpu").float()
    return cos_and_sin(torch.outer(position_T, rope_frequencies(settings)))


def dynamic_rope(settings: ModelSettings, positions_BT: Int[Tensor, "B T"]) -> tuple[Tensor, Tensor]:
    """Dynamic NTK scaling: theta * (factor * L / L0 - factor + 1)^(d / (d - 2)), L the row's length now, L0 the original.

    L is the row's largest position here + 1, so that keys cached earlier keep the angle of their time, as in transformers.
    """
    scaling, d = settings.rope_scaling, settings.d_head
    assert scaling is not None
    length_B = (positions_BT.amax(1) + 1).clamp(min=scaling.original_max_seq_len).float()
    growth_B = scaling.factor * length_B / scaling.original_max_seq_len - scaling.factor + 1
    theta_B = settings.rope_theta * growth_B ** (d / (d - 2))
    exponent_d = torch.arange(0, d, 2, dtype=torch.int64, device=positions_BT.device).float() / d
    frequency_Bd = theta_B.unsqueeze(1) ** -exponent_d
    return cos_and_sin(positions_BT.unsqueeze(2).float() * frequency_Bd.unsqueeze(1))


def rotate(x_BTHd: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """RoPE: pairs (i, i + d/2) turned by the position's angle; cos and sin broadcast over the heads."""
    return x_BTHd * cos + x_BTHd.roll(x_BTHd.shape[-1] // 2, -1) * sin


@dataclass(frozen=True)
class Spans:
    """Sequences that lie side by side in rows, told by where they lie instead of by a mask: no work across them.

    `sizes` cut the flattened B*T tokens, from left to right, into sequences and the padding between; `real` says which.
    """

    sizes: list[int]
    real: list[bool]

    def attention(self, q_BTHd: Tensor, k_BTKd: Tensor, v_BTKd: Tensor) -> Tensor:
        """Causal attention within each sequence: [B, T, H, d]; zero at padding."""
        B, T, H, d = q_BTHd.shape
        cut = (x.flatten(0, 1).transpose(0, 1).unsqueeze(0).split(self.sizes, 2) for x in (q_BTHd, k_BTKd, v_BTKd))
        gqa = k_BTKd.shape[2] != H
        out = [
            F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=gqa) if real else torch.zeros_like(q)
            for q, k, v, real in zip(*cut, self.real)
        ]
        return torch.cat(out, 2)[0].transpose(0, 1).view(B, T, H, d)


Mask = Tensor | Spans | None  # of a layer: [B, 1, T, S] bool, or where the sequences lie, or plainly causal


class Attention(nn.Module):
    """Grouped-query attention (paper 2.2): H query heads share K key/value heads; K = H is multi-head, K = 1 multi-query."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        self.d = settings.d_head
        self.wq = nn.Linear(settings.dim, settings.n_heads * self.d, bias=False)
        self.wk = nn.Linear(settings.dim, settings.n_kv_heads * self.d, bias=False)
        self.wv = nn.Linear(settings.dim, settings.n_kv_heads * self.d, bias=False)
        self.wo = nn.Linear(settings.n_heads * self.d, settings.dim, bias=False)

    def project(self, x_BTD: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(q_BTHd, k_BTKd, v_BTKd), queries and keys turned by their positions."""
        B, T, _ = x_BTD.shape
        q_BTHd = rotate(self.wq(x_BTD).view(B, T, -1, self.d), cos, sin)
        k_BTKd = rotate(self.wk(x_BTD).view(B, T, -1, self.d), cos, sin)
        return q_BTHd, k_BTKd, self.wv(x_BTD).view(B, T, -1, self.d)

    def attend(
        self, q_BTHd: Tensor, k_BTKd: Tensor, v_BTKd: Tensor, mask_B1TS: Mask, remember: Remember | None = None
    ) -> Tensor:
        """What every query makes of the values that it sees, heads side by side: [B, T, H*d]."""
        B, T = q_BTHd.shape[:2]
        if isinstance(mask_B1TS, Spans):
            return mask_B1TS.attention(q_BTHd, k_BTKd, v_BTKd).reshape(B, T, -1)
        q_BHTd, k_BKSd, v_BKSd = (x.transpose(1, 2) for x in (q_BTHd, k_BTKd, v_BTKd))
        if remember is None and torch.compiler.is_compiling() and q_BTHd.device.type == "cpu":
            out_BHTd = fused_attention(q_BHTd, k_BKSd, v_BKSd, mask_B1TS)
            return out_BHTd.transpose(1, 2).reshape(B, T, -1)
        if remember is not None:
            k_BKSd, v_BKSd = remember(k_BKSd, v_BKSd)
        if remember is not None and T == 1:
            # One new token: the heads that share a key head are its queries. No repeated keys, a quarter less time.
            q_BHTd = q_BHTd.view(B, k_BKSd.shape[1], -1, self.d)
        out_BHTd = F.scaled_dot_product_attention(
            q_BHTd,
            k_BKSd,
            v_BKSd,
            attn_mask=mask_B1TS,
            is_causal=mask_B1TS is None and remember is None,
            enable_gqa=q_BHTd.shape[1] != k_BKSd.shape[1],
        )
        out_BHTd = out_BHTd.reshape(B, -1, T, self.d)
        return out_BHTd.transpose(1, 2).reshape(B, T, -1)


def fused_attention(q_BHTd: Tensor, k_BKTd: Tensor, v_BKTd: Tensor, mask_B1TT: Tensor | None) -> Tensor:
    """softmax(q k^T / sqrt(d) + mask) v for compiled layers on CPUs; mask None: causal.

    Torch's flash kernel goes forward, fused loops between matrix products go back: each the faster way (LOG.md).
    """
    return cast(Tensor, _FusedAttention.apply(q_BHTd, k_BKTd, v_BKTd, mask_B1TT))


class _FusedAttention(torch.autograd.Function):
    """The way back goes over blocks of queries, each with the keys up to its own end, for heads that share keys together:

        p = exp(q k^T / sqrt(d) - lse),    ds = p (do v^T - do . o)
        dq = ds k / sqrt(d),    dk = ds^T q / sqrt(d),    dv = p^T do

    Between the two lies nothing of T^2 numbers: lse_BHT, the logarithm of each row's sum, gives p anew.
    """

    @staticmethod
    def forward(ctx: Any, q_BHTd: Tensor, k_BKTd: Tensor, v_BKTd: Tensor, mask_B1TT: Tensor | None) -> Tensor:
        flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        if mask_B1TT is None:
            o_BHTd, lse_BHT = flash(q_BHTd, k_BKTd, v_BKTd, 0.0, True)
        else:
            hidden_B1TT = torch.zeros_like(mask_B1TT, dtype=q_BHTd.dtype).masked_fill(~mask_B1TT, -torch.inf)
            o_BHTd, lse_BHT = flash(q_BHTd, k_BKTd, v_BKTd, 0.0, False, attn_mask=hidden_B1TT)
        ctx.save_for_backward(q_BHTd, k_BKTd, v_BKTd, mask_B1TT, o_BHTd, lse_BHT)
        return o_BHTd

    @staticmethod
    def backward(ctx: Any, do_BHTd: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        q_BHTd, k_BKTd, v_BKTd, mask_B1TT, o_BHTd, lse_BHT = ctx.saved_tensors
        (B, H, T, d), K, dtype, wide = q_BHTd.shape, k_BKTd.shape[1], q_BHTd.dtype, torch.float32
        inner_BHT1 = (do_BHTd.float() * o_BHTd.float()).sum(-1, keepdim=True)
        lse_BHT1 = lse_BHT.reshape(B, H, T, 1)
        k_bTd, v_bTd = k_BKTd.reshape(B * K, T, d), v_BKTd.reshape(B * K, T, d)
        q_bgTd, do_bgTd = (x.reshape(B * K, H // K, T, d) for x in (q_BHTd * d**-0.5, do_BHTd))
        here_T = torch.arange(T, device=q_BHTd.device)
        dq, dk_bTd, dv_bTd = [], torch.zeros_like(k_bTd, dtype=wide), torch.zeros_like(v_bTd, dtype=wide)
        for start in range(0, T, QUERY_BLOCK):
            end = min(T, start + QUERY_BLOCK)
            now = slice(start, end)
            q_bQd, do_bQd = (
                x_bgTd[:, :, now].reshape(B * K, -1, d) for x_bgTd in (q_bgTd, do_bgTd)
            )  # Q: of all g heads
            if mask_B1TT is None:
                seen_QS = here_T[:end] <= here_T[now, None]
            else:
                seen_QS = mask_B1TT[:, :, now, :end]
            score_BHQS = torch.bmm(q_bQd, k_bTd[:, :end].transpose(1, 2)).view(B, H, -1, end).float()
            p_BHQS = torch.where(seen_QS, torch.exp(score_BHQS - lse_BHT1[:, :, now]), 0.0)
            dp_BHQS = torch.bmm(do_bQd, v_bTd[:, :end].transpose(1, 2)).view(B, H, -1, end).float()
            ds_bQS = (p_BHQS * (dp_BHQS - inner_BHT1[:, :, now])).to(dtype).view(B * K, -1, end)
            p_bQS = p_BHQS.to(dtype).view(B * K, -1, end)
            dq.append((torch.bmm(ds_bQS, k_bTd[:, :end]) * d**-0.5).view(B, H, -1, d))
            rest = (0, 0, 0, T - end)
            dk_bTd = dk_bTd + F.pad(torch.bmm(ds_bQS.transpose(1, 2), q_bQd), rest)
            dv_bTd = dv_bTd + F.pad(torch.bmm(p_bQS.transpose(1, 2), do_bQd), rest)
        dk_BKTd, dv_BKTd = (x_bTd.to(dtype).view(B, K, T, d) for x_bTd in (dk_bTd, dv_bTd))
        return torch.cat(dq, 2), dk_BKTd, dv_BKTd, None


class FeedForward(nn.Module):
    """SwiGLU: w2(silu(w1 x) * w3 x)."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        self.w1 = nn.Linear(settings.dim, settings.ffn_dim, bias=False)
        self.w2 = nn.Linear(settings.ffn_dim, settings.dim, bias=False)
        self.w3 = nn.Linear(settings.dim, settings.ffn_dim, bias=False)

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.w2(F.silu(self.w1(x_BTD)) * self.w3(x_BTD))


class Layer(nn.Module):
    """Pre-norm residual block; the unit that FSDP2 shards and gathers."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(settings.dim, settings.norm_eps)
        self.attention = Attention(settings)
        self.ffn_norm = RMSNorm(settings.dim, settings.norm_eps)
        self.feed_forward = FeedForward(settings)

    def forward(
        self, x_BTD: Tensor, cos: Tensor, sin: Tensor, mask_B1TS: Mask, remember: Remember | None = None
    ) -> Tensor:
        q_BTHd, k_BTKd, v_BTKd = self.before_attention(x_BTD, cos, sin)
        return self.after_attention(x_BTD, self.attention.attend(q_BTHd, k_BTKd, v_BTKd, mask_B1TS, remember))

    def before_attention(self, x_BTD: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(q_BTHd, k_BTKd, v_BTKd) of the normed residual stream."""
        return self.attention.project(self.attention_norm(x_BTD), cos, sin)

    def after_attention(self, x_BTD: Tensor, seen_BTD: Tensor) -> Tensor:
        """The residual stream with what attention saw added, then SwiGLU's part."""
        x_BTD = x_BTD + self.attention.wo(seen_BTD)
        return x_BTD + self.feed_forward(self.ffn_norm(x_BTD))


class Transformer(nn.Module):
    """The language model. `lm_head=False` leaves `.output` out (None): the body of a scalar head."""

    cos: Tensor
    sin: Tensor

    def __init__(self, settings: ModelSettings, lm_head: bool = True) -> None:
        super().__init__()
        self.settings = settings
        self.compiled_layer: Callable[..., Tensor] | None = None  # takes Layer.forward's place without a cache
        self.checkpoint_activations = (
            False  # True: keep each layer's input only, and compute the layer again going back
        )
        self.tok_embeddings = nn.Embedding(settings.vocab_size, settings.dim)
        self.layers = nn.ModuleList(Layer(settings) for _ in range(settings.n_layers))
        self.norm = RMSNorm(settings.dim, settings.norm_eps)
        self.output = nn.Linear(settings.dim, settings.vocab_size, bias=False) if lm_head else None
        self.finish()

    def finish(self) -> None:
        """What no checkpoint stores: the tie between input and output weights, and the RoPE tables."""
        if self.output is not None and self.settings.tie_embeddings:
            self.output.weight = self.tok_embeddings.weight
        device = self.tok_embeddings.weight.device
        if device.type == "meta":  # no storage yet; `finish` is called again once there is
            return
        cos, sin = rope_tables(self.settings)
        self.register_buffer("cos", cos.to(device), persistent=False)
        self.register_buffer("sin", sin.to(device), persistent=False)

    def rotation(self, positions_BT: Tensor | None, T: int) -> tuple[Tensor, Tensor]:
        """cos and sin for the tokens at hand, with an axis of 1 for the heads."""
        scaling = self.settings.rope_scaling
        if scaling is not None and scaling.kind == "dynamic":
            if positions_BT is None:
                positions_BT = torch.arange(T, device=self.cos.device).unsqueeze(0)
            cos, sin = dynamic_rope(self.settings, positions_BT)
            return cos.unsqueeze(2), sin.unsqueeze(2)
        if positions_BT is None:
            return self.cos[:T, None], self.sin[:T, None]
        return self.cos[positions_BT].unsqueeze(2), self.sin[positions_BT].unsqueeze(2)

    def forward(
        self,
        tokens_BT: Int[Tensor, "B T"],
        positions_BT: Int[Tensor, "B T"] | None = None,
        mask_BTS: Bool[Tensor, "B T S"] | Spans | None = None,
        cache: Cache | None = None,
        keep_N: Int[Tensor, " N"] | None = None,
        head: bool | Head = True,
    ) -> Tensor:
        """logits_BTV, or with `head=False` the normed h_BTD; with `keep_N` only those of the flattened B*T positions.

        A function as `head` is given the normed h and the output weights: a loss that never holds all logits.

        positions None: 0..T-1. mask None: causal; else True = query t may attend to key s, or where sequences lie.
        With a cache give the mask over the keys it returns, or none when T == 1 and all returned keys are visible.
        """
        T = tokens_BT.shape[1]
        h_BTD = self.tok_embeddings(tokens_BT)
        if positions_BT is None:
            assert self.settings.max_seq_len >= T, f"{T} tokens exceed max_seq_len {self.settings.max_seq_len}"
        cos, sin = self.rotation(positions_BT, T)
        assert cache is None or mask_BTS is not None or T == 1, "several new tokens over a cache need a mask"
        cos, sin = cos.to(h_BTD.dtype), sin.to(h_BTD.dtype)
        mask_B1TS = mask_BTS.unsqueeze(1) if isinstance(mask_BTS, Tensor) else mask_BTS
        for index, layer in enumerate(self.layers):
            if cache is not None:
                h_BTD = layer(h_BTD, cos, sin, mask_B1TS, partial(cache.update, index))
            else:
                run = layer if self.compiled_layer is None else partial(self.compiled_layer, layer)
                if self.checkpoint_activations and torch.is_grad_enabled():
                    h_BTD = checkpoint(run, h_BTD, cos, sin, mask_B1TS, use_reentrant=False)
                else:
                    h_BTD = run(h_BTD, cos, sin, mask_B1TS)
        h = h_BTD if keep_N is None else h_BTD.flatten(0, 1)[keep_N]
        h = self.norm(h)
        if head is False:
            return h
        assert self.output is not None, "this body was built without a language-model head"
        return self.output(h) if head is True else head(h, self.output.weight)


def block_causal_mask(segments_BT: Int[Tensor, "B T"]) -> Bool[Tensor, "B T T"]:
    """Packing's mask (our choice; paper silent): causal inside a segment, nothing across segments.

    Segment 0 is padding: it attends to itself alone, so that its softmax stays finite.
    """
    T = segments_BT.shape[1]
    here = torch.arange(T, device=segments_BT.device)
    same = segments_BT.unsqueeze(2) == segments_BT.unsqueeze(1)
    real = (segments_BT != 0).unsqueeze(2)
    return (same & real & (here.unsqueeze(0) <= here.unsqueeze(1))) | (here.unsqueeze(0) == here.unsqueeze(1))


@torch.no_grad()
def init_weights(model: nn.Module, seed: int, std: float = 0.02) -> None:
    """Start values (paper silent; GPT-2's rule, as most practitioners use it), in fp32, from `seed` alone.

    | weight                                  | start                              |
    | --------------------------------------- | ---------------------------------- |
    | tok_embeddings, output                  | normal(0, std)                     |
    | wq, wk, wv, w1, w3                      | normal(0, std)                     |
    | wo, w2 (they write to the residual sum) | normal(0, std / sqrt(2 * n_layers))|
    | norms                                   | 1                                  |
    | score (ScalarHead)                      | 0                                  |
    """
    generator = torch.Generator().manual_seed(seed)
    n_layers = sum(isinstance(module, Layer) for module in model.modules())
    for name, weight in model.named_parameters():  # a tied weight comes once, under its embedding's name
        if name.endswith("norm.weight"):
            weight.fill_(1.0)
        elif name == "score.weight":
            weight.zero_()
        else:
            writes_residual = name.endswith((".wo.weight", ".w2.weight"))
            scale = std / math.sqrt(2 * n_layers) if writes_residual else std
            weight.copy_(torch.randn(weight.shape, generator=generator) * scale)
