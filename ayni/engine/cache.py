"""Keys and values of running rows, one slot per row, each token at its true position (no left padding).

Shape letters: L layers, R slots, P prompts, K key/value heads, T tokens of a prompt, S cached positions, d head width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ayni.config import ModelSettings

GROWTH = 64  # positions: the cache grows by half, and by this much at least


class PrefillCache:
    """Keeps what the layers of a prompt's forward pass compute, for `KVCache.place`."""

    def __init__(self) -> None:
        self.layers: list[tuple[Tensor, Tensor]] = []

    def update(self, layer: int, k_PKTd: Tensor, v_PKTd: Tensor) -> tuple[Tensor, Tensor]:
        assert layer == len(self.layers)
        self.layers.append((k_PKTd, v_PKTd))
        return k_PKTd, v_PKTd


@dataclass(frozen=True)
class Prefix:
    """Prefilled prompts: keys and values per layer, and the logits of each prompt's last token."""

    layers: list[tuple[Tensor, Tensor]]
    logits_PV: Tensor

    def of(self, prompt: int) -> Prefix:
        """One prompt alone, in memory of its own."""
        one = slice(prompt, prompt + 1)
        return Prefix([(k[one].clone(), v[one].clone()) for k, v in self.layers], self.logits_PV[one].clone())


class KVCache:
    """k, v [L, R, K, S, d]. Attention reads the first R' running slots and the first S' used positions only."""

    def __init__(self, settings: ModelSettings, max_rows: int, max_len: int, like: Tensor) -> None:
        self.max_rows = max_rows
        self.max_len = max_len
        self.k, self.v = (like.new_zeros(settings.n_layers, 0, settings.n_kv_heads, 0, settings.d_head) for _ in "kv")
        self.row_R = torch.arange(max_rows, device=like.device)
        self.position_R = self.row_R  # set by each `begin`
        self.used = 0  # likewise

    def reserve(self, rows: int, length: int) -> None:
        """Room for slots 0..rows-1 and positions 0..length-1, somewhat more than asked, so that few calls copy.

        New room is zeroed: a masked key's weight is 0, and 0 * NaN would be NaN.
        """
        have_rows, have = self.k.shape[1], self.k.shape[3]
        if rows > have_rows or length > have:
            if rows > have_rows:
                have_rows = min(self.max_rows, max(rows, have_rows + have_rows // 2))
            if length > have:
                have = min(self.max_len, max(length, have + max(have // 2, GROWTH)))
            self._resize(have_rows, have)

    def trim(self, rows: int, length: int) -> None:
        """Gives memory back once the running rows need less than a quarter of it."""
        have_rows, have = self.k.shape[1], self.k.shape[3]
        if 4 * rows * (length + GROWTH) < have_rows * have:
            self._resize(rows, length)

    def _resize(self, rows: int, length: int) -> None:
        add = (0, 0, 0, length - self.k.shape[3], 0, 0, 0, rows - self.k.shape[1])  # negative numbers cut off
        self.k = torch.nn.functional.pad(self.k, add)
        self.v = torch.nn.functional.pad(self.v, add)

    def place(self, slots: slice, prefix: Prefix, parents: Tensor) -> None:
        """Copies prompt parents[i] into slot i: one prefill serves all samples of a request."""
        for layer, (k_PKTd, v_PKTd) in enumerate(prefix.layers):
            T = k_PKTd.shape[2]
            self.k[layer, slots, :, :T] = k_PKTd[parents]
            self.v[layer, slots, :, :T] = v_PKTd[parents]

    def begin(self, position_R: Tensor, used: int) -> None:
        """Before a decoding step: running row r writes at position_R[r], and attention reads positions below `used`."""
        self.reserve(len(position_R), used)
        self.position_R, self.used = position_R, used

    def update(self, layer: int, k_RK1d: Tensor, v_RK1d: Tensor) -> tuple[Tensor, Tensor]:
        running = k_RK1d.shape[0]
        k, v = self.k[layer, :running, :, : self.used], self.v[layer, :running, :, : self.used]
        k[self.row_R[:running], :, self.position_R] = k_RK1d[:, :, 0]
        v[self.row_R[:running], :, self.position_R] = v_RK1d[:, :, 0]
        return k, v

    def move(self, moves: Sequence[tuple[int, int]], used: int) -> None:
        """Rows move between slots; of each, `used` positions hold something."""
        source, target = (torch.tensor(side, device=self.k.device) for side in zip(*moves))
        for tensor in (self.k, self.v):
            tensor[:, target, :, :used] = tensor[:, source, :, :used]
