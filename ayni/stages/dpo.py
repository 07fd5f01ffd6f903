"""Stage: direct preference optimisation (Rafailov et al. 2023, arXiv 2305.18290; not in the Llama 2 paper).

What every user asks to see beside PPO: the same preferences, without reward models and without sampling.

    loss = -log sigmoid(beta [(log pi(y_c|x) - log pi_ref(y_c|x)) - (log pi(y_r|x) - log pi_ref(y_r|x))] - m)
           + w [ -1/|y_c| log pi(y_c|x) ]

pi_ref is the checkpoint that training starts from; its log-probabilities are computed once beforehand, by the same forward
pass, so that the first step's loss is log 2 (softplus(m) with a margin). m and w are 0 by default.

Shape letters: B pairs, N answer tokens of all packed rows, L answer tokens.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ayni import telemetry
from ayni.artifacts import Artifact, build, write_json
from ayni.config import DPOSettings
from ayni.engine.score import log_probs_of
from ayni.evals.statistics import share
from ayni.feedback.mix import read_split
from ayni.feedback.pairs import encode_side
from ayni.feedback.schema import STRENGTHS
from ayni.model.checkpoint import check_vocabulary, load_model, save_model
from ayni.model.transformer import Transformer
from ayni.text.tokenizer import Tokenizer, load_tokenizer
from ayni.train.batches import Shuffled, pack, truncate_pairs
from ayni.train.fitting import fit_in
from ayni.train.losses import dpo_loss, implicit_reward, margin
from ayni.train.mesh import barrier, gathered, open_mesh
from ayni.train.output import log_probs_of_targets

ACCURACY = "accuracy.json"
Row = dict[str, Any]


@dataclass(frozen=True)
class Side:
    """One answer after its prompt; `answer_tokens` stand at the end of `ids`. `ref_logp`: log pi_ref(y | x), their sum."""

    ids: list[int]
    answer_tokens: int
    ref_logp: float = 0.0


@dataclass(frozen=True)
class Pair:
    chosen: Side
    rejected: Side
    strength: int


def run(
    settings: DPOSettings, model: Path, preferences: list[Path], out: Path, *, seed: int, device: str = "cpu"
) -> Artifact:
    """Trains `model` on preferences; writes a `LlamaForCausalLM` directory and accuracy.json.

    `preferences`: artifacts of the preference stage, or files of preferences (a tenth is then held out).
    """
    mesh = open_mesh(device)

    def work_in(work: Path) -> None:
        tokenizer, policy = load_tokenizer(model), load_model(model)
        check_vocabulary(policy.settings, tokenizer, str(model))
        rng = random.Random(seed)
        splits = [read_split(path, rng) for path in preferences]
        train_rows, held_out_rows = ([row for split in splits for row in split[side]] for side in (0, 1))
        if not train_rows:
            files = ", ".join(map(str, preferences))
            raise ValueError(
                f"{files}: no preference is left to train on, since a tenth of the prompts is held out; give more prompts"
            )
        pairs, dropped = encode_pairs(tokenizer, train_rows, settings.row_len)
        if not pairs:
            raise ValueError(
                f"{preferences[0]}: both answers of every pair are equal after cutting to {settings.row_len} tokens; raise row_len"
            )
        held_out, _ = encode_pairs(tokenizer, held_out_rows, settings.row_len)
        telemetry.say(
            f"  {len(pairs)} pairs"
            + (f"; {dropped} dropped: equal after cutting to {settings.row_len} tokens" if dropped else "")
        )
        reference = load_model(model, settings.precision).to(mesh.device)  # the type that the policy works in
        pairs, held_out = with_reference(reference, pairs, settings), with_reference(reference, held_out, settings)
        del reference
        batches = Shuffled(pairs, settings.batch_pairs, seed, epochs=settings.epochs)

        def loss_of_pairs(model: nn.Module, batch: list[Pair]) -> tuple[Tensor, int, dict[str, Any]]:
            return dpo_objective(model, batch, settings, tokenizer.pad_id or 0, mesh.device)

        fit_in(
            work,
            "DPO",
            policy,
            batches,
            loss_of_pairs,
            settings,
            steps=len(batches),
            tokens=settings.epochs * sum(len(pair.chosen.ids) + len(pair.rejected.ids) for pair in pairs),
            mesh=mesh,
            seed=seed,
            fixed_shapes=False,
        )
        whole = gathered(policy, mesh, lambda: Transformer(policy.settings))
        if mesh.is_main:
            save_model(whole, work, tokenizer)
            report = measure(whole, held_out, settings)
            write_json(work / ACCURACY, report)
            _show(report)
        barrier(mesh)

    inputs = {"model": model, **{f"preferences {i}": path for i, path in enumerate(preferences, 1)}}
    return build(out, "dpo", settings.model_dump(), inputs, seed, work_in)


def encode_pairs(tokenizer: Tokenizer, rows: list[Row], row_len: int) -> tuple[list[Pair], int]:
    """Token pairs, and how many rows were dropped since both answers are equal after truncation (TRAPS 12)."""
    encoded = [[encode_side(tokenizer, row, side) for side in ("chosen", "rejected")] for row in rows]
    cut, kept = truncate_pairs([(prompt + y_c, also + y_r) for (prompt, y_c), (also, y_r) in encoded], row_len)
    pairs = []
    for sides, i in zip(cut, kept):
        chosen, rejected = (
            Side(list(ids), min(len(answer), row_len - 1)) for ids, (_, answer) in zip(sides, encoded[i])
        )
        pairs.append(Pair(chosen, rejected, int(rows[i].get("strength") or 0)))
    return pairs, len(rows) - len(pairs)


def with_reference(reference: Transformer, pairs: list[Pair], settings: DPOSettings) -> list[Pair]:
    """The pairs with log pi_ref of both answers."""
    chosen_B, rejected_B = (
        _log_probs(reference, sides, settings.row_len).tolist()
        for sides in ([pair.chosen for pair in pairs], [pair.rejected for pair in pairs])
    )
    return [
        replace(pair, chosen=replace(pair.chosen, ref_logp=c), rejected=replace(pair.rejected, ref_logp=r))
        for pair, c, r in zip(pairs, chosen_B, rejected_B)
    ]


def dpo_objective(
    policy: nn.Module, batch: list[Pair], settings: DPOSettings, pad_id: int, device: torch.device
) -> tuple[Tensor, int, dict[str, Any]]:
    """The loss summed over the pairs of the batch, packed without padding, and their number."""
    sides = [pair.chosen for pair in batch] + [pair.rejected for pair in batch]
    masks = [[False] * (len(s.ids) - s.answer_tokens) + [True] * s.answer_tokens for s in sides]
    packed = pack([s.ids for s in sides], settings.row_len, pad_id, masks).to(device)
    where = (packed.tokens_RT, packed.positions_RT, packed.attention(next(policy.parameters())))
    logp_N = policy(*where, keep_N=packed.predict_N, head=partial(log_probs_of_targets, targets_N=packed.targets_N))
    index_2BL, mask_2BL = packed.grid()
    logp_2B = (logp_N[index_2BL] * mask_2BL).sum(1)
    ref_2B = torch.tensor([s.ref_logp for s in sides], device=device)
    logp_chosen_B, logp_rejected_B = logp_2B.chunk(2)
    ref_chosen_B, ref_rejected_B = ref_2B.chunk(2)
    margin_B = margin(torch.tensor([pair.strength for pair in batch], device=device), settings.margin)
    loss_B = dpo_loss(logp_chosen_B, logp_rejected_B, ref_chosen_B, ref_rejected_B, margin_B, settings.beta)
    if settings.likelihood_weight:
        tokens_B = mask_2BL[: len(batch)].sum(1)
        loss_B = loss_B - settings.likelihood_weight * logp_chosen_B / tokens_B
    with torch.no_grad():
        r_chosen_B = implicit_reward(logp_chosen_B, ref_chosen_B, settings.beta)
        r_rejected_B = implicit_reward(logp_rejected_B, ref_rejected_B, settings.beta)
        stats = {
            "accuracy": (r_chosen_B > r_rejected_B).sum(),
            "reward_chosen": r_chosen_B.sum(),
            "reward_rejected": r_rejected_B.sum(),
            "tokens": sum(len(s.ids) for s in sides),
        }
    return loss_B.sum(), len(batch), stats


def measure(policy: Transformer, held_out: list[Pair], settings: DPOSettings) -> dict[str, Any]:
    """Share of held-out pairs whose chosen answer has the higher implicit reward, in all and by strength (as Table 8);
    and the mean implicit rewards, which may both fall though their distance grows."""
    sides = [pair.chosen for pair in held_out] + [pair.rejected for pair in held_out]
    ref_2B = torch.tensor([side.ref_logp for side in sides])
    logp_2B = _log_probs(policy, sides, settings.row_len).cpu()
    r_chosen_B, r_rejected_B = implicit_reward(logp_2B, ref_2B, settings.beta).chunk(2)
    right = (r_chosen_B > r_rejected_B).tolist()
    by_strength = {
        level: [hit for pair, hit in zip(held_out, right) if pair.strength == level] for level in reversed(range(4))
    }
    return {
        "accuracy": share(right),
        "accuracy_by_strength": [{"strength": STRENGTHS[level], **share(hits)} for level, hits in by_strength.items()],
        "reward_chosen": round(float(r_chosen_B.mean()), 6) if held_out else None,
        "reward_rejected": round(float(r_rejected_B.mean()), 6) if held_out else None,
    }


def _log_probs(model: Transformer, sides: list[Side], row_len: int) -> Tensor:
    """log pi(y | x) [B], summed over each answer's tokens."""
    if not sides:
        return torch.zeros(0)
    prompts = [side.ids[: -side.answer_tokens] for side in sides]
    answers = [side.ids[-side.answer_tokens :] for side in sides]
    return torch.stack([logp_L.sum() for logp_L in log_probs_of(model, prompts, answers, 1.0, row_len)])


def _show(report: dict[str, Any]) -> None:
    rows = [[row["strength"], row["value"], row["n"]] for row in report["accuracy_by_strength"]]
    telemetry.table(["held-out pairs", "accuracy", "pairs"], rows)
    telemetry.say(
        f"  mean implicit reward: {telemetry.short(report['reward_chosen'])} of the chosen answers, "
        f"{telemetry.short(report['reward_rejected'])} of the rejected ones"
    )
