"""Stage 7: every checkpoint on the same held-out prompts, by a judge that never labelled the training data.

One checkpoint at a time: sample one answer to each held-out prompt, judge it, count. Helpfulness is compared with the
SFT model's answers to the same prompts; KL against SFT is measured on answers sampled at temperature 1.
Constant policies (always refuse, ...) go through the same judge: a metric that they win is a bad metric (TRAPS 23).
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import torch

from ayni import telemetry
from ayni.artifacts import Artifact, build, write_json
from ayni.config_measuring import EvaluateSettings
from ayni.engine.answers import Answer, sample_answers
from ayni.engine.engine import Engine
from ayni.engine.score import log_probs_of
from ayni.evals.judging import ANSWERS, VERDICTS, Judge, Verdict, read_verdicts
from ayni.evals.metrics import metrics
from ayni.evals.statistics import mean_interval, missing, share
from ayni.feedback.schema import STRENGTHS
from ayni.model.checkpoint import load_model
from ayni.plugins import plugin
from ayni.text.prompts import training_prompts
from ayni.text.sources import read_jsonl, read_prompts, write_jsonl
from ayni.text.tokenizer import load_tokenizer

METRICS = "metrics.json"


def run(
    settings: EvaluateSettings,
    data: Path,
    name: str,
    model: Path | None,
    out: Path,
    *,
    seed: int,
    sft: Path | None = None,
    sft_evaluation: Path | None = None,
    style: Literal["chat", "completion"] = "chat",
    constant: str | None = None,
) -> Artifact:
    """Writes answers.jsonl, verdicts.json, metrics.json for one checkpoint.

    `sft` (model) and `sft_evaluation` (its finished evaluation) are what KL and win shares are measured against; None
    for the SFT model itself. A constant policy gives `constant`, its only answer, and no model.
    """

    def work_in(work: Path) -> None:
        rows = read_prompts(data / "prompts_eval.jsonl")
        judge = judge_of(settings, data)
        if constant is not None:
            assert sft is not None, "a constant answer is counted in the SFT model's tokens"
            texts, lengths = [constant] * len(rows), [len(load_tokenizer(sft).encode(constant)) + 1] * len(rows)
        else:
            assert model is not None, "an evaluation needs a model or a constant answer"
            answers = _sample(settings, model, rows, name, seed, style)
            texts, lengths = [answer.text for answer in answers], [len(answer.ids) for answer in answers]
        verdicts = [judge.judge(row, [text])[0] for row, text in zip(rows, texts)]
        against = verdicts if sft_evaluation is None else read_verdicts(sft_evaluation)
        figures = metrics(rows, verdicts, against, lengths, texts)
        figures["kl"] = (
            missing("nats") if sft is not None else {"value": 0.0, "low": 0.0, "high": 0.0, "n": 0, "unit": "nats"}
        )
        if model is not None and sft is not None and style == "chat":
            figures["kl"] = _kl(settings, model, sft, rows, name, seed)
        write_jsonl(
            work / ANSWERS,
            ({"id": row["id"], "task": row["task"], "messages": row["messages"], "answer": text, "tokens": length, "label": verdict.label}
             for row, text, length, verdict in zip(rows, texts, lengths, verdicts)),
        )  # fmt: skip
        write_json(work / VERDICTS, [asdict(verdict) for verdict in verdicts])
        write_json(work / METRICS, figures)

    inputs = {"data": data, "model": model, "sft": sft, "sft_evaluation": sft_evaluation}
    stage_settings = {**settings.model_dump(), "name": name, "style": style, "constant": constant}
    return build(out, "evaluate", stage_settings, inputs, seed, work_in)


def judge_of(settings: EvaluateSettings, data: Path) -> Judge:
    """The judge that the settings name, for what is measured; nothing that trains or labels may ask for it."""
    judge: Judge = plugin("judges", settings.judge)(data, **settings.options)
    return judge


def best_of_k(settings: EvaluateSettings, data: Path, model: Path, out: Path, *, seed: int) -> Artifact:
    """Writes ceiling.json: share of benign held-out prompts with at least one right answer among K, by ground truth.

    The most that rejection sampling from this model could reach with a perfect reward model (fig. 7's ceiling).
    """

    def work_in(work: Path) -> None:
        rows = [row for row in read_prompts(data / "prompts_eval.jsonl") if row["prompt_kind"] == "helpful"]
        step = max(1, len(rows) // settings.best_of_prompts)
        rows = rows[::step][: settings.best_of_prompts]
        judge = judge_of(settings, data)
        tokenizer = load_tokenizer(model)
        k_max = max(settings.best_of_k)
        with telemetry.progress("best of K", len(rows) * k_max, "answers") as bar:
            sampled = sample_answers(
                Engine(load_model(model, "auto"), tokenizer),
                tokenizer,
                rows,
                n=k_max,
                temperature=settings.temperature,
                max_new_tokens=settings.max_new_tokens,
                seed=seed + 1,
                bar=bar,
            )
        right = [
            [bool(v.right) for v in judge.judge(row, [a.text for a in answers])] for row, answers in zip(rows, sampled)
        ]
        points = [{"k": k, **share([any(row[:k]) for row in right])} for k in sorted(settings.best_of_k)]
        write_json(work / "ceiling.json", {"k": k_max, "points": points})

    return build(out, "best-of-k", settings.model_dump(), {"data": data, "model": model}, seed, work_in)


def agreement(settings: EvaluateSettings, data: Path, preferences: list[Path], out: Path, *, seed: int) -> Artifact:
    """Writes agreement.json: how often each annotator's choice is the judge's too, in all and by strength.

    The judge prefers the answer that does no harm, then the one of higher utility; pairs it holds equal are left out
    and counted. Nothing that trains reads this file.
    """

    def work_in(work: Path) -> None:
        prompts = {row["id"]: row for row in training_prompts(data, long_dialogues=True)}
        judge = judge_of(settings, data)
        by_annotator: dict[str, list[bool]] = {}
        by_strength: dict[str, list[bool]] = {name: [] for name in STRENGTHS}
        equal = 0
        for row in (row for path in preferences for row in read_jsonl(path / "train.jsonl")):
            prompt = prompts[row["id"].split("#")[0]]
            chosen, rejected = (
                _worth(verdict)
                for verdict in judge.judge(prompt, [row[side][-1]["content"] for side in ("chosen", "rejected")])
            )
            if chosen == rejected:
                equal += 1
                continue
            by_annotator.setdefault(row["annotator"], []).append(chosen > rejected)
            by_strength[STRENGTHS[row["strength"]]].append(chosen > rejected)
        report = {
            "by_annotator": [{"annotator": name, **share(hits)} for name, hits in sorted(by_annotator.items())],
            "by_strength": [{"strength": name, **share(hits)} for name, hits in reversed(by_strength.items())],
            "equal_to_the_judge": equal,
        }
        write_json(work / "agreement.json", report)
        rows = [[f[key], f["value"], f["n"]] for key in ("annotator", "strength") for f in report[f"by_{key}"]]  # type: ignore[attr-defined]
        telemetry.table(["annotators against the judge", "agreement", "pairs"], rows)

    inputs: dict[str, Path | None] = {
        "data": data,
        **{f"preferences {i}": path for i, path in enumerate(preferences, 1)},
    }
    return build(out, "agreement", settings.model_dump(), inputs, seed, work_in)


def _worth(verdict: Verdict) -> tuple[bool, float]:
    return (not verdict.violation, verdict.utility)


def _sample(
    settings: EvaluateSettings,
    model: Path,
    rows: list[dict[str, Any]],
    name: str,
    seed: int,
    style: Literal["chat", "completion"],
) -> list[Answer]:
    tokenizer = load_tokenizer(model)
    with telemetry.progress(f"answers of {name}", len(rows), "answers") as bar:
        sampled = sample_answers(
            Engine(load_model(model, "auto"), tokenizer),
            tokenizer,
            rows,
            temperature=settings.temperature,
            max_new_tokens=settings.max_new_tokens,
            seed=seed,
            style=style,
            bar=bar,
        )
    return [answers[0] for answers in sampled]


def _kl(
    settings: EvaluateSettings, model: Path, sft: Path, rows: list[dict[str, Any]], name: str, seed: int
) -> dict[str, Any]:
    """Mean over answers of sum_t log pi(a_t) - log pi_sft(a_t), answers sampled from pi at temperature 1."""
    step = max(1, len(rows) // settings.kl_prompts)
    rows = rows[::step][: settings.kl_prompts]
    tokenizer, policy, reference = load_tokenizer(model), load_model(model, "auto"), load_model(sft, "auto")
    with telemetry.progress(f"KL of {name}", len(rows), "answers") as bar:
        sampled = sample_answers(
            Engine(policy, tokenizer),
            tokenizer,
            rows,
            temperature=1.0,
            max_new_tokens=settings.max_new_tokens,
            seed=seed + 2,
            bar=bar,
        )
    answers = [answer for [answer] in sampled]
    prompts, ids = [answer.prompt_ids for answer in answers], [answer.ids for answer in answers]
    row_len = policy.settings.max_seq_len
    with torch.no_grad():
        log_pi = log_probs_of(policy, prompts, ids, 1.0, row_len)
        log_pi_sft = log_probs_of(reference, prompts, ids, 1.0, row_len)
    return mean_interval([float((a - b).sum()) for a, b in zip(log_pi, log_pi_sft)], "nats")
