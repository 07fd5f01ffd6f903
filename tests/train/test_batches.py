"""Packing loses nothing and mixes nothing; batches are pure functions of seed and step."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ayni.model.heads import ScalarHead
from ayni.model.transformer import block_causal_mask
from ayni.train.batches import (
    PackedRows,
    Shuffled,
    TokenRows,
    pack,
    read_shard,
    shares_by_tokens,
    truncate_pairs,
    write_shard,
)
from ayni.train.losses import log_probs

from .small import random_sequences, small_model

EOS, PAD = 2, 3
lengths_and_row = st.tuples(st.lists(st.integers(1, 12), min_size=1, max_size=30), st.integers(12, 30))


@settings(max_examples=60, deadline=None)
@given(lengths_and_row)
def test_packing_keeps_every_sequence_whole_and_apart(case):
    lengths, row_len = case
    sequences = [[100 * i + k for k in range(length)] for i, length in enumerate(lengths)]
    packed = pack(sequences, row_len, pad_id=-1)
    R, T = packed.tokens_RT.shape
    assert row_len >= T
    seen = torch.zeros(R, T, dtype=torch.bool)
    for ids, (row, start, length) in zip(sequences, packed.where):
        span = (row, slice(start, start + length))
        assert packed.tokens_RT[span].tolist() == ids
        assert packed.positions_RT[span].tolist() == list(range(length))
        assert packed.loss_RT[span].tolist() == [False] + [True] * (length - 1)
        segment = packed.segments_RT[row, start]
        assert segment > 0
        assert (packed.segments_RT[row] == segment).sum() == length
        assert not seen[span].any()
        seen[span] = True
    assert (packed.segments_RT[~seen] == 0).all()
    assert (packed.tokens_RT[~seen] == -1).all()
    assert not packed.loss_RT[~seen].any()
    assert len(packed) <= 2 * max(1, -(-sum(lengths) // row_len))  # no two rows could have shared one


@settings(max_examples=40, deadline=None)
@given(lengths_and_row, st.randoms(use_true_random=False))
def test_predictors_targets_ends_and_grid_follow_each_sequence(case, rng):
    lengths, row_len = case
    lengths = [length + 1 for length in lengths if length < row_len] or [2]
    sequences = [[100 * i + k for k in range(length)] for i, length in enumerate(lengths)]
    masks = [[rng.random() < 0.6 for _ in ids[:-1]] + [True] for ids in sequences]
    packed = pack(sequences, row_len, pad_id=-1, loss_masks=masks)
    flat = packed.tokens_RT.flatten()
    before = {ids[k]: ids[k - 1] for ids in sequences for k in range(1, len(ids))}
    assert flat[packed.predict_N].tolist() == [before[target] for target in packed.targets_N.tolist()]
    wanted = [[ids[k] for k in range(1, len(ids)) if mask[k]] for ids, mask in zip(sequences, masks)]
    assert sorted(packed.targets_N.tolist()) == sorted(token for answer in wanted for token in answer)
    assert flat[packed.ends_N].tolist() == [ids[-1] for ids in sequences]
    index_BL, mask_BL = packed.grid()
    answers_BL = packed.targets_N[index_BL]
    assert [answers_BL[b][mask_BL[b]].tolist() for b in range(len(sequences))] == wanted
    back_N = torch.full_like(packed.targets_N, -7)
    back_N[index_BL[mask_BL]] = answers_BL[mask_BL]
    assert torch.equal(back_N, packed.targets_N)


def test_slices_of_packed_rows_are_packed_rows():
    sequences = random_sequences(20, 9, seed=1)
    packed = pack(sequences, 12, PAD)
    halves = [packed[:3], packed[3:]]
    found = [half.tokens_RT[row, start : start + n].tolist() for half in halves for row, start, n in half.where]
    assert sorted(found) == sorted(sequences)
    assert sum(len(half.predict_N) for half in halves) == len(packed.predict_N)
    assert len(halves[0]) == 3


@pytest.mark.parametrize("seed", range(4))
def test_trap_11_alone_padded_and_packed_give_the_same_log_probabilities_and_scores(seed):
    model = small_model(seed)
    scalar = ScalarHead.from_language_model(model)
    torch.nn.init.normal_(scalar.score.weight)
    sequences = random_sequences(9, 14, seed)
    T = max(map(len, sequences))
    padded_BT = torch.full((len(sequences), T), PAD)
    for row, ids in enumerate(sequences):
        padded_BT[row, : len(ids)] = torch.tensor(ids)
    packed = pack(sequences, 32, PAD)
    assert packed.mask_RTT is not None
    layout = (packed.tokens_RT, packed.positions_RT, packed.mask_RTT)
    with torch.no_grad():
        padded_BTV, padded_scores_BT = model(padded_BT), scalar(padded_BT)
        packed_logp_N = log_probs(model(*layout, keep_N=packed.predict_N), packed.targets_N)
        packed_scores_B = scalar(*layout, keep_N=packed.ends_N)
        index_BL, _ = packed.grid()
        for b, ids in enumerate(sequences):
            alone = torch.tensor([ids])
            n = len(ids) - 1
            expected = log_probs(model(alone)[0, :-1], alone[0, 1:])
            assert torch.allclose(log_probs(padded_BTV[b, :n], alone[0, 1:]), expected, atol=1e-5)
            assert torch.allclose(packed_logp_N[index_BL[b, :n]], expected, atol=1e-5)
            score = scalar(alone)[0, -1]
            assert torch.allclose(padded_scores_BT[b, n], score, atol=1e-5)
            assert torch.allclose(packed_scores_B[b], score, atol=1e-5)


def test_one_sequence_per_row_needs_no_mask_and_gets_the_same_result():
    sequences = random_sequences(5, 10, seed=3)
    packed = pack([ids + [5] * (10 - len(ids)) for ids in sequences], 12, PAD)
    assert packed.mask_RTT is None
    model = small_model()
    with torch.no_grad():
        plain = model(packed.tokens_RT, packed.positions_RT, None, keep_N=packed.predict_N)
        masked = model(
            packed.tokens_RT, packed.positions_RT, block_causal_mask(packed.segments_RT), keep_N=packed.predict_N
        )
    assert torch.allclose(plain, masked, atol=1e-5)


def test_trap_10_padding_is_known_by_position_and_eos_stays_in_the_loss():
    sequences, masks = [[5, 6, EOS], [7, EOS]], [[False, True, True], [False, True]]
    packed = pack(sequences, 4, pad_id=EOS, loss_masks=masks)  # the worst case: pad and EOS share an id
    assert sorted(packed.targets_N.tolist()) == [EOS, EOS, 6]
    assert int((packed.segments_RT > 0).sum()) == 5


def test_trap_12_pairs_equal_after_truncation_are_dropped_and_counted():
    pairs = [([9, 1, 2, 3], [8, 1, 2, 3]), ([1, 2], [1, 4]), ([1, 2, 3, 4, 5], [1, 2, 3, 4, 6])]
    cut, kept = truncate_pairs(pairs, 3)
    assert kept == [1, 2]
    assert cut == [([1, 2], [1, 4]), ([3, 4, 5], [3, 4, 6])]


def test_trap_13_a_sample_without_a_loss_token_fails_loudly():
    with pytest.raises(ValueError, match="sequence 1 has no token to learn from"):
        pack([[1, 2], [3, 4, 5]], 8, PAD, loss_masks=[[False, True], [False, False, False]])
    with pytest.raises(ValueError, match="no token to learn from"):  # the first token is never predicted
        PackedRows([([1, 2], [True, False])], 8, 2, seed=0, pad_id=PAD)


def test_a_sequence_longer_than_a_row_is_refused_or_cut_where_told():
    with pytest.raises(ValueError, match="sequence 1 has 5 tokens and rows hold 3"):
        pack([[1, 2], [1, 2, 3, 4, 5]], 3, PAD)
    masks = [[False, False, False, True, True]]
    left = pack([[1, 2, 3, 4, 5]], 3, PAD, loss_masks=masks, truncate="left")
    assert left.tokens_RT.tolist() == [[3, 4, 5]]
    with pytest.raises(ValueError, match="no token to learn from"):
        pack([[1, 2, 3, 4, 5]], 3, PAD, loss_masks=masks, truncate="right")
    with pytest.raises(ValueError, match="nothing to pack"):
        pack([], 3, PAD)


def test_shuffled_epochs_hold_every_sample_once_each_in_their_own_order():
    batches = Shuffled(list("abcdefghij"), per_batch=4, seed=3, epochs=2)
    assert len(batches) == 5
    drawn = [sample for step in range(5) for sample in batches.at(step)]
    assert sorted(drawn[:10]) == sorted(drawn[10:]) == list("abcdefghij")
    assert drawn[:10] != drawn[10:]
    assert Shuffled(list("abcdefghij"), 4, 3, 2).at(3) == batches.at(3)
    assert Shuffled(list("abcdefghij"), 4, 4, 2).at(3) != batches.at(3)


def test_trap_16_packed_rows_are_a_pure_function_of_seed_and_step():
    sequences = random_sequences(40, 12, seed=5)
    samples = [(ids, [False] + [True] * (len(ids) - 1)) for ids in sequences]

    def make(seed):
        return PackedRows(samples, row_len=20, rows_per_batch=3, seed=seed, pad_id=PAD, epochs=2)

    batches, found = make(1), []
    for step in range(len(batches)):
        batch = batches.at(step)
        assert batch.tokens_RT.shape[1] == 20
        assert torch.equal(batch.tokens_RT, make(1).at(step).tokens_RT)  # out of order, from nothing
        found += [batch.tokens_RT[row, start : start + n].tolist() for row, start, n in batch.where]
    assert sorted(found) == sorted(sequences * 2)
    assert not torch.equal(make(2).at(0).tokens_RT, batches.at(0).tokens_RT)


@pytest.mark.parametrize("lengths", [[], [0], [300], [7, 0, 50_000]])
@pytest.mark.parametrize(("vocab_size", "kind"), [(65_536, np.uint16), (65_537, np.uint32)])
def test_a_shard_written_part_by_part_is_the_file_that_numpy_saves(
    tmp_path: Path, lengths: list[int], vocab_size: int, kind: type
) -> None:
    parts = [np.arange(length, dtype=np.int64) for length in lengths]
    assert write_shard(tmp_path / "parts.npy", parts, vocab_size) == sum(lengths)
    np.save(tmp_path / "whole.npy", np.concatenate([np.zeros(0), *parts]).astype(kind))
    assert (tmp_path / "parts.npy").read_bytes() == (tmp_path / "whole.npy").read_bytes()


@pytest.fixture
def shards(tmp_path):
    """Two sources whose token values say where they came from: 'facts' counts up from 0, 'forum' from 10,000."""
    write_shard(tmp_path / "facts-0.npy", [np.arange(0, 300)], 40_000)
    write_shard(tmp_path / "facts-1.npy", [np.arange(1000, 1150)], 40_000)
    write_shard(tmp_path / "forum.npy", [np.arange(10_000, 12_000)], 70_000)
    return {"facts": [tmp_path / "facts-0.npy", tmp_path / "facts-1.npy"], "forum": [tmp_path / "forum.npy"]}


def test_token_rows_are_whole_windows_in_the_shares_asked_for(shards):
    rows = TokenRows(shards, seq_len=16, rows=64, seed=0, shares={"facts": 0.25, "forum": 0.75})
    drawn = torch.cat([rows.at(step) for step in range(16)])  # one block of 1,024 rows
    assert drawn.shape == (1024, 17)
    assert (drawn.diff(dim=1) == 1).all()  # contiguous, never across two shards
    assert (drawn[:, 0] < 10_000).sum() == 256
    forum = drawn[drawn[:, 0] >= 10_000][:, 0].tolist()
    windows = 2000 // 16 - 1
    assert len(set(forum[:windows])) == windows  # a pass sees every window once
    assert len({start % 16 for start in forum[:windows]}) == 1
    assert forum[:windows] != forum[windows : 2 * windows]
    assert read_shard(shards["facts"][0]).dtype == np.uint16
    assert read_shard(shards["forum"][0]).dtype == np.uint32


def test_trap_16_token_rows_are_a_pure_function_of_seed_and_step(shards):
    one, other = TokenRows(shards, 16, 10, seed=0), TokenRows(shards, 16, 10, seed=0)
    forwards = [one.at(step) for step in range(150)]  # crosses blocks and passes
    for step in (149, 3, 102, 103, 0):
        assert torch.equal(other.at(step), forwards[step])
    assert not torch.equal(TokenRows(shards, 16, 10, seed=1).at(0), forwards[0])
    # The global order does not depend on how many rows a step takes.
    assert torch.equal(TokenRows(shards, 16, 20, seed=0).at(2), torch.cat([forwards[4], forwards[5]]))


def test_shares_by_tokens_up_sample_the_named_source(shards):
    shares = shares_by_tokens(shards, {"facts": 2.0})
    assert shares["facts"] == pytest.approx(900 / 2900)
    with pytest.raises(ValueError, match="unknown sources \\['news'\\]"):
        shares_by_tokens(shards, {"news": 2.0})


def test_bad_shards_are_named(tmp_path, shards):
    (tmp_path / "torn.npy").write_bytes((tmp_path / "forum.npy").read_bytes()[:500])
    with pytest.raises(ValueError, match=r"torn\.npy: not a whole token shard"):
        TokenRows({"torn": [tmp_path / "torn.npy"]}, 16, 4, seed=0)
    with pytest.raises(ValueError, match="source facts: no shard holds two rows of 200"):
        TokenRows(shards, 200, 4, seed=0)
    with pytest.raises(ValueError, match="must name every source"):
        TokenRows(shards, 16, 4, seed=0, shares={"facts": 1.0})
