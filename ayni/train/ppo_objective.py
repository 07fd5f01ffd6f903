"""PPO's two objectives on packed answers (paper 3.2.3): what `train_step` minimises on each minibatch of a rollout.

    policy:  -sum_t min(rho_t A_t, clip(rho_t, 1 - c, 1 + c) A_t),     rho = pi / pi_old
    critic:  1/2 sum_t max((V_t - R_t)^2, (clip(V_t, V_old +- c) - R_t)^2)

Shape letters: B answers, L answer tokens, N answer tokens of all packed rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from ayni.config import PPOSettings
from ayni.train.batches import Packed, pack
from ayni.train.losses import ppo_policy_loss, value_loss
from ayni.train.output import log_probs_of_targets


@dataclass(frozen=True)
class Experience:
    """One answer as PPO learns from it; the tensors have one entry per answer token."""

    prompt_ids: list[int]
    answer_ids: list[int]
    old_logp_L: Tensor
    old_value_L: Tensor
    advantage_L: Tensor
    return_L: Tensor


def policy_objective(
    policy: nn.Module, batch: list[Experience], settings: PPOSettings
) -> tuple[Tensor, int, dict[str, Any]]:
    """Clipped surrogate, summed over the answer tokens of the batch, and their number."""
    packed = pack_answers([e.prompt_ids for e in batch], [e.answer_ids for e in batch], settings.row_len)
    head = partial(log_probs_of_targets, targets_N=packed.targets_N, temperature=settings.temperature)
    where = (packed.tokens_RT, packed.positions_RT, packed.attention(next(policy.parameters())))
    logp_N = policy(*where, keep_N=packed.predict_N, head=head)
    index_BL, mask_BL = packed.grid()
    logp_BL = logp_N[index_BL]
    old_BL, advantage_BL = padded([e.old_logp_L for e in batch]), padded([e.advantage_L for e in batch])
    loss, stats = ppo_policy_loss(logp_BL, old_BL, advantage_BL, mask_BL, settings.clip)
    return loss, int(mask_BL.sum()), stats


def critic_objective(
    critic: nn.Module, batch: list[Experience], settings: PPOSettings
) -> tuple[Tensor, int, dict[str, Any]]:
    """Clipped squared error of the values, summed over the answer tokens of the batch, and their number."""
    packed = pack_answers([e.prompt_ids for e in batch], [e.answer_ids for e in batch], settings.row_len)
    where = (packed.tokens_RT, packed.positions_RT, packed.attention(next(critic.parameters())))
    value_N = critic(*where, keep_N=packed.predict_N)
    index_BL, mask_BL = packed.grid()
    old_BL, return_BL = padded([e.old_value_L for e in batch]), padded([e.return_L for e in batch])
    loss, stats = value_loss(value_N[index_BL], old_BL, return_BL, mask_BL, settings.value_clip)
    return loss, int(mask_BL.sum()), stats


def pack_answers(prompts: Sequence[list[int]], answers: Sequence[list[int]], row_len: int) -> Packed:
    """Prompt and answer side by side, loss on the answer. Padding is told by position, so any id serves."""
    sequences = [prompt + answer for prompt, answer in zip(prompts, answers)]
    masks = [[False] * len(prompt) + [True] * len(answer) for prompt, answer in zip(prompts, answers)]
    return pack(sequences, max(row_len, max(map(len, sequences))), 0, masks)


def padded(tensors: Sequence[Tensor]) -> Tensor:
    """[L_b] under each other, [B, max L], zeros at their ends."""
    return pad_sequence(list(tensors), batch_first=True)
