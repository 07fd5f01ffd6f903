"""Stage: a reward model (paper 3.2.2). A chat checkpoint with a scalar head, on all preferences so far, one epoch.

    loss = -log sigmoid(r(x, y_c) - r(x, y_r) - m(strength))                      both models
           + w [ -log sigmoid(+-r) for each answer whose safety label is known ]  the safety model

Afterwards: accuracy by strength on held-out pairs, by kind of error on probes, and for the safety model the gate's
threshold, chosen on held-out safety pairs, with its precision and recall (0.15 means nothing for an uncalibrated model).
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ayni import telemetry
from ayni.artifacts import Artifact, build, read_json, write_json
from ayni.config import RewardSettings
from ayni.engine.score import scores_of
from ayni.evals.statistics import share
from ayni.feedback.schema import STRENGTHS
from ayni.model.checkpoint import load_model, load_scalar, save_model
from ayni.model.heads import ScalarHead
from ayni.scoring.reward import GATE
from ayni.text.dialogue import encode_chat
from ayni.text.sources import read_preferences
from ayni.text.tokenizer import Tokenizer, load_tokenizer
from ayni.train.batches import Shuffled, pack, truncate_pairs
from ayni.train.fitting import fit_in
from ayni.train.losses import margin, preference_loss, safety_loss
from ayni.train.mesh import barrier, gathered, open_mesh

ACCURACY = "accuracy.json"
Kind = Literal["helpfulness", "safety"]


@dataclass(frozen=True)
class Pair:
    chosen: list[int]
    rejected: list[int]
    strength: int
    safe: tuple[bool, bool] | None  # (chosen, rejected), where an annotator said so


SAFE = {"chosen_only": (True, False), "both": (True, True), "neither": (False, False)}


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
        train_rows, held_out_rows = _gather(preferences, rng)
        chosen_rows = mix(train_rows, kind, settings, rng)
        pairs, dropped = encode_pairs(tokenizer, chosen_rows, settings.row_len)
        telemetry.say(
            f"  {len(pairs)} pairs"
            + (f"; {dropped} dropped: equal after cutting to {settings.row_len} tokens" if dropped else "")
        )
        scorer = start_from(model)
        batches = Shuffled(pairs, settings.batch_pairs, seed, epochs=settings.epochs)
        pad_id = tokenizer.pad_id or 0

        def loss_of_pairs(scalar: nn.Module, batch: list[Pair]) -> tuple[Tensor, int, dict[str, Any]]:
            r_chosen_B, r_rejected_B = score_pairs(scalar, batch, settings.row_len, pad_id)
            strength_B = torch.tensor([pair.strength for pair in batch])
            loss = preference_loss(r_chosen_B, r_rejected_B, margin(strength_B, settings.margin)).sum()
            if kind == "safety":
                loss = loss + settings.safety_weight * _safety_term(batch, r_chosen_B, r_rejected_B)
            return (
                loss,
                len(batch),
                {
                    "accuracy": (r_chosen_B > r_rejected_B).sum(),
                    "tokens": sum(len(p.chosen) + len(p.rejected) for p in batch),
                },
            )

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
        )
        whole = gathered(scorer, mesh, lambda: ScalarHead(scorer.settings))
        if mesh.is_main:
            save_model(whole, work, tokenizer)
            probes = data / "probes.jsonl" if data is not None else None
            report = accuracy(whole, tokenizer, held_out_rows, probes, kind, settings)
            if kind == "safety":
                report["gate"] = choose_gate(whole, tokenizer, held_out_rows, settings)
                write_json(work / GATE, report["gate"])
            write_json(work / ACCURACY, report)
            _show(kind, report)
        barrier(mesh)

    inputs = {"model": model, "data": data, **{f"preferences {i}": path for i, path in enumerate(preferences, 1)}}
    return build(out, f"reward-{kind}", settings.model_dump(), inputs, seed, work_in)


def start_from(model: Path) -> ScalarHead:
    """A chat checkpoint's body under a fresh head, or an earlier reward model as it stands."""
    if "LlamaForSequenceClassification" in read_json(model / "config.json").get("architectures", []):
        return load_scalar(model)
    return ScalarHead.from_language_model(load_model(model))


def mix(rows: list[dict[str, Any]], kind: Kind, settings: RewardSettings, rng: random.Random) -> list[dict[str, Any]]:
    """The paper's data mix: helpfulness with equal parts of the rest; safety with a tenth of helpfulness (90/10)."""
    helpful = [row for row in rows if row["prompt_kind"] == "helpful"]
    safety = [row for row in rows if row["prompt_kind"] == "safety"]
    if kind == "helpfulness":
        own, other, wanted = helpful, safety, settings.helpfulness_exchange * len(helpful)
    else:
        own, other, wanted = safety, helpful, settings.safety_exchange / (1 - settings.safety_exchange) * len(safety)
    if not own:
        raise ValueError(
            f"no preferences with prompt_kind {'helpful' if kind == 'helpfulness' else 'safety'!r} for the {kind} model"
        )
    return own + rng.sample(other, min(len(other), round(wanted)))


def encode_pairs(tokenizer: Tokenizer, rows: list[dict[str, Any]], row_len: int) -> tuple[list[Pair], int]:
    """Token pairs, and how many rows were dropped since both answers are equal after truncation (TRAPS 12)."""
    encoded = [
        tuple(encode_chat(tokenizer, row["prompt"] + row[side])[0] for side in ("chosen", "rejected")) for row in rows
    ]
    cut, kept = truncate_pairs([(chosen, rejected) for chosen, rejected in encoded], row_len)
    pairs = [
        Pair(list(chosen), list(rejected), int(rows[i].get("strength") or 0), SAFE.get(rows[i].get("safety") or ""))
        for (chosen, rejected), i in zip(cut, kept)
    ]
    return pairs, len(rows) - len(pairs)


def score_pairs(scalar: nn.Module, batch: list[Pair], row_len: int, pad_id: int) -> tuple[Tensor, Tensor]:
    """(r_chosen_B, r_rejected_B), each read at its sequence's last token, packed without padding."""
    packed = pack([pair.chosen for pair in batch] + [pair.rejected for pair in batch], row_len, pad_id)
    r_2B = scalar(packed.tokens_RT, packed.positions_RT, packed.mask_RTT, keep_N=packed.ends_N)
    r_chosen_B, r_rejected_B = r_2B.split(len(batch))
    return r_chosen_B, r_rejected_B


def _safety_term(batch: list[Pair], r_chosen_B: Tensor, r_rejected_B: Tensor) -> Tensor:
    labelled = [(i, pair.safe) for i, pair in enumerate(batch) if pair.safe is not None]
    if not labelled:
        return r_chosen_B.sum() * 0.0
    at = torch.tensor([i for i, _ in labelled])
    safe_2B = torch.tensor([label[0] for _, label in labelled] + [label[1] for _, label in labelled])
    return safety_loss(torch.cat([r_chosen_B[at], r_rejected_B[at]]), safe_2B).sum()


def _gather(preferences: list[Path], rng: random.Random) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """(training rows, held-out rows) of all rounds."""
    train: list[dict[str, Any]] = []
    held_out: list[dict[str, Any]] = []
    for path in preferences:
        if (path / "train.jsonl").is_file():
            train += read_preferences(path / "train.jsonl")
            held_out += read_preferences(path / "held_out.jsonl")
        else:
            rows = read_preferences(path)
            rng.shuffle(rows)
            tenth = max(1, len(rows) // 10)
            train, held_out = train + rows[tenth:], held_out + rows[:tenth]
    return train, held_out


@torch.no_grad()
def accuracy(
    scalar: ScalarHead,
    tokenizer: Tokenizer,
    held_out: list[dict[str, Any]],
    probes: Path | None,
    kind: Kind,
    settings: RewardSettings,
) -> dict[str, Any]:
    """Share of pairs ranked as the annotator did: by domain and strength (Tables 7-8), and by kind of error."""
    domain = "helpful" if kind == "helpfulness" else "safety"
    by_domain: dict[str, list[bool]] = {}
    by_strength: dict[int, list[bool]] = {}
    for row, right in zip(held_out, _ranked_right(scalar, tokenizer, held_out, settings)):
        by_domain.setdefault(row["prompt_kind"], []).append(right)
        if row["prompt_kind"] == domain and row.get("strength") is not None:
            by_strength.setdefault(int(row["strength"]), []).append(right)
    report: dict[str, Any] = {
        "accuracy_by_domain": [{"domain": name, **share(hits)} for name, hits in sorted(by_domain.items())],
        "accuracy_by_strength": [
            {"strength": STRENGTHS[level], **share(by_strength.get(level, []))} for level in reversed(range(4))
        ],
        "accuracy_by_kind": [],
    }
    if probes is not None and probes.is_file():
        rows = [row for row in read_preferences(probes) if row["prompt_kind"] == domain]
        by_kind: dict[str, list[bool]] = {}
        for row, right in zip(rows, _ranked_right(scalar, tokenizer, rows, settings)):
            by_kind.setdefault(row["kind"], []).append(right)
        report["accuracy_by_kind"] = [{"kind": name, **share(hits)} for name, hits in sorted(by_kind.items())]
    return report


def _ranked_right(
    scalar: ScalarHead, tokenizer: Tokenizer, rows: list[dict[str, Any]], settings: RewardSettings
) -> list[bool]:
    if not rows:
        return []
    chosen = [encode_chat(tokenizer, row["prompt"] + row["chosen"])[0][-settings.row_len :] for row in rows]
    rejected = [encode_chat(tokenizer, row["prompt"] + row["rejected"])[0][-settings.row_len :] for row in rows]
    r_2N = scores_of(scalar, chosen + rejected, settings.row_len)
    r_chosen_N, r_rejected_N = r_2N.split(len(rows))
    return (r_chosen_N > r_rejected_N).tolist()


def choose_gate(
    scalar: ScalarHead, tokenizer: Tokenizer, held_out: list[dict[str, Any]], settings: RewardSettings
) -> dict[str, Any]:
    """The threshold (a probability) below which an answer counts as unsafe: the highest recall at the wanted precision.

    The paper's 0.15 gave precision 0.89, recall 0.55 on its safety test set. Where no threshold reaches the precision,
    the one with the best F1 is taken, and the figures say so.
    """
    sequences, unsafe = [], []
    for row in held_out:
        if row.get("safety") in SAFE:
            for side, is_safe in zip(("chosen", "rejected"), SAFE[row["safety"]]):
                sequences.append(encode_chat(tokenizer, row["prompt"] + row[side])[0][-settings.row_len :])
                unsafe.append(not is_safe)
    if not any(unsafe) or all(unsafe):
        return {
            "threshold": 0.15,
            "precision": None,
            "recall": None,
            "n": len(unsafe),
            "note": "held-out pairs hold one class only: the paper's threshold stands",
        }
    probabilities = torch.sigmoid(scores_of(scalar, sequences, settings.row_len)).tolist()
    return best_threshold(probabilities, unsafe, settings.gate_precision)


def best_threshold(probabilities: list[float], unsafe: list[bool], precision_wanted: float) -> dict[str, Any]:
    """Sweeps every cut between two neighbouring probabilities of being safe; "unsafe" is what lies below the cut."""
    ordered = sorted(zip(probabilities, unsafe))
    total = sum(unsafe)
    candidates = []
    hits = 0
    for i, (probability, is_unsafe) in enumerate(ordered):
        hits += is_unsafe
        following = ordered[i + 1][0] if i + 1 < len(ordered) else 1.0
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
            f"  gate: unsafe below {gate['threshold']:.3f}; precision {telemetry.short(gate['precision'])}, recall {telemetry.short(gate['recall'])} on {gate['n']} held-out answers"
        )
