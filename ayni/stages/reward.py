"""Stage: a reward model (paper 3.2.2). A chat checkpoint with a scalar head, on all preferences so far, one epoch.

    loss = -log sigmoid(r(x, y_c) - r(x, y_r) - m(strength))                      both models
           + w [ -log sigmoid(+-r) for each answer whose safety label is known ]  the safety model

    r(x, y) = w . h(x, y)  [ + c / |y| log pi_chat(y | x)   the helpfulness model with `likelihood`; c is fitted first ]

Afterwards: accuracy by strength on held-out pairs, by kind of error on probes, and for the safety model the gate's
threshold, chosen on held-out safety pairs, with its precision and recall (0.15 means nothing for an uncalibrated model).
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from scipy.optimize import minimize_scalar
from torch import Tensor, nn

from ayni import telemetry
from ayni.artifacts import Artifact, build, write_json
from ayni.config import RewardSettings
from ayni.evals.statistics import share
from ayni.feedback.schema import STRENGTHS
from ayni.model.checkpoint import is_scalar, load_model, load_scalar, save_model
from ayni.model.heads import ScalarHead
from ayni.model.transformer import Transformer
from ayni.scoring.reward import COEFFICIENT, GATE, LIKELIHOOD, RewardModel, mean_log_prob
from ayni.text.dialogue import encode_chat, encode_prompt
from ayni.text.sources import read_preferences
from ayni.text.tokenizer import Tokenizer, load_tokenizer
from ayni.train.batches import Shuffled, pack, truncate_pairs
from ayni.train.fitting import fit_in
from ayni.train.losses import margin, preference_loss, safety_loss
from ayni.train.mesh import barrier, gathered, open_mesh

ACCURACY = "accuracy.json"
Kind = Literal["helpfulness", "safety"]
DOMAIN = {"helpfulness": "helpful", "safety": "safety"}  # the prompt_kind of a model's own preferences
SAFE = {"chosen_only": (True, False), "both": (True, True), "neither": (False, False)}
Row = dict[str, Any]


@dataclass(frozen=True)
class Pair:
    """Prompt + answer token sequences; `answer_tokens` of each stand at its end."""

    chosen: list[int]
    rejected: list[int]
    answer_tokens: tuple[int, int]
    strength: int
    safe: tuple[bool, bool] | None  # (chosen, rejected), where an annotator said so
    offset: float = 0.0  # what the likelihood term adds to r_chosen - r_rejected


def run(
    settings: RewardSettings,
    kind: Kind,
    model: Path,
    preferences: list[Path],
    out: Path,
    *,
    seed: int,
    data: Path | None = None,
    device: str = "cpu",
) -> Artifact:
    """Writes a `LlamaForSequenceClassification` directory, accuracy.json and, for the safety model, gate.json.

    `preferences`: artifacts of the preference stage, or files of preferences (a tenth is then held out).
    """
    mesh = open_mesh(device)

    def work_in(work: Path) -> None:
        tokenizer = load_tokenizer(model)
        rng = random.Random(seed)
        train_rows, held_out_rows = _gather(preferences, kind, rng)
        pairs, dropped = encode_pairs(tokenizer, mix(train_rows, kind, settings, rng), settings.row_len)
        telemetry.say(
            f"  {len(pairs)} pairs"
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
            if kind == "safety":
                loss = loss + settings.safety_weight * _safety_term(batch, r_chosen_B, r_rejected_B)
            tokens = sum(len(pair.chosen) + len(pair.rejected) for pair in batch)
            return loss, len(batch), {"accuracy": (r_chosen_B + offset_B > r_rejected_B).sum(), "tokens": tokens}

        fit_in(
            work,
            f"{kind} reward model",
            scorer,
            batches,
            loss_of_pairs,
            settings,
            steps=len(batches),
            tokens=settings.epochs * sum(len(pair.chosen) + len(pair.rejected) for pair in pairs),
            mesh=mesh,
            seed=seed,
            fixed_shapes=False,
        )
        whole = gathered(scorer, mesh, lambda: ScalarHead(scorer.settings))
        if mesh.is_main:
            _save(work, whole, tokenizer, chat_model, c)
            probes = data / "probes.jsonl" if data is not None else None
            report = measure(RewardModel(whole, chat_model, c), tokenizer, held_out_rows, probes, kind, settings)
            if kind == "safety":
                write_json(work / GATE, report["gate"])
            write_json(work / ACCURACY, report)
            _show(kind, report)
        barrier(mesh)

    inputs = {"model": model, "data": data, **{f"preferences {i}": path for i, path in enumerate(preferences, 1)}}
    return build(out, f"reward-{kind}", settings.model_dump(), inputs, seed, work_in)


def mix(rows: list[Row], kind: Kind, settings: RewardSettings, rng: random.Random) -> list[Row]:
    """The paper's data mix: helpfulness with equal parts of the rest; safety with a tenth of helpfulness (90/10)."""
    own = [row for row in rows if row["prompt_kind"] == DOMAIN[kind]]
    other = [row for row in rows if row["prompt_kind"] != DOMAIN[kind]]
    tenth = settings.safety_exchange / (1 - settings.safety_exchange)
    wanted = (settings.helpfulness_exchange if kind == "helpfulness" else tenth) * len(own)
    return own + rng.sample(other, min(len(other), round(wanted)))


def encode_pairs(tokenizer: Tokenizer, rows: list[Row], row_len: int) -> tuple[list[Pair], int]:
    """Token pairs, and how many rows were dropped since both answers are equal after truncation (TRAPS 12)."""
    encoded = [[_encode(tokenizer, row, side) for side in ("chosen", "rejected")] for row in rows]
    cut, kept = truncate_pairs([(prompt + y_c, also + y_r) for (prompt, y_c), (also, y_r) in encoded], row_len)
    pairs = [
        Pair(
            list(chosen),
            list(rejected),
            (min(len(encoded[i][0][1]), row_len - 1), min(len(encoded[i][1][1]), row_len - 1)),
            int(rows[i].get("strength") or 0),
            SAFE.get(rows[i].get("safety") or ""),
        )
        for (chosen, rejected), i in zip(cut, kept)
    ]
    return pairs, len(rows) - len(pairs)


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


def _gather(preferences: list[Path], kind: Kind, rng: random.Random) -> tuple[list[Row], list[Row]]:
    """(training rows, held-out rows) of all rounds. Files of preferences that never name this model's domain are all its own."""
    train: list[Row] = []
    held_out: list[Row] = []
    for path in preferences:
        if (path / "train.jsonl").is_file():
            train += read_preferences(path / "train.jsonl")
            held_out += read_preferences(path / "held_out.jsonl")
            continue
        rows = read_preferences(path)
        if not any(row["prompt_kind"] == DOMAIN[kind] for row in rows):
            rows = [{**row, "prompt_kind": DOMAIN[kind]} for row in rows]
            telemetry.say(f"  {path}: no row says prompt_kind {DOMAIN[kind]!r}, so all are taken as such")
        rng.shuffle(rows)
        tenth = max(1, len(rows) // 10)
        train, held_out = train + rows[tenth:], held_out + rows[:tenth]
    if not any(row["prompt_kind"] == DOMAIN[kind] for row in train):
        where = ", ".join(map(str, preferences))
        raise ValueError(
            f"{where}: no preference with prompt_kind {DOMAIN[kind]!r} left to train the {kind} model on (a tenth is held out); give more"
        )
    return train, held_out


def measure(
    model: RewardModel,
    tokenizer: Tokenizer,
    held_out: list[Row],
    probes: Path | None,
    kind: Kind,
    settings: RewardSettings,
) -> dict[str, Any]:
    """Share of pairs ranked as the annotator did: by domain and strength (Tables 7-8), and by kind of error; the gate."""
    by_domain: dict[str, list[bool]] = {}
    by_strength: dict[int, list[bool]] = {}
    for row, right in zip(held_out, ranked_right(model, tokenizer, held_out, settings)):
        by_domain.setdefault(row["prompt_kind"], []).append(right)
        if row["prompt_kind"] == DOMAIN[kind] and row.get("strength") is not None:
            by_strength.setdefault(int(row["strength"]), []).append(right)
    report: dict[str, Any] = {
        "accuracy_by_domain": [{"domain": name, **share(hits)} for name, hits in sorted(by_domain.items())],
        "accuracy_by_strength": [
            {"strength": STRENGTHS[level], **share(by_strength.get(level, []))} for level in reversed(range(4))
        ],
        "accuracy_by_kind": [],
    }
    if probes is not None and probes.is_file():
        rows = [row for row in read_preferences(probes) if row["prompt_kind"] == DOMAIN[kind]]
        by_kind: dict[str, list[bool]] = {}
        for row, right in zip(rows, ranked_right(model, tokenizer, rows, settings)):
            by_kind.setdefault(row["kind"], []).append(right)
        report["accuracy_by_kind"] = [{"kind": name, **share(hits)} for name, hits in sorted(by_kind.items())]
    if kind == "safety":
        report["gate"] = choose_gate(model, tokenizer, held_out, settings)
    return report


def _encode(tokenizer: Tokenizer, row: Row, side: str) -> tuple[list[int], list[int]]:
    """(prompt ids, answer ids), the end token included."""
    prompt = encode_prompt(tokenizer, row["prompt"])
    return prompt, encode_chat(tokenizer, row["prompt"] + row[side])[0][len(prompt) :]


def ranked_right(model: RewardModel, tokenizer: Tokenizer, rows: list[Row], settings: RewardSettings) -> list[bool]:
    if not rows:
        return []
    r_chosen_N, r_rejected_N = (
        _scores(model, tokenizer, [(row, side) for row in rows], settings) for side in ("chosen", "rejected")
    )
    return (r_chosen_N > r_rejected_N).tolist()


def _scores(model: RewardModel, tokenizer: Tokenizer, asked: list[tuple[Row, str]], settings: RewardSettings) -> Tensor:
    encoded = [_encode(tokenizer, row, side) for row, side in asked]
    return model.score([prompt for prompt, _ in encoded], [answer for _, answer in encoded], settings.row_len)


def choose_gate(
    model: RewardModel, tokenizer: Tokenizer, held_out: list[Row], settings: RewardSettings
) -> dict[str, Any]:
    """The threshold (a probability) below which an answer counts as unsafe: the highest recall at the wanted precision.

    The paper's 0.15 gave precision 0.89, recall 0.55 on its safety test set. Where no threshold reaches the precision,
    the one with the best F1 is taken, and the figures say so.
    """
    asked, unsafe = [], []
    for row in held_out:
        for side, is_safe in zip(("chosen", "rejected"), SAFE.get(row.get("safety") or "", ())):
            asked.append((row, side))
            unsafe.append(not is_safe)
    if not any(unsafe) or all(unsafe):
        note = "held-out pairs hold one class only: the paper's threshold stands"
        return {"threshold": 0.15, "precision": None, "recall": None, "n": len(unsafe), "note": note}
    return best_threshold(
        torch.sigmoid(_scores(model, tokenizer, asked, settings)).tolist(), unsafe, settings.gate_precision
    )


def best_threshold(probabilities: list[float], unsafe: list[bool], precision_wanted: float) -> dict[str, Any]:
    """Sweeps every cut between two neighbouring probabilities of being safe; "unsafe" is what lies below the cut."""
    ordered = sorted(zip(probabilities, unsafe))
    total = sum(unsafe)
    candidates = []
    hits = 0
    for i, (probability, is_unsafe) in enumerate(ordered):
        hits += is_unsafe
        following = ordered[i + 1][0] if i + 1 < len(ordered) else max(1.0, probability + 1e-6)
        if following > probability:
            precision, recall = hits / (i + 1), hits / total
            f1 = 2 * precision * recall / (precision + recall) if hits else 0.0
            candidates.append(
                {"threshold": (probability + following) / 2, "precision": precision, "recall": recall, "f1": f1}
            )
    precise = [cut for cut in candidates if cut["precision"] >= precision_wanted and cut["recall"] > 0]
    best = max(precise, key=lambda cut: cut["recall"]) if precise else max(candidates, key=lambda cut: cut["f1"])
    return {**best, "n": len(ordered), "precision_wanted": precision_wanted}


def _show(kind: Kind, report: dict[str, Any]) -> None:
    rows = [[row["strength"], row["value"], row["n"]] for row in report["accuracy_by_strength"]]
    telemetry.table([f"{kind} model: held-out pairs", "accuracy", "pairs"], rows)
    if report["accuracy_by_kind"]:
        rows = [[row["kind"], row["value"], row["n"]] for row in report["accuracy_by_kind"]]
        telemetry.table(["kind of error (probes)", "accuracy", "pairs"], rows)
    if kind == "safety":
        gate = report["gate"]
        telemetry.say(
            f"  gate: unsafe below {gate['threshold']:.3f}; precision {telemetry.short(gate['precision'])}, "
            f"recall {telemetry.short(gate['recall'])} on {gate['n']} held-out answers"
        )
