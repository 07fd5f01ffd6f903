"""Stage: a reward model (paper 3.2.2). A chat checkpoint with a scalar head, on all preferences so far, one epoch.

    loss = -log sigmoid(r(x, y_c) - r(x, y_r) - m(strength))                      every model
           + w [ -log sigmoid(+-r) for each answer whose safety label is known ]  the safety model

    r(x, y) = w . h(x, y)  [ + c / |y| log pi_chat(y | x)   the helpfulness model with `likelihood`; c is fitted first ]

Three kinds: helpfulness, safety, and the guard, trained on open preferences alone and kept out of tuning (3.4.1). Which
rows each sees is `feedback/mix.py`; what is measured afterwards on held-out pairs, `evals/reward_models.py`.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from scipy.optimize import minimize_scalar
from torch import Tensor, nn

from ayni import telemetry
from ayni.artifacts import Artifact, build, write_json
from ayni.config import RewardSettings
from ayni.evals.reward_models import Scoring, measure
from ayni.feedback.mix import Kind, gather, is_open, mix, read_open, split_open
from ayni.feedback.pairs import Pair, encode_pairs
from ayni.model.checkpoint import is_scalar, load_model, load_scalar, save_model
from ayni.model.heads import ScalarHead
from ayni.model.transformer import Transformer
from ayni.scoring.reward import COEFFICIENT, GATE, LIKELIHOOD, RewardModel, mean_log_prob
from ayni.text.sources import read_ratings
from ayni.text.tokenizer import Tokenizer, load_tokenizer
from ayni.train.batches import Shuffled, pack
from ayni.train.fitting import fit_in
from ayni.train.losses import margin, preference_loss, safety_loss
from ayni.train.mesh import barrier, gathered, open_mesh

ACCURACY = "accuracy.json"
OPEN_PREFERENCES = "preferences_open.jsonl"  # of a data directory
RATINGS = "ratings.jsonl"
PROBES = "probes.jsonl"
MIN_WARMUP = 5  # steps, the paper's


def run(
    settings: RewardSettings,
    kind: Kind,
    model: Path,
    preferences: list[Path],
    out: Path,
    *,
    seed: int,
    data: Path | None = None,
    open_preferences: Sequence[Path] = (),
    ratings: Path | None = None,
    device: str = "cpu",
) -> Artifact:
    """Writes a `LlamaForSequenceClassification` directory, accuracy.json and, for the safety model, gate.json.

    `preferences`: artifacts of the preference stage, or files of preferences (a tenth is then held out).
    `open_preferences`: files of open ones. `data`: a data directory, whose own open preferences are trained on by the guard
    and where `settings.open` says so, and tested on by every model; its probes and ratings are tested on. `ratings`: another
    file of them. Raises ValueError where no pair is left to train on.
    """
    mesh = open_mesh(device)
    of_data = data / OPEN_PREFERENCES if data is not None and (data / OPEN_PREFERENCES).is_file() else None
    trained_on = [*open_preferences]
    if settings.open or (kind == "guard" and not preferences and not trained_on):
        if of_data is None:
            raise ValueError(
                f"{data or 'no data directory'}: there is no {OPEN_PREFERENCES} to train on; name files of open preferences, or set open: false"
            )
        trained_on.append(of_data)

    def work_in(work: Path) -> None:
        tokenizer = load_tokenizer(model)
        rng = random.Random(seed)
        train_rows, held_out_rows = gather(preferences, trained_on, kind, rng)
        if of_data is not None and of_data not in trained_on:
            held_out_rows = held_out_rows + split_open(read_open(of_data))[1]
        graded = ratings or (data / RATINGS if data is not None and (data / RATINGS).is_file() else None)
        rated = read_ratings(graded) if graded is not None else []
        mixed = mix(train_rows, kind, settings, rng)
        pairs, dropped = encode_pairs(tokenizer, mixed, settings.row_len)
        telemetry.say(
            f"  {len(pairs)} pairs, {_parts(mixed)}"
            + (f"; {dropped} dropped: equal after cutting to {settings.row_len} tokens" if dropped else "")
        )
        scorer = load_scalar(model) if is_scalar(model) else ScalarHead.from_language_model(load_model(model))
        chat_model, c = None, 0.0
        if settings.likelihood and kind == "helpfulness" and not is_scalar(model):
            chat_model = load_model(model)
            pairs, c = with_likelihood(chat_model, pairs, settings)
        batches = Shuffled(pairs, settings.batch_pairs, seed, epochs=settings.epochs)
        pad_id = tokenizer.pad_id or 0

        def loss_of_pairs(scalar: nn.Module, batch: list[Pair]) -> tuple[Tensor, int, dict[str, Any]]:
            r_chosen_B, r_rejected_B = score_pairs(scalar, batch, settings.row_len, pad_id, mesh.device)
            strength_B = torch.tensor([pair.strength for pair in batch], device=mesh.device)
            offset_B = torch.tensor([pair.offset for pair in batch], device=mesh.device)
            loss = preference_loss(r_chosen_B + offset_B, r_rejected_B, margin(strength_B, settings.margin)).sum()
            if kind == "safety" and settings.safety_weight > 0:
                loss = loss + settings.safety_weight * _safety_term(batch, r_chosen_B, r_rejected_B)
            tokens = sum(len(pair.chosen) + len(pair.rejected) for pair in batch)
            return loss, len(batch), {"accuracy": (r_chosen_B + offset_B > r_rejected_B).sum(), "tokens": tokens}

        fit_in(
            work,
            f"{kind} reward model",
            scorer,
            batches,
            loss_of_pairs,
            _warmed_up(settings, len(batches)),
            steps=len(batches),
            tokens=settings.epochs * sum(len(pair.chosen) + len(pair.rejected) for pair in pairs),
            mesh=mesh,
            seed=seed,
            fixed_shapes=False,
        )
        whole = gathered(scorer, mesh, lambda: ScalarHead(scorer.settings))
        if mesh.is_main:
            _save(work, whole, tokenizer, chat_model, c)
            scoring = Scoring(RewardModel(whole, chat_model, c), tokenizer, settings.row_len)
            with telemetry.progress("measuring on held-out pairs", len(held_out_rows), "pairs") as bar:
                report = measure(
                    scoring,
                    kind,
                    held_out_rows,
                    train=mixed,
                    probes=data / PROBES if data is not None else None,
                    ratings=rated,
                    gate_precision=settings.gate_precision,
                )
                bar.advance(len(held_out_rows))
            if kind == "safety":
                write_json(work / GATE, report["gate"])
            write_json(work / ACCURACY, report)
            _show(kind, report)
        barrier(mesh)

    inputs = {"model": model, "data": data, **{f"preferences {i}": path for i, path in enumerate(preferences, 1)}}
    inputs |= {f"open preferences {i}": path for i, path in enumerate(open_preferences, 1)}
    if ratings is not None:
        inputs["ratings"] = ratings
    return build(out, f"reward-{kind}", settings.model_dump(), inputs, seed, work_in)


def _parts(rows: list[dict[str, Any]]) -> str:
    """How many of the training rows come from where."""
    names = [("open " if is_open(row) else "own ") + row["prompt_kind"] for row in rows]
    return ", ".join(f"{names.count(name)} {name}" for name in sorted(set(names)))


def _warmed_up(settings: RewardSettings, steps: int) -> RewardSettings:
    """`warmup_share` of the steps, at least 5, where it is set; else the optimizer's own warm-up."""
    if settings.warmup_share == 0:
        return settings
    warmup = max(MIN_WARMUP, math.ceil(settings.warmup_share * steps))
    return settings.model_copy(update={"optimizer": settings.optimizer.model_copy(update={"warmup_steps": warmup})})


def with_likelihood(chat_model: Transformer, pairs: list[Pair], settings: RewardSettings) -> tuple[list[Pair], float]:
    """The pairs with the likelihood term's part of r_chosen - r_rejected, and its coefficient c.

    c alone is fitted first, by the same ranking loss, so that the head learns what the likelihood does not say.
    """
    sides = []
    for side in (0, 1):
        sequences = [(pair.chosen, pair.rejected)[side] for pair in pairs]
        lengths = [pair.answer_tokens[side] for pair in pairs]
        prompts = [ids[:-n] for ids, n in zip(sequences, lengths)]
        answers = [ids[-n:] for ids, n in zip(sequences, lengths)]
        sides.append(mean_log_prob(chat_model, prompts, answers, settings.row_len))
    difference_B = sides[0] - sides[1]
    margin_B = margin(torch.tensor([pair.strength for pair in pairs]), settings.margin)
    zero_B = torch.zeros_like(difference_B)

    def loss(c: float) -> float:
        return preference_loss(c * difference_B, zero_B, margin_B).mean().item()

    c = float(minimize_scalar(loss, bounds=(0.0, 20.0), method="bounded").x)
    telemetry.say(
        f"  likelihood term: c = {c:.2f}, alone right on {(difference_B > 0).float().mean():.1%} of the training pairs"
    )
    return [replace(pair, offset=c * d) for pair, d in zip(pairs, difference_B.tolist())], c


def score_pairs(
    scalar: nn.Module, batch: list[Pair], row_len: int, pad_id: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """(r_chosen_B, r_rejected_B), each read at its sequence's last token, packed without padding."""
    packed = pack([pair.chosen for pair in batch] + [pair.rejected for pair in batch], row_len, pad_id).to(device)
    r_2B = scalar(
        packed.tokens_RT, packed.positions_RT, packed.attention(next(scalar.parameters())), keep_N=packed.ends_N
    )
    r_chosen_B, r_rejected_B = r_2B.split(len(batch))
    return r_chosen_B, r_rejected_B


def _safety_term(batch: list[Pair], r_chosen_B: Tensor, r_rejected_B: Tensor) -> Tensor:
    labelled = [(i, pair.safe) for i, pair in enumerate(batch) if pair.safe is not None]
    if not labelled:
        return r_chosen_B.sum() * 0.0
    at = torch.tensor([i for i, _ in labelled], device=r_chosen_B.device)
    safe_2B = torch.tensor([label[0] for _, label in labelled] + [label[1] for _, label in labelled])
    return safety_loss(torch.cat([r_chosen_B[at], r_rejected_B[at]]), safe_2B.to(at.device)).sum()


def _save(work: Path, head: ScalarHead, tokenizer: Tokenizer, chat_model: Transformer | None, c: float) -> None:
    save_model(head, work, tokenizer)
    if chat_model is not None:
        (work / LIKELIHOOD).mkdir(exist_ok=True)
        save_model(chat_model, work / LIKELIHOOD, tokenizer)
        write_json(work / COEFFICIENT, {"coefficient": c})


def _show(kind: Kind, report: dict[str, Any]) -> None:
    beside = report["baselines"]
    rows = [
        [
            row["strength"],
            row["value"],
            *(figure["value"] for name, figure in base.items() if name != "strength"),
            row["n"],
        ]
        for row, base in zip(report["accuracy_by_strength"], beside["by_strength"])
        if row["n"]
    ]
    rows.append(
        [
            "all",
            report["accuracy"]["value"],
            *(figure["value"] for figure in beside["all"].values()),
            report["accuracy"]["n"],
        ]
    )
    telemetry.table(
        [f"{kind} model: held-out pairs", "accuracy", *(f"by {name}" for name in beside["all"]), "pairs"], rows
    )
    if len(report["accuracy_by_set"]) > 1:
        rows = [[row["set"], row["value"], row["n"]] for row in report["accuracy_by_set"]]
        telemetry.table(["test set", "accuracy", "pairs"], rows)
    if report["accuracy_by_kind"]:
        rows = [[row["kind"], row["value"], row["n"]] for row in report["accuracy_by_kind"]]
        telemetry.table(["kind of error (probes)", "accuracy", "pairs"], rows)
    telemetry.say(
        f"  expected calibration error {telemetry.short(report['calibration']['ece'])} on {report['calibration']['n']} pairs"
    )
    if kind == "safety":
        gate = report["gate"]
        telemetry.say(
            f"  gate: unsafe below {gate['threshold']:.3f}; precision {telemetry.short(gate['precision'])}, "
            f"recall {telemetry.short(gate['recall'])} on {gate['n']} held-out answers"
        )
