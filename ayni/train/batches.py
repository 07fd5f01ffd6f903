"""Where batches come from: packed rows for SFT, reward models and PPO; plain concatenation for pretraining.

A source of batches has `at(step)`, a pure function of (seed, step): the data position *is* the step, so resuming needs
no state and every rank can slice the same global batch. A batch is anything with `len()` and slices: a tensor of rows,
`Packed` rows, or a list of samples that the loss function packs itself.

Shape letters: R rows, T tokens of a row, N chosen positions of the flattened R*T, B sequences, L answer tokens.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import torch
from torch import Tensor

from ayni.model.transformer import Spans, block_causal_mask
from ayni.text.documents import token_type

APART = 96  # mean tokens of a sequence from which attention goes sequence by sequence

# ---- packed rows ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Packed:
    """Whole sequences laid side by side in rows, each with positions from 0 and a segment of its own (0: padding).

    A position is padding because its segment says so, never because of its token id. `loss_RT` marks tokens that are
    predicted: the first of a sequence never is, for nothing comes before it.
    """

    tokens_RT: Tensor
    positions_RT: Tensor
    segments_RT: Tensor
    loss_RT: Tensor
    where: list[tuple[int, int, int]]  # (row, start, length) of each sequence, in input order

    def __len__(self) -> int:
        return self.tokens_RT.shape[0]

    def __getitem__(self, rows: slice) -> Packed:
        first, last, _ = rows.indices(len(self))
        return Packed(
            self.tokens_RT[rows],
            self.positions_RT[rows],
            self.segments_RT[rows],
            self.loss_RT[rows],
            [(row - first, start, length) for row, start, length in self.where if first <= row < last],
        )

    def to(self, device: torch.device) -> Packed:
        if self.tokens_RT.device == device:
            return self
        return Packed(
            self.tokens_RT.to(device),
            self.positions_RT.to(device),
            self.segments_RT.to(device),
            self.loss_RT.to(device),
            self.where,
        )

    @property
    def mask_RTT(self) -> Tensor | None:
        """Block-causal mask; None where plain causal attention is the same, one sequence at the start of each row."""
        if all(start == 0 for _, start, _ in self.where):
            return None
        return block_causal_mask(self.segments_RT)

    def attention(self, weight: Tensor) -> Tensor | Spans | None:
        """What the eager forward pass of a model with such weights is told: the mask, or where the sequences lie.

        Longer sequences repay a call of the attention kernel each. In bf16 all have one, so that to the bit a sequence's
        result does not depend on where in a row it lies, or beside which others (TRAPS 2 and 11).
        """
        apart = weight.dtype == torch.bfloat16 or sum(n for *_, n in self.where) >= APART * len(self.where)
        return self.spans if apart else self.mask_RTT

    @property
    def spans(self) -> Spans:
        T, at = self.tokens_RT.shape[1], 0
        sizes, real = [], []
        for row, start, length in [*sorted(self.where), (len(self), 0, 0)]:
            for size, is_real in ((row * T + start - at, False), (length, True)):
                if size:
                    sizes.append(size)
                    real.append(is_real)
            at = row * T + start + length
        return Spans(sizes, real)

    @property
    def ends_N(self) -> Tensor:
        """Flat index of each sequence's last token, in input order: where a reward model scores."""
        T = self.tokens_RT.shape[1]
        flat = [row * T + start + length - 1 for row, start, length in self.where]
        return torch.tensor(flat, device=self.tokens_RT.device)

    @cached_property
    def predict_N(self) -> Tensor:
        """Flat index of the positions whose logits predict a loss token: `keep_N` of the forward pass."""
        return self.loss_RT.flatten().nonzero().squeeze(1) - 1

    @property
    def targets_N(self) -> Tensor:
        """The loss tokens themselves, in the order of `predict_N`."""
        return self.tokens_RT.flatten()[self.predict_N + 1]

    def grid(self) -> tuple[Tensor, Tensor]:
        """(index_BL, mask_BL): which of the N loss tokens is the l-th of sequence b, so that x_N[index_BL] is [B, L].

        Rows are left-aligned and in input order; index is 0 where the mask is False. The way back is
        `x_N[index_BL[mask_BL]] = x_BL[mask_BL]`.
        """
        loss = self.loss_RT.flatten()
        rank = torch.cumsum(loss, 0) - 1  # position among the N, for those that are in it
        T = self.tokens_RT.shape[1]
        spans = [slice(row * T + start, row * T + start + length) for row, start, length in self.where]
        per_sequence = [rank[span][loss[span]] for span in spans]
        index_BL = torch.nn.utils.rnn.pad_sequence(per_sequence, batch_first=True)
        lengths_B = torch.tensor([len(index) for index in per_sequence], device=loss.device)
        columns_L = torch.arange(index_BL.shape[1], device=loss.device)
        return index_BL, columns_L < lengths_B.unsqueeze(1)


def plan_rows(lengths: Sequence[int], row_len: int) -> list[list[int]]:
    """Which sequences share a row: each goes, in order, into the fullest row that still has room, else a new one."""
    rows: list[list[int]] = []
    open_rows: list[tuple[int, int]] = []  # (free tokens, row), sorted
    for index, length in enumerate(lengths):
        found = bisect.bisect_left(open_rows, (length, -1))
        free, row = open_rows.pop(found) if found < len(open_rows) else (row_len, len(rows))
        if row == len(rows):
            rows.append([])
        rows[row].append(index)
        if free > length:
            bisect.insort(open_rows, (free - length, row))
    return rows


def pack(
    sequences: Sequence[Sequence[int]],
    row_len: int,
    pad_id: int,
    loss_masks: Sequence[Sequence[bool]] | None = None,
    truncate: Literal["left", "right"] | None = None,
) -> Packed:
    """Lay sequences into rows of at most `row_len` tokens without splitting any; rows end where the longest one ends.

    `loss_masks` None: every token but the first is predicted. A sequence longer than a row is refused, or cut at its
    left or right end when `truncate` says which.
    """
    sequences, loss_masks = _fitted(sequences, loss_masks, row_len, truncate)
    return _lay(sequences, loss_masks, plan_rows([len(ids) for ids in sequences], row_len), pad_id)


def _fitted(
    sequences: Sequence[Sequence[int]],
    loss_masks: Sequence[Sequence[bool]] | None,
    row_len: int,
    truncate: Literal["left", "right"] | None,
) -> tuple[Sequence[Sequence[int]], Sequence[Sequence[bool]] | None]:
    if not sequences:
        raise ValueError("nothing to pack: no sequences were given")
    longest = max(len(ids) for ids in sequences)
    if longest > row_len:
        if truncate is None:
            index = next(i for i, ids in enumerate(sequences) if len(ids) > row_len)
            raise ValueError(
                f"sequence {index} has {len(sequences[index])} tokens and rows hold {row_len}; "
                "use longer rows, drop it, or say which end to cut"
            )
        cut = slice(-row_len, None) if truncate == "left" else slice(row_len)
        sequences = [ids[cut] for ids in sequences]
        loss_masks = loss_masks and [mask[cut] for mask in loss_masks]
    for index, ids in enumerate(sequences):
        if not ids:
            raise ValueError(f"sequence {index} is empty")
        if loss_masks is not None:
            assert len(loss_masks[index]) == len(ids), "one mask entry per token"
            if not any(loss_masks[index][1:]):
                raise ValueError(f"sequence {index} has no token to learn from: its loss mask is False throughout")
    return sequences, loss_masks


def _lay(
    sequences: Sequence[Sequence[int]],
    loss_masks: Sequence[Sequence[bool]] | None,
    rows: list[list[int]],
    pad_id: int,
    row_len: int | None = None,
) -> Packed:
    T = row_len or max(sum(len(sequences[index]) for index in row) for row in rows)
    tokens = np.full((len(rows), T), pad_id, dtype=np.int64)
    positions = np.zeros((len(rows), T), dtype=np.int64)
    segments = np.zeros((len(rows), T), dtype=np.int64)
    loss = np.zeros((len(rows), T), dtype=bool)
    placed: dict[int, tuple[int, int, int]] = {}
    for row, members in enumerate(rows):
        start = 0
        for segment, index in enumerate(members, start=1):
            end = start + len(sequences[index])
            tokens[row, start:end] = sequences[index]
            positions[row, start:end] = np.arange(end - start)
            segments[row, start:end] = segment
            loss[row, start:end] = True if loss_masks is None else loss_masks[index]
            loss[row, start] = False
            placed[index] = (row, start, end - start)
            start = end
    return Packed(
        torch.from_numpy(tokens),
        torch.from_numpy(positions),
        torch.from_numpy(segments),
        torch.from_numpy(loss),
        [placed[index] for index in sorted(placed)],
    )


def truncate_pairs(
    pairs: Sequence[tuple[Sequence[int], Sequence[int]]], max_len: int
) -> tuple[list[tuple[Sequence[int], Sequence[int]]], list[int]]:
    """Cut both sides to their last `max_len` tokens and drop pairs that are then equal: (pairs left, their indices).

    The answer stands at the end and is scored at its last token, so the prompt is what goes (paper silent).
    """
    cut = [(chosen[-max_len:], rejected[-max_len:]) for chosen, rejected in pairs]
    kept = [index for index, (chosen, rejected) in enumerate(cut) if list(chosen) != list(rejected)]
    return [cut[index] for index in kept], kept


# ---- batches of samples, in shuffled epochs ---------------------------------------------------------------------------


class Shuffled:
    """Batches of any samples, every epoch in an order of its own; the last batch may be smaller."""

    def __init__(self, samples: Sequence[Any], per_batch: int, seed: int, epochs: int = 1) -> None:
        if not samples:
            raise ValueError("no samples to train on")
        self.samples, self.per_batch = samples, per_batch
        self.order = np.concatenate([_permutation(len(samples), seed, epoch) for epoch in range(epochs)])

    def __len__(self) -> int:
        return math.ceil(len(self.order) / self.per_batch)

    def at(self, step: int) -> Any:
        chosen = self.order[step * self.per_batch : (step + 1) * self.per_batch]
        return [self.samples[index] for index in chosen]


class PackedRows:
    """Batches of packed rows (paper 3.1: samples are concatenated to fill the length), fixed shape [rows, row_len].

    Samples are (ids, loss mask), as `encode_chat` gives them. Every epoch shuffles the samples, packs them, and shuffles
    the rows; the last batch may have fewer rows.
    """

    def __init__(
        self,
        samples: Sequence[tuple[Sequence[int], Sequence[bool]]],
        row_len: int,
        rows_per_batch: int,
        seed: int,
        pad_id: int,
        epochs: int = 1,
        truncate: Literal["left", "right"] | None = None,
    ) -> None:
        sequences, masks = _fitted([ids for ids, _ in samples], [mask for _, mask in samples], row_len, truncate)
        assert masks is not None
        self.sequences, self.masks = sequences, masks
        self.row_len, self.rows_per_batch, self.pad_id = row_len, rows_per_batch, pad_id
        self.rows: list[list[int]] = []
        for epoch in range(epochs):
            order = _permutation(len(sequences), seed, epoch)
            rows = plan_rows([len(sequences[index]) for index in order], row_len)
            for row in _permutation(len(rows), seed, epoch, "rows"):
                self.rows.append([int(order[index]) for index in rows[row]])

    def __len__(self) -> int:
        return math.ceil(len(self.rows) / self.rows_per_batch)

    def at(self, step: int) -> Packed:
        rows = self.rows[step * self.rows_per_batch : (step + 1) * self.rows_per_batch]
        members = [index for row in rows for index in row]
        numbered = iter(range(len(members)))
        return _lay(
            [self.sequences[index] for index in members],
            [self.masks[index] for index in members],
            [[next(numbered) for _ in row] for row in rows],
            self.pad_id,
            self.row_len,
        )


def _permutation(n: int, seed: int, epoch: int, *purpose: str) -> np.ndarray:
    key = [seed, epoch, *(int.from_bytes(word.encode(), "little") for word in purpose)]
    return np.random.default_rng(key).permutation(n)


# ---- pretraining: rows of plain concatenated text, a mixture of token shards ------------------------------------------


def write_shard(path: Path, parts: Iterable[np.ndarray], vocab_size: int) -> int:
    """One source's tokens, documents end to end, as a .npy that readers map into memory (uint16 where ids fit).

    `parts` come one after the other, and only one is held; returns how many tokens they were.
    """
    kind = token_type(vocab_size)
    count = 0
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as out:
        _write_header(out, kind, count)
        for part in parts:
            out.write(part.astype(kind, copy=False).data)
            count += len(part)
        out.seek(0)
        _write_header(out, kind, count)
    return count


def _write_header(out: BinaryIO, kind: np.dtype, count: int) -> None:
    """A .npy's, whose length numpy keeps free of `count`: the first axis may grow in place."""
    description = np.lib.format.dtype_to_descr(kind)
    np.lib.format.write_array_header_1_0(out, {"descr": description, "fortran_order": False, "shape": (count,)})


def read_shard(path: Path) -> np.ndarray:
    try:
        shard = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: not a whole token shard ({error}); build the shards again") from error
    if shard.ndim != 1 or shard.dtype not in (np.uint16, np.uint32):
        raise ValueError(f"{path}: expected a flat array of uint16 or uint32 tokens, found {shard.dtype} {shard.shape}")
    return shard


class TokenRows:
    """Global batches [rows, seq_len + 1] from a mixture of sources: `shares` of the tokens drawn (paper 2.1).

    Sources are interleaved in blocks of 1,024 rows that hold each source's share exactly, shuffled within. A source's
    windows are shuffled anew each time it has been seen whole, and shifted, so that documents are cut elsewhere.
    Nothing is remembered between calls: which window a row holds follows from (seed, step) by arithmetic.
    """

    BLOCK = 1024

    def __init__(
        self,
        sources: Mapping[str, Sequence[Path]],
        seq_len: int,
        rows: int,
        seed: int,
        shares: Mapping[str, float] | None = None,
    ) -> None:
        self.seq_len, self.rows, self.seed = seq_len, rows, seed
        self.names = sorted(sources)
        self.shards = [[read_shard(path) for path in sources[name]] for name in self.names]
        # The shift of a pass takes up to seq_len - 1 tokens away, hence one window fewer than would fit.
        self.windows = [[max(0, len(shard) // seq_len - 1) for shard in shards] for shards in self.shards]
        for name, windows in zip(self.names, self.windows):
            if not sum(windows):
                raise ValueError(
                    f"source {name}: no shard holds two rows of {seq_len} tokens; give more text or shorter rows"
                )
        tokens = {name: float(sum(map(len, shards))) for name, shards in zip(self.names, self.shards)}
        wanted = tokens if shares is None else shares
        if set(wanted) != set(self.names) or min(wanted.values()) <= 0:
            raise ValueError(f"shares {dict(wanted)} must name every source of {self.names}, each above 0")
        self.in_block = _whole_parts([wanted[name] for name in self.names], self.BLOCK)
        self._block = lru_cache(maxsize=4)(self._shuffled_block)
        self._order = lru_cache(maxsize=4 * len(self.names))(self._window_order)

    @property
    def tokens_per_step(self) -> int:
        return self.rows * self.seq_len

    def at(self, step: int) -> Tensor:
        batch = np.empty((self.rows, self.seq_len + 1), dtype=np.int64)
        for i in range(self.rows):
            block, offset = divmod(step * self.rows + i, self.BLOCK)
            source, earlier = self._block(block)
            batch[i] = self._window(int(source[offset]), block * self.in_block[source[offset]] + int(earlier[offset]))
        return torch.from_numpy(batch)

    def _shuffled_block(self, block: int) -> tuple[np.ndarray, np.ndarray]:
        """(source of each row of the block, how many rows of that source stand before it in the block)."""
        source = np.repeat(np.arange(len(self.names)), self.in_block)
        source = source[np.random.default_rng([self.seed, 1, block]).permutation(self.BLOCK)]
        earlier = np.zeros(self.BLOCK, dtype=np.int64)
        for index in range(len(self.names)):
            earlier[source == index] = np.arange(self.in_block[index])
        return source, earlier

    def _window_order(self, source: int, turn: int) -> tuple[np.ndarray, int]:
        rng = np.random.default_rng([self.seed, 2, source, turn])
        return rng.permutation(sum(self.windows[source])), int(rng.integers(self.seq_len))

    def _window(self, source: int, nth: int) -> np.ndarray:
        turn, nth = divmod(nth, sum(self.windows[source]))
        order, shift = self._order(source, turn)
        window = int(order[nth])
        for shard, count in zip(self.shards[source], self.windows[source]):
            if window < count:
                start = window * self.seq_len + shift
                return shard[start : start + self.seq_len + 1]
            window -= count
        raise AssertionError("a window beyond the last shard")


def shares_by_tokens(sources: Mapping[str, Sequence[Path]], upsample: Mapping[str, float]) -> dict[str, float]:
    """Shares in proportion to each source's tokens times its factor (1 where none is named): the factual one is > 1."""
    unknown = set(upsample) - set(sources)
    if unknown:
        raise ValueError(f"up-sampling names unknown sources {sorted(unknown)}; there are {sorted(sources)}")
    weight = {name: sum(len(read_shard(p)) for p in paths) * upsample.get(name, 1.0) for name, paths in sources.items()}
    return {name: value / sum(weight.values()) for name, value in weight.items()}


def _whole_parts(shares: Sequence[float], total: int) -> list[int]:
    """Whole numbers in proportion to the shares that sum to `total`, none of them 0 (largest remainders)."""
    exact = [share / sum(shares) * total for share in shares]
    parts = [max(1, int(value)) for value in exact]
    while sum(parts) != total:
        step = 1 if sum(parts) < total else -1
        index = max(range(len(parts)), key=lambda i: (step * (exact[i] - parts[i]), parts[i]))
        parts[index] += step
    return parts
